import EngineRuntime
import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

extension LlamaEngineTests {
    /// KV that is damaged on its way, sent in part, or kept for the next turn.
    @Suite struct KVReuseTests {
        private let one: LlamaEngine
        private let other: LlamaEngine
        private var events = EngineRecorder()
        private var otherEvents = EngineRecorder()

        init() throws {
            one = try LlamaEngine(settings: TinyModel.settings(), onEvent: events.sink)
            other = try LlamaEngine(settings: TinyModel.settings(), onEvent: otherEvents.sink)
        }

        private mutating func output(_ job: SequenceJob) async -> [TokenOutput] {
            one.submit(.run(job))
            let outcome = await events.outcome(of: job.sequence)
            #expect(outcome.error == nil)
            events.forget(job.sequence)
            return outcome.outputs
        }

        private mutating func otherOutput(_ job: SequenceJob) async -> [TokenOutput] {
            other.submit(.run(job))
            let outcome = await otherEvents.outcome(of: job.sequence)
            #expect(outcome.error == nil)
            otherEvents.forget(job.sequence)
            return outcome.outputs
        }

        /// The blocks and the first token of a prompt.
        private mutating func exported(
            _ job: SequenceJob, from start: Int = 0
        ) async -> (blocks: [KVBlock], first: TokenOutput?) {
            var job = job
            job.maximumNewTokens = 1
            job.exportsKV = true
            job.exportedFrom = start
            one.submit(.run(job))
            let outcome = await events.outcome(of: job.sequence)
            events.forget(job.sequence)
            return (outcome.blocks, outcome.outputs.first)
        }

        /// The rest of a job whose prompt and first token are there.
        private func rest(_ job: SequenceJob, after first: TokenOutput) -> SequenceJob {
            var rest = job
            rest.tokens.append(first.token)
            rest.outputTokens += 1
            rest.importedTokens = job.tokens.count
            rest.maximumNewTokens -= 1
            return rest
        }

        private func damaged(_ block: KVBlock) -> KVBlock {
            let bytes = unsafe block.bytes.withBytes { unsafe Array($0) }
            let buffer = KVBuffer(capacityBytes: bytes.count)
            unsafe buffer.withWritableBytes {
                unsafe $0.copyBytes(from: bytes)
                unsafe $0[bytes.count - 7] ^= 1
            }
            buffer.setUsedBytes(bytes.count)
            var damaged = block
            damaged.bytes = buffer
            return damaged
        }

        @Test mutating func `blocks shift to other places and back`() async throws {
            let job = SequenceJob.greedy(try TinyModel.prompt(tokens: 32), new: 2)
            let block = try #require(await exported(job).blocks.first)
            #expect(block.tokenCount == 32)
            let far = try #require(one.shifted(block, to: 96))
            #expect(far.tokenStart == 96)
            #expect(far.checksum != block.checksum)
            #expect(one.shifted(far, to: 0)?.checksum == block.checksum)
            #expect(one.shifted(block, to: Int(Int32.max)) == nil)
            // The prompt's KV four times over takes the place of a longer prompt's.
            let sequence = SequenceID(77)
            for start in [0, 32, 64, 96] {
                let shifted = try #require(one.shifted(block, to: start))
                other.submit(.importKV(sequence, shifted))
            }
            var next = SequenceJob.greedy(try TinyModel.prompt(tokens: 140), new: 3)
            next.sequence = sequence
            next.importedTokens = 128
            #expect(await otherOutput(next).count == 3)
        }

