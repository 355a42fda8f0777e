import InferenceEngine
import KVCarriers
import KVHandOver
import Logging
import Roles
import ServiceRuntime
import ServingTypes
import Synchronization
import Transport

/// Sends KV to decode-workers, each by a destination of its own.
///
/// Calls return at once. What they end is their result; what ends later goes to `onEnd`, from a
/// thread of the connection.
package final class KVSender: Sendable {
    /// Where transfers go and how connections are made.
    package struct Settings: Sendable {
        var context: TLSContext
        var hello: Hello
        var fingerprint: ModelFingerprint
        /// Most tokens in one exported block.
        var chunkTokens: Int
        var limits: KVHandOverLimits
        var pieces: KVPieceWriter.Settings
        var records: BulkRecords
        /// Hand memory over to decode-workers on this host.
        var usesLocalMemory: Bool
    }

    /// The end of a transfer; `failure` is nil if the decode-worker has everything, or if this
    /// side gave the transfer up.
    struct Ended: Sendable {
        var attempt: AttemptID
        var failure: KVDone?
    }

    /// A worker that took another one's address over is another destination.
    private struct Target: Hashable {
        var address: NetworkAddress
        var instance: InstanceID
    }

    private struct State {
        var destinations: [Target: KVDestination] = [:]
        var routes: [AttemptID: KVDestination] = [:]
    }

    private let settings: Settings
    private let logger: Logger
    private let onEnd: @Sendable (Ended) -> Void
    private let state = Mutex(State())

    init(settings: Settings, logger: Logger, onEnd: @escaping @Sendable (Ended) -> Void) {
        self.settings = settings
        self.logger = logger
        self.onEnd = onEnd
    }

    func open(_ plan: TransferPlan) -> [Ended] {
        let destination = state.withLock { state -> KVDestination? in
            let found = self.destination(plan, &state)
            state.routes[plan.attempt] = found
            return found
        }
        guard let destination else {
            let failure = KVDone(
                attempt: plan.attempt, code: .busy,
                reason: "KV goes to \(WorkerTransferLimits.maximumDestinations) workers already")
            return [Ended(attempt: plan.attempt, failure: failure)]
        }
        let sending = SendingPlan(
            attempt: plan.attempt, secret: plan.secret, fingerprint: settings.fingerprint,
            tokens: plan.tokens, startToken: plan.heldTokens, chunkTokens: settings.chunkTokens,
            expires: plan.expires)
        return forget(destination.change { $0.open(sending, now: ProcessClock.now()) })
    }

    func send(_ block: KVBlock, of attempt: AttemptID) -> [Ended] {
        forget(route(attempt)?.export(block, of: attempt) ?? [])
    }

    func end(_ end: KVEnd) -> [Ended] {
        change(end.attempt) { $0.finish(end, now: ProcessClock.now()) }
    }

    func abort(_ attempt: AttemptID, reason: String) -> [Ended] {
        change(attempt) { $0.abort(attempt, reason: reason, now: ProcessClock.now()) }
    }

    /// Ends what stands still; called a few times a second.
    func tick() -> [Ended] {
        let now = ProcessClock.now()
        return forget(destinations.flatMap { $0.change { $0.tick(now: now) } })
    }

    func shutdown() {
        let now = ProcessClock.now()
        for destination in destinations {
            _ = destination.change { $0.shutDown(reason: "the worker is shutting down", now: now) }
            destination.stop()
        }
    }

    /// Raw bytes kept until their receivers have imported them.
    var heldBytes: Int { destinations.reduce(0) { $0 + $1.heldBytes } }

    func isOpen(_ attempt: AttemptID) -> Bool { route(attempt) != nil }

    func stranded(now: MonotonicTime) -> [StrandedKV] {
        destinations.map { $0.stranded(now: now) }
    }

    // MARK: Helpers

    private var destinations: [KVDestination] {
        state.withLock { Array($0.destinations.values) }
    }

    private func route(_ attempt: AttemptID) -> KVDestination? {
        state.withLock { $0.routes[attempt] }
    }

    private func change(
        _ attempt: AttemptID, _ event: (inout KVSendMachine) -> [KVSendMachine.Action]
    ) -> [Ended] {
        guard let destination = route(attempt) else { return [] }
        return forget(destination.change(event))
    }

    /// Takes ended transfers off the books.
    private func forget(_ ended: [Ended]) -> [Ended] {
        guard !ended.isEmpty else { return [] }
        state.withLock { state in for end in ended { state.routes[end.attempt] = nil } }
        return ended
    }

    private func destination(_ plan: TransferPlan, _ state: inout State) -> KVDestination? {
        let target = Target(address: plan.address, instance: plan.decodeInstance)
        if let known = state.destinations[target] { return known }
        if state.destinations.count >= WorkerTransferLimits.maximumDestinations {
            guard let idle = state.destinations.first(where: { $0.value.isIdle }) else {
                return nil
            }
            idle.value.stop()
            state.destinations[idle.key] = nil
        }
        let new = KVDestination(
            address: plan.address, instance: plan.decodeInstance, settings: settings,
            logger: logger
        ) { [weak self] ended in
            guard let self else { return }
            for end in self.forget(ended) { self.onEnd(end) }
        }
        state.destinations[target] = new
        return new
    }
}
