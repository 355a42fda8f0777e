import Foundation
import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

extension LlamaEngineTests {
    /// Each sampling parameter does what it says.
    @Suite struct SamplingTests {
        private let engine: LlamaEngine
        private let recorder: EngineRecorder
        private let prompt: [TokenID]

        init() throws {
            recorder = EngineRecorder()
            engine = try LlamaEngine(settings: TinyModel.settings(), onEvent: recorder.sink)
            prompt = try TinyModel.prompt(tokens: 40)
        }

        private func outputs(
            _ count: Int, _ change: (inout SamplingParameters) -> Void
        ) async -> [TokenOutput] {
            var recorder = recorder
            var job = SequenceJob.greedy(prompt, new: count)
            change(&job.sampling)
            engine.submit(.run(job))
            let outcome = await recorder.outcome(of: job.sequence)
            #expect(outcome.error == nil)
            return outcome.outputs
        }

        private func tokens(
            _ count: Int, _ change: (inout SamplingParameters) -> Void
        ) async -> [TokenID] {
            await outputs(count, change).map(\.token)
        }

        @Test func `narrowing to one candidate gives the greedy text at any temperature`() async {
            let greedy = await tokens(16) { _ in }
            let free = await tokens(16) { $0.temperature = 1.5 }
            #expect(free != greedy)
            #expect(
                await tokens(16) {
                    $0.temperature = 1.5
                    $0.topK = 1
                } == greedy)
            #expect(
                await tokens(16) {
                    $0.temperature = 1.5
                    $0.topP = 0.0001
                } == greedy)
            #expect(
                await tokens(16) {
                    $0.temperature = 1.5
                    $0.minP = 1
                } == greedy)
        }

        @Test func `a lower temperature comes nearer to the greedy text`() async {
            let greedy = await tokens(16) { _ in }
            #expect(await tokens(16) { $0.temperature = 0.01 } == greedy)
        }

        @Test func `logit bias forces and forbids tokens`() async throws {
            let greedy = await tokens(4) { _ in }
            let wanted: TokenID = 321
            for temperature: Float in [0, 1] {
                let forced = await tokens(4) {
                    $0.temperature = temperature
                    $0.logitBias = [LogitBias(token: wanted, bias: 100)]
                }
                #expect(forced == [wanted, wanted, wanted, wanted])
            }
            let first = try #require(greedy.first)
            let forbidden = await tokens(4) {
                $0.logitBias = [LogitBias(token: first, bias: -.infinity)]
            }
            #expect(!forbidden.contains(first))
        }

        @Test func `log-probabilities add up to one and name the greedy token first`() async throws
        {
            let whole = await outputs(3) { $0.topLogprobs = 2048 }
            for output in whole {
                let sum = output.alternatives.reduce(0) { $0 + exp(Double($1.logprob)) }
                #expect(abs(sum - 1) < 1e-4)
                #expect(output.alternatives.count == 2048)
                #expect(output.alternatives.first?.token == output.token)
                #expect(output.alternatives.first?.logprob == output.logprob)
                let sorted = output.alternatives.sorted { $0.logprob > $1.logprob }
                #expect(sorted.map(\.logprob) == output.alternatives.map(\.logprob))
            }
            let five = await outputs(3) { $0.topLogprobs = 5 }
            #expect(five.map(\.alternatives) == whole.map { Array($0.alternatives.prefix(5)) })
            #expect(await outputs(1) { $0.topLogprobs = 0 }.first?.alternatives == [])
            #expect(await outputs(1) { $0.topLogprobs = 0 }.first?.logprob != nil)
            #expect(await outputs(1) { _ in }.first?.logprob == nil)
        }

        /// The penalties are subtracted from logits, so the log-probabilities tell the right token.
        @Test(arguments: [(Float(2), Float(0)), (0, 2), (1.5, 1)])
        func `frequency and presence penalties choose as computed by hand`(
            frequency: Float, presence: Float
        ) async {
            let window = 24
            let results = await outputs(6) {
                $0.frequencyPenalty = frequency
                $0.presencePenalty = presence
                $0.penaltyWindowTokens = Int32(window)
                $0.topLogprobs = 200
            }
            var history = prompt
            var differs = false
            for output in results {
                let recent = history.suffix(window)
                let best = output.alternatives.max { left, right in
                    func value(_ candidate: TokenLogprob) -> Float {
                        let count = recent.count { $0 == candidate.token }
                        return candidate.logprob - Float(count) * frequency
                            - (count > 0 ? presence : 0)
                    }
                    return value(left) < value(right)
                }
                #expect(best?.token == output.token)
                differs = differs || output.token != output.alternatives.first?.token
                history.append(output.token)
            }
            #expect(differs, "the penalties changed nothing, the test shows nothing")
        }

        @Test func `the repeat penalty makes the text repeat less`() async {
            let greedy = await tokens(40) { _ in }
            let penalised = await tokens(40) {
                $0.repeatPenalty = 2
                $0.penaltyWindowTokens = -1
            }
            #expect(Set(penalised).count > Set(greedy).count)
            #expect(
                await tokens(40) {
                    $0.repeatPenalty = 2
                    $0.penaltyWindowTokens = 0
                } == greedy)
        }

        /// Two candidates leave one number to decide: the draw must be the documented one.
        @Test func `the draw is keyed by seed and output position`() async throws {
            let results = await outputs(12) {
                $0.temperature = 1
                $0.topK = 2
                $0.seed = 7
                $0.topLogprobs = 2
            }
            for (index, output) in results.enumerated() {
                let byToken = output.alternatives.sorted { $0.token < $1.token }
                let weights = byToken.map { exp(Double($0.logprob)) }
                let border = weights[0] / (weights[0] + weights[1])
                let number = uniformNumber(seed: 7, outputIndex: index)
                #expect(output.token == byToken[number < border ? 0 : 1].token)
            }
            #expect(Set(results.map { $0.token == $0.alternatives[0].token }).count == 2)
        }

        @Test func `impossible sampling parameters are refused`() async {
            for change: (inout SamplingParameters) -> Void in [
                { $0.temperature = .nan }, { $0.repeatPenalty = 0 }, { $0.topLogprobs = -1 },
                { $0.logitBias = [LogitBias(token: 2048, bias: 1)] },
            ] {
                var recorder = recorder
                var job = SequenceJob.greedy(prompt, new: 1)
                change(&job.sampling)
                engine.submit(.run(job))
                let outcome = await recorder.outcome(of: job.sequence)
                guard case .invalidJob = outcome.error else {
                    Issue.record("\(String(describing: outcome.error))")
                    continue
                }
            }
        }

        @Test func `a bias against all tokens fails the sequence only`() async {
            var recorder = recorder
            var job = SequenceJob.greedy(prompt, new: 1)
            job.sampling.logitBias = (0..<2048).map { LogitBias(token: $0, bias: -.infinity) }
            engine.submit(.run(job))
            let outcome = await recorder.outcome(of: job.sequence)
            #expect(outcome.error == .invalidJob(reason: "the logit bias allows no token"))
            #expect(await tokens(1) { _ in }.count == 1)
        }
    }
}
