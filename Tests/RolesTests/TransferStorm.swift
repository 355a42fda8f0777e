import InferenceEngine
import ServingTypes

@testable import KVHandOver
@testable import Roles

/// One sender and one receiver of KV over links that break, in virtual time.
///
/// Whatever happens comes at random, one thing a step: a frame moves on, a chunk lands, the engine
/// takes a command, a side notices a loss.
struct TransferStorm {
    enum Fault: CaseIterable {
        /// What is on its way still comes.
        case cut
        case cutWithLoss
        case killSender, killReceiver
        /// Of a chunk on its way.
        case damage
        /// A chunk that the engine will refuse.
        case corruption
        /// A frame comes twice.
        case duplicate
        /// Nothing moves for a while, or for longer than anybody waits.
        case pause, stall
        case cancellation, abortion

        /// One of them costs no request, only time.
        var isRecoverable: Bool {
            switch self {
            case .cut, .cutWithLoss, .damage, .corruption, .pause: true
            default: false
            }
        }
    }

    /// What became of the transfers.
    struct Counts: Hashable {
        var opened = 0
        var completed = 0
        var failed = 0
        var resends = 0
        var reconnects = 0
        var heldTokens = 0
        var credits = 0
        var discarded = 0
        var finished = 0
    }

    struct Request {
        let prompt: [TokenID]
        let secret: ReservationSecret
        var plan: SendingPlan?
        /// First token and tokens of each chunk, in order.
        var chunks: [ChunkFacts] = []
        var isFinished = false
    }

    let seed: UInt64
    let handOver: KVHandOverLimits
    let limits: WorkerLimits
    let chunkTokens: Int
    /// A gateway tells each side of the other's failures.
    let hasGateway: Bool
    var now = MonotonicTime.start
    var generator: SeededGenerator
    var sender: KVSendMachine
    var receiver: DecodeMachine
    var room: KVRoom
    var engine = StormEngine()
    var lanes: [StormLane]
    /// Links of lanes that were replaced, until the receiver has noticed.
    var oldLinks: [StormLink] = []
    var requests: [AttemptID: Request] = [:]
    /// Chunks that the receiver's shell keeps.
    var store: [AttemptID: [Int: StormPayload]] = [:]
    var counts = Counts()
    var defects: [String] = []
    var hasFaults = false
    /// Something happened that a transfer need not outlive.
    var mayFail = false
    /// Whose last word was said: all is imported.
    var completed: Set<AttemptID> = []
    /// Befalls the next chunk that leaves.
    var nextSpoil: Fault?
    var isOver = false
    private var sequences: UInt64 = 0
    private var attempts: UInt64 = 0
    private var linkNumbers: UInt64 = 0
    private var nextTick = MonotonicTime.start

    /// - Parameter patience: how long a transfer may wait for its peer.
    init(seed: UInt64, patience: Duration = .seconds(5)) {
        self.seed = seed
        generator = SeededGenerator(seed: seed)
        var handOver = KVHandOverLimits()
        handOver.connections = 1 + generator.below(3)
        handOver.stallDeadline = patience
        handOver.resumeDeadline = .seconds(1)
        self.handOver = handOver
        chunkTokens = 1 + generator.below(12)
        var limits = WorkerLimits(
            prefillSlots: 1, decodeSequences: 6, kvCapacityTokens: 400, contextTokens: 100,
            kvBytesPerToken: 10)
        limits.chunkOverheadBytes = 3
        limits.landingBytes = limits.chunkBytes(tokens: chunkTokens) + generator.below(400)
        limits.landingWindowBytes = 1 + generator.below(300)
        limits.keptSequences = generator.below(3)
        limits.handOver = handOver
        self.limits = limits
        hasGateway = generator.below(2) == 0
        sender = KVSendMachine(limits: handOver)
        receiver = DecodeMachine(limits: limits)
        room = KVRoom(limits: limits)
        lanes = Array(repeating: StormLane(), count: handOver.connections)
    }

    /// Nothing moves before somebody's patience ends.
    private var isResting: Bool {
        isOver && engine.isQuiet && oldLinks.isEmpty
            && lanes.allSatisfy { lane in
                guard let link = lane.link else { return !lane.isConnecting }
                return link.blockedUntil > now
                    || !link.isBroken && link.toSender.isEmpty && link.toReceiver.isEmpty
                        && link.reading == nil && lane.jobs.isEmpty
            }
    }

