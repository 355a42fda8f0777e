import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

extension LlamaEngineTests {
    /// Sequences that share the KV of one beginning.
    @Suite struct ForkTests {
        private let alone: LlamaEngine
        private let engine: LlamaEngine
        private var events = EngineRecorder()
        private var engineEvents = EngineRecorder()

        init() throws {
            alone = try LlamaEngine(settings: TinyModel.settings(), onEvent: events.sink)
            engine = try LlamaEngine(settings: TinyModel.settings(), onEvent: engineEvents.sink)
        }

        /// What a job gives in an engine in which nothing else is.
        private mutating func whole(_ job: SequenceJob) async -> [TokenOutput] {
            var job = job
            job.retainsKV = false
            alone.submit(.run(job))
            let outcome = await events.outcome(of: job.sequence)
            #expect(outcome.error == nil)
            events.forget(job.sequence)
            return outcome.outputs
        }

        /// Computes a job, whose KV stays if it says so.
        @discardableResult
        private mutating func run(_ job: SequenceJob) async -> Outcome {
            engine.submit(.run(job))
            return await engineEvents.outcome(of: job.sequence)
        }

        private mutating func cancel(_ ids: UInt64...) async {
            for id in ids {
                engine.submit(.cancel(SequenceID(id)))
                _ = await engineEvents.outcome(of: SequenceID(id)) { $0.wasCancelled }
            }
        }

        /// A job that begins with `shared` tokens of the text and goes on in its own way.
        private func job(
            _ id: UInt64, shared: Int, own: Int, new: Int = 12
        ) throws -> SequenceJob {
            let text = try TinyModel.prompt(tokens: 1500)
            var job = SequenceJob.greedy(
                Array(text.prefix(shared)) + text[(700 + 31 * Int(id) % 500)...].prefix(own),
                new: new,
                id: id)
            job.sampling.topLogprobs = 2
            return job
        }

        private func fork(_ job: SequenceJob, from id: UInt64, tokens: Int) -> SequenceJob {
            engine.submit(.fork(job.sequence, from: SequenceID(id), tokens: tokens))
            var forked = job
            forked.importedTokens = tokens
            return forked
        }

        /// Same tokens, up to where two candidates are nearly equally likely.
        private func expectSame(_ whole: [TokenOutput], _ forked: [TokenOutput]) {
            #expect(whole.count == forked.count)
            for (index, (expected, actual)) in zip(whole, forked).enumerated() {
                guard expected.token == actual.token else {
                    let gap = expected.alternatives[0].logprob - expected.alternatives[1].logprob
                    #expect(gap < 0.05, "token \(index) is no near tie")
                    return
                }
            }
        }

        @Test mutating func `a fork gives what computing it all gives`() async throws {
            var first = try job(1, shared: 600, own: 0, new: 1)
            first.retainsKV = true
            await run(first)
            #expect(engine.progress.usedKVTokens == 600)
            // The same cuts, in cells that follow each other: equal to the last digit.
            let next = try job(2, shared: 512, own: 200)
            let forked = await run(fork(next, from: 1, tokens: 512))
            #expect(forked.outputs == (await whole(next)))
            #expect(engine.progress.usedKVTokens == 600)
            for tokens in [1, 77, 599, 600] {
                let next = try job(UInt64(tokens + 2), shared: tokens, own: 100)
                let forked = await run(fork(next, from: 1, tokens: tokens))
                expectSame(await whole(next), forked.outputs)
            }
            await cancel(1)
            #expect(engine.progress.usedKVTokens == 0 && engine.progress.openSequences == 0)
        }

        @Test mutating func `forks decode beside each other when their source is gone`()
            async throws
        {
            var first = try job(1, shared: 600, own: 0, new: 1)
            first.retainsKV = true
            await run(first)
            let jobs = try [(2, 600), (3, 512), (4, 300)].map { id, shared in
                (try job(UInt64(id), shared: shared, own: 40, new: 40), shared)
            }
            for (job, shared) in jobs {
                engine.submit(.run(fork(job, from: 1, tokens: shared)))
            }
            _ = await engineEvents.outcome(of: SequenceID(4)) { !$0.outputs.isEmpty }
            await cancel(1)
            for (job, _) in jobs {
                let outcome = await engineEvents.outcome(of: job.sequence)
                expectSame(await whole(job), outcome.outputs)
            }
            #expect(engine.progress.usedKVTokens == 0)
            // All cells are free again.
            let all = SequenceJob.greedy(try TinyModel.prompt(tokens: 2048), new: 1, id: 9)
            #expect(await run(all).outputs == (await whole(all)))
        }

