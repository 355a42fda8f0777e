import InferenceEngine
import KVHandOver
import ServingTypes
import Testing

@testable import Roles

@Suite struct KeptTests {
    private let prompt = (1...20).map { TokenID($0) }

    /// A decode-worker that has answered `prompt` with 7 8 9 under the first sequence.
    private func answered(
        kept: Int = 2, capacity: Int = 100, sequences: Int = 3
    ) -> WorkerBench {
        var bench = WorkerBench(.decodeWorker, sequences: sequences, capacity: capacity) {
            $0.keptSequences = kept
        }
        bench.run(terms(attempt(1)), prompt: prompt, as: 1)
        _ = bench.sampled(1, 8)
        _ = bench.sampled(1, 9, finish: .stop)
        return bench
    }

    // MARK: The list

    @Test func `the longest common beginning is found, of equals the latest`() {
        var kept = KeptSequences(limit: 9)
        for number in UInt64(1)...4 {
            let shared = number == 1 ? 18 : number == 4 ? 15 : 20
            let own = [TokenID](repeating: TokenID(100 + number), count: 5)
            #expect(kept.keep(SequenceID(number), tokens: prompt.prefix(shared) + own) == [])
        }
        #expect(kept.totalTokens == 23 + 25 + 25 + 20)
        let best = kept.take(for: prompt + [50])
        #expect(best?.sequence == SequenceID(3) && best?.tokens == 20)
        #expect(kept.take(for: prompt)?.sequence == SequenceID(2))
        #expect(kept.take(for: prompt)?.tokens == 18)
        #expect(kept.take(for: prompt) == nil, "15 tokens are not worth it")
        #expect(kept.count == 1 && kept.totalTokens == 20)
    }

    @Test func `a beginning that is all that is wanted is taken as it is`() {
        var kept = KeptSequences(limit: 1)
        _ = kept.keep(SequenceID(1), tokens: prompt)
        #expect(kept.take(for: Array(prompt.prefix(15))) == nil)
        #expect(kept.take(for: Array(prompt.prefix(16)))?.tokens == 16)
        #expect(kept.count == 0 && kept.totalTokens == 0)
    }

    @Test func `what is short, or not allowed, is not kept, and the oldest goes first`() {
        var none = KeptSequences(limit: 0)
        #expect(none.keep(SequenceID(1), tokens: prompt) == [SequenceID(1)])
        var kept = KeptSequences(limit: 2)
        #expect(kept.keep(SequenceID(1), tokens: Array(prompt.prefix(15))) == [SequenceID(1)])
        #expect(kept.keep(SequenceID(2), tokens: prompt) == [])
        #expect(kept.keep(SequenceID(3), tokens: prompt) == [])
        #expect(kept.keep(SequenceID(4), tokens: prompt) == [SequenceID(2)])
        #expect(kept.totalTokens == 40)
        #expect(kept.removeOldest() == SequenceID(3))
        #expect(kept.removeAll() == [SequenceID(4)])
        #expect(kept.removeOldest() == nil && kept.totalTokens == 0)
    }

    // MARK: The worker

    @Test func `the KV of an answer is kept and the next turn begins with it`() throws {
        var bench = answered()
        #expect(bench.machine.isIdle)
        #expect(bench.machine.keptSequences == 1)
        // The last token's KV was never computed.
        #expect(bench.machine.keptKVTokens == 22)
        #expect(bench.status.freeKVBytes == 1000 && bench.status.reservedKVBytes == 0)
        let next = prompt + [7, 8, 9, 50, 51]
        let actions = bench.reserve(terms(attempt(2)), prompt: next)
        #expect(actions.first == .adopt(SequenceID(2), from: SequenceID(1), tokens: 22))
        #expect(actions.granted?.heldTokens == 22)
        #expect(bench.machine.keptSequences == 0 && bench.machine.keptKVTokens == 0)
        #expect(bench.offerKV(attempt(2), tokens: 25).transferAnswers == [.invalid])
        let grant = try #require(bench.offerKV(attempt(2), tokens: 25, from: 22).grant)
        #expect(grant.heldTokens == 22 && grant.creditBytes == 30)
        #expect(bench.land(attempt(2), 22, 3).imports == [22])
        let job = try #require(bench.endKV(attempt(2), tokens: 25, of: [(22, 3)]).job)
        #expect(job.importedTokens == 25 && job.retainsKV)
        #expect(bench.imported(2, tokens: 22).transferAnswers == [])
        #expect(bench.imported(2, tokens: 25).transferAnswers == [nil])
    }

    @Test func `a prompt that is held whole needs no chunk`() {
        var bench = answered()
        #expect(bench.reserve(terms(attempt(2)), prompt: prompt).granted?.heldTokens == 20)
        let grant = bench.offerKV(attempt(2), tokens: 20, from: 20).grant
        #expect(grant?.heldTokens == 20 && grant?.creditBytes == 0)
        let actions = bench.endKV(attempt(2), tokens: 20, of: [])
        #expect(actions.job?.importedTokens == 20 && actions.transferAnswers == [])
        #expect(bench.imported(2, tokens: 20).transferAnswers == [nil])
    }

