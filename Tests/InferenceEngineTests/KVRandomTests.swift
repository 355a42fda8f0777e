import InferenceEngine
import ServingTypes
import Testing

/// Random blocks, jobs, forks, exports and cancellations, many of them wrong, against a plain model
/// of what must be there.
@Suite struct KVRandomTests {
    @Test(arguments: UInt64(0)..<60)
    func `each command has its answer and no token of room is lost`(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var driver = PlannerDriver(
            context: 120, capacity: Int.random(in: 80...400, using: &generator), microBatch: 24,
            sequences: Int.random(in: 3...8, using: &generator),
            finalRun: Int.random(in: 0...10, using: &generator))
        var model = KVModel(seed: seed)
        for _ in 0..<400 {
            for _ in 0..<Int.random(in: 0...3, using: &generator) {
                let command = command(model, using: &generator)
                driver.refusesNext = Int.random(in: 0..<5, using: &generator) == 0
                submit(command, &driver, &model)
            }
            iterate(&driver, &model, using: &generator)
        }
        for id in Array(model.open.keys) { submit(.cancel(id), &driver, &model) }
        #expect(driver.planner.usedKVTokens == 0, "seed \(seed)")
        #expect(driver.planner.openSequences == 0, "seed \(seed)")
        #expect(driver.cells.isEmpty, "seed \(seed)")
    }

    private func command(
        _ model: KVModel, using generator: inout SeededGenerator
    ) -> EngineCommand {
        let id = SequenceID(UInt64.random(in: 1...10, using: &generator))
        let here = model.open[id]?.tokens ?? 0
        let isRight = Int.random(in: 0..<4, using: &generator) > 0
        let wrong = Int.random(in: 0...50, using: &generator)
        switch Int.random(in: 0..<12, using: &generator) {
        case 0...2:
            return .importKV(
                id,
                KVBlock(
                    tokenStart: isRight ? here : wrong,
                    tokenCount: Int.random(in: 0...30, using: &generator),
                    bytes: KVBuffer(capacityBytes: 1), checksum: 0))
        case 3...5:
            let more = Int.random(in: 1...60, using: &generator)
            return .run(
                SequenceJob(
                    sequence: id, tokens: Array(repeating: 1, count: here + more),
                    importedTokens: isRight ? here : wrong, sampling: SamplingParameters(),
                    maximumNewTokens: Int.random(in: 1...12, using: &generator),
                    exportsKV: Bool.random(using: &generator),
                    exportedFrom: Int.random(in: 0...40, using: &generator),
                    retainsKV: Bool.random(using: &generator)))
        case 6...8:
            let from = retained(model, using: &generator) ?? id
            let length = max(1, model.open[from]?.tokens ?? 1)
            return .fork(
                id, from: from,
                tokens: isRight ? Int.random(in: 1...length, using: &generator) : wrong)
        case 9:
            let from = isRight ? retained(model, using: &generator) ?? id : id
            let length = model.open[from]?.tokens ?? 1
            return .export(
                from, from: isRight ? Int.random(in: 0...length, using: &generator) : wrong)
        case 10: return .hold(id)
        default: return .cancel(id)
        }
    }

    private func retained(
        _ model: KVModel, using generator: inout SeededGenerator
    ) -> SequenceID? {
        let all = model.open.filter(\.value.isRetained).keys.map(\.value).sorted()
        return all.randomElement(using: &generator).map { SequenceID($0) }
    }

    private func submit(
        _ command: EngineCommand, _ driver: inout PlannerDriver, _ model: inout KVModel
    ) {
        let mayRefuse = driver.refusesNext
        driver.events = []
        driver.begun = []
        driver.receive(command)
        model.backendRefused = mayRefuse && !driver.refusesNext
        driver.refusesNext = false
        switch command {
        case .importKV(let id, let block): model.imported(block, for: id, driver)
        case .fork(let id, let retained, let tokens):
            model.forked(retained, as: id, tokens: tokens, driver)
        case .export(let id, let start): model.exporting(id, from: start, driver)
        case .run(let job): model.started(job, driver)
        case .hold(let id): model.held(id, driver)
        case .limitStep: break
        case .cancel(let id): model.cancelled(id, driver)
        }
        model.check(driver)
    }

