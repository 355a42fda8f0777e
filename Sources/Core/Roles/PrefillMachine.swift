import InferenceEngine
import ServingTypes

/// The prefill side of a worker: takes a prompt or says no, at once; there is no queue.
///
///     offer ─accept▶ computing ─first token▶ sending ─KVDone▶ gone (slot free)
///       └─reject        │  └─first token, no target▶ waiting ─PlaceKV▶ exporting, sending ─▶ gone
///                       │                               └─PlaceKV here▶ taken over ─────────▲
///                       └────────cancel, loss, deadline, failure────────────────────────────▲
///
/// A slot is held until its KV has left, so a slow decode side shows up as rejections here.
struct PrefillMachine: Sendable {
    /// What the engine does for a slot.
    private enum Computing {
        case prompt
        /// It holds the KV until somebody says where it goes.
        case waiting
        case exporting
        /// It holds nothing for the slot; the KV may be kept.
        case done
    }

    private struct Slot: Sendable {
        let terms: AttemptTerms
        let gateway: LinkID
        var job: SequenceJob
        let expires: MonotonicTime
        let isFallback: Bool
        /// Nil as long as nobody has said where the KV goes.
        var target: KVTarget?
        /// The kept sequence it begins with.
        var hit: KeptSequences.Hit?
        var firstToken: TokenOutput?
        var engine = Computing.prompt
        /// It was decoded here, and goes on elsewhere.
        var isAdopted = false
        /// The target is this worker.
        var staysHere = false
        /// This worker has promised room for its sequence that covers the prompt.
        var isCoveredHere = false
        /// The transfer has not reported its end.
        var isInTransfer: Bool
        /// Nobody wants the result any more; the slot waits until both are free.
        var isAbandoned = false

        var sequence: SequenceID { job.sequence }
        var promptTokens: Int { job.tokens.count }
    }

    private let limits: WorkerLimits
    private var slots: [AttemptID: Slot] = [:]
    /// Of sequences that the engine has.
    private var attempts: [SequenceID: AttemptID] = [:]
    /// A gateway was turned away: from then on each free slot is called, so that gateways can count
    /// what they may offer and ask nobody in vain.
    private var hasRejected = false
    /// Takes no new prompts, and calls nobody.
    var isClosed = false
    /// Tells gateways when KV has left: this worker goes soon.
    var saysDeliveries = false
    /// Tokens of KV that the decode side has promised.
    var otherTokens = 0
    /// Computed prompts whose KV has its place in this worker; the decode side takes them over.
    private var staying: [AttemptID] = []

    init(limits: WorkerLimits) { self.limits = limits }

    var freeSlots: Int { limits.prefillSlots - slots.count }
    var isEmpty: Bool { slots.isEmpty }
    /// Has prompts that were not taken because others could not.
    var hasOwnWork: Bool { slots.values.contains { !$0.isFallback } }
    /// Sequences that were decoded here and wait for their place, or are on their way.
    var adoptedSequences: Int { slots.values.count { $0.isAdopted } }
    var fallbackPrompts: Int { slots.values.count { $0.isFallback } }
    /// KV tokens of prompts that are being computed or sent.
    var heldTokens: Int { slots.values.reduce(0) { $0 + $1.promptTokens } }
    /// Those of them whose KV is in the engine, and which nobody else counts.
    var engineTokens: Int { slots.values.reduce(0) { $0 + engineTokens(of: $1) } }

    /// Prompts that the engine works on.
    var computingPrompts: Int {
        slots.values.count { $0.engine == .prompt || $0.engine == .exporting }
    }

    func attempt(of sequence: SequenceID) -> AttemptID? { attempts[sequence] }

    // MARK: Gateway

