import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

extension LlamaEngineTests {
    /// Models with layers that attend to a window of 32 tokens.
    @Suite struct WindowTests {
        private static func settings(
            _ kind: ModelKind, _ kept: LlamaEngine.WindowKV
        ) -> LlamaEngine.Settings {
            var settings = kind.settings
            settings.windowKV = kept
            // With f16, sums are f16 as well, and KV elsewhere in memory changes their last digits.
            settings.kvType = .bf16
            // Not so many that the window's cache would be as large as the other one.
            settings.microBatchTokens = 64
            return settings
        }

        /// Same tokens, up to where two candidates are nearly equally likely: KV that lies
        /// elsewhere in memory is added up in another order.
        private func expectSame(_ whole: [TokenOutput], _ divided: [TokenOutput]) {
            #expect(whole.count == divided.count)
            for (index, (expected, actual)) in zip(whole, divided).enumerated() {
                guard expected.token == actual.token else {
                    let gap = expected.alternatives[0].logprob - expected.alternatives[1].logprob
                    #expect(gap < 0.02, "token \(index) is no near tie")
                    return
                }
                #expect(abs((expected.logprob ?? 0) - (actual.logprob ?? 1)) < 0.02)
            }
        }

        @Test(arguments: ModelKind.windows)
        func `engines that keep all KV and those that keep the window understand each other`(
            kind: ModelKind
        ) async throws {
            var whole = try EnginePair(Self.settings(kind, .full))
            for (from, to) in [
                (LlamaEngine.WindowKV.full, LlamaEngine.WindowKV.window),
                (.window, .full), (.window, .window),
            ] {
                var pair = try EnginePair(Self.settings(kind, from), Self.settings(kind, to))
                #expect(pair.prefill.description == pair.decode.description)
                #expect(pair.prefill.description == whole.prefill.description)
                for tokens in [32, 100, 900] {
                    let job = ModelKind.job(tokens: tokens, new: 80)
                    let expected = await whole.whole(job)
                    let divided = try await pair.divided(job)
                    // Beyond its 256 cells a small cache starts anew with those that it left.
                    if tokens < 150 {
                        #expect(divided == expected)
                    } else {
                        expectSame(expected, divided)
                    }
                }
            }
        }

        @Test(arguments: ModelKind.windows, [LlamaEngine.WindowKV.full, .window])
        func `sequences beside each other keep their windows`(
            kind: ModelKind, kept: LlamaEngine.WindowKV
        ) async throws {
            var alone = try EnginePair(Self.settings(kind, .full))
            var pair = try EnginePair(Self.settings(kind, kept))
            // Two rounds: the second one meets a cache full of what the first one left.
            for round in UInt64(0)..<2 {
                let jobs = (UInt64(1)...4).map { id in
                    ModelKind.job(
                        tokens: 100 + 20 * Int(id), new: 60, id: id, seed: 10 * round + id)
                }
                var handedOver: [(blocks: [KVBlock], first: TokenOutput?)] = []
                for job in jobs { handedOver.append(await pair.exported(job)) }
                // Block by block in turn, as they come over a network.
                for block in 0..<3 {
                    for (job, parts) in zip(jobs, handedOver) where block < parts.blocks.count {
                        pair.decode.submit(.importKV(job.sequence, parts.blocks[block]))
                    }
                }
                var rests: [SequenceJob] = []
                for (job, parts) in zip(jobs, handedOver) {
                    #expect(parts.blocks.count <= 3)
                    var rest = job
                    rest.tokens.append(try #require(parts.first).token)
                    rest.outputTokens += 1
                    rest.importedTokens = job.tokens.count
                    rest.maximumNewTokens -= 1
                    pair.decode.submit(.run(rest))
                    rests.append(rest)
                }
                for (job, parts) in zip(jobs, handedOver) {
                    let output = await pair.decodeOutcome(of: job.sequence).outputs
                    expectSame(await alone.whole(job), [try #require(parts.first)] + output)
                }
            }
        }

        @Test func `a block holds no more of the layers with a window than the window`()
            async throws
        {
            var pair = try EnginePair(ModelKind.window.settings)
            let (blocks, _) = await pair.exported(ModelKind.job(tokens: 256))
            let (short, _) = await pair.exported(ModelKind.job(tokens: 20))
            // One layer of four keeps all tokens; a layer has 256 bytes a token, a cell 12.
            let fixed = pair.prefill.description.blockOverheadBytes
            #expect(blocks.map(\.bytes.usedBytes) == [fixed + 256 * 268 + 32 * (3 * 256 + 12)])
            #expect(short.map(\.bytes.usedBytes) == [fixed + 20 * (4 * 256 + 2 * 12)])
        }

        @Test func `what a window saves is told`() throws {
            var settings = Self.settings(.window, .full)
            settings.kvCapacityTokens = 1000
            let full = try LlamaEngine(settings: settings) { _ in }
            let use = try #require(full.windowUse)
            #expect(use.windowTokens == 32)
            #expect(use.bytesPerToken == 3 * 256)
            #expect(use.fullBytes == 1024 * 3 * 256)
            // (4 sequences + 1) x 32 + a micro-batch of 64, in steps of 256.
            #expect(use.neededBytes == 256 * 3 * 256)
        }

        @Test(arguments: [256, 300, 450])
        func `a sequence is cut back where its window is still there`(kept: Int) async throws {
            var settings = ModelKind.window.settings
            settings.kvType = .bf16
            var pair = try EnginePair(settings)
            var turn = ModelKind.job(tokens: 500, new: 10, id: 1)
            turn.retainsKV = true
            _ = await pair.decodeOutcome(turn)
            var next = ModelKind.job(tokens: 600, new: 20, id: 2, seed: 2)
            next.tokens = Array(turn.tokens.prefix(kept)) + next.tokens.dropFirst(kept)
            let whole = await pair.whole(next)
            next.importedTokens = kept
            pair.decode.submit(.fork(next.sequence, from: turn.sequence, tokens: kept))
            expectSame(whole, await pair.decodeOutcome(next).outputs)
        }

        /// Handed over or in a small cache, only a part of what the window once held is there.
        @Test(arguments: [LlamaEngine.WindowKV.full, .window])
        func `a sequence isn't cut back to where its window is gone`(
            kept: LlamaEngine.WindowKV
        ) async throws {
            var settings = ModelKind.window.settings
            settings.windowKV = kept
            var pair = try EnginePair(settings)
            var job = ModelKind.job(tokens: 512, new: 10, id: 1)
            job.retainsKV = true
            let (blocks, first) = await pair.exported(job)
            #expect(blocks.map(\.tokenCount) == [256, 192, 64])
            _ = try await pair.decoded(job, blocks, first)
            var next = ModelKind.job(tokens: 600, new: 20, id: 2, seed: 2)
            next.tokens = Array(job.tokens.prefix(300)) + next.tokens.dropFirst(300)
            next.importedTokens = 300
            pair.decode.submit(.fork(next.sequence, from: job.sequence, tokens: 300))
            let outcome = await pair.decodeOutcome(next) { !$0.refusals.isEmpty }
            #expect(
                outcome.refusals
                    == [
                        Refusal(
                            expectedToken: 0,
                            reason: "the KV before token 300 is no longer whole")
                    ])
            // The source stays as it is.
            #expect(pair.decode.progress.openSequences == 1)
            #expect(pair.decode.progress.usedKVTokens == 521)
        }
    }
}