    private func iterate(
        _ driver: inout PlannerDriver, _ model: inout KVModel,
        using generator: inout SeededGenerator
    ) {
        driver.events = []
        driver.exports = []
        driver.exportPresent()
        model.exported(driver.exports)
        let step = driver.planner.nextStep()
        driver.note(step.actions)
        driver.compute(step.runs)
        model.computed(step.runs)
        let samples = step.runs.filter(\.samples).map { _ in
            Int.random(in: 0..<50, using: &generator) == 0
                ? Result<BatchPlanner.Sample, EngineError>.failure(.computeFailed(code: 1))
                : .success(
                    BatchPlanner.Sample(
                        output: TokenOutput(token: 3),
                        endsGeneration: Int.random(in: 0..<15, using: &generator) == 0))
        }
        driver.note(driver.planner.complete(step.runs, samples: samples))
        model.reported(driver.events)
        model.check(driver)
    }
}

/// What must be there, by sequence.
private struct KVModel {
    struct Sequence {
        /// Tokens of KV that are there.
        var tokens: Int { cells.count }
        /// The KV, a number for each token; forks have the same numbers.
        var cells: [Int] = []
        /// Tokens of the prompt that are not computed yet; nil without a job.
        var prompt: Int?
        var retains = false
        var isRetained = false
        /// From where on KV has to leave, and how far it has; nil if none has.
        var exportedFrom: Int?
        var exportedTo = 0
        var waitsForExportEnd = false

        var takesBlocks: Bool { prompt == nil && !isRetained }
    }

    enum Answer: Equatable {
        case imported(tokens: Int)
        case refused(expectedToken: Int)
        case failed
    }

    let seed: UInt64
    private var lastCell = 0
    var open: [SequenceID: Sequence] = [:]
    var refused: Set<SequenceID> = []
    /// The backend refused what the planner had taken.
    var backendRefused = false

    init(seed: UInt64) { self.seed = seed }

    /// The one answer to a block or a fork.
    private func answer(in driver: PlannerDriver, to id: SequenceID) -> Answer? {
        #expect(driver.events.count == 1, "seed \(seed)")
        switch driver.events.first {
        case .imported(id, let tokens): return .imported(tokens: tokens)
        case .blockRefused(id, let token, _): return .refused(expectedToken: token)
        case .failed(id, .noRoom): return .failed
        default:
            Issue.record("no answer, seed \(seed)")
            return nil
        }
    }

    mutating func imported(_ block: KVBlock, for id: SequenceID, _ driver: PlannerDriver) {
        let present = open[id] ?? Sequence()
        let fits = present.takesBlocks && block.tokenStart == present.tokens
        switch answer(in: driver, to: id) {
        case .imported(let tokens):
            #expect(fits && !backendRefused, "seed \(seed)")
            #expect(tokens == present.tokens + block.tokenCount, "seed \(seed)")
            fill(id, tokens: block.tokenCount)
            refused.remove(id)
        case .refused(let token):
            #expect(token == present.tokens, "seed \(seed)")
            if present.takesBlocks { refused.insert(id) }
        case .failed:
            #expect(fits, "seed \(seed)")
            close(id)
        case nil: break
        }
    }

    mutating func forked(
        _ retained: SequenceID, as id: SequenceID, tokens: Int, _ driver: PlannerDriver
    ) {
        let present = open[retained]
        let fits =
            open[id] == nil && present?.isRetained == true
            && (1...max(1, present?.tokens ?? 0)).contains(tokens)
        switch answer(in: driver, to: id) {
        case .imported(tokens):
            #expect(fits && !backendRefused, "seed \(seed)")
            open[id] = Sequence(cells: Array((present?.cells ?? []).prefix(tokens)))
            refused.remove(id)
        case .failed:
            #expect(fits && open.count == driver.planner.limits.maximumSequences, "seed \(seed)")
            refused.remove(id)
        case .refused(let token):
            #expect(!fits || backendRefused, "seed \(seed)")
            #expect(token == open[id]?.tokens ?? 0, "seed \(seed)")
            if open[id]?.takesBlocks ?? true { refused.insert(id) }
        default: Issue.record("another answer, seed \(seed)")
        }
    }

    mutating func exporting(_ id: SequenceID, from start: Int, _ driver: PlannerDriver) {
        guard let present = open[id], present.isRetained, !present.waitsForExportEnd,
            0...present.tokens ~= start
        else {
            #expect(driver.error(of: id.value) != nil, "seed \(seed)")
            return close(id)
        }
        open[id]?.exportedFrom = start
        open[id]?.exportedTo = start
        open[id]?.waitsForExportEnd = true
        #expect(driver.events.isEmpty == (start < present.tokens), "seed \(seed)")
        reported(driver.events)
    }

