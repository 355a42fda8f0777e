import InferenceEngine
import ServingTypes

@testable import KVHandOver
@testable import Roles

/// Carrying out what the machines decide, and judging it.
extension TransferStorm {
    // MARK: The sender

    mutating func perform(_ actions: [KVSendMachine.Action]) {
        for action in actions {
            switch action {
            case .connect(let index): lanes[index].isConnecting = true
            case .disconnect(let index, _): retire(index)
            case .send(let message, let index):
                if lanes[index].link == nil { defects.append("a frame on no connection") }
                lanes[index].jobs.append(.message(message))
            case .sendChunk(let attempt, let facts, let index): send(facts, of: attempt, index)
            case .breakOff(let attempt):
                for index in lanes.indices { lanes[index].breakOff(attempt) }
            case .ended(let attempt, let failure, let summary):
                counts.resends += summary.resends
                counts.reconnects += summary.reconnects
                transferEnded(attempt, failure)
            }
        }
    }

    private mutating func send(_ facts: ChunkFacts, of attempt: AttemptID, _ index: Int) {
        if lanes[index].link == nil || lanes[index].jobs.contains(where: \.isChunk) {
            defects.append("two chunks on a connection, or no connection")
        }
        lanes[index].jobs.append(
            .chunk(StormPayload(attempt: attempt, facts: facts), isWhole: true))
    }

    private mutating func transferEnded(_ attempt: AttemptID, _ failure: KVDone?) {
        // The last word was lost, and the sequence has ended before the next offer.
        guard let failure, !completed.contains(attempt) else { return }
        counts.failed += 1
        if !mayFail { defects.append("\(attempt) failed without need: \(failure.reason)") }
        if hasGateway { perform(receiver.cancel(attempt)) }
    }

    // MARK: The receiver

    mutating func perform(_ actions: [WorkerAction]) {
        for action in actions {
            switch action {
            case .send(let message, _): heard(message)
            case .sendKV(let message, let link): answer(message, on: link)
            case .run(let job):
                engine.submit(.run(job))
            case .cancelSequence(let sequence): engine.submit(.cancel(sequence))
            case .fork(let sequence, let from, let tokens):
                engine.submit(.fork(sequence, from: from, tokens: tokens))
            case .importChunks(let sequence, let attempt, let starts):
                for start in starts {
                    guard let payload = store[attempt]?.removeValue(forKey: start) else {
                        defects.append("a chunk is imported that is not here")
                        continue
                    }
                    engine.submit(.importBlock(sequence, payload))
                }
            case .dropChunks(let attempt): store[attempt] = nil
            case .broadcast, .drained, .openTransfer, .endTransfer, .abortTransfer, .export,
                .limitStep, .roleChanged, .loadModel, .holdSequence:
                break
            }
        }
    }

    private mutating func answer(_ message: ControlMessage, on link: KVLinkID) {
        if case .kvDone(let done) = message, done.code == nil { checkDone(done.attempt) }
        for index in lanes.indices where lanes[index].link?.id == link {
            lanes[index].link?.toSender.append(message)
        }
    }

    mutating func happened(_ event: EngineEvent) -> [WorkerAction] {
        switch event {
        case .imported(let sequence, let tokens):
            receiver.imported(sequence, tokens: tokens)
        case .blockRefused(let sequence, _, let reason):
            receiver.blockRefused(sequence, reason: reason, room: &room, now: now)
        case .token(let sequence, let token, let finish):
            receiver.sampled(sequence, token, finish: finish, room: &room)
        case .failed(let sequence, let error): receiver.failed(sequence, error)
        case .cancelled(let sequence): receiver.cancelled(sequence)
        case .exported, .exportEnded, .held, .engineLost: []
        }
    }

    // MARK: Faults

    mutating func strike(_ fault: Fault) {
        hasFaults = true
        if !fault.isRecoverable { mayFail = true }
        let index = generator.below(lanes.count)
        switch fault {
        case .cut: cut(index, losing: 0)
        case .cutWithLoss: cut(index, losing: generator.below(4))
        case .killSender:
            for index in lanes.indices { cut(index, losing: generator.below(3)) }
            for index in lanes.indices { retire(index) }
            lanes = lanes.map { _ in StormLane() }
            sender = KVSendMachine(limits: handOver)
        case .killReceiver:
            for index in lanes.indices {
                lanes[index].link?.isBroken = true
                lanes[index].link?.isLostAtReceiver = true
            }
            oldLinks = []
            receiver = DecodeMachine(limits: limits)
            room = KVRoom(limits: limits)
            engine = StormEngine()
            store = [:]
        case .damage, .corruption: nextSpoil = fault
        case .duplicate: duplicate(index)
        case .pause: lanes[index].link?.blockedUntil = now + .milliseconds(500)
        case .stall: lanes[index].link?.blockedUntil = now + .seconds(10)
        case .cancellation: perform(receiver.cancel(anyAttempt()))
        case .abortion: perform(sender.abort(anyAttempt(), reason: "not wanted", now: now))
        }
    }

    private mutating func anyAttempt() -> AttemptID {
        let all = requests.keys.sorted { $0.request.low < $1.request.low }
        return all.isEmpty ? attempt(0) : all[generator.below(all.count)]
    }

