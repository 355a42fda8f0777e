import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

extension LlamaEngineTests {
    /// Forks and later exports with each way of keeping KV.
    @Suite struct ForkKindTests {
        private static func settings(
            _ kind: ModelKind, _ kept: LlamaEngine.WindowKV = .full
        ) -> LlamaEngine.Settings {
            var settings = kind.settings
            settings.windowKV = kept
            settings.kvCapacityTokens = 2048
            settings.kvType = .bf16
            settings.microBatchTokens = 64
            settings.finalRunTokens = 16
            return settings
        }

        private func expectSame(_ whole: [TokenOutput], _ other: [TokenOutput]) {
            #expect(whole.count == other.count)
            for (index, (expected, actual)) in zip(whole, other).enumerated() {
                guard expected.token == actual.token else {
                    let gap = expected.alternatives[0].logprob - expected.alternatives[1].logprob
                    #expect(gap < 0.02, "token \(index) is no near tie")
                    return
                }
            }
        }

        /// A job whose first tokens are another job's.
        private func next(
            _ id: UInt64, after job: SequenceJob, shared: Int, new: Int = 40
        ) -> SequenceJob {
            var next = ModelKind.job(tokens: shared + 90, new: new, id: id, seed: id)
            next.tokens = Array(job.tokens.prefix(shared)) + next.tokens.dropFirst(shared)
            return next
        }

        private func retained(_ tokens: Int) -> SequenceJob {
            var job = ModelKind.job(tokens: tokens, new: 1, id: 1)
            job.retainsKV = true
            return job
        }

        @Test(arguments: ModelKind.short)
        func `forks beside each other give what each gives alone`(kind: ModelKind) async throws {
            var pair = try EnginePair(Self.settings(kind))
            let first = retained(500)
            _ = await pair.decodeOutcome(first)
            let jobs = [(2, 500), (3, 448), (4, 500)].map { id, shared in
                (next(UInt64(id), after: first, shared: shared), shared)
            }
            for (job, shared) in jobs {
                pair.decode.submit(.fork(job.sequence, from: first.sequence, tokens: shared))
                var forked = job
                forked.importedTokens = shared
                pair.decode.submit(.run(forked))
            }
            pair.decode.submit(.cancel(first.sequence))
            for (job, _) in jobs {
                let outcome = await pair.decodeOutcome(of: job.sequence)
                #expect(outcome.refusals.isEmpty)
                expectSame(await pair.whole(job), outcome.outputs)
            }
            #expect(pair.decode.progress.usedKVTokens == 0)
        }

        /// Cells of windows that have moved on must not pile up in a small cache.
        @Test(arguments: ModelKind.windows)
        func `a small cache of windows takes fork after fork at the end of a sequence`(
            kind: ModelKind
        ) async throws {
            var pair = try EnginePair(Self.settings(kind, .full), Self.settings(kind, .window))
            let first = retained(500)
            _ = await pair.decodeOutcome(first)
            for round in UInt64(0)..<4 {
                let jobs = (0..<3).map { next(10 * round + 2 + $0, after: first, shared: 500) }
                for job in jobs {
                    pair.decode.submit(.fork(job.sequence, from: first.sequence, tokens: 500))
                    var forked = job
                    forked.importedTokens = 500
                    pair.decode.submit(.run(forked))
                }
                for job in jobs {
                    let outcome = await pair.decodeOutcome(of: job.sequence)
                    #expect(outcome.refusals.isEmpty)
                    expectSame(await pair.whole(job), outcome.outputs)
                }
            }
            let early = next(100, after: first, shared: 300)
            pair.decode.submit(.fork(early.sequence, from: first.sequence, tokens: 300))
            let refused = await pair.decodeOutcome(of: early.sequence) { !$0.refusals.isEmpty }
            #expect(refused.refusals.map(\.expectedToken) == [0])
            #expect(pair.decode.progress.usedKVTokens == 500)
        }

        @Test(arguments: ModelKind.short, [LlamaEngine.WindowKV.full, .window])
        func `a retained sequence goes on in another engine`(
            kind: ModelKind, kept: LlamaEngine.WindowKV
        ) async throws {
            guard kept == .full || ModelKind.windows.contains(kind) else { return }
            var pair = try EnginePair(Self.settings(kind), Self.settings(kind, kept))
            for size in [10, 70, 500] {
                let id = UInt64(size)
                var job = ModelKind.job(tokens: size, id: id, seed: id)
                let whole = await pair.whole(job)
                job.retainsKV = true
                job.maximumNewTokens = 1
                let first = await pair.decodeOutcome(job).outputs.first
                // Others take cells that windows have left.
                _ = await pair.decodeOutcome(ModelKind.job(tokens: 600, id: 1, seed: 99))
                pair.decode.submit(.export(job.sequence, from: 0))
                let exported = await pair.decodeOutcome(of: job.sequence) {
                    $0.order.hasSuffix("e")
                }
                #expect(exported.blocks.allSatisfy { $0.tokenCount <= 64 })
                #expect(exported.blocks.reduce(0) { $0 + $1.tokenCount } == size)
                job.maximumNewTokens = whole.count
                job.retainsKV = false
                let rest = try await pair.continued(job, exported.blocks, first)
                expectSame(whole, rest)
                pair.decode.submit(.cancel(job.sequence))
                _ = await pair.decodeOutcome(of: job.sequence) { $0.wasCancelled }
            }
        }

        /// What was left out of a block must not be taken for there.
        @Test func `a sequence whose window did not come is not computed`() async throws {
            var pair = try EnginePair(
                Self.settings(.window), Self.settings(.window, .window))
            let job = retained(500)
            _ = await pair.decodeOutcome(job)
            _ = await pair.decodeOutcome(ModelKind.job(tokens: 600, id: 9, seed: 99))
            pair.decode.submit(.export(job.sequence, from: 0))
            let exported = await pair.decodeOutcome(of: job.sequence) { $0.order.hasSuffix("e") }
            for block in exported.blocks.prefix(3) {
                pair.prefill.submit(.importKV(SequenceID(3), block))
            }
            var short = next(3, after: job, shared: 192)
            short.importedTokens = 192
            pair.prefill.submit(.run(short))
            let outcome = await pair.prefillOutcome(of: SequenceID(3))
            #expect(
                outcome.error
                    == .blockRefused(reason: "the KV before token 192 is no longer whole"))
            #expect(pair.prefill.progress.usedKVTokens == 0)
        }
    }
}