    /// What left between two iterations: in order, without gaps.
    mutating func exported(_ exports: [BatchPlanner.Export]) {
        for export in exports {
            left(export.tokens, of: export.sequence)
        }
    }

    private mutating func left(_ tokens: Range<Int>, of id: SequenceID) {
        #expect(open[id]?.exportedFrom != nil, "seed \(seed)")
        #expect(open[id]?.exportedTo == tokens.lowerBound, "seed \(seed)")
        open[id]?.exportedTo = tokens.upperBound
    }

    private mutating func fill(_ id: SequenceID, tokens: Int) {
        open[id, default: Sequence()].cells += lastCell + 1..<lastCell + 1 + tokens
        lastCell += tokens
    }

    mutating func started(_ job: SequenceJob, _ driver: PlannerDriver) {
        let id = job.sequence
        let present = open[id] ?? Sequence()
        let isDropped = refused.contains(id) && job.importedTokens != present.tokens
        if isDropped {
            #expect(driver.events.isEmpty && driver.begun.isEmpty, "seed \(seed)")
        } else if driver.begun == [id] {
            #expect(driver.events.isEmpty, "seed \(seed)")
            #expect(present.takesBlocks && job.importedTokens == present.tokens, "seed \(seed)")
            open[id] = Sequence(
                cells: present.cells, prompt: job.tokens.count - present.tokens,
                retains: job.retainsKV, exportedFrom: job.exportsKV ? job.exportedFrom : nil,
                exportedTo: job.exportedFrom)
            refused.remove(id)
        } else {
            #expect(driver.error(of: id.value) != nil, "seed \(seed)")
            #expect(driver.events.count == 1, "seed \(seed)")
            close(id)
        }
    }

    /// Only what decodes can be held.
    mutating func held(_ id: SequenceID, _ driver: PlannerDriver) {
        guard let sequence = open[id], sequence.prompt == 0 else {
            return #expect(driver.events.isEmpty, "seed \(seed)")
        }
        guard case .held(id) = driver.events.first, driver.events.count == 1 else {
            Issue.record("\(id) is not held, seed \(seed)")
            return
        }
        open[id] = Sequence(cells: sequence.cells, isRetained: true)
    }

    mutating func cancelled(_ id: SequenceID, _ driver: PlannerDriver) {
        #expect(driver.events.count == (open[id] == nil ? 0 : 1), "seed \(seed)")
        close(id)
    }

    mutating func computed(_ runs: [BatchPlanner.Run]) {
        for run in runs {
            guard let prompt = open[run.sequence]?.prompt else {
                Issue.record("a sequence without a job computes, seed \(seed)")
                continue
            }
            fill(run.sequence, tokens: run.tokens.count)
            open[run.sequence]?.prompt = max(0, prompt - run.tokens.count)
            if run.exports { left(run.exported, of: run.sequence) }
            guard let sequence = open[run.sequence], let start = sequence.exportedFrom else {
                continue
            }
            #expect(sequence.exportedTo == max(start, sequence.tokens), "seed \(seed)")
        }
    }

    mutating func reported(_ events: [EngineEvent]) {
        for event in events {
            switch event {
            case .token(_, _, nil): break
            case .token(let id, _, .some):
                guard let sequence = open[id], sequence.retains else {
                    close(id)
                    continue
                }
                open[id] = Sequence(cells: sequence.cells, isRetained: true)
            case .exportEnded(let id):
                #expect(open[id]?.waitsForExportEnd == true, "seed \(seed)")
                #expect(open[id]?.exportedTo == open[id]?.tokens, "seed \(seed)")
                open[id]?.waitsForExportEnd = false
                open[id]?.exportedFrom = nil
            case .failed(let id, _): close(id)
            default: Issue.record("\(event), seed \(seed)")
            }
        }
    }

    private mutating func close(_ id: SequenceID) {
        open[id] = nil
        refused.remove(id)
    }

    func check(_ driver: PlannerDriver) {
        let planner = driver.planner
        let cells = Set(open.values.flatMap(\.cells)).count
        let used = cells + open.values.reduce(0) { $0 + ($1.prompt ?? 0) }
        #expect(planner.usedKVTokens == used, "seed \(seed)")
        #expect(used <= planner.limits.kvCapacityTokens, "seed \(seed)")
        #expect(planner.openSequences == open.count, "seed \(seed)")
        #expect(driver.usedCells == cells, "seed \(seed)")
        let held = driver.cells.values.map(\.count).sorted()
        #expect(held == open.values.map(\.tokens).filter { $0 > 0 }.sorted(), "seed \(seed)")
    }
}
