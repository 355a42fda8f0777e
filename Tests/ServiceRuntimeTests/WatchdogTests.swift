import Logging
import ServiceRuntime
import ServingTypes
import Synchronization
import Testing

/// What ends a process that hangs.
@Suite struct WatchdogTests {
    private func logger() -> Logger {
        Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    }

    @Test func `a part that makes no progress ends the process with its code`() async throws {
        let (codes, ended) = AsyncStream.makeStream(of: Int32.self)
        let watchdog = Watchdog(logger: logger()) { ended.yield($0) }
        let pulse = Pulse()
        watchdog.watch(Watchdog.Part("resting", deadline: .milliseconds(100)) { nil })
        watchdog.watch(Watchdog.Part("loop", deadline: .milliseconds(500)) { pulse.age })
        pulse.beat()
        var iterator = codes.makeAsyncIterator()
        #expect(await iterator.next(isolation: nil) == 75)
        withExtendedLifetime(watchdog) {}
    }

    @Test func `what goes on, or has ended in order, is left alone`() async throws {
        let count = Mutex(0)
        let counted: @Sendable (Int32) -> Void = { _ in count.withLock { $0 += 1 } }
        let watchdog = Watchdog(logger: logger(), end: counted)
        let (beating, done) = (Pulse(), Pulse())
        watchdog.watch(Watchdog.Part("beating", deadline: .seconds(5)) { beating.age })
        watchdog.watch(Watchdog.Part("done", deadline: .milliseconds(100)) { done.age })
        done.beat()
        done.end()
        for _ in 0..<10 {
            beating.beat()
            try await Task.sleep(for: .milliseconds(100))
        }
        #expect(count.withLock { $0 } == 0)
        withExtendedLifetime(watchdog) {}
    }
}
