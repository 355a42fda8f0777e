import InferenceEngine
import ServingTypes
import Testing

/// KV that comes, goes, stays and is handed on between sequences.
@Suite struct BatchPlannerKVTests {
    // MARK: Refused blocks

    @Test func `blocks out of order are refused and change nothing`() {
        var driver = PlannerDriver(context: 100)
        driver.importBlock(1, 4, 4)
        driver.importBlock(2, 0, 4)
        driver.importBlock(2, 5, 4)
        driver.importBlock(2, 0, 4)
        driver.importBlock(3, 0, 0)
        driver.importBlock(4, 0, .max)
        driver.importBlock(5, 0, -1)
        #expect([1, 2, 3, 4, 5].map { driver.refusals(of: $0) } == [[0], [4, 4], [0], [0], [0]])
        #expect(driver.planner.openSequences == 1)
        #expect(driver.planner.usedKVTokens == 4)
        #expect(driver.removedSlots.isEmpty)
        driver.importBlock(2, 4, 4)
        #expect(driver.imports(of: 2) == [4, 8])
    }

    @Test func `a block that the backend refuses is taken back`() {
        var driver = PlannerDriver()
        driver.refusesNext = true
        driver.importBlock(1, 0, 10)
        #expect(driver.refusals(of: 1) == [0])
        #expect(driver.imports(of: 1).isEmpty)
        #expect(driver.planner.openSequences == 0)
        #expect(driver.planner.usedKVTokens == 0)
        driver.importBlock(1, 0, 10)
        driver.refusesNext = true
        driver.importBlock(1, 10, 5)
        #expect(driver.refusals(of: 1) == [0, 10])
        #expect(driver.planner.usedKVTokens == 10)
        driver.importBlock(1, 10, 5)
        driver.run(1, prompt: 16, imported: 15)
        driver.step()
        #expect(driver.imports(of: 1) == [10, 15])
        #expect(driver.finish(of: 1) == .length)
        #expect(driver.planner.usedKVTokens == 0)
    }

    @Test func `a job that counts on a refused block waits for nothing and is dropped`() {
        var driver = PlannerDriver()
        for id in UInt64(1)...2 {
            if id == 2 { driver.importBlock(id, 0, 10) }
            let start = id == 2 ? 10 : 0
            driver.refusesNext = true
            driver.importBlock(id, start, 5)
            // The blocks behind it no longer follow.
            driver.importBlock(id, start + 5, 5)
            driver.run(id, prompt: start + 11, imported: start + 10)
            #expect(driver.refusals(of: id) == [start, start])
            #expect(driver.error(of: id) == nil)
            #expect(driver.step().isEmpty)
            driver.importBlock(id, start, 5)
            driver.importBlock(id, start + 5, 5)
            driver.run(id, prompt: start + 11, imported: start + 10)
            driver.step()
            #expect(driver.finish(of: id) == .length)
        }
    }

    @Test func `an accepted block, a cancellation and an end clear a refusal`() {
        var driver = PlannerDriver(context: 100)
        driver.importBlock(1, 7, 4)
        driver.importBlock(1, 0, 4)
        driver.run(1, prompt: 11, imported: 10)
        driver.importBlock(2, 7, 4)
        driver.receive(.cancel(SequenceID(2)))
        driver.run(2, prompt: 11, imported: 10)
        driver.importBlock(3, 7, 4)
        driver.run(3, prompt: 101)
        driver.run(3, prompt: 11, imported: 10)
        for id in UInt64(1)...3 {
            guard case .invalidJob = driver.error(of: id) else {
                Issue.record("job \(id) was dropped or taken")
                continue
            }
        }
        #expect(driver.planner.openSequences == 0)
    }

    @Test func `a job that computes everything runs after a refusal`() {
        var driver = PlannerDriver()
        driver.importBlock(1, 7, 4)
        driver.run(1, prompt: 11)
        #expect(driver.step().map(\.tokens.count) == [11])
    }

    @Test func `refusals of sequences that never come are forgotten`() {
        var driver = PlannerDriver(sequences: 2)
        for id in UInt64(1)...9 { driver.importBlock(id, 7, 4) }
        for id in UInt64(1)...9 { driver.run(id, prompt: 12, imported: 11) }
        #expect((UInt64(1)...9).filter { driver.error(of: $0) != nil } == [1])
    }