    private mutating func cut(_ index: Int, losing frames: Int) {
        guard var link = lanes[index].link else { return }
        link.isBroken = true
        link.losesLast = frames > 0
        link.toSender = []
        link.toReceiver.removeLast(min(frames, link.toReceiver.count))
        lanes[index].link = link
    }

    mutating func spoiled(_ frame: StormFrame) -> StormFrame {
        guard let spoil = nextSpoil, case .chunk(var payload, let isWhole) = frame else {
            return frame
        }
        nextSpoil = nil
        payload.isDamaged = spoil == .damage
        payload.isCorrupt = spoil == .corruption
        return .chunk(payload, isWhole: isWhole)
    }

    private mutating func duplicate(_ index: Int) {
        if let frame = lanes[index].link?.toReceiver.last {
            lanes[index].link?.toReceiver.append(frame)
        }
        // A late word of the receiver; more credit than there is would be no mishap but a lie.
        guard let message = lanes[index].link?.toSender.last else { return }
        if case .kvCredit = message { return }
        lanes[index].link?.toSender.append(message)
    }

    // MARK: Judging

    /// The last word that all is imported: then the engine has exactly what was exported.
    private mutating func checkDone(_ attempt: AttemptID) {
        // It is said again to an end that comes again.
        if completed.insert(attempt).inserted { counts.completed += 1 }
        guard let reservation = receiver.reservations[attempt],
            let request = requests[attempt], let plan = request.plan
        else { return defects.append("done without a reservation") }
        let imported = engine.imported[reservation.sequence] ?? []
        let exported = request.chunks.map(\.tokenStart)
        if imported.map(\.facts.tokenStart) != exported
            || !imported.allSatisfy({ $0.attempt == attempt && !$0.isCorrupt })
        {
            defects.append("\(attempt) is done with \(imported), exported were \(exported)")
        }
        if engine.tokens(of: reservation.sequence) < plan.tokens {
            defects.append("\(attempt) is done and not whole")
        }
    }

    mutating func check() {
        let landing = receiver.landing
        if landing.usedBytes > landing.capacityBytes || landing.usedBytes < 0 {
            defects.append("\(landing.usedBytes) of \(landing.capacityBytes) bytes land")
        }
        if engine.defect != "" { defects.append(engine.defect) }
        let capacity = limits.kvCapacityTokens
        if receiver.reservedKVBytes + room.keptTokens * 10 > capacity * 10 {
            defects.append("KV is over-committed")
        }
        let inFlight =
            lanes.contains { !($0.link?.toSender.isEmpty ?? true) }
            || lanes.contains { !($0.link?.toReceiver.isEmpty ?? true) || !$0.jobs.isEmpty }
        guard !hasFaults, !mayFail, !inFlight else { return }
        // Between frames both sides agree on every byte of credit; who has sent everything
        // does not count it any more.
        guard !sender.transfers.values.contains(where: { $0.stage == .ended }) else { return }
        let credit = sender.transfers.values.reduce(0) {
            $0 + ($1.stage == .granted ? $1.credit : 0)
        }
        if landing.usedBytes - landing.landedBytes != credit {
            defects.append(
                "credit is lost: \(credit) here, \(landing.usedBytes - landing.landedBytes)")
        }
    }

    mutating func checkEnd() {
        guard defects.isEmpty else { return }
        if !isQuiet {
            defects.append(
                "something is left: \(sender.transfers.count) sent, "
                    + "\(receiver.reservations.count) reserved, engine \(engine.isQuiet)")
        }
        if receiver.landing.usedBytes != 0 || receiver.landing.transfers != 0 {
            defects.append("the landing area keeps \(receiver.landing.usedBytes) bytes")
        }
        if !store.allSatisfy(\.value.isEmpty) { defects.append("chunks are left: \(store)") }
        if receiver.reservedKVBytes != 0 || sender.heldBytes != 0 {
            defects.append("KV is stranded")
        }
        if engine.openSequences != room.kept.count {
            defects.append("the engine keeps \(engine.openSequences) sequences")
        }
    }
}

/// A chunk with what happened to its bytes.
struct StormPayload: Hashable {
    let attempt: AttemptID
    let facts: ChunkFacts
    var isDamaged = false
    var isCorrupt = false
    var isWhole = true
}

enum StormFrame {
    case message(ControlMessage)
    case chunk(StormPayload, isWhole: Bool)

    var isChunk: Bool { if case .chunk = self { true } else { false } }
}

struct StormLink {
    let id: KVLinkID
    var toReceiver: [StormFrame] = []
    var toSender: [ControlMessage] = []
    /// The chunk whose payload the receiver is inside of.
    var reading: StormPayload?
    var isBroken = false
    var losesLast = false
    var isLostAtReceiver = false
    var blockedUntil = MonotonicTime.start
}

/// One connection of the sender with the jobs of its thread.
struct StormLane {
    var link: StormLink?
    var jobs: [StormFrame] = []
    var isConnecting = false

    mutating func breakOff(_ attempt: AttemptID) {
        jobs = jobs.map { job in
            if case .chunk(let payload, _) = job, payload.attempt == attempt {
                .chunk(payload, isWhole: false)
            } else {
                job
            }
        }
    }
}
