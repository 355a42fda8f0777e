import InferenceEngine
import ServingTypes
import Testing

@Suite struct BatchPlannerTests {
    @Test func `a prompt alone is cut at multiples of the micro-batch`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 40, exports: true)
        let runs = (0..<3).flatMap { _ in driver.step() }
        #expect(runs.map(\.tokenStart) == [0, 16, 32])
        #expect(runs.map(\.tokens.count) == [16, 16, 8])
        #expect(runs.map(\.samples) == [false, false, true])
        #expect(runs.allSatisfy { $0.exports })
        #expect(driver.finish(of: 1) == .length)
        #expect(driver.planner.openSequences == 0)
        #expect(driver.step().isEmpty)
    }

    @Test func `cuts count from the first computed token`() {
        var driver = PlannerDriver()
        driver.importBlock(1, 0, 5)
        driver.importBlock(1, 5, 6)
        driver.run(1, prompt: 40, imported: 11)
        let runs = (0..<2).flatMap { _ in driver.step() }
        #expect(runs.map(\.tokenStart) == [11, 27])
        #expect(runs.map(\.tokens.count) == [16, 13])
    }

    @Test func `decoding sequences take part in each step and prompts fill the rest`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 3, new: 10)
        driver.run(2, prompt: 4, new: 10)
        let first = driver.step()
        #expect(first.map(\.tokens.count) == [3, 4])
        driver.run(3, prompt: 20)
        driver.run(4, prompt: 20)
        #expect(driver.step().map(\.tokens.count) == [1, 1, 14])
        #expect(driver.step().map(\.tokens.count) == [1, 1, 6, 8])
        #expect(driver.step().map(\.tokens.count) == [1, 1, 12])
        #expect(driver.finish(of: 3) == .length)
        #expect(driver.finish(of: 4) == .length)
        #expect(driver.tokens(of: 1) == 4)
    }

    @Test func `the prefill budget holds only while a sequence decodes`() {
        var driver = PlannerDriver(budget: 4)
        driver.run(1, prompt: 20)
        #expect(driver.step().map(\.tokens.count) == [16])
        driver.importBlock(2, 0, 3)
        driver.run(2, prompt: 4, new: 2, imported: 3)
        driver.run(3, prompt: 20)
        #expect(driver.step().map(\.tokens.count) == [1, 4])
        #expect(driver.step().map(\.tokens.count) == [1, 4])
        #expect(driver.step().map(\.tokens.count) == [16])
    }

    @Test func `an imported sequence feeds its last token only`() {
        var driver = PlannerDriver()
        driver.importBlock(1, 0, 30)
        #expect(driver.planner.usedKVTokens == 30)
        driver.run(1, prompt: 31, new: 2, imported: 30)
        #expect(driver.planner.usedKVTokens == 31)
        let runs = driver.step()
        #expect(runs.map(\.tokenStart) == [30])
        #expect(runs.map(\.samples) == [true])
        driver.step()
        #expect(driver.finish(of: 1) == .length)
        #expect(driver.planner.usedKVTokens == 0)
    }

    @Test func `the end of generation wins over the limit`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 2, new: 1)
        driver.step(endsGeneration: true)
        #expect(driver.finish(of: 1) == .stop)
        #expect(driver.removedSlots == [0])
    }

    @Test func `a full context ends the text`() {
        var driver = PlannerDriver(context: 10)
        driver.run(1, prompt: 8, new: 100)
        while driver.planner.openSequences > 0 { driver.step() }
        #expect(driver.tokens(of: 1) == 3)
        #expect(driver.finish(of: 1) == .length)
    }

    @Test func `jobs that don't fit together are refused`() {
        var driver = PlannerDriver(context: 50)
        driver.run(1, prompt: 0)
        driver.run(2, prompt: 51)
        driver.run(3, prompt: 5, new: 0)
        driver.run(4, prompt: 5, imported: 3)
        driver.importBlock(5, 0, 5)
        driver.run(5, prompt: 5, imported: 5)
        driver.receive(
            .run(
                SequenceJob(
                    sequence: SequenceID(6), tokens: [100], sampling: SamplingParameters(),
                    maximumNewTokens: 1)))
        driver.receive(
            .run(
                SequenceJob(
                    sequence: SequenceID(7), tokens: [1], outputTokens: 2,
                    sampling: SamplingParameters(), maximumNewTokens: 1)))
        for id in UInt64(1)...7 {
            guard case .invalidJob = driver.error(of: id) else {
                Issue.record("job \(id) was taken")
                continue
            }
        }
        #expect(driver.planner.openSequences == 0)
        #expect(driver.planner.usedKVTokens == 0)
    }

    @Test func `a second job for a sequence closes it`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 5, new: 5)
        driver.run(1, prompt: 5, new: 5)
        guard case .invalidJob = driver.error(of: 1) else {
            Issue.record("taken")
            return
        }
        #expect(driver.removedSlots == [0])
    }

    @Test func `prompts and blocks without room fail alone`() {
        var driver = PlannerDriver(capacity: 30)
        driver.run(1, prompt: 20, new: 3)
        driver.run(2, prompt: 11)
        driver.importBlock(3, 0, 11)
        driver.importBlock(4, 0, 10)
        #expect(driver.error(of: 2) == .noRoom(neededTokens: 11, freeTokens: 10))
        #expect(driver.error(of: 3) == .noRoom(neededTokens: 11, freeTokens: 10))
        driver.run(4, prompt: 11, imported: 10)
        #expect(driver.error(of: 4) == .noRoom(neededTokens: 1, freeTokens: 0))
        while driver.planner.openSequences > 0 { driver.step() }
        #expect(driver.finish(of: 1) == .length)
    }

    @Test func `more sequences than slots are refused`() {
        var driver = PlannerDriver(sequences: 2)
        for id in UInt64(1)...3 { driver.run(id, prompt: 1, new: 5) }
        guard case .noRoom = driver.error(of: 3) else {
            Issue.record("taken")
            return
        }
        driver.receive(.cancel(SequenceID(1)))
        driver.run(4, prompt: 1, new: 5)
        #expect(driver.error(of: 4) == nil)
    }

    @Test func `growing outputs displace the sequence whose job came last`() {
        var driver = PlannerDriver(capacity: 24)
        driver.run(1, prompt: 8, new: 20)
        driver.run(2, prompt: 8, new: 20)
        while driver.planner.openSequences > 0 { driver.step() }
        #expect(driver.error(of: 2) == .noRoom(neededTokens: 2, freeTokens: 0))
        // Room for four more tokens each; the sampled one needs none until it is fed.
        #expect(driver.tokens(of: 2) == 5)
        #expect(driver.error(of: 1) == .noRoom(neededTokens: 1, freeTokens: 0))
        #expect(driver.tokens(of: 1) == 17)
    }

    @Test func `a cancelled sequence is out of the next step`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 40, new: 5)
        driver.run(2, prompt: 3, new: 5)
        driver.step()
        driver.receive(.cancel(SequenceID(1)))
        driver.receive(.cancel(SequenceID(9)))
        #expect(driver.step().map(\.sequence) == [SequenceID(2)])
        #expect(driver.planner.usedKVTokens == 3)
    }

    @Test func `a sequence that failed while computing is closed, the others go on`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 3, new: 5)
        driver.run(2, prompt: 3, new: 5)
        let step = driver.planner.nextStep()
        driver.compute(step.runs)
        let sample = BatchPlanner.Sample(output: TokenOutput(token: 2), endsGeneration: false)
        driver.note(
            driver.planner.complete(
                step.runs, samples: [.failure(.computeFailed(code: 7)), .success(sample)]))
        #expect(driver.error(of: 1) == .computeFailed(code: 7))
        #expect(driver.tokens(of: 2) == 1)
        #expect(driver.step().map(\.sequence) == [SequenceID(2)])
    }

    @Test func `a failed export takes the sequence's sample along`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 3, exports: true)
        driver.run(2, prompt: 3)
        let step = driver.planner.nextStep()
        driver.compute(step.runs)
        let samples = [TokenID(5), 6].map {
            Result<BatchPlanner.Sample, EngineError>.success(
                BatchPlanner.Sample(output: TokenOutput(token: $0), endsGeneration: false))
        }
        driver.note(
            driver.planner.complete(
                step.runs, samples: samples,
                failures: [SequenceID(1): .computeFailed(code: 1)]))
        #expect(driver.tokens(of: 1) == 0)
        guard case .token(SequenceID(2), let output, .length) = driver.events.last else {
            Issue.record("no token")
            return
        }
        #expect(output.token == 6)
    }

    @Test func `all sequences can be closed at once`() {
        var driver = PlannerDriver()
        driver.run(1, prompt: 3, new: 5)
        driver.importBlock(2, 0, 4)
        driver.note(driver.planner.failAll(.shutDown))
        #expect(driver.error(of: 1) == .shutDown)
        #expect(driver.error(of: 2) == .shutDown)
        #expect(driver.planner.usedKVTokens == 0)
    }
}