    @Test func `a block for a running or a retained sequence harms neither`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 5, new: 3, retains: true)
        driver.step()
        driver.importBlock(1, 5, 1)
        driver.step()
        driver.step()
        #expect(driver.tokens(of: 1) == 3)
        driver.importBlock(1, 7, 1)
        #expect(driver.refusals(of: 1) == [5, 7])
        #expect(driver.planner.usedKVTokens == 7)
        #expect(driver.error(of: 1) == nil)
    }

    // MARK: Retained KV

    @Test func `a finished job's KV stays until it is cancelled`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 5, new: 3, retains: true)
        driver.run(2, prompt: 5, new: 3)
        for _ in 0..<3 { driver.step() }
        // Five of the prompt and two of the three new ones: the last was never fed.
        #expect(driver.planner.usedKVTokens == 7)
        #expect(driver.planner.openSequences == 1)
        #expect(driver.step().isEmpty)
        driver.receive(.cancel(SequenceID(1)))
        guard case .cancelled(SequenceID(1)) = driver.events.last else {
            Issue.record("not cancelled")
            return
        }
        #expect(driver.planner.usedKVTokens == 0)
        #expect(driver.planner.openSequences == 0)
    }

    @Test func `only a job that finishes retains its KV`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 5, new: 3, retains: true)
        driver.step()
        driver.note(driver.planner.fail(SequenceID(1), .computeFailed(code: 1)))
        driver.run(2, prompt: 5, new: 3, retains: true)
        driver.receive(.cancel(SequenceID(2)))
        #expect(driver.planner.usedKVTokens == 0)
    }

    @Test func `a sequence begins with retained KV and goes on with blocks and a job`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 20, new: 4, retains: true)
        while driver.finish(of: 1) == nil { driver.step() }
        #expect(driver.planner.usedKVTokens == 23)
        driver.fork(2, from: 1, tokens: 18)
        #expect(driver.imports(of: 2) == [18])
        #expect(driver.planner.usedKVTokens == 23)
        #expect(driver.planner.openSequences == 2)
        driver.importBlock(2, 18, 6)
        driver.run(2, prompt: 25, new: 2, imported: 24)
        #expect(driver.planner.usedKVTokens == 23 + 7)
        #expect(driver.step().map(\.tokenStart) == [24])
        #expect(driver.usedCells == 23 + 7)
        driver.step()
        #expect(driver.finish(of: 2) == .length)
        #expect(driver.planner.usedKVTokens == 23)
        #expect(driver.removedSlots == [1])
    }

    @Test func `KV that is shared lives until the last sequence is gone`() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3], [2, 3, 1]] as [[UInt64]] {
            var driver = PlannerDriver()
            driver.run(1, prompt: 20, retains: true)
            driver.step()
            driver.step()
            driver.fork(2, from: 1, tokens: 12)
            driver.fork(3, from: 1, tokens: 5)
            for id in UInt64(2)...3 {
                driver.run(id, prompt: 15, new: 3, imported: id == 2 ? 12 : 5, retains: true)
            }
            while driver.planner.nextStep().runs.isEmpty == false { driver.step() }
            #expect(driver.planner.usedKVTokens == 20 + 5 + 12)
            for id in order {
                driver.receive(.cancel(SequenceID(id)))
                #expect(driver.planner.usedKVTokens == driver.usedCells)
            }
            #expect(driver.usedCells == 0)
        }
    }

    @Test func `what befalls a fork leaves its source alone, and the other way round`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 10, retains: true)
        driver.step()
        driver.refusesNext = true
        driver.fork(2, from: 1, tokens: 6)
        #expect(driver.refusals(of: 2) == [0] && driver.removedSlots == [1])
        #expect(driver.planner.openSequences == 1 && driver.planner.usedKVTokens == 10)
        driver.fork(3, from: 1, tokens: 6)
        driver.run(3, prompt: 5000, imported: 6)
        #expect(driver.error(of: 3) != nil)
        #expect(driver.planner.usedKVTokens == 10)
        driver.fork(4, from: 1, tokens: 6)
        driver.run(4, prompt: 8, new: 4, imported: 6)
        driver.receive(.cancel(SequenceID(1)))
        #expect(driver.planner.usedKVTokens == 8)
        while driver.planner.openSequences > 0 { driver.step() }
        #expect(driver.tokens(of: 4) == 4)
        #expect(driver.usedCells == 0 && driver.planner.usedKVTokens == 0)
    }

    @Test func `a fork of what is not there is refused and changes nothing`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 5, retains: true)
        driver.run(2, prompt: 5, new: 9)
        driver.step()
        driver.fork(3, from: 9, tokens: 1)
        driver.fork(3, from: 2, tokens: 1)
        driver.fork(3, from: 1, tokens: 6)
        driver.fork(3, from: 1, tokens: 0)
        driver.fork(3, from: 1, tokens: -1)
        driver.fork(1, from: 1, tokens: 2)
        driver.fork(2, from: 1, tokens: 2)
        #expect(driver.refusals(of: 3) == [0, 0, 0, 0, 0])
        #expect(driver.refusals(of: 1) == [5])
        #expect(driver.refusals(of: 2) == [5])
        #expect(driver.planner.openSequences == 2)
        #expect(driver.planner.usedKVTokens == 10)
        // What counted on it is refused and dropped as well.
        driver.importBlock(3, 6, 4)
        driver.run(3, prompt: 11, imported: 10)
        #expect(driver.refusals(of: 3).count == 6)
        #expect(driver.error(of: 3) == nil)
        driver.fork(3, from: 1, tokens: 5)
        #expect(driver.imports(of: 3) == [5])
        driver.step()
        #expect(driver.tokens(of: 2) == 2)
    }

    @Test func `retained KV takes room once and a slot for each sequence`() {
        var driver = PlannerDriver(capacity: 30, sequences: 3)
        driver.run(1, prompt: 20, retains: true)
        driver.step()
        driver.step()
        driver.run(2, prompt: 11)
        #expect(driver.error(of: 2) == .noRoom(neededTokens: 11, freeTokens: 10))
        driver.fork(3, from: 1, tokens: 19)
        driver.run(3, prompt: 29, imported: 19)
        driver.fork(4, from: 1, tokens: 20)
        #expect(driver.planner.usedKVTokens == 30)
        driver.run(4, prompt: 21, imported: 20)
        #expect(driver.error(of: 4) == .noRoom(neededTokens: 1, freeTokens: 0))
        driver.fork(5, from: 1, tokens: 1)
        driver.fork(6, from: 1, tokens: 1)
        #expect(driver.imports(of: 5) == [1])
        #expect(driver.error(of: 6) == .noRoom(neededTokens: 0, freeTokens: 0))
        driver.receive(.cancel(SequenceID(1)))
        #expect(driver.planner.usedKVTokens == 29)
    }

    @Test func `a job for a retained sequence is refused and frees it`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 5, retains: true)
        driver.step()
        driver.run(1, prompt: 6, imported: 5)
        #expect(driver.error(of: 1) == .invalidJob(reason: "the sequence is retained"))
        #expect(driver.planner.usedKVTokens == 0)
    }

    // MARK: Runs

    @Test func `KV before the wanted token is not exported`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 40, new: 2, exports: true, exportedFrom: 20)
        let runs = (0..<4).flatMap { _ in driver.step() }
        #expect(runs.filter(\.exports).map(\.exported) == [20..<32, 32..<40, 40..<41])
        driver.run(2, prompt: 10, new: 2, exports: true, exportedFrom: 100)
        driver.run(3, prompt: 10, exportedFrom: 2)
        #expect(driver.step().allSatisfy { !$0.exports })
        driver.run(4, prompt: 10, exports: true, exportedFrom: -1)
        guard case .invalidJob = driver.error(of: 4) else {
            Issue.record("taken")
            return
        }
    }

    @Test(arguments: [
        (16, [16]), (17, [16, 1]), (20, [16, 4]), (21, [16, 1, 4]), (32, [16, 12, 4]),
        (33, [16, 16, 1]), (40, [16, 16, 4, 4]),
    ])
    func `the last run of a long prompt is short`(prompt: Int, expected: [Int]) {
        for exports in [false, true] {
            var driver = PlannerDriver(finalRun: 4)
            driver.run(1, prompt: prompt, exports: exports)
            var runs: [Int] = []
            while driver.finish(of: 1) == nil { runs += driver.step().map(\.tokens.count) }
            #expect(runs == expected)
        }
    }

    @Test func `a prompt with an imported beginning is cut like the whole`() {
        var driver = PlannerDriver(finalRun: 4)
        driver.importBlock(1, 0, 16)
        driver.run(1, prompt: 32, imported: 16)
        #expect((0..<2).flatMap { _ in driver.step().map(\.tokens.count) } == [12, 4])
    }
}
