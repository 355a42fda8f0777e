import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

extension LlamaEngineTests {
    /// Sequences share an engine without harm to each other.
    @Suite struct BatchingTests {
        /// The composition of a batch changes the last digits of the logits: a text may differ from
        /// the first token on whose two best candidates are nearly equally likely.
        @Test func `sequences computed together give their own texts`() async throws {
            var recorder = EngineRecorder()
            let engine = try LlamaEngine(settings: TinyModel.settings(), onEvent: recorder.sink)
            let prompt = try TinyModel.prompt(tokens: 400)
            let jobs = (0..<6).map { index in
                var job = SequenceJob.greedy(
                    Array(prompt[(10 * index)..<(60 + 50 * index)]), new: 24, id: UInt64(index))
                job.sampling.topLogprobs = 2
                return job
            }
            var alone: [[TokenOutput]] = []
            for job in jobs {
                engine.submit(.run(job))
                alone.append(await recorder.outcome(of: job.sequence).outputs)
                recorder.forget(job.sequence)
            }
            for job in jobs { engine.submit(.run(job)) }
            for (job, alone) in zip(jobs, alone) {
                let together = await recorder.outcome(of: job.sequence)
                #expect(together.finish == .length)
                #expect(together.outputs.count == alone.count)
                let differing = zip(together.outputs, alone).first { $0.token != $1.token }
                guard let (_, expected) = differing else { continue }
                let gap = expected.alternatives[0].logprob - expected.alternatives[1].logprob
                #expect(gap < 0.05, "not a near tie")
            }
            #expect(engine.progress.usedKVTokens == 0)
            #expect(engine.progress.openSequences == 0)
            await engine.shutdown()
        }

        @Test func `cancelling frees the KV and stops the tokens`() async throws {
            var recorder = EngineRecorder()
            let engine = try LlamaEngine(settings: TinyModel.settings(), onEvent: recorder.sink)
            let job = SequenceJob.greedy(try TinyModel.prompt(tokens: 100), new: 1900)
            engine.submit(.run(job))
            _ = await recorder.outcome(of: job.sequence) { $0.outputs.count == 2 }
            #expect(engine.progress.usedKVTokens > 100)
            engine.submit(.cancel(job.sequence))
            let outcome = await recorder.outcome(of: job.sequence)
            #expect(outcome.wasCancelled)
            #expect(outcome.outputs.count < 1900)
            #expect(engine.progress.usedKVTokens == 0)
            await engine.shutdown()
        }

        @Test func `a job without room fails and the others go on`() async throws {
            var recorder = EngineRecorder()
            let engine = try LlamaEngine(
                settings: TinyModel.settings(kvCapacityTokens: 512), onEvent: recorder.sink)
            let long = SequenceJob.greedy(try TinyModel.prompt(tokens: 300), new: 40, id: 1)
            let second = SequenceJob.greedy(try TinyModel.prompt(tokens: 300), new: 40, id: 2)
            let small = SequenceJob.greedy(try TinyModel.prompt(tokens: 20), new: 40, id: 3)
            for job in [long, second, small] { engine.submit(.run(job)) }
            guard case .noRoom(300, let free) = await recorder.outcome(of: second.sequence).error
            else {
                Issue.record("the second job was taken")
                return
            }
            #expect((1..<300).contains(free))
            #expect(await recorder.outcome(of: long.sequence).outputs.count == 40)
            #expect(await recorder.outcome(of: small.sequence).outputs.count == 40)
            await engine.shutdown()
        }

        @Test func `when growing outputs fill the KV the last sequence gives way`() async throws {
            var recorder = EngineRecorder()
            let engine = try LlamaEngine(
                settings: TinyModel.settings(kvCapacityTokens: 256), onEvent: recorder.sink)
            let prompt = try TinyModel.prompt(tokens: 110)
            engine.submit(.run(.greedy(prompt, new: 100, id: 1)))
            engine.submit(.run(.greedy(prompt, new: 100, id: 2)))
            let second = await recorder.outcome(of: SequenceID(2))
            guard case .noRoom(let needed, let free) = second.error, needed > free else {
                Issue.record("\(String(describing: second.error))")
                return
            }
            #expect(second.outputs.count > 10)
            let first = await recorder.outcome(of: SequenceID(1))
            #expect(first.outputs.count == 100)
            #expect(first.finish == .length)
            await engine.shutdown()
        }