    mutating func offer(
        _ offer: PrefillOffer, tokens: [TokenID], from gateway: LinkID, sequence: SequenceID,
        room: inout KVRoom, now: MonotonicTime
    ) -> [WorkerAction] {
        let terms = offer.terms
        if let (code, reason) = objection(to: offer, tokens: tokens) {
            let rejected = PrefillRejected(attempt: terms.attempt, code: code, reason: reason)
            return [.send(.prefillRejected(rejected), to: gateway)]
        }
        let hit = room.find(for: tokens, block: limits.prefixBlockTokens)
        let beginning = room.begin(
            sequence, neededTokens: tokens.count, usedTokens: engineTokens + otherTokens, with: hit)
        // An answer of one token ends here: nobody decodes.
        let handsOver = terms.maximumNewTokens > 1
        var job = SequenceJob(
            sequence: sequence, tokens: tokens, outputTokens: terms.outputTokens,
            importedTokens: hit?.tokens ?? 0, sampling: terms.sampling, maximumNewTokens: 1,
            exportsKV: handsOver && offer.target != nil)
        job.exportedFrom = offer.target?.heldTokens ?? 0
        job.retainsKV = limits.keptSequences > 0 || handsOver && offer.target == nil
        let slot = Slot(
            terms: terms, gateway: gateway, job: job, expires: now + terms.deadline,
            isFallback: offer.isFallback, target: offer.target, hit: hit,
            isInTransfer: job.exportsKV)
        slots[terms.attempt] = slot
        attempts[sequence] = terms.attempt
        let accepted = PrefillAccepted(attempt: terms.attempt, cachedTokens: job.importedTokens)
        return [.send(.prefillAccepted(accepted), to: gateway)]
            + (slot.isInTransfer ? transfer(of: slot) : []) + beginning + [.run(job)]
    }

    private mutating func objection(
        to offer: PrefillOffer, tokens: [TokenID]
    ) -> (FailureCode, String)? {
        let terms = offer.terms
        guard !tokens.isEmpty, terms.maximumNewTokens >= 1, terms.outputTokens < tokens.count,
            (0...tokens.count).contains(offer.target?.heldTokens ?? 0),
            slots[terms.attempt] == nil
        else { return (.invalid, "the offer's numbers do not fit together") }
        guard tokens.count + terms.maximumNewTokens <= limits.contextTokens,
            tokens.count <= limits.kvCapacityTokens
        else {
            let most = min(limits.contextTokens, limits.kvCapacityTokens)
            return (.tooLong, "the context holds \(most) tokens")
        }
        // Exported KV takes memory until it has left.
        guard slots.count < limits.prefillSlots,
            heldTokens + tokens.count <= limits.kvCapacityTokens,
            engineTokens + otherTokens + tokens.count <= limits.kvCapacityTokens
        else {
            hasRejected = true
            return (.busy, "\(slots.count) of \(limits.prefillSlots) slots are taken")
        }
        return nil
    }

    /// Says where the KV of a prompt goes that was offered without a target.
    ///
    /// - Parameter isHere: it stays in this worker.
    mutating func place(
        _ place: PlaceKV, from gateway: LinkID, isHere: Bool, room: inout KVRoom
    ) -> [WorkerAction] {
        let attempt = place.attempt
        func failed(_ code: FailureCode, _ reason: String) -> WorkerAction {
            let failure = RequestFailed(attempt: attempt, code: code, reason: reason)
            return .send(.requestFailed(failure), to: gateway)
        }
        guard let slot = slots[attempt], slot.gateway == gateway, !slot.isAbandoned else {
            return [failed(.unknownRequest, "no such prompt is here")]
        }
        guard slot.target == nil, (0...slot.promptTokens).contains(place.target.heldTokens) else {
            let reason = "the KV has its place, or fewer tokens than the target holds"
            return [failed(.invalid, reason)] + abandon(attempt, reason: reason, room: &room)
        }
        slots[attempt]?.target = place.target
        slots[attempt]?.staysHere = isHere
        return slot.engine == .waiting ? export(attempt, room: &room) : []
    }

    mutating func cancel(_ attempt: AttemptID, room: inout KVRoom) -> [WorkerAction] {
        abandon(attempt, reason: "the request was cancelled", room: &room)
    }