    var isQuiet: Bool {
        sender.isEmpty && receiver.isEmpty && engine.isQuiet
    }

    /// - Parameter fault: comes at this step.
    mutating func run(steps: Int, faults: [Int: Fault] = [:], faultRate: Int = 0) {
        mayFail = faultRate > 0
        for step in 0..<steps where defects.isEmpty {
            if let fault = faults[step] { strike(fault) }
            if faultRate > 0, generator.below(1000) < faultRate {
                strike(Fault.allCases[generator.below(Fault.allCases.count)])
            }
            if sender.transfers.count < 5, generator.below(20) == 0 { reserve() }
            self.step()
        }
        isOver = true
        let end = now + .seconds(90)
        while !isQuiet, now < end, defects.isEmpty { step() }
        checkEnd()
    }

    private mutating func step() {
        now = now + .microseconds(Int64(generator.below(isResting ? 200_000 : 6000)))
        if now >= nextTick {
            nextTick = now + .milliseconds(100)
            perform(sender.tick(now: now))
            perform(receiver.tick(now: now))
        }
        switch generator.below(6) {
        case 0: export()
        case 1: moveLane(generator.below(lanes.count))
        case 2, 3: moveLink()
        case 4: if let event = engine.step(&generator) { perform(happened(event)) }
        default: connect(generator.below(lanes.count))
        }
        check()
    }

    // MARK: Requests

    /// Prompts that begin alike, so that kept KV is of use.
    private mutating func reserve() {
        attempts += 1
        let id = attempt(attempts)
        let base = TokenID(100 * generator.below(3))
        let prompt = (1...(1 + generator.below(50))).map { base + TokenID($0) }
        var terms = terms(id, maximumNewTokens: 2 + generator.below(6), deadline: .seconds(60))
        terms.sampling.seed = attempts
        requests[id] = Request(prompt: prompt, secret: secret(attempts))
        sequences += 1
        perform(
            receiver.reserve(
                ReserveKV(terms: terms), tokens: prompt, from: LinkID(1),
                sequence: SequenceID(sequences), secret: secret(attempts),
                isComputedHere: false, room: &room, now: now))
    }

    mutating func heard(_ message: ControlMessage) {
        switch message {
        case .reservationGranted(let granted):
            guard let request = requests[granted.attempt] else { return }
            counts.opened += 1
            counts.heldTokens += granted.heldTokens
            let plan = SendingPlan(
                attempt: granted.attempt, secret: granted.secret, fingerprint: model,
                tokens: request.prompt.count, startToken: granted.heldTokens,
                chunkTokens: chunkTokens, expires: now + .seconds(60))
            requests[granted.attempt]?.plan = plan
            perform(sender.open(plan, now: now))
        case .reservationRefused(let refused): requests[refused.attempt] = nil
        case .requestFailed(let failed): failedAtReceiver(failed)
        case .tokenBatch(let batch):
            guard batch.finish != nil else { return }
            counts.finished += 1
            // Its last word on the KV could not be said.
            if completed.insert(batch.attempt).inserted { counts.completed += 1 }
        default: break
        }
    }

    private mutating func failedAtReceiver(_ failed: RequestFailed) {
        if !mayFail { defects.append("failed without need: \(failed.reason)") }
        if hasGateway { perform(sender.abort(failed.attempt, reason: "failed", now: now)) }
    }

    /// Exports the next chunk of some prompt, or ends its transfer.
    private mutating func export() {
        let open = requests.keys.filter { requests[$0]?.isFinished == false }
            .sorted { $0.request.low < $1.request.low }
        guard !open.isEmpty else { return }
        let id = open[generator.below(open.count)]
        guard let plan = requests[id]?.plan, sender.isOpen(id) else { return }
        let start = requests[id]?.chunks.last?.tokenEnd ?? plan.startToken
        guard start < plan.tokens else {
            requests[id]?.isFinished = true
            let end = KVEnd(
                attempt: id, tokens: plan.tokens, firstToken: TokenOutput(token: 7))
            return perform(sender.finish(end, now: now))
        }
        let count = min(1 + generator.below(chunkTokens), plan.tokens - start)
        let facts = ChunkFacts(
            tokenStart: start, tokenCount: count, bytes: 10 * count + generator.below(4),
            checksum: UInt32(truncatingIfNeeded: generator.next()))
        requests[id]?.chunks.append(facts)
        perform(sender.exported(id, facts, now: now))
    }

