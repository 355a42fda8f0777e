import DeviceProfile
import EngineRuntime
import Foundation
import InferenceEngine
import ServingTypes
import SimulatedEngine
import Testing

@Suite struct SimulatedEngineTests {
    private let prompt = (0..<700).map { TokenID($0 % 251) }

    private func job(
        _ tokens: [TokenID], new: Int, id: UInt64 = 1, seed: UInt64 = 5
    ) -> SequenceJob {
        var sampling = SamplingParameters()
        sampling.seed = seed
        return SequenceJob(
            sequence: SequenceID(id), tokens: tokens, sampling: sampling, maximumNewTokens: new)
    }

    private func output(_ job: SequenceJob) async throws -> [TokenID] {
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: .instant, onEvent: recorder.sink)
        engine.submit(.run(job))
        let outcome = await recorder.outcome(of: job.sequence)
        #expect(outcome.error == nil)
        #expect(outcome.outputs.count == job.maximumNewTokens)
        await engine.shutdown()
        return outcome.tokens
    }

    private func exportedBlocks() async throws -> (blocks: [KVBlock], token: TokenID) {
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: .instant, onEvent: recorder.sink)
        var job = job(prompt, new: 1)
        job.exportsKV = true
        engine.submit(.run(job))
        let outcome = await recorder.outcome(of: job.sequence)
        #expect(outcome.order == "bbbbt")
        for block in outcome.blocks {
            #expect(
                block.bytes.usedBytes
                    == engine.description.maximumBlockBytes(tokens: block.tokenCount))
        }
        await engine.shutdown()
        return (outcome.blocks, try #require(outcome.tokens.first))
    }

    @Test func `tokens depend on the seed and on all tokens before`() async throws {
        let output = try await output(job(prompt, new: 30))
        #expect(try await self.output(job(prompt, new: 30)) == output)
        #expect(try await self.output(job(prompt, new: 30, seed: 6)) != output)
        var other = prompt
        other[3] += 1
        #expect(try await self.output(job(other, new: 30)) != output)
    }

    @Test func `a sequence goes on where it was left, handed over or computed again`() async throws
    {
        let whole = try await output(job(prompt, new: 30))
        var again = job(prompt + whole.prefix(11), new: 19)
        again.outputTokens = 11
        #expect(try await output(again) == Array(whole.dropFirst(11)))

        let (blocks, first) = try await exportedBlocks()
        #expect(first == whole.first)
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: .instant, onEvent: recorder.sink)
        for block in blocks { engine.submit(.importKV(SequenceID(1), block)) }
        var rest = job(prompt + [first], new: 29)
        rest.outputTokens = 1
        rest.importedTokens = prompt.count
        engine.submit(.run(rest))
        let outcome = await recorder.outcome(of: SequenceID(1))
        #expect(outcome.importedTokens == prompt.count)
        #expect([first] + outcome.tokens == whole)
        #expect(engine.progress.usedKVTokens == 0)
        await engine.shutdown()
    }

    @Test func `a retained beginning gives what computing it again gives`() async throws {
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: .instant, onEvent: recorder.sink)
        var turn = job(Array(prompt.prefix(300)), new: 30)
        turn.retainsKV = true
        engine.submit(.run(turn))
        let answer = await recorder.outcome(of: turn.sequence).tokens
        #expect(engine.progress.usedKVTokens == 329)
        let next = job(turn.tokens + answer + prompt.suffix(40), new: 30, id: 2)
        var forked = next
        forked.importedTokens = 320
        forked.exportsKV = true
        forked.exportedFrom = 350
        engine.submit(.fork(next.sequence, from: turn.sequence, tokens: 320))
        engine.submit(.run(forked))
        let outcome = await recorder.outcome(of: next.sequence)
        #expect(outcome.importedTokens == 320)
        #expect(outcome.tokens == (try await output(next)))
        #expect(outcome.blocks.first?.tokenStart == 350)
        #expect(engine.progress.usedKVTokens == 329)
        engine.submit(.cancel(turn.sequence))
        _ = await recorder.outcome(of: turn.sequence) { $0.wasCancelled }
        #expect(engine.progress.usedKVTokens == 0)

        // What was exported follows the same tokens elsewhere, and no others.
        turn.sequence = SequenceID(3)
        turn.tokens = Array(next.tokens.prefix(350))
        for tokens in [turn.tokens, turn.tokens.map { $0 ^ 1 }] {
            turn.tokens = tokens
            engine.submit(.run(turn))
            _ = await recorder.outcome(of: turn.sequence)
            engine.submit(.fork(SequenceID(4), from: turn.sequence, tokens: 350))
            engine.submit(.importKV(SequenceID(4), outcome.blocks[0]))
            engine.submit(.cancel(SequenceID(4)))
            let end = await recorder.outcome(of: SequenceID(4))
            #expect(end.refusals.count == (tokens[0] == prompt[0] ? 0 : 1))
            engine.submit(.cancel(turn.sequence))
            _ = await recorder.outcome(of: turn.sequence) { $0.wasCancelled }
            recorder.forget(turn.sequence)
            recorder.forget(SequenceID(4))
        }
        await engine.shutdown()
    }

    @Test func `KV that was there before leaves as if it were computed`() async throws {
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: .instant, onEvent: recorder.sink)
        var first = job(prompt, new: 1)
        first.retainsKV = true
        engine.submit(.run(first))
        _ = await recorder.outcome(of: first.sequence)
        engine.submit(.export(first.sequence, from: 0))
        let retained = await recorder.outcome(of: first.sequence) { $0.order.hasSuffix("e") }
        engine.submit(.fork(SequenceID(2), from: first.sequence, tokens: prompt.count - 5))
        var forked = job(prompt, new: 1, id: 2)
        forked.importedTokens = prompt.count - 5
        forked.exportsKV = true
        engine.submit(.run(forked))
        let outcome = await recorder.outcome(of: SequenceID(2))
        #expect(outcome.blocks.last?.tokenCount == 5)
        for blocks in [retained.blocks, outcome.blocks] {
            for block in blocks { engine.submit(.importKV(SequenceID(3), block)) }
            var rest = job(prompt + retained.tokens, new: 9, id: 3)
            rest.outputTokens = 1
            rest.importedTokens = prompt.count
            engine.submit(.run(rest))
            let end = await recorder.outcome(of: SequenceID(3))
            #expect(retained.tokens + end.tokens == (try await output(job(prompt, new: 10))))
            recorder.forget(SequenceID(3))
        }
        await engine.shutdown()
    }

    @Test func `each damaged byte of a block is noticed`() async throws {
        let (blocks, _) = try await exportedBlocks()
        let bytes = unsafe blocks[0].bytes.withBytes { unsafe Array($0) }
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: .instant, onEvent: recorder.sink)
        for place in stride(from: 0, to: 4096, by: 37) {
            var damaged = bytes
            damaged[place] ^= 0x10
            let buffer = KVBuffer(capacityBytes: damaged.count)
            unsafe buffer.withWritableBytes { unsafe $0.copyBytes(from: damaged) }
            buffer.setUsedBytes(damaged.count)
            var block = blocks[0]
            block.bytes = buffer
            let id = SequenceID(UInt64(place))
            engine.submit(.importKV(id, block))
            block = KVBlock(tokenStart: 0, tokenCount: block.tokenCount, checksumming: buffer)
            engine.submit(.importKV(id, block))
            let outcome = await recorder.outcome(of: id) { $0.refusals.count == 2 }
            let reasons = ["the checksum doesn't fit", "the block is damaged"]
            #expect(outcome.refusals.map(\.reason) == reasons, "byte \(place)")
        }
        #expect(engine.progress.openSequences == 0)
        await engine.shutdown()
    }

    @Test func `KV of other tokens is refused`() async throws {
        let (blocks, first) = try await exportedBlocks()
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: .instant, onEvent: recorder.sink)
        for block in blocks { engine.submit(.importKV(SequenceID(1), block)) }
        var tokens = prompt + [first]
        tokens[699] += 1
        var job = job(tokens, new: 2)
        job.importedTokens = 700
        engine.submit(.run(job))
        let error = await recorder.outcome(of: SequenceID(1)).error
        #expect(error == .blockRefused(reason: "the KV belongs to other tokens"))
        // The second block alone has no beginning.
        engine.submit(.importKV(SequenceID(2), blocks[1]))
        let second = await recorder.outcome(of: SequenceID(2)) { !$0.refusals.isEmpty }
        #expect(second.refusals.map(\.expectedToken) == [0])
        await engine.shutdown()
    }

    @Test func `texts end by chance as often as set`() async throws {
        var settings = SimulatedEngine.Settings.instant
        settings.endProbability = 0.1
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: settings, onEvent: recorder.sink)
        var total = 0
        for seed in UInt64(0)..<100 {
            engine.submit(.run(job([1, 2], new: 1000, id: seed, seed: seed)))
            let outcome = await recorder.outcome(of: SequenceID(seed))
            #expect(outcome.finish == .stop)
            #expect(outcome.tokens.last == ByteTokenizer.endOfGeneration)
            total += outcome.tokens.count
        }
        #expect((700...1300).contains(total), "\(total) tokens, 1000 expected")
        await engine.shutdown()
    }

    @Test func `prompts and tokens take their modelled time`() async throws {
        var settings = SimulatedEngine.Settings()
        settings.prefillTokensPerSecond = 10_000
        settings.decodeStep = .milliseconds(5)
        settings.decodeStepPerSequence = .zero
        settings.decodeStepPerThousandTokens = .zero
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: settings, onEvent: recorder.sink)
        let clock = ContinuousClock()
        var start = clock.now
        engine.submit(.run(job(Array(prompt.prefix(512)), new: 1)))
        _ = await recorder.outcome(of: SequenceID(1))
        #expect(clock.now - start >= .milliseconds(51))
        start = clock.now
        for id in UInt64(2)...31 { engine.submit(.run(job([1], new: 11, id: id))) }
        for id in UInt64(2)...31 { _ = await recorder.outcome(of: SequenceID(id)) }
        // Thirty streams share the steps: not 330 of them.
        #expect(clock.now - start >= .milliseconds(50))
        #expect(engine.progress.steps < 150)
        await engine.shutdown()
    }

    @Test func `times can be those of a data sheet`() async throws {
        var settings = SimulatedEngine.Settings()
        let model = Roofline(profile: .gb10, shape: .llama3_8B)
        settings.model = model
        settings.modelSpeed = 4
        settings.decodeStep = .seconds(1000)
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: settings, onEvent: recorder.sink)
        engine.submit(.run(job(Array(prompt.prefix(512)), new: 3)))
        _ = await recorder.outcome(of: SequenceID(1))
        let tokens = settings.finalRunTokens
        let prefill =
            model.prefillSeconds([0..<256]) + model.prefillSeconds([256..<(512 - tokens)])
            + model.prefillSeconds([(512 - tokens)..<512])
        let decode = 2 * model.decodeSeconds(sequences: 1, contextTokens: 512)
        let computed = engine.progress.computeDuration
        #expect(computed >= .seconds((prefill + decode) / 4))
        #expect(computed < .seconds(100), "the engine's own steps take longer")
        await engine.shutdown()
    }

    @Test func `shutdown ends a long iteration and tells the sequences`() async throws {
        var settings = SimulatedEngine.Settings()
        settings.prefillTokensPerSecond = 1
        var recorder = EngineRecorder()
        let engine = try SimulatedEngine(settings: settings, onEvent: recorder.sink)
        engine.submit(.run(job(prompt, new: 1)))
        while engine.progress.stepAge == nil, engine.progress.steps == 0 { await Task.yield() }
        // Comes too late to be taken before the end.
        engine.submit(.run(job(prompt, new: 1, id: 2)))
        let clock = ContinuousClock()
        let start = clock.now
        async let first: Void = engine.shutdown()
        async let second: Void = engine.shutdown()
        _ = await (first, second)
        #expect(clock.now - start < .seconds(1))
        #expect(await recorder.outcome(of: SequenceID(1)).error == .shutDown)
        #expect(await recorder.outcome(of: SequenceID(2)).error == .shutDown)
        await engine.shutdown()
        engine.submit(.cancel(SequenceID(1)))
    }

    @Test func `many sequences at once get their own texts`() async throws {
        var recorder = EngineRecorder()
        var settings = SimulatedEngine.Settings.instant
        settings.prefillBudgetTokens = 40
        let engine = try SimulatedEngine(settings: settings, onEvent: recorder.sink)
        let jobs = (0..<30).map { index in
            job(Array(prompt.prefix(1 + 20 * index)), new: 40, id: UInt64(index))
        }
        for job in jobs { engine.submit(.run(job)) }
        for job in jobs {
            let together = await recorder.outcome(of: job.sequence)
            #expect(together.tokens == (try await output(job)))
        }
        #expect(engine.progress.openSequences == 0)
        #expect(engine.progress.usedKVTokens == 0)
        #expect(engine.progress.steps >= 40)
        await engine.shutdown()
    }

    @Test func `engines of unequal speed share a fingerprint`() async throws {
        var slow = SimulatedEngine.Settings()
        slow.decodeStep = .seconds(1)
        var other = SimulatedEngine.Settings()
        other.kvBytesPerToken = 4096
        let engines = try [SimulatedEngine.Settings(), slow, other].map {
            try SimulatedEngine(settings: $0) { _ in }
        }
        #expect(engines[0].description.fingerprint == engines[1].description.fingerprint)
        #expect(engines[0].description.fingerprint != engines[2].description.fingerprint)
        for engine in engines { await engine.shutdown() }
    }

    @Test func `settings that don't fit together are refused`() {
        for change: (inout SimulatedEngine.Settings) -> Void in [
            { $0.kvBytesPerToken = 8 }, { $0.maximumSequences = 0 }, { $0.microBatchTokens = 8 },
            { $0.prefillTokensPerSecond = 0 }, { $0.finalRunTokens = -1 },
        ] {
            var settings = SimulatedEngine.Settings()
            change(&settings)
            #expect(throws: EngineError.self) {
                _ = try SimulatedEngine(settings: settings) { _ in }
            }
        }
    }
}