    /// A gateway's connection is gone: nobody reads the results of its requests.
    mutating func lost(_ gateway: LinkID, room: inout KVRoom) -> [WorkerAction] {
        attemptsInOrder { $0.gateway == gateway }
            .flatMap { abandon($0, reason: "the gateway is gone", room: &room) }
    }

    /// Calls the gateways if one was turned away.
    func callFreeSlots() -> [WorkerAction] {
        guard hasRejected, !isClosed, freeSlots > 0 else { return [] }
        return [.broadcast(.slotsOpen(SlotsOpen(freePrefillSlots: freeSlots)))]
    }

    // MARK: Engine

    /// The one token of a prefill; the engine has closed the sequence, or retains its KV.
    mutating func sampled(
        _ sequence: SequenceID, _ token: TokenOutput, finish: FinishReason?, room: inout KVRoom
    ) -> [WorkerAction] {
        guard let attempt = attempts[sequence], let slot = slots[attempt],
            slot.engine == .prompt
        else { return [] }
        slots[attempt]?.firstToken = token
        guard !slot.isAbandoned else {
            // The order to cancel it may have come before the job.
            let cancel: [WorkerAction] = slot.job.retainsKV ? [.cancelSequence(sequence)] : []
            return cancel + letGo(attempt)
        }
        let end: FinishReason? =
            finish == .stop ? .stop : slot.terms.maximumNewTokens == 1 ? .length : nil
        let batch = TokenBatch(
            attempt: attempt, firstIndex: slot.terms.outputTokens, tokens: [token], finish: end)
        var actions: [WorkerAction] = [.send(.tokenBatch(batch), to: slot.gateway)]
        if end != nil {
            actions += keep(attempt, room: &room)
            actions += abandon(
                attempt, reason: "the answer ended with its first token", room: &room)
        } else if slot.isInTransfer {
            actions += [endOfTransfer(of: slot, token)] + keep(attempt, room: &room)
        } else {
            slots[attempt]?.engine = .waiting
            if slot.target != nil { actions += export(attempt, room: &room) }
        }
        return actions
    }

    /// All KV that was asked for by `export` is out.
    mutating func exportEnded(
        _ sequence: SequenceID, room: inout KVRoom
    ) -> [WorkerAction] {
        guard let attempt = attempts[sequence], let slot = slots[attempt],
            slot.engine == .exporting, !slot.isAbandoned, let firstToken = slot.firstToken
        else { return [] }
        let end = endOfTransfer(of: slot, firstToken)
        return [end] + keep(attempt, room: &room) + free(attempt)
    }

    /// The engine can't begin the prompt with kept KV and has dropped its job: all is computed.
    mutating func forkRefused(_ sequence: SequenceID, room: inout KVRoom) -> [WorkerAction] {
        guard let attempt = attempts[sequence], var slot = slots[attempt],
            slot.engine == .prompt
        else { return [] }
        let forgotten = room.forget(slot.hit?.sequence)
        guard !slot.isAbandoned else { return forgotten + letGo(attempt) }
        slot.hit = nil
        slot.job.importedTokens = 0
        slots[attempt] = slot
        return forgotten + [.run(slot.job)]
    }

    mutating func failed(
        _ sequence: SequenceID, _ error: EngineError, room: inout KVRoom
    ) -> [WorkerAction] {
        guard let attempt = attempts[sequence], let slot = slots[attempt] else { return [] }
        guard !slot.isAbandoned else { return letGo(attempt) }
        // The transfer is still open, so nothing is free yet, or there is none.
        slots[attempt]?.engine = .done
        attempts[sequence] = nil
        let failure = RequestFailed(attempt: attempt, code: .engine, reason: "\(error)")
        return [.send(.requestFailed(failure), to: slot.gateway)]
            + abandon(attempt, reason: "the engine failed", room: &room)
    }

    mutating func cancelled(_ sequence: SequenceID, room: inout KVRoom) -> [WorkerAction] {
        guard let attempt = attempts[sequence], let slot = slots[attempt] else { return [] }
        return slot.isAbandoned ? letGo(attempt) : failed(sequence, .shutDown, room: &room)
    }

