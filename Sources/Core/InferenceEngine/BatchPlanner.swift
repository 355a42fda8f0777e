package import ServingTypes

/// Decides what each iteration of an engine computes, and when sequences open and close.
///
///     importing ──run──▶ prompt ──last prompt token──▶ decoding ──stop, length──▶ closed
///      ▲  └────────────────┴───────cancel, failure──────┴─┬────────────────────▶ closed
///      └──────────────────────fork─────────── retained ◀──┘ stop, length, hold
///
/// KV room is counted in tokens, once for tokens that forked sequences share. A job's prompt is
/// committed when the job comes, output token by token; when the growing outputs no longer fit,
/// the sequence whose job came last fails.
package struct BatchPlanner: Sendable {
    /// Sizes the planner keeps to.
    package struct Limits: Sendable, Hashable {
        package var contextTokens: Int
        package var kvCapacityTokens: Int
        package var vocabularySize: Int
        /// Most tokens in one iteration; at least `maximumSequences`.
        package var microBatchTokens: Int
        /// Most sequences open at once, retained ones included.
        package var maximumSequences: Int
        /// Most prompt tokens in an iteration in which a sequence decodes; at least 1.
        package var prefillBudgetTokens: Int
        /// Most tokens in the last run of a prompt longer than a micro-batch; 0 is no limit.
        ///
        /// The KV of the last run leaves after the first token: a client waits for it.
        package var finalRunTokens: Int
        /// What `finalRunTokens` is unless somebody says otherwise.
        ///
        /// 0.6 MB of KV in a model with 40 KB a token. With fewer, the run is so short that
        /// the block before it is still on its way when the first token is there.
        package static let defaultFinalRunTokens = 16
        /// Refused blocks of sequences that are not open, remembered until the job comes.
        package var rememberedRefusals: Int { 4 * maximumSequences }
        /// Blocks of KV that is there already, exported between two iterations; each is a copy in
        /// memory, so that many take less time than an iteration.
        package static let exportsPerStep = 8
        /// The same while sequences decode, whose tokens wait for it.
        package static let exportsPerDecodeStep = 2

        package init(
            contextTokens: Int, kvCapacityTokens: Int, vocabularySize: Int, microBatchTokens: Int,
            maximumSequences: Int, prefillBudgetTokens: Int, finalRunTokens: Int = 0
        ) {
            self.contextTokens = contextTokens
            self.kvCapacityTokens = kvCapacityTokens
            self.vocabularySize = vocabularySize
            self.microBatchTokens = microBatchTokens
            self.maximumSequences = maximumSequences
            self.prefillBudgetTokens = prefillBudgetTokens
            self.finalRunTokens = finalRunTokens
        }
    }

    /// What the engine has to do, in order.
    ///
    /// If one of a command's actions fails, the rest of the list is dropped and `commandFailed`
    /// called.
    package enum Action: Sendable {
        case importBlock(KVBlock, slot: Int)
        /// Begins a slot with the first `tokens` tokens of another one, sharing their KV.
        case fork(slot: Int, from: Int, tokens: Int)
        /// A job starts in the slot; what it imported is already there.
        case begin(SequenceJob, slot: Int)
        /// Frees whatever belongs to the slot's job, but not its KV.
        case retain(slot: Int)
        /// Frees the slot's KV and whatever belongs to its job.
        case remove(slot: Int)
        case report(EngineEvent)
    }

    /// A run of tokens of one sequence within an iteration.
    package struct Run: Sendable, Hashable {
        package var sequence: SequenceID
        package var slot: Int
        /// Position of the first token.
        package var tokenStart: Int
        package var tokens: ArraySlice<TokenID>
        /// A token is sampled after the last one.
        package var samples: Bool
        /// Positions whose KV is exported once the run is computed.
        package var exported: Range<Int>

        package var exports: Bool { !exported.isEmpty }
    }

    /// KV of a sequence that is there already and leaves as one block.
    package struct Export: Sendable, Hashable {
        package var sequence: SequenceID
        package var slot: Int
        package var tokens: Range<Int>
    }

    /// A sampled token.
    package struct Sample: Sendable, Hashable {
        package var output: TokenOutput
        package var endsGeneration: Bool

        package init(output: TokenOutput, endsGeneration: Bool) {
            self.output = output
            self.endsGeneration = endsGeneration
        }
    }

    struct OpenSequence {
        var id: SequenceID
        /// Tokens whose KV is there.
        var computedTokens = 0
        /// Tokens of KV room this sequence takes.
        var committedTokens = 0
        /// Position of the job in the order of arrival; nil while only blocks came.
        var arrival: UInt64?
        /// Tokens still to compute.
        var remaining: ArraySlice<TokenID> = []
        var generatedTokens = 0
        var isDecoding = false
        var maximumNewTokens = 0
        /// Position from which on KV is exported; nil if none is.
        var exportedFrom: Int?
        /// Tokens whose KV is there and still has to leave, before anything else is computed.
        var exporting: Range<Int>?
        var retainsKV = false
        /// The job has finished and only its KV is left.
        var isRetained = false
        /// The last block was refused; a job that counts on it is dropped.
        var lastBlockWasRefused = false
        /// The prompt does not fit into one micro-batch.
        var isLongPrompt = false
        var ignoresEndOfGeneration = false
    }

    package let limits: Limits
    var slots: [OpenSequence?]
    var slotOf: [SequenceID: Int] = [:]
    /// Slots with prompt tokens to compute, in order of arrival.
    var prompts: [Int] = []
    /// Slots that decode, in the order in which they began.
    var decoding: [Int] = []
    /// Slots with KV that still has to leave, in order of arrival.
    var exporters: [Int] = []
    var stepBudget = StepBudget()
    var ledger = KVLedger()
    /// Sequences that are not open because their block was refused, the oldest first.
    var refusedSequences: [SequenceID] = []
    private var arrivals: UInt64 = 0

    package init(limits: Limits) {
        precondition(limits.maximumSequences >= 1, "an engine without sequences")
        precondition(
            limits.microBatchTokens >= limits.maximumSequences,
            "all sequences must fit into one micro-batch")
        precondition(limits.prefillBudgetTokens >= 1, "prompts would never be computed")
        precondition(limits.finalRunTokens >= 0, "a run has no negative length")
        self.limits = limits
        slots = Array(repeating: nil, count: limits.maximumSequences)
    }

    package var openSequences: Int { slotOf.count }
    /// Tokens of KV room taken, the uncomputed rest of prompts included.
    package var usedKVTokens: Int { ledger.usedTokens }
    package var freeKVTokens: Int { limits.kvCapacityTokens - usedKVTokens }

    package func isOpen(_ id: SequenceID) -> Bool { slotOf[id] != nil }

    package mutating func receive(_ command: EngineCommand) -> [Action] {
        switch command {
        case .importKV(let id, let block): receiveBlock(block, for: id)
        case .fork(let id, let retained, let tokens): fork(retained, as: id, tokens: tokens)
        case .export(let id, let start): export(id, from: start)
        case .limitStep(let limit): limitStep(limit)
        case .run(let job): receiveJob(job)
        case .hold(let id): hold(id)
        case .cancel(let id): cancel(id)
        }
    }

    private mutating func cancel(_ id: SequenceID) -> [Action] {
        forgetRefusal(of: id)
        return close(id, reporting: .cancelled(id))
    }

    /// The backend could not carry out what `receive` answered to the command.
    package mutating func commandFailed(
        _ command: EngineCommand, _ error: EngineError
    ) -> [Action] {
        switch command {
        case .importKV(let id, let block): takeBack(block, of: id, error)
        case .fork(let id, _, _): refuseAndClose(id, error)
        case .run(let job): fail(job.sequence, error)
        case .export, .limitStep, .hold, .cancel: []
        }
    }

    /// Closes a sequence that can't go on; unknown sequences are ignored.
    package mutating func fail(_ id: SequenceID, _ error: EngineError) -> [Action] {
        close(id, reporting: .failed(id, error))
    }

    /// Closes all sequences.
    package mutating func failAll(_ error: EngineError) -> [Action] {
        slots.compactMap { $0?.id }.flatMap { fail($0, error) }
    }

    private mutating func receiveJob(_ job: SequenceJob) -> [Action] {
        let id = job.sequence
        let present = sequence(id)
        if isRefused(id), job.importedTokens != present?.computedTokens ?? 0 { return [] }
        if let reason = defect(of: job, present: present) {
            return refuse(id, .invalidJob(reason: reason))
        }
        let needed = job.tokens.count - (present?.committedTokens ?? 0)
        guard needed <= freeKVTokens, let slot = slotOf[id] ?? openSlot(for: id) else {
            return refuse(id, noRoom(needed))
        }
        commit(slot, tokens: job.tokens.count)
        arrivals += 1
        let decodes = job.importedTokens > 0 && job.importedTokens == job.tokens.count - 1
        slots[slot]?.arrival = arrivals
        slots[slot]?.remaining = job.tokens[job.importedTokens...]
        slots[slot]?.isDecoding = decodes
        slots[slot]?.maximumNewTokens = job.maximumNewTokens
        slots[slot]?.exportedFrom = job.exportsKV ? job.exportedFrom : nil
        slots[slot]?.retainsKV = job.retainsKV
        slots[slot]?.lastBlockWasRefused = false
        slots[slot]?.isLongPrompt = job.tokens.count > limits.microBatchTokens
        slots[slot]?.ignoresEndOfGeneration = job.sampling.ignoresEndOfGeneration
        if decodes { decoding.append(slot) } else { prompts.append(slot) }
        if job.exportsKV { queueExport(of: slot, from: job.exportedFrom) }
        return [.begin(job, slot: slot)]
    }

    /// Why the job's numbers don't fit together, or nil.
    private func defect(of job: SequenceJob, present: OpenSequence?) -> String? {
        let imported = present?.computedTokens ?? 0
        if present?.arrival != nil { return "the sequence already has a job" }
        if present?.isRetained == true { return "the sequence is retained" }
        if job.tokens.isEmpty { return "no tokens" }
        if job.tokens.count > limits.contextTokens {
            return "\(job.tokens.count) tokens, the context holds \(limits.contextTokens)"
        }
        if job.importedTokens != imported {
            return "\(job.importedTokens) tokens claimed, \(imported) imported"
        }
        if job.importedTokens >= job.tokens.count { return "no token left to compute" }
        if !(0...job.tokens.count).contains(job.outputTokens) { return "more output than tokens" }
        if job.maximumNewTokens < 1 { return "no token wanted" }
        if job.exportedFrom < 0 { return "export from token \(job.exportedFrom) on" }
        if let stranger = job.tokens.first(where: { !isInVocabulary($0) }) {
            return "token \(stranger) is not in the vocabulary"
        }
        return job.sampling.defect(isInVocabulary: isInVocabulary)
    }

    private func isInVocabulary(_ token: TokenID) -> Bool {
        token >= 0 && Int(token) < limits.vocabularySize
    }

    func noRoom(_ tokens: Int) -> EngineError {
        .noRoom(neededTokens: tokens, freeTokens: freeKVTokens)
    }

    mutating func openSlot(for id: SequenceID) -> Int? {
        guard let slot = slots.firstIndex(where: { $0 == nil }) else { return nil }
        forgetRefusal(of: id)
        slots[slot] = OpenSequence(id: id)
        slotOf[id] = slot
        return slot
    }

    func sequence(_ id: SequenceID) -> OpenSequence? { slotOf[id].flatMap { slots[$0] } }

    /// Takes KV room up to `tokens` tokens for the slot.
    mutating func commit(_ slot: Int, tokens: Int) {
        guard let committed = slots[slot]?.committedTokens, tokens > committed else { return }
        setRoom(of: slot, tokens: tokens)
    }

    /// Takes or gives back KV room until the slot has room for `tokens` tokens.
    mutating func setRoom(of slot: Int, tokens: Int) {
        guard let sequence = slots[slot] else { return }
        let more = tokens - sequence.committedTokens
        if more < 0 {
            ledger.takeBack(-more, from: sequence.id)
        } else {
            ledger.add(more, to: sequence.id)
        }
        slots[slot]?.committedTokens = tokens
    }

    /// Reports a failure, for sequences that are not open as well.
    mutating func refuse(_ id: SequenceID, _ error: EngineError) -> [Action] {
        forgetRefusal(of: id)
        return slotOf[id] == nil ? [.report(.failed(id, error))] : fail(id, error)
    }

    /// Takes the slot out of what is computed.
    mutating func leaveQueues(_ slot: Int) {
        prompts.removeAll { $0 == slot }
        decoding.removeAll { $0 == slot }
        exporters.removeAll { $0 == slot }
    }

    /// Frees the room that is the sequence's alone, then reports.
    mutating func close(_ id: SequenceID, reporting event: EngineEvent) -> [Action] {
        guard let slot = slotOf.removeValue(forKey: id) else { return [] }
        ledger.remove(id)
        slots[slot] = nil
        leaveQueues(slot)
        return [.remove(slot: slot), .report(event)]
    }
}

extension SamplingParameters {
    /// Why the numbers can't be used, or nil.
    func defect(isInVocabulary: (TokenID) -> Bool) -> String? {
        let numbers = [
            temperature, topP, minP, repeatPenalty, frequencyPenalty, presencePenalty,
        ]
        if !numbers.allSatisfy(\.isFinite) || logitBias.contains(where: { $0.bias.isNaN }) {
            return "a sampling parameter is not a number"
        }
        if repeatPenalty <= 0 { return "repeat penalty \(repeatPenalty)" }
        if let topLogprobs, topLogprobs < 0 { return "\(topLogprobs) alternatives" }
        if let bias = logitBias.first(where: { !isInVocabulary($0.token) }) {
            return "logit bias for token \(bias.token), which is not in the vocabulary"
        }
        return nil
    }
}