        @Test mutating func `a fork can be kept and forked again`() async throws {
            var first = try job(1, shared: 512, own: 0, new: 1)
            first.retainsKV = true
            await run(first)
            var second = try job(2, shared: 512, own: 256, new: 8)
            second.retainsKV = true
            let answer = await run(fork(second, from: 1, tokens: 512))
            expectSame(await whole(second), answer.outputs)
            await cancel(1)
            // 512 of the first one, and 256 + 7 of its own.
            #expect(engine.progress.usedKVTokens == 775)
            var third = try job(3, shared: 0, own: 50)
            third.tokens = second.tokens + answer.tokens.prefix(7) + third.tokens
            expectSame(await whole(third), await run(fork(third, from: 2, tokens: 775)).outputs)
            let fourth = try job(4, shared: 512, own: 90)
            expectSame(await whole(fourth), await run(fork(fourth, from: 2, tokens: 512)).outputs)
            await cancel(2)
            #expect(engine.progress.usedKVTokens == 0)
        }

        @Test mutating func `a full cache and full sequences refuse forks, not their source`()
            async throws
        {
            var first = SequenceJob.greedy(try TinyModel.prompt(tokens: 2040), new: 1, id: 1)
            first.retainsKV = true
            await run(first)
            let next = try job(2, shared: 512, own: 9)
            let outcome = await run(fork(next, from: 1, tokens: 512))
            #expect(outcome.importedTokens == 512)
            #expect(outcome.error == .noRoom(neededTokens: 9, freeTokens: 8))
            #expect(engine.progress.usedKVTokens == 2040)
            for id in UInt64(11)...17 {
                engine.submit(.fork(SequenceID(id), from: SequenceID(1), tokens: 100))
                _ = await engineEvents.outcome(of: SequenceID(id)) { $0.importedTokens == 100 }
            }
            engine.submit(.fork(SequenceID(18), from: SequenceID(1), tokens: 100))
            #expect(
                await engineEvents.outcome(of: SequenceID(18)).error
                    == .noRoom(neededTokens: 0, freeTokens: 8))
            engine.submit(.cancel(SequenceID(11)))
            let last = try job(19, shared: 512, own: 3, new: 3)
            expectSame(await whole(last), await run(fork(last, from: 1, tokens: 512)).outputs)
        }

        @Test mutating func `a sequence that decodes goes on beside forks and exports`()
            async throws
        {
            var first = try job(1, shared: 700, own: 0, new: 1)
            first.retainsKV = true
            await run(first)
            engine.submit(.limitStep(.milliseconds(20)))
            let steady = try job(2, shared: 0, own: 60, new: 120)
            engine.submit(.run(steady))
            _ = await engineEvents.outcome(of: steady.sequence) { $0.outputs.count > 2 }
            var next = fork(try job(3, shared: 500, own: 300), from: 1, tokens: 500)
            next.exportsKV = true
            engine.submit(.run(next))
            engine.submit(.export(SequenceID(1), from: 100))
            let exported = await engineEvents.outcome(of: SequenceID(1)) {
                $0.order.hasSuffix("e")
            }
            #expect(exported.blocks.map(\.tokenStart) == [100, 356, 612])
            let outcome = await engineEvents.outcome(of: SequenceID(3))
            let starts = outcome.blocks.map(\.tokenStart)
            #expect(starts.starts(with: [0, 256, 500]))
            let ends = outcome.blocks.map { $0.tokenStart + $0.tokenCount }
            #expect(Array(ends.dropLast()) == Array(starts.dropFirst()))
            expectSame(await whole(try job(3, shared: 500, own: 300)), outcome.outputs)
            expectSame(
                await whole(steady), await engineEvents.outcome(of: steady.sequence).outputs)
        }

        /// A ratio within one run, the best of three, so that load matters little.
        @Test func `a prompt that is nearly all forked starts sooner`() async throws {
            var events = EngineRecorder()
            var settings = TinyModel.settings(kvCapacityTokens: 8192)
            settings.finalRunTokens = 16
            let engine = try LlamaEngine(settings: settings, onEvent: events.sink)
            let text = try TinyModel.prompt(tokens: 2030)
            let clock = ContinuousClock()
            var cold = Duration.seconds(3600)
            var forking = cold
            var warm = cold
            for round in UInt64(0)..<3 {
                var first = SequenceJob.greedy(Array(text.prefix(2000)), new: 1, id: 2 * round)
                first.retainsKV = true
                cold = min(
                    cold,
                    await clock.measure {
                        engine.submit(.run(first))
                        _ = await events.outcome(of: first.sequence)
                    })
                var second = first
                second.sequence = SequenceID(2 * round + 1)
                second.tokens.replaceSubrange(1900..., with: text.suffix(100))
                second.importedTokens = 1900
                let start = clock.now
                engine.submit(.fork(second.sequence, from: first.sequence, tokens: 1900))
                _ = await events.outcome(of: second.sequence) { $0.importedTokens == 1900 }
                forking = min(forking, clock.now - start)
                engine.submit(.run(second))
                _ = await events.outcome(of: second.sequence) { $0.isClosed }
                warm = min(warm, clock.now - start)
                for id in [first.sequence, second.sequence] { engine.submit(.cancel(id)) }
            }
            #expect(forking < warm / 10)
            #expect(cold > warm * 2, "cold \(cold), fork \(forking), warm \(warm)")
        }
    }
}