    /// The engine can't go on: nothing is in it any more.
    mutating func engineLost(_ error: EngineError, room: inout KVRoom) -> [WorkerAction] {
        attemptsInOrder { $0.engine != .done }.flatMap { attempt in
            slots[attempt].map { failed($0.sequence, error, room: &room) } ?? []
        }
    }

    // MARK: Transfer

    /// The transfer has ended; `failure` is nil if the decode-worker has everything.
    mutating func transferEnded(
        _ attempt: AttemptID, failure: KVDone?, room: inout KVRoom
    ) -> [WorkerAction] {
        guard let slot = slots[attempt] else { return [] }
        slots[attempt]?.isInTransfer = false
        guard let failure, !slot.isAbandoned else {
            let delivered = WorkerAction.send(
                .kvDelivered(KVDelivered(attempt: attempt)), to: slot.gateway)
            return (saysDeliveries && !slot.isAbandoned ? [delivered] : []) + free(attempt)
        }
        let message = RequestFailed(
            attempt: attempt, code: failure.code ?? .transfer, reason: failure.reason)
        return [.send(.requestFailed(message), to: slot.gateway)]
            + abandon(attempt, reason: failure.reason, room: &room)
    }

    // MARK: Time

    /// Ends what has outlived its request; called a few times a second.
    mutating func tick(now: MonotonicTime, room: inout KVRoom) -> [WorkerAction] {
        attemptsInOrder { !$0.isAbandoned && now >= $0.expires }.flatMap { attempt in
            guard let slot = slots[attempt] else { return [WorkerAction]() }
            let reason = "the time is over"
            let failure = RequestFailed(attempt: attempt, code: .deadline, reason: reason)
            return [.send(.requestFailed(failure), to: slot.gateway)]
                + abandon(attempt, reason: reason, room: &room)
        }
    }

    // MARK: Helpers

    /// Attempts by age, so that equal inputs give equal actions.
    private func attemptsInOrder(where isWanted: (Slot) -> Bool) -> [AttemptID] {
        slots.values.filter(isWanted).sorted { $0.sequence.value < $1.sequence.value }
            .map(\.terms.attempt)
    }

    private func transfer(of slot: Slot) -> [WorkerAction] {
        guard let target = slot.target else { return [] }
        let plan = TransferPlan(
            attempt: slot.terms.attempt, decodeInstance: target.instance,
            address: target.bulkAddress, secret: target.secret, tokens: slot.promptTokens,
            heldTokens: target.heldTokens, expires: slot.expires)
        return [.openTransfer(plan)]
    }

    private func endOfTransfer(of slot: Slot, _ firstToken: TokenOutput) -> WorkerAction {
        .endTransfer(
            KVEnd(
                attempt: slot.terms.attempt, tokens: slot.promptTokens, firstToken: firstToken))
    }

    /// Sends KV that has waited in the engine.
    private mutating func export(
        _ attempt: AttemptID, room: inout KVRoom
    ) -> [WorkerAction] {
        guard let slot = slots[attempt], let target = slot.target,
            let firstToken = slot.firstToken
        else { return [] }
        guard !slot.staysHere else {
            staying.append(attempt)
            return []
        }
        slots[attempt]?.isInTransfer = true
        guard target.heldTokens < slot.promptTokens else {
            return transfer(of: slot) + [endOfTransfer(of: slot, firstToken)]
                + keep(attempt, room: &room)
        }
        slots[attempt]?.engine = .exporting
        return transfer(of: slot) + [.export(slot.sequence, from: target.heldTokens)]
    }

    // MARK: Moves

    /// Takes the KV of a sequence that was decoded here, to send it where its gateway says.
    mutating func adopt(_ held: HeldSequence) {
        var slot = Slot(
            terms: held.terms, gateway: held.gateway,
            job: SequenceJob(
                sequence: held.sequence, tokens: held.tokens,
                outputTokens: held.terms.outputTokens, sampling: held.terms.sampling,
                maximumNewTokens: 1, retainsKV: true),
            expires: held.expires, isFallback: false, target: nil, hit: held.hit,
            isInTransfer: false)
        slot.isAdopted = true
        slot.firstToken = held.lastToken
        slot.engine = .waiting
        slots[held.terms.attempt] = slot
        attempts[held.sequence] = held.terms.attempt
    }

