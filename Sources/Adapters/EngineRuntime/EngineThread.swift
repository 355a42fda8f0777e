import Dispatch
import Foundation
package import InferenceEngine
import Synchronization

/// Bounds of the engine's shell.
enum Limits {
    /// Commands taken between two iterations, so that a flood of blocks can't stop the streams.
    static let commandsBetweenSteps = 64
    /// Iterations that may fail one after the other before the device counts as lost.
    static let failedStepsInARow = 3
    /// Graphs are built recursively in places; the default of some systems is 512 KiB.
    static let stackBytes = 8 << 20
}

/// The one thread on which an engine computes, with its queue of commands.
///
/// Commands go in from any thread; events come out on this thread.
package final class EngineThread: Sendable {
    package let description: EngineDescription
    private let shared: SharedState

    /// Starts the thread, makes the backend on it and waits until it is made.
    ///
    /// - Parameter name: at most 15 bytes, shown by `top -H`.
    package init(
        name: String, onEvent: @escaping EngineEventSink,
        makeBackend:
            @escaping @Sendable (StopSignal) throws(EngineError) -> any ComputeBackend
    ) throws(EngineError) {
        let shared = SharedState()
        // A thread's name reaches the system only once `start` has returned.
        let hasStarted = DispatchSemaphore(value: 0)
        let thread = Thread {
            hasStarted.wait()
            Thread.current.name = name
            defer { shared.markEnded() }
            do throws(EngineError) {
                let backend = try makeBackend(shared.stop)
                let loop = EngineLoop(backend: backend, shared: shared, onEvent: onEvent)
                shared.started.fulfil(.success(backend.description))
                loop.run()
            } catch {
                shared.started.fulfil(.failure(error))
            }
        }
        thread.stackSize = Limits.stackBytes
        thread.start()
        hasStarted.signal()
        description = try shared.started.wait().get()
        self.shared = shared
    }

    deinit { shared.requestStop() }

    package func submit(_ command: EngineCommand) { shared.submit(command) }

    package var progress: EngineProgress { shared.progress }

    package func shutdown() async {
        shared.requestStop()
        await shared.waitUntilEnded()
    }
}

/// A value that one thread waits for and another one gives, once.
private final class StartResult: Sendable {
    private let semaphore = DispatchSemaphore(value: 0)
    private let value = Mutex<Result<EngineDescription, EngineError>?>(nil)

    func fulfil(_ result: Result<EngineDescription, EngineError>) {
        value.withLock { $0 = result }
        semaphore.signal()
    }

    func wait() -> Result<EngineDescription, EngineError> {
        semaphore.wait()
        return value.withLock { $0 } ?? .failure(.shutDown)
    }
}

/// What the engine's thread and its callers share.
final class SharedState: Sendable {
    private struct Queue {
        var commands: [EngineCommand] = []
        var isWaiting = false
        var isClosed = false
        var hasEnded = false
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    private struct Counters {
        var progress = EngineProgress(steps: 0, stepAge: nil, openSequences: 0, usedKVTokens: 0)
        var stepStart: ContinuousClock.Instant?
    }

    let stop = StopSignal()
    fileprivate let started = StartResult()
    private let queue = Mutex(Queue())
    private let counters = Mutex(Counters())
    private let wakeUp = DispatchSemaphore(value: 0)

    func submit(_ command: EngineCommand) {
        let wakes = queue.withLock { queue in
            guard !queue.isClosed else { return false }
            queue.commands.append(command)
            return takeWaiting(&queue)
        }
        if wakes { wakeUp.signal() }
    }

    func requestStop() {
        stop.set()
        if queue.withLock({ takeWaiting(&$0) }) { wakeUp.signal() }
    }

    private func takeWaiting(_ queue: inout Queue) -> Bool {
        defer { queue.isWaiting = false }
        return queue.isWaiting
    }

    /// The next commands, at most `limit`; waits for one if `waits`.
    func takeCommands(limit: Int, waits: Bool) -> [EngineCommand] {
        while true {
            let commands = queue.withLock { queue -> [EngineCommand]? in
                if queue.commands.isEmpty && waits && !stop.isSet {
                    queue.isWaiting = true
                    return nil
                }
                let taken = Array(queue.commands.prefix(limit))
                queue.commands.removeFirst(taken.count)
                return taken
            }
            if let commands { return commands }
            wakeUp.wait()
        }
    }

    var progress: EngineProgress {
        counters.withLock { counters in
            var progress = counters.progress
            progress.stepAge = counters.stepStart.map { ContinuousClock.now - $0 }
            return progress
        }
    }

    func stepBegins() { counters.withLock { $0.stepStart = .now } }

    func stepEnds() {
        counters.withLock { counters in
            counters.stepStart = nil
            counters.progress.steps += 1
        }
    }

    func publish(openSequences: Int, usedKVTokens: Int) {
        counters.withLock { counters in
            counters.progress.openSequences = openSequences
            counters.progress.usedKVTokens = usedKVTokens
        }
    }

    func addCompute(duration: Duration, of step: BatchPlanner.Step) {
        counters.withLock { counters in
            counters.progress.computeDuration += duration
            if step.decodingSequences > 0 {
                counters.progress.decodeSteps += 1
                counters.progress.decodeDuration += duration
            } else {
                counters.progress.prefillTokens += step.promptTokens
                counters.progress.prefillDuration += duration
            }
        }
    }

    func addExport(bytes: Int, duration: Duration) {
        counters.withLock { counters in
            counters.progress.exportedKVBytes += bytes
            counters.progress.exportDuration += duration
        }
    }

    func addImport(bytes: Int, duration: Duration) {
        counters.withLock { counters in
            counters.progress.importedKVBytes += bytes
            counters.progress.importDuration += duration
        }
    }

    /// Takes no more commands; returns those that nobody has taken.
    func closeQueue() -> [EngineCommand] {
        queue.withLock { queue in
            queue.isClosed = true
            defer { queue.commands = [] }
            return queue.commands
        }
    }

    func markEnded() {
        let waiters = queue.withLock { queue in
            queue.isClosed = true
            queue.hasEnded = true
            defer { queue.waiters = [] }
            return queue.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    func waitUntilEnded() async {
        await withCheckedContinuation { continuation in
            let hasEnded = queue.withLock { queue in
                if !queue.hasEnded { queue.waiters.append(continuation) }
                return queue.hasEnded
            }
            if hasEnded { continuation.resume() }
        }
    }
}