        @Test mutating func `a sequence goes on when a damaged block comes again`() async throws {
            let job = SequenceJob.greedy(try TinyModel.prompt(tokens: 700), new: 12)
            let whole = await output(job)
            let (blocks, first) = await exported(job)
            #expect(blocks.map(\.tokenCount) == [256, 256, 124, 64])
            let rest = rest(job, after: try #require(first))
            other.submit(.importKV(job.sequence, blocks[0]))
            other.submit(.importKV(job.sequence, damaged(blocks[1])))
            other.submit(.importKV(job.sequence, blocks[2]))
            other.submit(.importKV(job.sequence, blocks[3]))
            other.submit(.run(rest))
            let refused = await otherEvents.outcome(of: job.sequence) { $0.refusals.count == 3 }
            #expect(refused.refusals.map(\.expectedToken) == [256, 256, 256])
            #expect(refused.refusals[0].reason == "the checksum doesn't fit")
            #expect(refused.importedTokens == 256 && !refused.isClosed)
            #expect(other.progress.usedKVTokens == 256)
            for block in blocks[1...] { other.submit(.importKV(job.sequence, block)) }
            #expect([first] + (await otherOutput(rest)) == whole)
            #expect(other.progress.usedKVTokens == 0)
            #expect(other.progress.importedKVBytes == one.progress.exportedKVBytes)
            #expect(one.progress.exportDuration > .zero && other.progress.importDuration > .zero)
        }

        @Test mutating func `a retained beginning gives what computing it again gives`()
            async throws
        {
            let text = try TinyModel.prompt(tokens: 900)
            var turn = SequenceJob.greedy(Array(text.prefix(500)), new: 20, id: 1)
            turn.retainsKV = true
            _ = await otherOutput(turn)
            #expect(other.progress.usedKVTokens == 519)
            // Other text from a multiple of the micro-batch on: the same cuts, the same digits.
            let next = SequenceJob.greedy(
                Array(text.prefix(256)) + text.suffix(300), new: 12, id: 2)
            var forked = next
            forked.importedTokens = 256
            other.submit(.fork(SequenceID(2), from: SequenceID(1), tokens: 256))
            other.submit(.cancel(SequenceID(1)))
            let output = await otherOutput(forked)
            #expect(output == (await self.output(next)))
            #expect(other.progress.usedKVTokens == 0)
        }

        @Test mutating func `a conversation goes on from its retained KV`() async throws {
            let text = try TinyModel.prompt(tokens: 900)
            var turn = SequenceJob.greedy(Array(text.prefix(300)), new: 20, id: 1)
            turn.retainsKV = true
            let answer = await otherOutput(turn).map(\.token)
            var next = SequenceJob.greedy(turn.tokens + answer + text.suffix(50), new: 12, id: 2)
            next.sampling.topLogprobs = 2
            var forked = next
            forked.importedTokens = 319
            other.submit(.fork(SequenceID(2), from: SequenceID(1), tokens: 319))
            other.submit(.cancel(SequenceID(1)))
            let continued = await otherOutput(forked)
            // The answer was computed token by token there and as a prompt here: the texts may part
            // where two tokens are nearly equally likely.
            for (expected, actual) in zip(await output(next), continued) {
                guard expected.token != actual.token else { continue }
                let gap = expected.alternatives[0].logprob - expected.alternatives[1].logprob
                #expect(gap < 0.05, "not a near tie")
                break
            }
            #expect(continued.count == 12)
        }

        @Test(arguments: [256, 300, 690])
        mutating func `a kept beginning and the exported rest make the whole`(
            kept: Int
        ) async throws {
            let job = SequenceJob.greedy(try TinyModel.prompt(tokens: 700), new: 12, id: 5)
            let whole = await output(job)
            var before = job
            before.sequence = SequenceID(4)
            before.retainsKV = true
            _ = await otherOutput(before)

            let (blocks, first) = await exported(job, from: kept)
            #expect(blocks.first?.tokenStart == kept)
            #expect(blocks.reduce(0) { $0 + $1.tokenCount } == 700 - kept)
            other.submit(.fork(job.sequence, from: before.sequence, tokens: kept))
            other.submit(.cancel(before.sequence))
            for block in blocks { other.submit(.importKV(job.sequence, block)) }
            let rest = rest(job, after: try #require(first))
            #expect([first] + (await otherOutput(rest)) == whole)
            #expect(other.progress.usedKVTokens == 0)
        }

        @Test mutating func `a thousand turns leave no KV behind`() async throws {
            var generator = SeededGenerator(seed: 3)
            let prompt = try TinyModel.prompt(tokens: 2048)
            for round in UInt64(0)..<1000 {
                var turn = SequenceJob.greedy(Array(prompt.prefix(6)), new: 2, id: 2 * round)
                turn.retainsKV = true
                #expect(await otherOutput(turn).count == 2)
                #expect(other.progress.usedKVTokens == 7)
                let next = SequenceID(2 * round + 1)
                let kept = Int.random(in: 1...7, using: &generator)
                if round % 3 == 0 {
                    other.submit(.cancel(turn.sequence))
                    #expect(await otherEvents.outcome(of: turn.sequence).wasCancelled)
                    continue
                }
                other.submit(.fork(next, from: turn.sequence, tokens: kept))
                other.submit(.cancel(turn.sequence))
                if round % 3 == 1 {
                    turn.tokens = Array(prompt.prefix(8))
                    turn.sequence = next
                    turn.importedTokens = kept
                    turn.retainsKV = false
                    #expect(await otherOutput(turn).count == 2)
                } else {
                    other.submit(.cancel(next))
                    let outcome = await otherEvents.outcome(of: next)
                    #expect(outcome.wasCancelled && outcome.importedTokens == kept)
                }
            }
            #expect(other.progress.usedKVTokens == 0)
            #expect(other.progress.openSequences == 0)
            // All cells are free for one sequence.
            let all = await otherOutput(.greedy(prompt, new: 1, id: 9999))
            #expect(all == (await output(.greedy(prompt, new: 1))))
        }
    }
}