        @Test func `more sequences than allowed are refused`() async throws {
            var recorder = EngineRecorder()
            var settings = TinyModel.settings()
            settings.maximumSequences = 1
            let engine = try LlamaEngine(settings: settings, onEvent: recorder.sink)
            engine.submit(.run(.greedy([1, 2, 3], new: 2000, id: 1)))
            engine.submit(.run(.greedy([1, 2, 3], new: 1, id: 2)))
            guard case .noRoom = await recorder.outcome(of: SequenceID(2)).error else {
                Issue.record("the second sequence was taken")
                return
            }
            await engine.shutdown()
            guard case .shutDown = await recorder.outcome(of: SequenceID(1)).error else {
                Issue.record("the first sequence was not told")
                return
            }
        }

        @Test func `the end of the context ends the text`() async throws {
            var recorder = EngineRecorder()
            var settings = TinyModel.settings()
            settings.contextTokens = 64
            let engine = try LlamaEngine(settings: settings, onEvent: recorder.sink)
            let prompt = try TinyModel.prompt(tokens: 64)
            engine.submit(.run(.greedy(Array(prompt.prefix(60)), new: 100, id: 1)))
            engine.submit(.run(.greedy(prompt, new: 100, id: 2)))
            // The token after the last position can be sampled, but not computed.
            let first = await recorder.outcome(of: SequenceID(1))
            #expect(first.outputs.count == 5)
            #expect(first.finish == .length)
            #expect(await recorder.outcome(of: SequenceID(2)).outputs.count == 1)
            engine.submit(.run(.greedy(prompt + [1], new: 1, id: 3)))
            guard case .invalidJob = await recorder.outcome(of: SequenceID(3)).error else {
                Issue.record("a prompt longer than the context was taken")
                return
            }
            await engine.shutdown()
        }

        @Test func `an end-of-generation token ends the text unless ignored`() async throws {
            var recorder = EngineRecorder()
            let engine = try LlamaEngine(settings: TinyModel.settings(), onEvent: recorder.sink)
            let tokenizer = try TinyModel.tokenizer.get()
            let end = try #require((0..<2048).first { tokenizer.isEndOfGeneration($0) })
            var job = SequenceJob.greedy(try TinyModel.prompt(tokens: 20), new: 8)
            job.sampling.logitBias = [LogitBias(token: end, bias: 100)]
            engine.submit(.run(job))
            #expect(await recorder.outcome(of: job.sequence).tokens.count == 8)
            recorder.forget(job.sequence)
            job.sampling.ignoresEndOfGeneration = false
            engine.submit(.run(job))
            let outcome = await recorder.outcome(of: job.sequence)
            #expect(outcome.tokens == [end])
            #expect(outcome.finish == .stop)
            await engine.shutdown()
        }

        @Test func `shutdown ends a long iteration early`() async throws {
            var recorder = EngineRecorder()
            var settings = TinyModel.settings(kvCapacityTokens: 4096)
            settings.microBatchTokens = 4096
            let engine = try LlamaEngine(settings: settings, onEvent: recorder.sink)
            let prompt = try TinyModel.prompt(tokens: 2000)
            engine.submit(.run(.greedy(prompt, new: 1, id: 1)))
            engine.submit(.run(.greedy(prompt, new: 1, id: 2)))
            while engine.progress.stepAge == nil, engine.progress.steps == 0 { await Task.yield() }
            let clock = ContinuousClock()
            let start = clock.now
            await engine.shutdown()
            // This bounds a hang; that the iteration did not run to its end shows in the errors.
            #expect(clock.now - start < .seconds(10))
            #expect(await recorder.outcome(of: SequenceID(1)).error == .shutDown)
            #expect(await recorder.outcome(of: SequenceID(2)).error == .shutDown)
            #expect(engine.progress.openSequences == 0)
            engine.submit(.run(.greedy(prompt, new: 1, id: 3)))
        }
    }
}
