import InferenceEngine
import KVHandOver
import Roles
import ServingTypes

/// One worker of changing roles and everybody who wants something of it, one thing a step.
///
/// Prompts come with a target, without one, or for the worker itself; gateways, engine and
/// transfers fail; whatever the order, what was promised fits and nothing is left behind.
struct WorkerStorm {
    struct Counts: Hashable {
        var prompts = 0
        var late = 0
        var local = 0
        var reserved = 0
        var answers = 0
        var failures = 0
        var cachedTokens = 0
        var roleChanges = 0
        var refusals = 0
        var moves = 0
    }

    private struct Work {
        let prompt: [TokenID]
        let terms: AttemptTerms
        var granted: ReservationGranted?
        var isOffered = false
    }

    let seed: UInt64
    let limits: WorkerLimits
    var generator: SeededGenerator
    var machine: WorkerMachine
    var engine = StormEngine()
    var now = MonotonicTime.start
    var counts = Counts()
    var defects: [String] = []
    /// Prompts that have a slot and no place.
    private var late: Set<AttemptID> = []
    /// Transfers going out; true once everything is sent.
    private var sending: [AttemptID: Bool] = [:]
    private var works: [AttemptID: Work] = [:]
    /// Chunks that have landed.
    private var store: [AttemptID: [Int: StormPayload]] = [:]
    private var gateway = LinkID(1)
    private var numbers: UInt64 = 0
    private var assignments: UInt64 = 0
    private var assigned: ServingRole
    private var hasDrained = false
    private let end = MonotonicTime.start + .seconds(3600)

    init(seed: UInt64) {
        self.seed = seed
        generator = SeededGenerator(seed: seed)
        var limits = WorkerLimits(
            prefillSlots: 1 + generator.below(4), decodeSequences: 1 + generator.below(5),
            kvCapacityTokens: 120 + generator.below(300), contextTokens: 110, kvBytesPerToken: 10)
        limits.keptSequences = generator.below(5)
        limits.prefixBlockTokens = 1 + generator.below(20)
        limits.localPrefills = generator.below(3)
        self.limits = limits
        assigned = ServingRole.allCases[generator.below(4)]
        machine = WorkerMachine(instance: WorkerBench.instance, role: assigned, limits: limits)
        engine.failures = generator.below(2) == 0
    }

    // MARK: Running

    mutating func run(steps: Int) {
        for _ in 0..<steps where defects.isEmpty { step() }
        let drains = generator.below(3) == 0
        if drains { perform(machine.drain()) }
        // Nobody wants anything new; what waits for a place or for KV ends with its time.
        for _ in 0..<4000 where defects.isEmpty && !isQuiet { settle() }
        now = end
        for _ in 0..<500 where defects.isEmpty && !isQuiet {
            perform(machine.tick(now: now))
            settle()
        }
        checkEnd(drains)
    }

    private var isQuiet: Bool { engine.isQuiet && machine.isIdle && sending.isEmpty }

    private mutating func step() {
        now = now + .milliseconds(Int64(generator.below(40)))
        switch generator.below(28) {
        case 0, 1, 2: offer()
        case 3, 4: reserve()
        case 5, 6, 7: offerHere()
        case 8, 9, 10: place()
        case 11, 12, 13: bringKV()
        case 14: if let attempt = anyAttempt() { cancel(attempt) }
        case 15: if generator.below(6) == 0 { changeGateway() }
        case 16: if generator.below(3) == 0 { assign() }
        case 17: engine.refusesFork = generator.below(3) == 0
        default: settle()
        }
        check()
    }

    /// What is under way goes on.
    private mutating func settle() {
        switch generator.below(4) {
        case 0: endTransfer()
        case 1: perform(machine.tick(now: now))
        default:
            if let event = engine.step(&generator) { perform(machine.engine(event, now: now)) }
        }
        check()
    }

    // MARK: What comes

    private mutating func work() -> Work {
        numbers += 1
        let base = TokenID(100 * generator.below(2))
        let branch = TokenID(10 * generator.below(3))
        let prompt = (1...(1 + generator.below(80))).map { index in
            base + TokenID(index) + (index > 30 ? branch : 0)
        }
        let deadline = Duration.seconds(generator.below(8) == 0 ? 1 : 600)
        let count = 1 + generator.below(6)
        return Work(
            prompt: prompt,
            terms: terms(attempt(numbers), maximumNewTokens: count, deadline: deadline))
    }

    private mutating func hear(_ message: ControlMessage, tokens: [TokenID] = []) {
        perform(
            machine.received(
                message, tokens: tokens, from: gateway, secret: secret(numbers), now: now))
    }

    private func target(_ secret: ReservationSecret, _ instance: InstanceID, held: Int) -> KVTarget
    {
        KVTarget(
            instance: instance, bulkAddress: NetworkAddress(host: "host", port: 1),
            secret: secret, heldTokens: held)
    }

