import InferenceEngine
import ServingTypes
import Testing

/// Random commands against the rules that always hold.
@Suite struct BatchPlannerRandomTests {
    private struct Expectation {
        var computed = 0
        var promptTokens: Int?
        var maximumNewTokens = 0
        var newTokens = 0
        var isClosed = false
    }

    @Test(arguments: UInt64(0)..<40)
    func `no step breaks a rule`(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var driver = PlannerDriver(
            context: 120, capacity: Int.random(in: 60...400, using: &generator), microBatch: 24,
            sequences: Int.random(in: 1...12, using: &generator),
            budget: Int.random(in: 1...24, using: &generator),
            finalRun: Int.random(in: 0...10, using: &generator))
        var sequences: [SequenceID: Expectation] = [:]
        var nextID: UInt64 = 0
        for _ in 0..<300 {
            command(&driver, &sequences, &nextID, using: &generator)
            let runs = nextRuns(&driver)
            take(&driver, &sequences, seed)
            check(runs, driver.planner, sequences, seed)
            complete(runs, &driver, &sequences, using: &generator)
            take(&driver, &sequences, seed)
            let used = driver.planner.usedKVTokens
            #expect((0...driver.planner.limits.kvCapacityTokens).contains(used), "seed \(seed)")
            let open = sequences.values.count { !$0.isClosed }
            #expect(driver.planner.openSequences == open, "seed \(seed)")
        }
        for id in sequences.keys { driver.receive(.cancel(id)) }
        take(&driver, &sequences, seed)
        #expect(driver.planner.usedKVTokens == 0, "seed \(seed)")
        #expect(driver.planner.openSequences == 0, "seed \(seed)")
        #expect(sequences.values.allSatisfy { $0.isClosed }, "seed \(seed)")
    }

    /// One random command: a job, a block, a job after blocks, a cancellation.
    private func command(
        _ driver: inout PlannerDriver, _ sequences: inout [SequenceID: Expectation],
        _ nextID: inout UInt64, using generator: inout SeededGenerator
    ) {
        let new = Int.random(in: 1...12, using: &generator)
        switch Int.random(in: 0..<10, using: &generator) {
        case 0...3:
            let prompt = Int.random(in: 1...100, using: &generator)
            nextID += 1
            sequences[SequenceID(nextID)] = Expectation(
                promptTokens: prompt, maximumNewTokens: new)
            driver.run(nextID, prompt: prompt, new: new)
        case 4...5:
            let imported = Int.random(in: 1...60, using: &generator)
            let prompt = imported + Int.random(in: 1...4, using: &generator)
            nextID += 1
            let id = SequenceID(nextID)
            sequences[id] = Expectation(computed: imported)
            driver.importBlock(nextID, 0, imported)
            guard driver.error(of: nextID) == nil else { return }
            sequences[id]?.promptTokens = prompt
            sequences[id]?.maximumNewTokens = new
            driver.run(nextID, prompt: prompt, new: new, imported: imported)
        case 6:
            guard
                let id = sequences.keys.filter({ sequences[$0]?.isClosed == false })
                    .min(by: { $0.value < $1.value })
            else { return }
            driver.receive(.cancel(id))
        default: break
        }
    }

    private func nextRuns(_ driver: inout PlannerDriver) -> [BatchPlanner.Run] {
        let step = driver.planner.nextStep()
        driver.note(step.actions)
        return step.runs
    }

    private func check(
        _ runs: [BatchPlanner.Run], _ planner: BatchPlanner,
        _ sequences: [SequenceID: Expectation], _ seed: UInt64
    ) {
        let total = runs.reduce(0) { $0 + $1.tokens.count }
        #expect(total <= planner.limits.microBatchTokens, "seed \(seed)")
        #expect(Set(runs.map(\.slot)).count == runs.count, "seed \(seed)")
        for run in runs {
            guard let known = sequences[run.sequence], let prompt = known.promptTokens else {
                Issue.record("a sequence without a job computes, seed \(seed)")
                continue
            }
            #expect(!run.tokens.isEmpty)
            #expect(run.tokenStart == known.computed, "seed \(seed)")
            let end = run.tokenStart + run.tokens.count
            #expect(run.samples == (end == prompt + known.newTokens), "seed \(seed)")
            #expect(end <= planner.limits.contextTokens)
            let final = planner.limits.finalRunTokens
            if final > 0, run.samples, prompt > planner.limits.microBatchTokens {
                #expect(run.tokens.count <= final, "seed \(seed)")
            }
        }
        let decoding = sequences.filter { $0.value.newTokens > 0 && !$0.value.isClosed }.keys
        #expect(Set(decoding).isSubset(of: runs.map(\.sequence)), "seed \(seed)")
        if !decoding.isEmpty {
            let promptTokens = runs.filter { sequences[$0.sequence]?.newTokens == 0 }
                .filter { $0.tokens.count > 1 }.reduce(0) { $0 + $1.tokens.count }
            #expect(promptTokens <= planner.limits.prefillBudgetTokens, "seed \(seed)")
        }
    }

    private func complete(
        _ runs: [BatchPlanner.Run], _ driver: inout PlannerDriver,
        _ sequences: inout [SequenceID: Expectation], using generator: inout SeededGenerator
    ) {
        driver.compute(runs)
        for run in runs { sequences[run.sequence]?.computed += run.tokens.count }
        let samples = runs.filter(\.samples).map { _ in
            Int.random(in: 0..<50, using: &generator) == 0
                ? Result<BatchPlanner.Sample, EngineError>.failure(.computeFailed(code: 1))
                : .success(
                    BatchPlanner.Sample(
                        output: TokenOutput(token: 3),
                        endsGeneration: Int.random(in: 0..<15, using: &generator) == 0))
        }
        driver.note(driver.planner.complete(runs, samples: samples))
    }

    /// Takes the events: nothing comes after a sequence is closed, nothing comes too much.
    private func take(
        _ driver: inout PlannerDriver, _ sequences: inout [SequenceID: Expectation],
        _ seed: UInt64
    ) {
        for event in driver.events {
            let id: SequenceID
            switch event {
            case .imported(let named, _), .exported(let named, _): id = named
            case .token(let named, _, let finish):
                id = named
                sequences[id]?.newTokens += 1
                let known = sequences[id] ?? Expectation()
                #expect(known.newTokens <= known.maximumNewTokens, "seed \(seed)")
                if finish == nil { continue }
            case .failed(let named, _), .cancelled(let named): id = named
            case .blockRefused, .exportEnded, .held, .engineLost:
                Issue.record("refused or lost")
                continue
            }
            #expect(sequences[id]?.isClosed == false, "event after the end, seed \(seed)")
            if case .imported = event { continue }
            sequences[id]?.isClosed = true
        }
        driver.events = []
    }
}
