import InferenceEngine
import ServingTypes
import Testing

@Suite struct StepBudgetTests {
    /// A device whose iterations last as long as the numbers say, in microseconds.
    private struct Device {
        var step = 5000.0
        var token = 100.0
        var perMixedStep = 0.0

        func duration(decoding: Int, prompt: Int) -> Duration {
            var time = decoding > 0 ? step : 0
            if decoding > 0, prompt > 0 { time += perMixedStep }
            return .nanoseconds(Int64(1000 * (time + token * Double(prompt))))
        }
    }

    @Test func `without a limit all that the settings allow is taken`() {
        var budget = StepBudget()
        #expect(budget.promptTokens(atMost: 200) == 200)
        budget.measured(.seconds(9), decodingSequences: 1, promptTokens: 200)
        #expect(budget.promptTokens(atMost: 200) == 200)
    }

    @Test func `an iteration that can't be foretold takes few tokens`() {
        var budget = StepBudget()
        budget.limit = .seconds(1)
        #expect(budget.promptTokens(atMost: 200) == StepBudget.fewestTokens)
        #expect(budget.promptTokens(atMost: 3) == 3)
        budget.measured(.milliseconds(5), decodingSequences: 1, promptTokens: 0)
        #expect(budget.promptTokens(atMost: 200) == StepBudget.fewestTokens)
        budget.measured(.milliseconds(10), decodingSequences: 0, promptTokens: 100)
        #expect(budget.promptTokens(atMost: 200) == 200)
    }

    @Test(arguments: [0.0, 2000.0], [15.0, 25.0, 60.0])
    func `mixed iterations come to last as long as they may`(
        perMixedStep: Double, milliseconds: Double
    ) {
        let device = Device(perMixedStep: perMixedStep)
        var budget = StepBudget()
        budget.limit = .milliseconds(Int64(milliseconds))
        var lengths: [Double] = []
        for index in 0..<60 {
            let prompt = index % 7 == 0 ? 0 : budget.promptTokens(atMost: 1000)
            let duration = device.duration(decoding: 4, prompt: prompt)
            budget.measured(duration, decodingSequences: 4, promptTokens: prompt)
            if prompt > 0, index > 30 { lengths.append(duration / .milliseconds(1)) }
        }
        #expect(lengths.allSatisfy { abs($0 - milliseconds) < 0.2 * milliseconds }, "\(lengths)")
    }

    @Test func `estimates follow a device that becomes slower or faster`() {
        var budget = StepBudget()
        budget.limit = .milliseconds(30)
        for slowness in [1.0, 3.0, 0.5] {
            let device = Device(step: 5000 * slowness, token: 100 * slowness)
            var last = Duration.zero
            for _ in 0..<30 {
                let prompt = budget.promptTokens(atMost: 1000)
                last = device.duration(decoding: 1, prompt: prompt)
                budget.measured(last, decodingSequences: 1, promptTokens: prompt)
            }
            #expect(abs(last / .milliseconds(1) - 30) < 2, "\(last)")
        }
    }

    @Test func `prompts never stand still and one stall is soon forgotten`() {
        let device = Device()
        var budget = StepBudget()
        budget.limit = .milliseconds(4)
        for _ in 0..<20 {
            let prompt = budget.promptTokens(atMost: 500)
            #expect(prompt == StepBudget.fewestTokens)
            budget.measured(
                device.duration(decoding: 1, prompt: prompt), decodingSequences: 1,
                promptTokens: prompt)
        }
        budget.limit = .milliseconds(25)
        for index in 0..<40 {
            let prompt = budget.promptTokens(atMost: 500)
            let duration = device.duration(decoding: 1, prompt: prompt)
            budget.measured(
                index == 20 ? .seconds(5) : duration, decodingSequences: 1, promptTokens: prompt)
        }
        #expect((180...220).contains(budget.promptTokens(atMost: 500)))
        budget.limit = nil
        #expect(budget.promptTokens(atMost: 500) == 500)
        budget.limit = .zero
        #expect(budget.promptTokens(atMost: 500) == StepBudget.fewestTokens)
    }

    @Test func `the planner cuts prompts beside decoding sequences to the limit`() {
        let device = Device(step: 1000, token: 100)
        var driver = PlannerDriver(microBatch: 64, budget: 40)
        driver.receive(.limitStep(.milliseconds(3)))
        driver.run(1, prompt: 64, new: 100)
        var prompts: [Int] = []
        for index in 0..<30 {
            if index == 3 { driver.run(2, prompt: 500) }
            if index == 25 { driver.receive(.limitStep(nil)) }
            let step = driver.planner.nextStep()
            driver.planner.measured(
                step,
                duration: device.duration(
                    decoding: step.decodingSequences, prompt: step.promptTokens))
            prompts.append(step.promptTokens)
            let sample = BatchPlanner.Sample(output: TokenOutput(token: 2), endsGeneration: false)
            driver.compute(step.runs)
            driver.note(
                driver.planner.complete(
                    step.runs, samples: step.runs.filter(\.samples).map { _ in .success(sample) }))
        }
        #expect(prompts[0] == 64 && prompts[1] == 0)
        #expect(prompts[5..<25].allSatisfy { (18...21).contains($0) }, "\(prompts)")
        #expect(prompts[25] == 40)
    }
}