    private mutating func offer() {
        let work = work()
        let isLate = generator.below(2) == 0
        let held = generator.below(work.prompt.count + 1)
        let offer = PrefillOffer(
            terms: work.terms, target: isLate ? nil : target(secret(1), decode1, held: held),
            isFallback: generator.below(6) == 0)
        if isLate { late.insert(work.terms.attempt) }
        hear(.prefillOffer(offer), tokens: work.prompt)
    }

    private mutating func reserve() {
        let work = work()
        works[work.terms.attempt] = work
        let isFallback = generator.below(6) == 0
        hear(
            .reserveKV(ReserveKV(terms: work.terms, isFallback: isFallback)), tokens: work.prompt)
    }

    private mutating func offerHere() {
        guard let attempt = any(works.keys), let work = works[attempt],
            let granted = work.granted, !work.isOffered
        else { return }
        works[attempt]?.isOffered = true
        let target = target(granted.secret, WorkerBench.instance, held: granted.heldTokens)
        hear(.prefillOffer(PrefillOffer(terms: work.terms, target: target)), tokens: work.prompt)
    }

    private mutating func place() {
        guard let attempt = any(late) else { return }
        late.remove(attempt)
        let target = target(secret(1), decode1, held: generator.below(20))
        hear(.placeKV(PlaceKV(attempt: attempt, target: target)))
    }

    /// The KV of a reservation comes in one chunk, or not at all.
    private mutating func bringKV() {
        guard let attempt = any(works.keys), let work = works[attempt],
            let granted = work.granted, !work.isOffered, work.terms.maximumNewTokens > 1
        else { return }
        works[attempt]?.isOffered = true
        let link = KVLinkID(numbers)
        let tokens = work.prompt.count
        perform(
            machine.kvOffered(
                KVOffer(
                    attempt: attempt, secret: granted.secret, fingerprint: model, tokens: tokens,
                    startToken: granted.heldTokens, chunkTokens: tokens), from: prefill1,
                fingerprint: model, on: link, now: now))
        guard generator.below(8) > 0 else {
            return perform(machine.kvAborted(attempt, by: prefill1))
        }
        let chunk = chunk(granted.heldTokens, tokens - granted.heldTokens)
        let (isWanted, actions) = machine.kvBegins(
            chunk, of: attempt, from: prefill1, on: link, now: now)
        perform(actions)
        guard isWanted else { return }
        let (isKept, others) = machine.kvLanded(chunk, of: attempt, on: link, now: now)
        if isKept {
            store[attempt, default: [:]][chunk.tokenStart] = StormPayload(
                attempt: attempt, facts: chunk)
        }
        perform(others)
        perform(
            machine.kvEnded(
                KVEnd(
                    attempt: attempt, tokens: tokens, firstToken: TokenOutput(token: 7),
                    digest: PayloadDigest([chunk]).value), from: prefill1, on: link, now: now))
    }

    private mutating func cancel(_ attempt: AttemptID) {
        hear(.cancelRequest(CancelRequest(attempt: attempt)))
    }

    private mutating func changeGateway() {
        perform(machine.gatewayLost(gateway))
        gateway = LinkID(gateway.value + 1)
        late = []
    }

    private mutating func assign() {
        if generator.below(4) == 0 {
            machine.schedulerChanged()
            assignments = 0
        }
        assignments += 1
        assigned = ServingRole.allCases[generator.below(4)]
        let limit: Duration? = generator.below(2) == 0 ? nil : .milliseconds(50)
        perform(
            machine.assigned(
                Assign(number: assignments, role: assigned, group: nil, stepLimit: limit),
                now: now))
    }

    private mutating func endTransfer() {
        guard let attempt = any(sending.keys) else { return }
        let isWhole = sending[attempt] == true && generator.below(6) > 0
        guard isWhole || generator.below(12) == 0 else { return }
        sending[attempt] = nil
        let failure = KVDone(attempt: attempt, code: .transfer, reason: "lost")
        perform(machine.transferEnded(attempt, failure: isWhole ? nil : failure))
    }

    private mutating func any(_ attempts: some Collection<AttemptID>) -> AttemptID? {
        let sorted = attempts.sorted { $0.request.low < $1.request.low }
        return sorted.isEmpty ? nil : sorted[generator.below(sorted.count)]
    }

    private mutating func anyAttempt() -> AttemptID? {
        numbers == 0 ? nil : attempt(1 + UInt64(generator.below(Int(numbers))))
    }

    // MARK: What it does

