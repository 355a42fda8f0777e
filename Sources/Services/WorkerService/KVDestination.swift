import InferenceEngine
import KVHandOver
import Logging
import ServiceRuntime
import ServingTypes
import Synchronization
import Transport

/// One decode-worker that KV is sent to: the machine, its connections and the blocks it holds.
final class KVDestination: Sendable {
    private struct State {
        var machine: KVSendMachine
        var blocks: [AttemptID: [Int: KVBlock]] = [:]
        var lanes: [KVLane?]
        var isStopped = false
    }

    let address: NetworkAddress
    let instance: InstanceID
    private let settings: KVSender.Settings
    private let logger: Logger
    private let onEnd: @Sendable ([KVSender.Ended]) -> Void
    private let state: Mutex<State>

    init(
        address: NetworkAddress, instance: InstanceID, settings: KVSender.Settings,
        logger: Logger, onEnd: @escaping @Sendable ([KVSender.Ended]) -> Void
    ) {
        self.address = address
        self.instance = instance
        self.settings = settings
        self.logger = logger
        self.onEnd = onEnd
        state = Mutex(
            State(
                machine: KVSendMachine(limits: settings.limits),
                lanes: Array(repeating: nil, count: settings.limits.connections)))
    }

    var isIdle: Bool { state.withLock { $0.machine.isEmpty } }
    var heldBytes: Int { state.withLock { $0.machine.heldBytes } }

    func stranded(now: MonotonicTime) -> StrandedKV {
        state.withLock { $0.machine.stranded(now: now) }
    }

    /// Gives the machine an event and performs what it decides; gives the transfers that ended.
    func change(
        _ event: (inout KVSendMachine) -> [KVSendMachine.Action]
    ) -> [KVSender.Ended] {
        state.withLock { perform(event(&$0.machine), &$0) }
    }

    /// Takes an exported block until its transfer ends.
    func export(_ block: KVBlock, of attempt: AttemptID) -> [KVSender.Ended] {
        let facts = ChunkFacts(
            tokenStart: block.tokenStart, tokenCount: block.tokenCount,
            bytes: block.bytes.usedBytes, checksum: block.checksum)
        return state.withLock { state in
            guard state.machine.isOpen(attempt) else { return [] }
            state.blocks[attempt, default: [:]][block.tokenStart] = block
            return perform(
                state.machine.exported(attempt, facts, now: ProcessClock.now()), &state)
        }
    }

    /// Closes all connections.
    func stop() {
        let lanes = state.withLock { state in
            state.isStopped = true
            defer { state.lanes = state.lanes.map { _ in nil } }
            return state.lanes.compactMap { $0 }
        }
        for lane in lanes { lane.stop() }
    }

    // MARK: Events of a lane; those of a lane that was replaced have no meaning

    func connected(_ lane: KVLane) {
        laneEvent(lane) { $0.connected(lane.index, now: ProcessClock.now()) }
    }

    func lost(_ lane: KVLane, reason: String) {
        laneEvent(lane, isLast: true) {
            $0.lost(lane.index, reason: reason, now: ProcessClock.now())
        }
    }

    func sent(_ lane: KVLane, _ attempt: AttemptID, _ chunk: ChunkFacts, isWhole: Bool) {
        laneEvent(lane) {
            $0.sent(
                attempt, chunk, connection: lane.index, isWhole: isWhole,
                now: ProcessClock.now())
        }
    }

    func progressed(_ lane: KVLane) {
        laneEvent(lane) { machine in
            machine.progressed(lane.index, now: ProcessClock.now())
            return []
        }
    }

    func received(_ message: ControlMessage, on lane: KVLane) {
        laneEvent(lane) { $0.received(message, now: ProcessClock.now()) }
    }

    private func laneEvent(
        _ lane: KVLane, isLast: Bool = false,
        _ event: (inout KVSendMachine) -> [KVSendMachine.Action]
    ) {
        let ended = state.withLock { state -> [KVSender.Ended] in
            guard state.lanes[lane.index] === lane else { return [] }
            if isLast { state.lanes[lane.index] = nil }
            return perform(event(&state.machine), &state)
        }
        if !ended.isEmpty { onEnd(ended) }
    }

    // MARK: Actions

    private func perform(
        _ actions: [KVSendMachine.Action], _ state: inout State
    ) -> [KVSender.Ended] {
        var ended: [KVSender.Ended] = []
        for action in actions {
            switch action {
            case .connect(let index):
                guard !state.isStopped else { continue }
                let lane = KVLane(
                    index: index, destination: self, settings: settings, logger: logger)
                state.lanes[index] = lane
                lane.start()
            case .disconnect(let index, let reason):
                logger.debug(
                    "a KV connection is closed",
                    metadata: ["address": "\(address)", "reason": "\(reason)"])
                state.lanes[index]?.stop()
                state.lanes[index] = nil
            case .send(let message, let index):
                state.lanes[index]?.add(.frame(message))
            case .sendChunk(let attempt, let chunk, let index):
                guard let block = state.blocks[attempt]?[chunk.tokenStart] else {
                    preconditionFailure("a chunk is sent whose block is gone")
                }
                state.lanes[index]?.add(.chunk(attempt, chunk, block))
            case .breakOff(let attempt):
                for lane in state.lanes { lane?.breakOff(attempt) }
            case .ended(let attempt, let failure, let summary):
                state.blocks[attempt] = nil
                KVMetrics.transferEnded(failure: failure, summary)
                ended.append(KVSender.Ended(attempt: attempt, failure: failure))
            }
        }
        return ended
    }
}
