import ServingTypes

/// KV that sequences begin with: imported by blocks, or shared with a retained sequence.
extension BatchPlanner {
    mutating func receiveBlock(_ block: KVBlock, for id: SequenceID) -> [Action] {
        let present = sequence(id)
        if present?.arrival != nil {
            return refuseBlock(of: id, reason: "the sequence already computes")
        }
        if present?.isRetained == true {
            return refuseBlock(of: id, reason: "the sequence is retained")
        }
        let expected = present?.computedTokens ?? 0
        guard block.tokenStart == expected, block.tokenCount > 0 else {
            return refuseBlock(
                of: id,
                reason: "\(block.tokenCount) tokens from \(block.tokenStart) on came, "
                    + "token \(expected) was due")
        }
        // The addition can't overflow: both are checked against the context first.
        guard block.tokenCount <= limits.contextTokens - expected else {
            return refuseBlock(of: id, reason: "longer than the context")
        }
        guard block.tokenCount <= freeKVTokens, let slot = slotOf[id] ?? openSlot(for: id) else {
            return refuse(id, noRoom(block.tokenCount))
        }
        let tokens = expected + block.tokenCount
        setRoom(of: slot, tokens: tokens)
        slots[slot]?.computedTokens = tokens
        slots[slot]?.lastBlockWasRefused = false
        return [.importBlock(block, slot: slot), .report(.imported(id, tokens: tokens))]
    }

    /// The backend refused a block that followed well.
    mutating func takeBack(
        _ block: KVBlock, of id: SequenceID, _ error: EngineError
    ) -> [Action] {
        guard let slot = slotOf[id] else { return [] }
        guard block.tokenStart > 0 else { return refuseAndClose(id, error) }
        setRoom(of: slot, tokens: block.tokenStart)
        slots[slot]?.computedTokens = block.tokenStart
        return refuseBlock(of: id, reason: error.refusalReason)
    }

    /// Ends a job that decodes and keeps its KV.
    mutating func hold(_ id: SequenceID) -> [Action] {
        guard let slot = slotOf[id], decoding.contains(slot), !hasExport(slot),
            (slots[slot]?.generatedTokens ?? 0) > 0
        else { return [] }
        return retain(slot, reporting: .held(id))
    }

    /// Keeps the KV of a job that has finished.
    mutating func retain(_ slot: Int, reporting event: EngineEvent) -> [Action] {
        guard let sequence = slots[slot] else { return [] }
        leaveQueues(slot)
        slots[slot] = OpenSequence(
            id: sequence.id, computedTokens: sequence.computedTokens,
            committedTokens: sequence.committedTokens, isRetained: true)
        return [.retain(slot: slot), .report(event)]
    }

    mutating func fork(
        _ retained: SequenceID, as id: SequenceID, tokens: Int
    ) -> [Action] {
        if slotOf[id] != nil { return refuseBlock(of: id, reason: "the sequence is open") }
        guard let source = slotOf[retained], let present = slots[source], present.isRetained else {
            return refuseBlock(of: id, reason: "the KV to begin with is not retained")
        }
        guard tokens > 0, tokens <= present.computedTokens else {
            return refuseBlock(
                of: id,
                reason: "\(tokens) of \(present.computedTokens) retained tokens are wanted")
        }
        guard let slot = openSlot(for: id) else { return refuse(id, noRoom(0)) }
        ledger.fork(id, from: retained, tokens: tokens)
        slots[slot]?.computedTokens = tokens
        slots[slot]?.committedTokens = tokens
        return [
            .fork(slot: slot, from: source, tokens: tokens),
            .report(.imported(id, tokens: tokens)),
        ]
    }

    // MARK: Refusals

    /// Whether a job that counts on more KV than is there was announced by a refusal.
    func isRefused(_ id: SequenceID) -> Bool {
        sequence(id)?.lastBlockWasRefused ?? refusedSequences.contains(id)
    }

    mutating func forgetRefusal(of id: SequenceID) {
        refusedSequences.removeAll { $0 == id }
    }

    /// Leaves the sequence as it is.
    private mutating func refuseBlock(of id: SequenceID, reason: String) -> [Action] {
        let present = sequence(id)
        if let slot = slotOf[id], let present {
            slots[slot]?.lastBlockWasRefused = present.arrival == nil && !present.isRetained
        } else {
            remember(refused: id)
        }
        return [
            .report(
                .blockRefused(
                    id, expectedToken: present?.computedTokens ?? 0, reason: reason))
        ]
    }

    /// Closes a sequence of which nothing is there.
    mutating func refuseAndClose(_ id: SequenceID, _ error: EngineError) -> [Action] {
        let event = EngineEvent.blockRefused(id, expectedToken: 0, reason: error.refusalReason)
        let actions = close(id, reporting: event)
        remember(refused: id)
        return actions
    }

    /// Forgets the oldest beyond the limit: its job then fails instead of being dropped.
    private mutating func remember(refused id: SequenceID) {
        forgetRefusal(of: id)
        refusedSequences.append(id)
        if refusedSequences.count > limits.rememberedRefusals { refusedSequences.removeFirst() }
    }
}

extension EngineError {
    fileprivate var refusalReason: String {
        if case .blockRefused(let reason) = self { reason } else { "\(self)" }
    }
}
