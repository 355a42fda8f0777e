import NIOCore
import NIOPosix

/// Regular signs of life from every event loop of control connections.
package enum EventLoopPulse {
    private static var group: any EventLoopGroup { .singletonMultiThreadedEventLoopGroup }

    /// How many event loops there are.
    package static var count: Int { group.makeIterator().reduce(0) { count, _ in count + 1 } }

    /// Calls `beat` with the loop's number on each loop, from now on until the process ends.
    package static func start(
        every interval: Duration, _ beat: @escaping @Sendable (Int) -> Void
    ) {
        for (number, loop) in group.makeIterator().enumerated() {
            _ = loop.scheduleRepeatedTask(initialDelay: .zero, delay: TimeAmount(interval)) { _ in
                beat(number)
            }
        }
    }
}