    // MARK: Staying here

    /// A computed prompt that is to be decoded by this worker.
    struct Staying {
        var target: KVTarget
        var gateway: LinkID
        var sequence: SequenceID
        var tokens: [TokenID]
        var firstToken: TokenOutput
    }

    var hasStaying: Bool { !staying.isEmpty }

    /// Gives each of them once, in the order in which they came.
    mutating func takeStaying() -> [(AttemptID, Staying)] {
        defer { staying = [] }
        return staying.compactMap { attempt in
            guard let slot = slots[attempt], let target = slot.target, slot.engine == .waiting,
                let firstToken = slot.firstToken
            else { return nil }
            let staying = Staying(
                target: target, gateway: slot.gateway, sequence: slot.sequence,
                tokens: slot.job.tokens, firstToken: firstToken)
            return (attempt, staying)
        }
    }

    /// Another sequence goes on with the KV: the slot is free, the KV may be kept.
    mutating func takenOver(_ attempt: AttemptID, room: inout KVRoom) -> [WorkerAction] {
        keep(attempt, room: &room) + free(attempt)
    }

    /// Tokens of KV that a prompt takes in the engine beside all promises.
    func engineTokens(of attempt: AttemptID) -> Int {
        slots[attempt].map { engineTokens(of: $0) } ?? 0
    }

    private func engineTokens(of slot: Slot) -> Int {
        slot.engine == .done || slot.isCoveredHere ? 0 : slot.promptTokens
    }

    /// The decode side has promised room for prompt and answer.
    mutating func covered(_ attempt: AttemptID) { slots[attempt]?.isCoveredHere = true }

    /// Counts the KV of those again whose promise is gone, while the engine still has it.
    mutating func uncover(where isGone: (AttemptID) -> Bool) {
        for (attempt, slot) in slots where slot.isCoveredHere && isGone(attempt) {
            slots[attempt]?.isCoveredHere = false
        }
    }

    // MARK: Ends

    /// The slot needs the KV no more: it is kept for others, if the engine has retained it.
    private mutating func keep(_ attempt: AttemptID, room: inout KVRoom) -> [WorkerAction] {
        guard let slot = slots[attempt] else { return [] }
        slots[attempt]?.engine = .done
        attempts[slot.sequence] = nil
        guard slot.job.retainsKV else { return [] }
        return room.keep(slot.sequence, tokens: slot.job.tokens, begunWith: slot.hit)
    }

    /// Stops what still runs for the attempt; its slot opens when engine and transfer let go.
    private mutating func abandon(
        _ attempt: AttemptID, reason: String, room: inout KVRoom
    ) -> [WorkerAction] {
        guard let slot = slots[attempt], !slot.isAbandoned else { return [] }
        slots[attempt]?.isAbandoned = true
        var actions: [WorkerAction] = []
        switch slot.engine {
        case .prompt, .exporting: actions.append(.cancelSequence(slot.sequence))
        case .waiting: actions += keep(attempt, room: &room)
        case .done: break
        }
        if slot.isInTransfer { actions.append(.abortTransfer(attempt, reason: reason)) }
        return actions + free(attempt)
    }

    /// The engine has nothing of it any more.
    private mutating func letGo(_ attempt: AttemptID) -> [WorkerAction] {
        if let slot = slots[attempt] { attempts[slot.sequence] = nil }
        slots[attempt]?.engine = .done
        return free(attempt)
    }

    /// Opens the slot if neither engine nor transfer holds it.
    private mutating func free(_ attempt: AttemptID) -> [WorkerAction] {
        guard let slot = slots[attempt], slot.engine == .done, !slot.isInTransfer else { return [] }
        slots[attempt] = nil
        return callFreeSlots()
    }
}
