import InferenceEngine
import ServingTypes
import Testing

/// Drives a planner, notes what it reports and how much KV the slots of a backend would hold.
struct PlannerDriver {
    var planner: BatchPlanner
    var events: [EngineEvent] = []
    var begun: [SequenceID] = []
    var removedSlots: [Int] = []
    /// The cells of KV of the slots that hold any, in order; shared ones are in several.
    var cells: [Int: [Int]] = [:]
    private var lastCell = 0
    /// The backend refuses the next block, or the next fork.
    var refusesNext = false
    /// What was exported between iterations.
    var exports: [BatchPlanner.Export] = []

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
                cells[slot] = nil
            case .importBlock(let block, let slot):
                if refusesNext { return refuse(command) }
                #expect(tokens(inSlot: slot) == block.tokenStart)
                fill(slot, tokens: block.tokenCount)
            case .fork(let slot, let source, let tokens):
                if refusesNext { return refuse(command) }
                #expect(tokens > 0 && tokens <= self.tokens(inSlot: source))
                #expect(cells[slot] == nil)
                cells[slot] = cells[source].map { Array($0.prefix(tokens)) }
            case .begin(let job, let slot):
                #expect(tokens(inSlot: slot) == job.importedTokens)
                begun.append(job.sequence)
            case .retain(let slot): #expect(tokens(inSlot: slot) > 0)
            }
        }
    }

    func tokens(inSlot slot: Int) -> Int { cells[slot]?.count ?? 0 }

    /// Cells that hold KV of any slot.
    var usedCells: Int { Set(cells.values.joined()).count }

    private mutating func fill(_ slot: Int, tokens: Int) {
        cells[slot, default: []] += lastCell + 1..<lastCell + 1 + tokens
        lastCell += tokens
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

    mutating func fork(_ id: UInt64, from retained: UInt64, tokens: Int) {
        receive(.fork(SequenceID(id), from: SequenceID(retained), tokens: tokens))
    }

    /// Exports what may leave between two iterations; returns the ranges.
    @discardableResult
    mutating func exportPresent() -> [Range<Int>] {
        let before = exports.count
        for _ in 0..<planner.exportsPerStep {
            guard let export = planner.nextExport() else { break }
            #expect(!export.tokens.isEmpty)
            #expect(export.tokens.count <= planner.limits.microBatchTokens)
            #expect(export.tokens.upperBound <= tokens(inSlot: export.slot))
            exports.append(export)
            note(planner.exported(export))
        }
        return exports.dropFirst(before).map(\.tokens)
    }

    /// Computes one iteration; each sample is token 2.
    ///
    /// Without exports of KV that is there: sequences with such wait.
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
            #expect(tokens(inSlot: run.slot) == run.tokenStart)
            fill(run.slot, tokens: run.tokens.count)
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
