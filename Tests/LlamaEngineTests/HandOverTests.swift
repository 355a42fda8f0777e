import Foundation
import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

extension LlamaEngineTests {
    /// Prefill in one engine and decode in another give what one engine gives.
    ///
    /// Each engine computes one sequence at a time here: the same cuts, so equal to the last digit.
    @Suite struct HandOverTests {
        private let one: LlamaEngine
        private let other: LlamaEngine
        private var events = EngineRecorder()
        private var otherEvents = EngineRecorder()

        init() throws { try self.init(.f16) }

        private init(_ kvType: LlamaEngine.KVType) throws {
            var settings = TinyModel.settings()
            settings.kvType = kvType
            one = try LlamaEngine(settings: settings, onEvent: events.sink)
            other = try LlamaEngine(settings: settings, onEvent: otherEvents.sink)
        }

        /// What one engine gives for the whole job.
        private mutating func wholeOutput(_ job: SequenceJob) async -> [TokenOutput] {
            one.submit(.run(job))
            let outcome = await events.outcome(of: job.sequence)
            #expect(outcome.error == nil)
            #expect(outcome.finish == .length)
            events.forget(job.sequence)
            return outcome.outputs
        }

        /// What two engines give: prompt and first token in one, the rest in the other.
        private mutating func dividedOutput(_ job: SequenceJob) async -> [TokenOutput] {
            var promptJob = job
            promptJob.maximumNewTokens = 1
            promptJob.exportsKV = true
            one.submit(.run(promptJob))
            let prompt = await events.outcome(of: job.sequence)
            events.forget(job.sequence)
            #expect(prompt.finish == .length)
            #expect(prompt.order == String(repeating: "b", count: prompt.blocks.count) + "t")
            #expect(prompt.blocks.map(\.tokenCount).reduce(0, +) == job.tokens.count)
            if job.tokens.count > 256 {
                #expect((prompt.blocks.last?.tokenCount ?? 0) <= 64)
            }
            #expect(one.progress.usedKVTokens == 0)

            #expect(one.description == other.description)
            for block in prompt.blocks {
                #expect(
                    block.bytes.usedBytes
                        == other.description.maximumBlockBytes(tokens: block.tokenCount))
                other.submit(.importKV(job.sequence, block))
            }
            var rest = job
            rest.tokens += prompt.tokens
            rest.outputTokens += 1
            rest.importedTokens = job.tokens.count
            rest.maximumNewTokens -= 1
            other.submit(.run(rest))
            let continued = await otherEvents.outcome(of: job.sequence)
            otherEvents.forget(job.sequence)
            #expect(continued.error == nil)
            #expect(continued.importedTokens == job.tokens.count)
            return prompt.outputs + continued.outputs
        }

        @Test mutating func `greedy output is the same for prompts of all sizes`() async throws {
            for promptTokens in [1, 2, 255, 256, 257, 700, 1500] {
                let job = SequenceJob.greedy(
                    try TinyModel.prompt(tokens: promptTokens), new: 12)
                let whole = await wholeOutput(job)
                #expect(whole.count == 12)
                #expect(await dividedOutput(job) == whole, "\(promptTokens) tokens")
            }
        }

        @Test func `quantised KV gives the same output as well`() async throws {
            var quantised = try HandOverTests(.q8_0)
            let job = SequenceJob.greedy(try TinyModel.prompt(tokens: 300), new: 12)
            let whole = await quantised.wholeOutput(job)
            #expect(await quantised.dividedOutput(job) == whole)
            #expect(quantised.one.description.fingerprint != one.description.fingerprint)
        }

        /// Random sampling with everything that looks at the past.
        private func sampledJob() throws -> SequenceJob {
            var job = SequenceJob.greedy(try TinyModel.prompt(tokens: 300), new: 24)
            job.sampling.temperature = 0.8
            job.sampling.topK = 40
            job.sampling.topP = 0.95
            job.sampling.repeatPenalty = 1.1
            job.sampling.frequencyPenalty = 0.1
            job.sampling.seed = 42
            job.sampling.topLogprobs = 2
            return job
        }

        @Test mutating func `a seed gives the same tokens when the sequence is handed over`()
            async throws
        {
            let job = try sampledJob()
            let whole = await wholeOutput(job)
            #expect(await dividedOutput(job) == whole)
            var other = job
            other.sampling.seed = 43
            let others = await wholeOutput(other)
            #expect(others.map(\.token) != whole.map(\.token))
        }

        /// The output so far is computed as a prompt now, which changes the last digits of the
        /// logits: the texts may part where the random number nearly meets the border between two
        /// candidates.
        @Test mutating func `a seed gives the same tokens after a new start`() async throws {
            var job = SequenceJob.greedy(try TinyModel.prompt(tokens: 300), new: 24)
            job.sampling.temperature = 1
            job.sampling.topK = 2
            job.sampling.seed = 42
            job.sampling.topLogprobs = 2
            let whole = await wholeOutput(job)
            for kept in [1, 7, 20] {
                var restarted = job
                restarted.tokens += whole.prefix(kept).map(\.token)
                restarted.outputTokens = kept
                restarted.maximumNewTokens -= kept
                let rest = await wholeOutput(restarted)
                for (index, (expected, actual)) in zip(kept..., zip(whole.dropFirst(kept), rest)) {
                    let distance = distanceFromBorder(expected, index: index)
                    #expect(abs(distance - distanceFromBorder(actual, index: index)) < 0.02)
                    if expected.token != actual.token {
                        #expect(abs(distance) < 0.02, "token \(index)")
                        break
                    }
                }
            }
        }

        /// How far the random number is from the border between the two candidates.
        private func distanceFromBorder(_ output: TokenOutput, index: Int) -> Double {
            let weights = output.alternatives.sorted { $0.token < $1.token }
                .map { exp(Double($0.logprob)) }
            return uniformNumber(seed: 42, outputIndex: index) - weights[0] / weights.reduce(0, +)
        }
    }
}