@Suite struct ByteTokenizerTests {
    private let tokenizer = ByteTokenizer()

    @Test func `text comes back from its tokens`() {
        let text = "naïve 🤷 \0 text"
        let tokens = tokenizer.tokenize(text, addsSpecial: true, parsesSpecial: false)
        let bytes = tokens.flatMap { tokenizer.bytes(of: $0) }
        #expect(String(decoding: bytes, as: UTF8.self) == text)
    }

    @Test func `the end has a name and no bytes`() {
        let tokens = tokenizer.tokenize("a<|end|>b", addsSpecial: true, parsesSpecial: true)
        #expect(tokens == [97, 256, 98])
        #expect(tokenizer.bytes(of: 256).isEmpty)
        #expect(tokenizer.isEndOfGeneration(256))
        #expect(tokenizer.bytes(of: -1).isEmpty)
    }

    @Test func `a conversation becomes a prompt`() throws {
        let messages = """
            [{"role": "system", "content": "Be brief."}, {"role": "assistant", "content": null},
             {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
            """
        let prompt = try tokenizer.prompt(forChat: Array(messages.utf8))
        #expect(prompt.text == "system: Be brief.\nassistant: \nuser: Hi\nassistant: ")
        for bad in ["", "{}", "[]", "[{}]", #"[{"role": "user", "content": 1}]"#] {
            #expect(throws: TokenizerError.self) {
                _ = try tokenizer.prompt(forChat: Array(bad.utf8))
            }
        }
    }
}