    // MARK: Connections

    private mutating func connect(_ index: Int) {
        guard lanes[index].isConnecting else { return }
        lanes[index].isConnecting = false
        linkNumbers += 1
        lanes[index].link = StormLink(id: KVLinkID(linkNumbers))
        perform(sender.connected(index, now: now))
    }

    /// The sender's thread takes its next job, or notices that the link is broken.
    private mutating func moveLane(_ index: Int) {
        guard let link = lanes[index].link else { return }
        if link.isBroken {
            retire(index)
            return perform(sender.lost(index, reason: "cut", now: now))
        }
        if now >= link.blockedUntil, !link.toSender.isEmpty, generator.below(2) == 0 {
            let message = lanes[index].link?.toSender.removeFirst()
            if case .kvCredit = message { counts.credits += 1 }
            return message.map { perform(sender.received($0, now: now)) } ?? ()
        }
        guard now >= link.blockedUntil, !lanes[index].jobs.isEmpty else { return }
        let job = spoiled(lanes[index].jobs.removeFirst())
        lanes[index].link?.toReceiver.append(job)
        guard case .chunk(let payload, let isWhole) = job else { return }
        perform(
            sender.sent(
                payload.attempt, payload.facts, connection: index, isWhole: isWhole, now: now))
    }

    /// Leaves the link to the receiver, which has yet to notice.
    mutating func retire(_ index: Int) {
        guard var link = lanes[index].link else { return }
        link.isBroken = true
        oldLinks.append(link)
        lanes[index] = StormLane()
    }

    /// The receiver hears the next frame of some link, or that it is lost.
    private mutating func moveLink() {
        let current = lanes.indices.filter { lanes[$0].link != nil }
        let place = generator.below(max(1, current.count + oldLinks.count))
        if place < current.count {
            guard var link = lanes[current[place]].link else { return }
            let actions = hear(&link)
            lanes[current[place]].link = link
            perform(actions)
        } else if place - current.count < oldLinks.count {
            var link = oldLinks[place - current.count]
            let actions = hear(&link)
            if link.isLostAtReceiver {
                oldLinks.remove(at: place - current.count)
            } else {
                oldLinks[place - current.count] = link
            }
            perform(actions)
        }
    }

    private mutating func hear(_ link: inout StormLink) -> [WorkerAction] {
        guard !link.isLostAtReceiver, now >= link.blockedUntil else { return [] }
        if let payload = link.reading {
            return finishReading(payload, &link)
        }
        guard !link.toReceiver.isEmpty else {
            guard link.isBroken else { return [] }
            link.isLostAtReceiver = true
            return receiver.linkLost(link.id, now: now)
        }
        switch link.toReceiver.removeFirst() {
        case .message(.kvOffer(let offer)):
            return receiver.offered(
                offer, from: prefill1, fingerprint: model, on: link.id, now: now)
        case .message(.kvEnd(let end)):
            return receiver.ended(end, from: prefill1, on: link.id, now: now)
        case .message(.kvAbort(let abort)):
            return receiver.transferAborted(abort.attempt, by: prefill1)
        case .message: return []
        case .chunk(var payload, let isWhole):
            let (isWanted, actions) = receiver.begins(
                payload.facts, of: payload.attempt, from: prefill1, on: link.id, now: now)
            payload.isWhole = isWhole
            if isWanted { link.reading = payload } else { counts.discarded += 1 }
            return actions
        }
    }

    private mutating func finishReading(
        _ payload: StormPayload, _ link: inout StormLink
    ) -> [WorkerAction] {
        // A thread inside a payload notices the loss there.
        if link.isBroken, link.toReceiver.isEmpty, link.losesLast {
            link.isLostAtReceiver = true
            return receiver.linkLost(link.id, now: now)
        }
        link.reading = nil
        guard payload.isWhole, !payload.isDamaged else {
            return receiver.missed(
                payload.facts, of: payload.attempt, on: link.id, isDamaged: payload.isWhole,
                reason: "on the way", now: now)
        }
        let (isKept, actions) = receiver.landed(
            payload.facts, of: payload.attempt, on: link.id, now: now)
        if isKept { store[payload.attempt, default: [:]][payload.facts.tokenStart] = payload }
        return actions
    }
}
