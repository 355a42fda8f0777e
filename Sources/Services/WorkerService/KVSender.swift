import Foundation
import InferenceEngine
import KVTransfer
import Logging
import Metrics
import Roles
import ServiceRuntime
import ServingTypes
import Synchronization
import Transport
import WireProtocol

/// Sends KV to decode-workers: one thread and one bulk connection per decode-worker.
///
/// Calls return at once; the end of each opened transfer is reported exactly once.
package final class KVSender: Sendable {
    /// Where transfers go and how the connection is made.
    package struct Settings: Sendable {
        var context: TLSContext
        var hello: Hello
        var fingerprint: ModelFingerprint
        var records: BulkRecords
        /// Rates for the choice of a codec; nil never compresses.
        var compressionRates: TransferRates?
    }

    private struct State {
        var destinations: [NetworkAddress: KVDestination] = [:]
        var routes: [AttemptID: NetworkAddress] = [:]
    }

    private let settings: Settings
    private let logger: Logger
    private let onEnd: @Sendable (AttemptID, KVDone?) -> Void
    private let state = Mutex(State())

    init(
        settings: Settings, logger: Logger,
        onEnd: @escaping @Sendable (AttemptID, KVDone?) -> Void
    ) {
        self.settings = settings
        self.logger = logger
        self.onEnd = onEnd
    }

    func open(_ plan: TransferPlan) {
        state.withLock { state in
            state.routes[plan.attempt] = plan.address
            destination(plan.address, &state).add(.open(plan))
        }
    }

    func send(_ block: KVBlock, of attempt: AttemptID) { route(attempt, .block(attempt, block)) }

    func end(_ end: KVEnd) { route(end.attempt, .end(end)) }

    func abort(_ attempt: AttemptID, reason: String) { route(attempt, .abort(attempt, reason)) }

    /// Blocks that wait for their connection.
    var waitingJobs: Int {
        state.withLock { $0.destinations.values.reduce(0) { $0 + $1.waitingJobs } }
    }

    func shutdown() {
        state.withLock { state in
            for destination in state.destinations.values { destination.stop() }
        }
    }

    private func route(_ attempt: AttemptID, _ job: KVDestination.Job) {
        state.withLock { state in
            guard let address = state.routes[attempt] else { return }
            destination(address, &state).add(job)
        }
    }

    private func destination(_ address: NetworkAddress, _ state: inout State) -> KVDestination {
        if let known = state.destinations[address], !known.isStopped { return known }
        if state.destinations.count >= WorkerTransferLimits.maximumDestinations,
            let idle = state.destinations.first(where: { $0.value.waitingJobs == 0 })
        {
            idle.value.stop()
            state.destinations[idle.key] = nil
        }
        let new = KVDestination(address: address, settings: settings, logger: logger) {
            [weak self] attempt, failure in
            self?.ended(attempt, failure)
        }
        state.destinations[address] = new
        new.start()
        return new
    }

    private func ended(_ attempt: AttemptID, _ failure: KVDone?) {
        let isKnown = state.withLock { $0.routes.removeValue(forKey: attempt) != nil }
        if isKnown { onEnd(attempt, failure) }
    }
}

/// The thread that serves one decode-worker.
final class KVDestination: Sendable {
    enum Job: Sendable {
        case open(TransferPlan)
        case block(AttemptID, KVBlock)
        case end(KVEnd)
        case abort(AttemptID, String)
        case stop
    }

    private let address: NetworkAddress
    private let settings: KVSender.Settings
    private let logger: Logger
    private let onEnd: @Sendable (AttemptID, KVDone?) -> Void
    private let jobs = WorkQueue<Job>()
    private let stopped = Mutex(false)

    init(
        address: NetworkAddress, settings: KVSender.Settings, logger: Logger,
        onEnd: @escaping @Sendable (AttemptID, KVDone?) -> Void
    ) {
        self.address = address
        self.settings = settings
        self.logger = logger
        self.onEnd = onEnd
    }

    var waitingJobs: Int { jobs.count }
    var isStopped: Bool { stopped.withLock { $0 } }

    func add(_ job: Job) { jobs.add(job) }

    func stop() {
        stopped.withLock { $0 = true }
        jobs.add(.stop)
    }

    func start() {
        let thread = Thread { self.run() }
        thread.name = "kv-sender"
        thread.start()
    }

    private func failAll() {
        while case .some(let job) = jobs.next(within: .seconds(60)) {
            guard case .open(let plan) = job else { continue }
            onEnd(
                plan.attempt,
                KVDone(attempt: plan.attempt, code: .transfer, reason: "no memory to send KV"))
        }
        stopped.withLock { $0 = true }
    }

    private func run() {
        guard
            var carrier = try? KVCarrier(
                address: address, settings: settings, logger: logger, onEnd: onEnd)
        else {
            // Without memory for a codec nothing can be sent; each transfer hears of it.
            return failAll()
        }
        let idle = WorkerTransferLimits.idleDeadline
        while true {
            guard let job = jobs.next(within: .milliseconds(Int(idle.milliseconds))) else {
                carrier.closeIfIdle()
                continue
            }
            switch job {
            case .open(let plan): carrier.open(plan)
            case .block(let attempt, let block): carrier.send(block, of: attempt)
            case .end(let end): carrier.end(end)
            case .abort(let attempt, let reason): carrier.abort(attempt, reason: reason)
            case .stop:
                carrier.close(reason: "the worker is shutting down")
                return
            }
        }
    }
}
