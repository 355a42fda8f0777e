package import InferenceEngine
package import ServingTypes

/// The prefill side of a worker: takes a prompt or says no, at once; there is no queue.
///
///     offer ─accept▶ computing ─first token▶ sending ─KVDone▶ gone (slot free)
///       └─reject        └────────cancel, loss, failure──────────▲
///
/// A slot is held until its KV has left, so a slow decode side shows up as rejections here.
package struct PrefillMachine: Sendable {
    private struct Slot: Sendable {
        let terms: AttemptTerms
        let gateway: LinkID
        let sequence: SequenceID
        let promptTokens: Int
        let expires: MonotonicTime
        var firstToken: TokenOutput?
        /// The engine still holds KV for it.
        var isInEngine = true
        /// The transfer has not reported its end.
        var isInTransfer: Bool
        /// Nobody wants the result any more; the slot waits until both are free.
        var isAbandoned = false
    }

    private let limits: WorkerLimits
    private var slots: [AttemptID: Slot] = [:]
    private var attempts: [SequenceID: AttemptID] = [:]
    /// A gateway was turned away: from then on each free slot is called, so that gateways can count
    /// what they may offer and ask nobody in vain.
    private var hasRejected = false
    private var isDraining = false

    package init(limits: WorkerLimits) { self.limits = limits }

    package var freeSlots: Int { limits.prefillSlots - slots.count }
    package var isEmpty: Bool { slots.isEmpty }
    /// KV tokens of prompts that are being computed or sent.
    package var heldTokens: Int { slots.values.reduce(0) { $0 + $1.promptTokens } }

    package func attempt(of sequence: SequenceID) -> AttemptID? { attempts[sequence] }

    // MARK: Gateway

    package mutating func offer(
        _ offer: PrefillOffer, tokens: [TokenID], from gateway: LinkID, sequence: SequenceID,
        now: MonotonicTime
    ) -> [WorkerAction] {
        let terms = offer.terms
        func reject(_ code: FailureCode, _ reason: String) -> [WorkerAction] {
            let rejected = PrefillRejected(attempt: terms.attempt, code: code, reason: reason)
            return [.send(.prefillRejected(rejected), to: gateway)]
        }
        guard !tokens.isEmpty, terms.maximumNewTokens >= 1, terms.outputTokens < tokens.count,
            offer.heldTokens <= tokens.count, slots[terms.attempt] == nil
        else { return reject(.invalid, "the offer's numbers do not fit together") }
        guard !isDraining else { return reject(.draining, "the worker is draining") }
        guard tokens.count + terms.maximumNewTokens <= limits.contextTokens,
            tokens.count <= limits.kvCapacityTokens
        else {
            let most = min(limits.contextTokens, limits.kvCapacityTokens)
            return reject(.tooLong, "the context holds \(most) tokens")
        }
        guard slots.count < limits.prefillSlots,
            heldTokens + tokens.count <= limits.kvCapacityTokens
        else {
            hasRejected = true
            return reject(.busy, "\(slots.count) of \(limits.prefillSlots) slots are taken")
        }
        // An answer of one token ends here: nobody decodes.
        let exportsKV = terms.maximumNewTokens > 1
        let expires = now + terms.deadline
        slots[terms.attempt] = Slot(
            terms: terms, gateway: gateway, sequence: sequence, promptTokens: tokens.count,
            expires: expires, isInTransfer: exportsKV)
        attempts[sequence] = terms.attempt
        var job = SequenceJob(
            sequence: sequence, tokens: tokens, outputTokens: terms.outputTokens,
            sampling: terms.sampling, maximumNewTokens: 1, exportsKV: exportsKV)
        job.exportedFrom = offer.heldTokens
        let accepted = WorkerAction.send(
            .prefillAccepted(PrefillAccepted(attempt: terms.attempt)), to: gateway)
        guard exportsKV else { return [accepted, .run(job)] }
        let plan = TransferPlan(
            attempt: terms.attempt, decodeInstance: offer.decodeInstance,
            address: offer.decodeBulkAddress, secret: offer.secret, tokens: tokens.count,
            heldTokens: offer.heldTokens, expires: expires)
        return [accepted, .openTransfer(plan), .run(job)]
    }

    package mutating func cancel(_ attempt: AttemptID) -> [WorkerAction] {
        abandon(attempt, reason: "the request was cancelled")
    }

    /// A gateway's connection is gone: nobody reads the results of its requests.
    package mutating func lost(_ gateway: LinkID) -> [WorkerAction] {
        attemptsInOrder { $0.gateway == gateway }
            .flatMap { abandon($0, reason: "the gateway is gone") }
    }

    package mutating func drain() { isDraining = true }

    // MARK: Engine

    /// The one token of a prefill; the engine has closed the sequence.
    package mutating func sampled(
        _ sequence: SequenceID, _ token: TokenOutput, finish: FinishReason?
    ) -> [WorkerAction] {
        guard let attempt = attempts[sequence], var slot = slots[attempt] else { return [] }
        slot.isInEngine = false
        slot.firstToken = token
        slots[attempt] = slot
        guard !slot.isAbandoned else { return free(attempt) }
        let end: FinishReason? =
            finish == .stop ? .stop : slot.terms.maximumNewTokens == 1 ? .length : nil
        let batch = TokenBatch(
            attempt: attempt, firstIndex: slot.terms.outputTokens, tokens: [token], finish: end)
        var actions: [WorkerAction] = [.send(.tokenBatch(batch), to: slot.gateway)]
        if end == nil {
            actions.append(
                .endTransfer(
                    KVEnd(attempt: attempt, tokens: slot.promptTokens, firstToken: token)))
        } else {
            actions += abandon(attempt, reason: "the answer ended with its first token")
        }
        return actions
    }

    package mutating func failed(
        _ sequence: SequenceID, _ error: EngineError
    ) -> [WorkerAction] {
        guard let attempt = attempts[sequence], let slot = slots[attempt] else { return [] }
        slots[attempt]?.isInEngine = false
        guard !slot.isAbandoned else { return free(attempt) }
        let failure = RequestFailed(attempt: attempt, code: .engine, reason: "\(error)")
        return [.send(.requestFailed(failure), to: slot.gateway)]
            + abandon(attempt, reason: "the engine failed")
    }

    package mutating func cancelled(_ sequence: SequenceID) -> [WorkerAction] {
        guard let attempt = attempts[sequence], let slot = slots[attempt] else { return [] }
        guard slot.isAbandoned else { return failed(sequence, .shutDown) }
        slots[attempt]?.isInEngine = false
        return free(attempt)
    }

    /// The engine can't go on: nothing is in it any more.
    package mutating func engineLost(_ error: EngineError) -> [WorkerAction] {
        isDraining = true
        return attemptsInOrder { $0.isInEngine }
            .flatMap { attempt in slots[attempt].map { failed($0.sequence, error) } ?? [] }
    }

    // MARK: Transfer

    /// The transfer has ended; `failure` is nil if the decode-worker has everything.
    package mutating func transferEnded(
        _ attempt: AttemptID, failure: KVDone?
    ) -> [WorkerAction] {
        guard let slot = slots[attempt] else { return [] }
        slots[attempt]?.isInTransfer = false
        guard let failure, !slot.isAbandoned else { return free(attempt) }
        let message = RequestFailed(
            attempt: attempt, code: failure.code ?? .transfer, reason: failure.reason)
        return [.send(.requestFailed(message), to: slot.gateway)]
            + abandon(attempt, reason: failure.reason)
    }

    // MARK: Time

    /// Ends what has outlived its request; called a few times a second.
    package mutating func tick(now: MonotonicTime) -> [WorkerAction] {
        attemptsInOrder { !$0.isAbandoned && now >= $0.expires }.flatMap { attempt in
            guard let slot = slots[attempt] else { return [WorkerAction]() }
            let reason = "the time is over"
            let failure = RequestFailed(attempt: attempt, code: .deadline, reason: reason)
            return [.send(.requestFailed(failure), to: slot.gateway)]
                + abandon(attempt, reason: reason)
        }
    }

    // MARK: Helpers

    /// Attempts by age, so that equal inputs give equal actions.
    private func attemptsInOrder(where isWanted: (Slot) -> Bool) -> [AttemptID] {
        slots.values.filter(isWanted).sorted { $0.sequence.value < $1.sequence.value }
            .map(\.terms.attempt)
    }

    /// Stops what still runs for the attempt; its slot opens when engine and transfer let go.
    private mutating func abandon(_ attempt: AttemptID, reason: String) -> [WorkerAction] {
        guard let slot = slots[attempt], !slot.isAbandoned else { return [] }
        slots[attempt]?.isAbandoned = true
        var actions: [WorkerAction] = []
        if slot.isInEngine { actions.append(.cancelSequence(slot.sequence)) }
        if slot.isInTransfer { actions.append(.abortTransfer(attempt, reason: reason)) }
        return actions + free(attempt)
    }

    /// Opens the slot if neither engine nor transfer holds it.
    private mutating func free(_ attempt: AttemptID) -> [WorkerAction] {
        guard let slot = slots[attempt], !slot.isInEngine, !slot.isInTransfer else { return [] }
        slots[attempt] = nil
        attempts[slot.sequence] = nil
        var actions: [WorkerAction] = []
        if hasRejected, !isDraining {
            actions.append(.broadcast(.slotsOpen(SlotsOpen(freePrefillSlots: freeSlots))))
        }
        if isDraining, slots.isEmpty { actions.append(.drained) }
        return actions
    }
}