    @Test func `held KV that the engine can't use fails the request`() {
        var bench = answered()
        _ = bench.reserve(terms(attempt(2)), prompt: prompt)
        _ = bench.offerKV(attempt(2), tokens: 20, from: 20)
        let actions = bench.refused(2, at: 0)
        #expect(actions.failures == [.transfer] && actions.transferAnswers == [.transfer])
        #expect(bench.machine.isIdle, "the engine has nothing of it")
        #expect(bench.reserve(terms(attempt(3)), prompt: prompt).granted?.heldTokens == 0)
    }

    @Test func `a reservation with held KV that is cancelled gives it back to the engine`() {
        for comesFirst in [true, false] {
            var bench = answered()
            _ = bench.reserve(terms(attempt(2)), prompt: prompt)
            if comesFirst { _ = bench.imported(2, tokens: 20) }
            #expect(bench.cancel(attempt(2)) == [.cancelSequence(SequenceID(2))])
            if !comesFirst { #expect(bench.imported(2, tokens: 20) == []) }
            #expect(!bench.machine.isIdle)
            #expect(bench.engineCancelled(2) == [])
            #expect(bench.machine.isIdle)
            #expect(bench.machine.keptSequences == 0)
        }
    }

    @Test func `a cancelled reservation whose held KV is refused is free at once`() {
        var bench = answered()
        _ = bench.reserve(terms(attempt(2)), prompt: prompt)
        _ = bench.cancel(attempt(2))
        #expect(bench.refused(2, at: 0) == [])
        #expect(bench.machine.isIdle)
    }

    @Test func `kept KV makes room for whoever needs it, the oldest first`() {
        var bench = WorkerBench(.decodeWorker) { $0.keptSequences = 3 }
        for number in UInt64(1)...3 {
            let tokens = prompt.map { $0 + TokenID(100 * number) }
            bench.run(terms(attempt(number)), prompt: tokens, as: number)
            _ = bench.sampled(number, 8, finish: .stop)
        }
        #expect(bench.machine.keptKVTokens == 63)
        let other = [TokenID](repeating: 900, count: 45)
        #expect(bench.status.freeKVBytes == 1000)
        let actions = bench.reserve(terms(attempt(4)), prompt: other)
        #expect(actions.first == .cancelSequence(SequenceID(1)))
        #expect(actions.granted != nil && actions.count == 2)
        #expect(bench.machine.keptKVTokens == 42)
        // Its own beginning is not thrown out for the sequence that begins with it.
        let second = prompt.map { $0 + 200 } + [1, 2, 3, 4, 5]
        let next = bench.reserve(terms(attempt(5)), prompt: second)
        #expect(
            next.dropLast() == [
                .cancelSequence(SequenceID(3)),
                .adopt(SequenceID(5), from: SequenceID(2), tokens: 20),
            ])
        #expect(next.granted?.heldTokens == 20)
    }

    @Test func `no more is kept than allowed`() {
        var bench = answered(kept: 1)
        let other = prompt.map { $0 + 100 }
        bench.run(terms(attempt(2)), prompt: other, as: 2)
        #expect(
            bench.sampled(2, 8, finish: .stop)
                == [writes(attempt(2), at: 0, 7, 8, finish: .stop), .cancelSequence(SequenceID(1))])
        #expect(bench.machine.keptSequences == 1)
    }

    @Test func `a sequence too short to keep is taken out of the engine`() {
        var bench = WorkerBench(.decodeWorker) { $0.keptSequences = 1 }
        bench.run(terms(attempt(1)), as: 1)
        #expect(bench.sampled(1, 8, finish: .stop).last == .cancelSequence(SequenceID(1)))
        #expect(bench.machine.keptSequences == 0)
    }

    @Test func `a draining worker keeps nothing`() {
        var bench = answered()
        bench.run(terms(attempt(2)), prompt: prompt.map { $0 + 100 }, as: 2)
        #expect(bench.machine.drain() == [.cancelSequence(SequenceID(1))])
        #expect(bench.machine.keptKVTokens == 0)
        let actions = bench.sampled(2, 8, finish: .stop)
        #expect(actions.contains(.cancelSequence(SequenceID(2))))
        #expect(actions.contains(.drained))
        #expect(bench.machine.keptSequences == 0)
        var idle = answered()
        #expect(idle.machine.drain() == [.cancelSequence(SequenceID(1)), .drained])
    }

    @Test func `a lost engine has lost what was kept`() {
        var bench = answered()
        #expect(bench.engine(.engineLost(.computeFailed(code: 1))) == [.drained])
        #expect(bench.machine.keptSequences == 0)
    }

    @Test func `cancelled answers and answers of one token are not kept`() {
        var bench = answered()
        #expect(
            bench.reserve(terms(attempt(2), maximumNewTokens: 1), prompt: prompt).granted?
                .heldTokens == 0, "it needs no KV here")
        bench.run(terms(attempt(3)), prompt: prompt.map { $0 + 100 }, as: 3)
        _ = bench.cancel(attempt(3))
        #expect(bench.sampled(3, 8, finish: .stop) == [])
        #expect(bench.machine.keptSequences == 1)
    }
}