    private mutating func perform(_ actions: [WorkerAction]) {
        for action in actions {
            switch action {
            case .send(let message, _): heard(message)
            case .run(let job): engine.submit(.run(job))
            case .cancelSequence(let sequence): engine.submit(.cancel(sequence))
            case .holdSequence(let sequence): engine.submit(.hold(sequence))
            case .fork(let sequence, let from, let tokens):
                engine.submit(.fork(sequence, from: from, tokens: tokens))
            case .export(let sequence, let start): engine.submit(.export(sequence, from: start))
            case .openTransfer(let plan):
                if sending.updateValue(false, forKey: plan.attempt) != nil {
                    defects.append("\(plan.attempt) is sent twice")
                }
            case .endTransfer(let end):
                if sending[end.attempt] == nil { defects.append("an end without a transfer") }
                sending[end.attempt] = true
            case .abortTransfer(let attempt, _):
                guard sending.removeValue(forKey: attempt) != nil else { continue }
                perform(machine.transferEnded(attempt, failure: nil))
            case .importChunks(let sequence, let attempt, let starts):
                for start in starts {
                    guard let payload = store[attempt]?.removeValue(forKey: start) else {
                        defects.append("a chunk is imported that is not here")
                        continue
                    }
                    engine.submit(.importBlock(sequence, payload))
                }
            case .dropChunks(let attempt): store[attempt] = nil
            case .roleChanged: counts.roleChanges += 1
            case .drained:
                if hasDrained || !machine.isIdle { defects.append("it has drained too early") }
                hasDrained = true
            case .broadcast, .sendKV, .limitStep, .loadModel: break
            }
        }
    }

    private mutating func heard(_ message: ControlMessage) {
        switch message {
        case .prefillAccepted(let accepted):
            counts.prompts += 1
            counts.cachedTokens += accepted.cachedTokens
            if late.contains(accepted.attempt) { counts.late += 1 }
            if works[accepted.attempt] != nil { counts.local += 1 }
        case .prefillRejected(let rejected):
            late.remove(rejected.attempt)
            works[rejected.attempt]?.isOffered = false
            counts.refusals += 1
        case .reservationGranted(let granted):
            counts.reserved += 1
            counts.cachedTokens += granted.heldTokens
            works[granted.attempt]?.granted = granted
        case .reservationRefused(let refused):
            works[refused.attempt] = nil
            counts.refusals += 1
        case .moveWanted(let wanted):
            guard generator.below(4) > 0 else { return }
            hear(.holdSequence(HoldSequence(attempt: wanted.attempt, successor: 2)))
        case .sequenceHeld(let held):
            counts.moves += 1
            let attempt = AttemptID(request: held.attempt.request, number: held.successor)
            if generator.below(8) == 0 { cancel(attempt) } else { late.insert(attempt) }
        case .tokenBatch(let batch): if batch.finish != nil { counts.answers += 1 }
        case .kvDelivered: break
        case .requestFailed: counts.failures += 1
        default: defects.append("a gateway hears \(message.kind)")
        }
    }

    // MARK: Judging

    private mutating func check() {
        if engine.defect != "" { defects.append(engine.defect) }
        let promised = machine.promisedKVTokens
        if promised < 0 || promised + machine.keptKVTokens > limits.kvCapacityTokens {
            defects.append("\(promised) promised, \(machine.keptKVTokens) kept")
        }
        if engine.usedTokens > limits.kvCapacityTokens {
            defects.append("the engine has \(engine.usedTokens) tokens")
        }
        if machine.keptSequences > limits.keptSequences { defects.append("too many are kept") }
        guard !engine.hasCommands else { return }
        if engine.usedTokens > promised + machine.keptKVTokens {
            defects.append("\(engine.usedTokens) tokens in the engine, \(promised) promised")
        }
        let most = limits.prefillSlots + limits.decodeSequences + limits.keptSequences
        if engine.openSequences > most { defects.append("\(engine.openSequences) are open") }
    }

    private mutating func checkEnd(_ drains: Bool) {
        guard defects.isEmpty else { return }
        let status = machine.status(
            EngineProgress(steps: 0, stepAge: nil, openSequences: 0, usedKVTokens: 0))
        if !isQuiet { defects.append("something is left") }
        if machine.promisedKVTokens != 0 || status.reservedKVBytes != 0 {
            defects.append("\(machine.promisedKVTokens) tokens are promised for ever")
        }
        if engine.openSequences != machine.keptSequences {
            defects.append(
                "\(engine.openSequences) sequences in the engine, "
                    + "\(machine.keptSequences) are kept")
        }
        if engine.usedTokens > machine.keptKVTokens { defects.append("KV is left") }
        if !store.allSatisfy(\.value.isEmpty) { defects.append("chunks are left") }
        if status.role != assigned { defects.append("the role is \(status.role)") }
        if hasDrained != drains { defects.append("it has not drained") }
        if status.localPrefills != 0 { defects.append("prompts are computed for ever") }
        if !drains, assigned.takesPrompts, status.freePrefillSlots != limits.prefillSlots {
            defects.append("\(status.freePrefillSlots) slots are free")
        }
    }
}
