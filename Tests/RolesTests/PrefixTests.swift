import InferenceEngine
import Roles
import ServingTypes
import Testing

/// Prompts that begin like earlier ones on a prefill-worker.
@Suite struct PrefixTests {
    private let prompt = (1...40).map { TokenID($0) }

    /// A prefill-worker that has computed `prompt` under the first sequence and sent its KV.
    private func computed(kept: Int = 2, capacity: Int = 200) -> WorkerBench {
        var bench = WorkerBench(.prefill, capacity: capacity) { $0.keptSequences = kept }
        let job = bench.offer(terms(attempt(1)), prompt: prompt).job
        #expect(job?.retainsKV == (kept > 0) && job?.importedTokens == 0)
        _ = bench.sampled(1, 7, finish: .length)
        _ = bench.machine.transferEnded(attempt(1), failure: nil)
        #expect(bench.machine.isIdle)
        return bench
    }

    private func cached(_ actions: [WorkerAction]) -> Int? {
        actions.compactMap {
            if case .send(.prefillAccepted(let accepted), _) = $0 {
                accepted.cachedTokens
            } else {
                nil
            }
        }.only
    }

    @Test func `a prompt begins with the KV of an earlier one, in whole blocks`() throws {
        var bench = computed()
        let actions = bench.offer(terms(attempt(2)), prompt: prompt + [50, 51], held: 5)
        #expect(cached(actions) == 32)
        #expect(actions.contains(.fork(SequenceID(2), from: SequenceID(1), tokens: 32)))
        let job = try #require(actions.job)
        #expect(job.importedTokens == 32 && job.tokens.count == 42)
        // The decode-worker needs all from its fifth token on, wherever it comes from.
        #expect(job.exportsKV && job.exportedFrom == 5)
        #expect(bench.machine.exportingAttempt(SequenceID(2)) == attempt(2))
        // The engine's answer to the fork changes nothing.
        #expect(bench.imported(2, tokens: 32) == [])
        #expect(bench.sampled(2, 7, finish: .length).last == .cancelSequence(SequenceID(1)))
        #expect(bench.machine.keptKVTokens == 42)
    }

    @Test func `the same prompt again computes at least its last token`() {
        var bench = computed()
        #expect(cached(bench.offer(terms(attempt(2)), prompt: Array(prompt.prefix(32)))) == 16)
        #expect(cached(bench.offer(terms(attempt(3)), prompt: Array(prompt.prefix(33)))) == 32)
    }

    @Test func `nothing is kept or shared where that is not wanted`() {
        var bench = computed(kept: 0)
        #expect(cached(bench.offer(terms(attempt(2)), prompt: prompt)) == 0)
        #expect(bench.machine.keptKVTokens == 0)
    }

    @Test func `KV that the engine can't share is computed`() {
        var bench = computed()
        _ = bench.offer(terms(attempt(2)), prompt: prompt)
        let actions = bench.refused(2, at: 0)
        #expect(actions.first == .cancelSequence(SequenceID(1)))
        #expect(actions.job?.importedTokens == 0 && actions.job?.tokens == prompt)
        _ = bench.sampled(2, 7, finish: .length)
        _ = bench.machine.transferEnded(attempt(2), failure: nil)
        #expect(bench.machine.isIdle && bench.machine.keptSequences == 1)
    }

    @Test func `a cancelled prompt whose KV can't be shared frees its slot`() {
        var bench = computed()
        _ = bench.offer(terms(attempt(2)), prompt: prompt)
        _ = bench.cancel(attempt(2))
        _ = bench.machine.transferEnded(attempt(2), failure: nil)
        #expect(!bench.machine.isIdle)
        #expect(bench.refused(2, at: 0) == [.cancelSequence(SequenceID(1))])
        #expect(bench.machine.isIdle)
    }

    @Test func `kept KV makes way for prompts, the source of a prompt last`() {
        var bench = computed(capacity: 90)
        let other = prompt.map { $0 + 100 }
        _ = bench.offer(terms(attempt(2)), prompt: other)
        _ = bench.sampled(2, 7, finish: .length)
        _ = bench.machine.transferEnded(attempt(2), failure: nil)
        #expect(bench.machine.keptKVTokens == 80)
        let actions = bench.offer(terms(attempt(3)), prompt: prompt + [50])
        let room: [WorkerAction] = [
            .cancelSequence(SequenceID(2)),
            .fork(SequenceID(3), from: SequenceID(1), tokens: 32),
        ]
        #expect(Array(actions.dropFirst(2).dropLast()) == room)
        #expect(bench.machine.keptKVTokens == 40)
        #expect(bench.machine.promisedKVTokens == 41)
        // A third one fits only where the source was, and not beside what is promised.
        let more = bench.offer(terms(attempt(4)), prompt: prompt)
        #expect(more.contains(.fork(SequenceID(4), from: SequenceID(1), tokens: 32)))
        #expect(more.contains(.cancelSequence(SequenceID(1))))
        #expect(bench.machine.keptKVTokens == 0 && bench.machine.promisedKVTokens == 81)
    }

    @Test func `a prompt whose KV is still leaving can be thrown out of the engine`() {
        var bench = WorkerBench(.prefill, capacity: 60) { $0.keptSequences = 2 }
        _ = bench.offer(terms(attempt(1)), prompt: prompt)
        _ = bench.sampled(1, 7, finish: .length)
        let other = (1...20).map { TokenID($0 + 100) }
        _ = bench.offer(terms(attempt(2)), prompt: other)
        #expect(bench.machine.keptKVTokens == 40)
        _ = bench.sampled(2, 7, finish: .length)
        #expect(bench.machine.keptKVTokens == 60)
        #expect(bench.machine.transferEnded(attempt(2), failure: nil) == [])
        let third = (1...20).map { TokenID($0 + 200) }
        #expect(
            bench.offer(terms(attempt(3)), prompt: third).contains(.cancelSequence(SequenceID(1))))
        // It says nothing about the prompt whose KV is on its way.
        #expect(bench.engineCancelled(1) == [])
        #expect(bench.machine.transferEnded(attempt(1), failure: nil) == [])
    }

    @Test func `a cancelled prompt is not kept, even if it ends by itself`() {
        var bench = WorkerBench(.prefill) { $0.keptSequences = 2 }
        _ = bench.offer(terms(attempt(1)), prompt: prompt)
        _ = bench.cancel(attempt(1))
        _ = bench.machine.transferEnded(attempt(1), failure: nil)
        // Its first order may have come before the job.
        #expect(bench.sampled(1, 7, finish: .length) == [.cancelSequence(SequenceID(1))])
        #expect(bench.machine.isIdle && bench.machine.keptSequences == 0)
        #expect(bench.engineCancelled(1) == [])
    }

    @Test func `a prompt of one token's answer is kept, too`() {
        var bench = WorkerBench(.prefill) { $0.keptSequences = 2 }
        _ = bench.offer(terms(attempt(1), maximumNewTokens: 1), prompt: prompt)
        _ = bench.sampled(1, 7, finish: .length)
        #expect(bench.machine.isIdle && bench.machine.keptKVTokens == 40)
    }

    @Test func `a draining worker gives up what it keeps`() {
        var bench = computed()
        #expect(bench.machine.drain() == [.cancelSequence(SequenceID(1)), .drained])
        #expect(bench.machine.keptSequences == 0)
    }
}
