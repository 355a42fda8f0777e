import InferenceEngine
import ServingTypes
import Testing

/// Drives a planner, notes what it reports and how much KV the slots of a backend would hold.
struct PlannerDriver {
    var planner: BatchPlanner
    var events: [EngineEvent] = []
    var begun: [SequenceID] = []
    var removedSlots: [Int] = []
    /// Tokens of KV in the slots that hold any.
    var slotTokens: [Int: Int] = [:]
    /// The backend refuses the next block, or the next truncation.
    var refusesNext = false

    init(
        context: Int = 1000, capacity: Int = 2000, microBatch: Int = 16, sequences: Int = 8,
        budget: Int = 16, finalRun: Int = 0
    ) {
        planner = BatchPlanner(
            limits: BatchPlanner.Limits(
                contextTokens: context, kvCapacityTokens: capacity, vocabularySize: 100,
                microBatchTokens: microBatch, maximumSequences: sequences,
                prefillBudgetTokens: budget, finalRunTokens: finalRun))
    }

    mutating func note(_ actions: [BatchPlanner.Action], of command: EngineCommand? = nil) {
        for action in actions {
            switch action {
            case .report(let event): events.append(event)
            case .remove(let slot):
                removedSlots.append(slot)
                slotTokens[slot] = nil
            case .importBlock(let block, let slot):
                if refusesNext { return refuse(command) }
                #expect(slotTokens[slot] ?? 0 == block.tokenStart)
                slotTokens[slot, default: 0] += block.tokenCount
            case .truncate(let slot, let tokens):
                if refusesNext { return refuse(command) }
                #expect(tokens > 0 && tokens <= slotTokens[slot] ?? 0)
                slotTokens[slot] = tokens
            case .begin(let job, let slot):
                #expect(slotTokens[slot] ?? 0 == job.importedTokens)
                begun.append(job.sequence)
            case .retain(let slot): #expect(slotTokens[slot] ?? 0 > 0)
            }
        }
    }

    /// As a backend that finds the block damaged.
    private mutating func refuse(_ command: EngineCommand?) {
        refusesNext = false
        guard let command else { return }
        note(planner.commandFailed(command, .blockRefused(reason: "damaged")))
    }

    mutating func receive(_ command: EngineCommand) {
        note(planner.receive(command), of: command)
    }

    mutating func run(
        _ id: UInt64, prompt: Int, new: Int = 1, imported: Int = 0, exports: Bool = false,
        exportedFrom: Int = 0, retains: Bool = false
    ) {
        receive(
            .run(
                SequenceJob(
                    sequence: SequenceID(id), tokens: Array(repeating: 1, count: prompt),
                    importedTokens: imported, sampling: SamplingParameters(),
                    maximumNewTokens: new, exportsKV: exports, exportedFrom: exportedFrom,
                    retainsKV: retains)))
    }

    mutating func importBlock(_ id: UInt64, _ start: Int, _ count: Int) {
        let block = KVBlock(
            tokenStart: start, tokenCount: count, bytes: KVBuffer(capacityBytes: 1), checksum: 0)
        receive(.importKV(SequenceID(id), block))
    }

    mutating func adopt(_ id: UInt64, from retained: UInt64, tokens: Int) {
        receive(.adopt(SequenceID(id), from: SequenceID(retained), tokens: tokens))
    }

    /// Computes one iteration; each sample is token 2.
    @discardableResult
    mutating func step(endsGeneration: Bool = false) -> [BatchPlanner.Run] {
        let step = planner.nextStep()
        note(step.actions)
        let sample = BatchPlanner.Sample(
            output: TokenOutput(token: 2), endsGeneration: endsGeneration)
        compute(step.runs)
        note(
            planner.complete(
                step.runs, samples: step.runs.filter(\.samples).map { _ in .success(sample) }))
        return step.runs
    }

    mutating func compute(_ runs: [BatchPlanner.Run]) {
        for run in runs {
            #expect(slotTokens[run.slot] ?? 0 == run.tokenStart)
            slotTokens[run.slot, default: 0] += run.tokens.count
        }
    }

    func tokens(of id: UInt64) -> Int {
        events.count {
            if case .token(SequenceID(id), _, _) = $0 { true } else { false }
        }
    }

    func finish(of id: UInt64) -> FinishReason? {
        for case .token(SequenceID(id), _, let finish?) in events { return finish }
        return nil
    }

    func error(of id: UInt64) -> EngineError? {
        for case .failed(SequenceID(id), let error) in events { return error }
        return nil
    }

    /// Tokens of a sequence after each of its imports.
    func imports(of id: UInt64) -> [Int] {
        events.compactMap {
            if case .imported(SequenceID(id), let tokens) = $0 { tokens } else { nil }
        }
    }

    /// The tokens that were due when blocks of a sequence were refused.
    func refusals(of id: UInt64) -> [Int] {
        events.compactMap {
            if case .blockRefused(SequenceID(id), let token, _) = $0 { token } else { nil }
        }
    }
}
