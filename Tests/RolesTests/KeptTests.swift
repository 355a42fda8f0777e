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
        var bench = WorkerBench(.decode, sequences: sequences, capacity: capacity) {
            $0.keptSequences = kept
        }
        bench.run(terms(attempt(1)), prompt: prompt, as: 1)
        _ = bench.sampled(1, 8)
        _ = bench.sampled(1, 9, finish: .stop)
        return bench
    }

    // MARK: The list

    @Test func `the longest common beginning is found, and stays`() {
        var kept = KeptSequences(limit: 9)
        for number in UInt64(1)...4 {
            let shared = number == 1 ? 18 : number == 4 ? 15 : 20
            let own = [TokenID](repeating: TokenID(100 + number), count: 5)
            #expect(kept.keep(SequenceID(number), tokens: prompt.prefix(shared) + own) == [])
        }
        for _ in 0..<2 {
            #expect(kept.find(for: prompt + [102, 102, 9])?.tokens == 22)
            #expect(kept.find(for: prompt + [102, 102, 9])?.sequence == SequenceID(2))
        }
        #expect(kept.find(for: prompt.prefix(18) + [101, 101, 7])?.sequence == SequenceID(1))
        #expect(
            kept.find(for: prompt.prefix(15) + [104, 7])
                == .init(sequence: SequenceID(4), tokens: 16))
        #expect(kept.find(for: prompt.prefix(14) + [7, 7, 7, 7]) == nil, "14 are not worth it")
        #expect(kept.count == 4)
    }

    @Test func `the last token of a prompt is computed, and hits are rounded down`() {
        var kept = KeptSequences(limit: 1)
        _ = kept.keep(SequenceID(1), tokens: (1...100).map { TokenID($0) })
        func found(_ count: Int, block: Int) -> Int? {
            kept.find(for: (1...count).map { TokenID($0) }, block: block)?.tokens
        }
        #expect(found(16, block: 1) == nil)
        #expect(found(17, block: 1) == 16)
        #expect(found(100, block: 1) == 99)
        #expect(found(120, block: 1) == 100)
        #expect(found(120, block: 16) == 96)
        #expect(found(97, block: 16) == 96 && found(96, block: 16) == 80)
        #expect(found(120, block: 64) == 64 && found(64, block: 64) == nil)
    }

    @Test func `what is short, or not allowed, is not kept, and the least used goes first`() {
        var none = KeptSequences(limit: 0)
        #expect(none.keep(SequenceID(1), tokens: prompt) == [SequenceID(1)])
        var kept = KeptSequences(limit: 2)
        #expect(kept.keep(SequenceID(1), tokens: Array(prompt.prefix(15))) == [SequenceID(1)])
        let others = (0..<4).map { other in prompt.map { $0 + TokenID(100 * other) } }
        #expect(kept.keep(SequenceID(2), tokens: others[0]) == [])
        #expect(kept.keep(SequenceID(3), tokens: others[1]) == [])
        #expect(kept.find(for: others[0])?.sequence == SequenceID(2))
        #expect(kept.keep(SequenceID(4), tokens: others[2]) == [SequenceID(3)])
        #expect(kept.removeOldest(but: SequenceID(2)) == SequenceID(4))
        #expect(!kept.remove(SequenceID(4)) && kept.remove(SequenceID(2)))
        #expect(kept.removeOldest() == nil)
        _ = kept.keep(SequenceID(5), tokens: others[3])
        #expect(kept.removeAll() == [SequenceID(5)])
        #expect(kept.count == 0)
    }

    @Test func `kept sequences hold no more tokens together than they may`() {
        var limits = WorkerLimits(
            prefillSlots: 1, decodeSequences: 1, kvCapacityTokens: 1000, contextTokens: 1000,
            kvBytesPerToken: 1)
        limits.keptSequences = 9
        limits.keptTokens = 50
        var room = KVRoom(limits: limits)
        func tokens(_ number: Int, _ count: Int) -> [TokenID] {
            (0..<count).map { TokenID(1000 * number + $0) }
        }
        #expect(room.keep(SequenceID(1), tokens: tokens(1, 30), begunWith: nil) == [])
        #expect(room.keep(SequenceID(2), tokens: tokens(2, 20), begunWith: nil) == [])
        #expect(room.keptTokens == 50)
        #expect(
            room.keep(SequenceID(3), tokens: tokens(3, 16), begunWith: nil)
                == [.cancelSequence(SequenceID(1))], "the oldest makes way")
        #expect(room.keptTokens == 36)
        #expect(
            room.keep(SequenceID(4), tokens: tokens(4, 51), begunWith: nil).count == 3,
            "one that is too long goes itself")
        #expect(room.keptTokens == 0)
    }

    @Test func `of two that begin alike the longer one serves for both`() {
        var kept = KeptSequences(limit: 9)
        #expect(kept.keep(SequenceID(1), tokens: prompt) == [])
        #expect(kept.keep(SequenceID(2), tokens: prompt + [1]) == [SequenceID(1)])
        #expect(kept.keep(SequenceID(3), tokens: prompt) == [SequenceID(3)])
        #expect(kept.keep(SequenceID(4), tokens: prompt + [1]) == [SequenceID(4)])
        #expect(kept.keep(SequenceID(5), tokens: prompt + [3]) == [])
        #expect(kept.keep(SequenceID(6), tokens: prompt + [2]) == [])
        #expect(kept.keep(SequenceID(7), tokens: prompt + [2, 9]) == [SequenceID(6)])
        #expect(kept.count == 3)
    }

    @Test func `whatever is kept, the search finds what looking at each would find`() {
        var generator = SeededGenerator(seed: 7)
        for _ in 0..<200 {
            var kept = KeptSequences(limit: 1 + generator.below(12))
            var known: [SequenceID: [TokenID]] = [:]
            for number in UInt64(0)..<60 {
                let base = prompt.prefix(14 + generator.below(7))
                let tokens =
                    base
                    + (0..<generator.below(6)).map { _ in
                        TokenID(generator.below(2))
                    }
                if generator.below(2) == 0 {
                    known[SequenceID(number)] = Array(tokens)
                    for leaving in kept.keep(SequenceID(number), tokens: Array(tokens)) {
                        known[leaving] = nil
                    }
                } else {
                    let best = known.values.map { other in
                        min(zip(other, tokens).prefix { $0 == $1 }.count, tokens.count - 1)
                    }.max()
                    let hit = kept.find(for: Array(tokens))
                    #expect(hit?.tokens == best.flatMap { $0 >= 16 ? $0 : nil })
                    if let hit {
                        #expect(
                            known[hit.sequence]?.starts(with: tokens.prefix(hit.tokens)) == true)
                    }
                }
                #expect(kept.count == known.count)
            }
        }
    }

    @Test func `the search is quick among many long ones`() {
        var kept = KeptSequences(limit: 64)
        let long = (0..<8000).map { TokenID($0) }
        for number in UInt64(1)...64 {
            _ = kept.keep(SequenceID(number), tokens: long + [TokenID(number)])
        }
        let clock = ContinuousClock()
        let duration = clock.measure {
            for number in 1...64 {
                #expect(kept.find(for: long + [TokenID(number), 1])?.tokens == 8001)
            }
        }
        // Looking at all tokens of all of them would take a hundred times as long as at one.
        print("64 searches among 64 sequences of 8000 tokens: \(duration)")
        #expect(duration < .seconds(5))
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
        #expect(actions.first == .fork(SequenceID(2), from: SequenceID(1), tokens: 22))
        #expect(actions.granted?.heldTokens == 22)
        #expect(bench.machine.keptSequences == 1 && bench.machine.keptKVTokens == 22)
        // Another branch of the conversation begins with the same.
        #expect(
            bench.reserve(terms(attempt(9)), prompt: prompt + [7, 8, 60]).granted?.heldTokens == 22)
        _ = bench.cancel(attempt(9))
        #expect(bench.offerKV(attempt(2), tokens: 25).transferAnswers == [.invalid])
        let grant = try #require(bench.offerKV(attempt(2), tokens: 25, from: 22).grant)
        #expect(grant.heldTokens == 22 && grant.creditBytes == 30)
        #expect(bench.land(attempt(2), 22, 3).imports == [22])
        let job = try #require(bench.endKV(attempt(2), tokens: 25, of: [(22, 3)]).job)
        #expect(job.importedTokens == 25 && job.retainsKV)
        #expect(bench.imported(2, tokens: 22).transferAnswers == [])
        #expect(bench.imported(2, tokens: 25).transferAnswers == [nil])
        // What follows contains it.
        #expect(
            bench.sampled(2, 12, finish: .stop)
                == [
                    writes(attempt(2), at: 0, 7, 12, finish: .stop),
                    .cancelSequence(SequenceID(1)),
                ])
        #expect(bench.machine.keptSequences == 1 && bench.machine.keptKVTokens == 26)
    }

    @Test func `of a prompt that is held whole the last token comes`() {
        var bench = answered()
        #expect(bench.reserve(terms(attempt(2)), prompt: prompt).granted?.heldTokens == 19)
        let grant = bench.offerKV(attempt(2), tokens: 20, from: 19).grant
        #expect(grant?.heldTokens == 19 && grant?.creditBytes == 10)
        _ = bench.imported(2, tokens: 19)
        _ = bench.land(attempt(2), 19, 1)
        #expect(bench.endKV(attempt(2), tokens: 20, of: [(19, 1)]).job?.importedTokens == 20)
        #expect(bench.imported(2, tokens: 20).transferAnswers == [nil])
    }

    @Test func `held KV that the engine can't use fails the request`() {
        var bench = answered()
        _ = bench.reserve(terms(attempt(2)), prompt: prompt)
        _ = bench.offerKV(attempt(2), tokens: 20, from: 19)
        let actions = bench.refused(2, at: 0)
        #expect(actions.failures == [.transfer] && actions.transferAnswers == [.transfer])
        #expect(actions.first == .cancelSequence(SequenceID(1)), "nobody else tries it")
        #expect(bench.machine.isIdle, "the engine has nothing of it")
        #expect(bench.reserve(terms(attempt(3)), prompt: prompt).granted?.heldTokens == 0)
    }

    @Test func `a reservation with held KV that is cancelled gives it back to the engine`() {
        for comesFirst in [true, false] {
            var bench = answered()
            _ = bench.reserve(terms(attempt(2)), prompt: prompt)
            if comesFirst { _ = bench.imported(2, tokens: 19) }
            #expect(bench.cancel(attempt(2)) == [.cancelSequence(SequenceID(2))])
            if !comesFirst { #expect(bench.imported(2, tokens: 19) == []) }
            #expect(!bench.machine.isIdle)
            #expect(bench.engineCancelled(2) == [])
            #expect(bench.machine.isIdle)
            #expect(bench.machine.keptSequences == 1, "the next one finds it")
        }
    }

    @Test func `a cancelled reservation whose held KV is refused is free at once`() {
        var bench = answered()
        _ = bench.reserve(terms(attempt(2)), prompt: prompt)
        _ = bench.cancel(attempt(2))
        #expect(bench.refused(2, at: 0) == [.cancelSequence(SequenceID(1))])
        #expect(bench.machine.isIdle)
    }

    @Test func `kept KV makes room for whoever needs it, the oldest first`() {
        var bench = WorkerBench(.decode) { $0.keptSequences = 3 }
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
                .fork(SequenceID(5), from: SequenceID(2), tokens: 20),
                // What it shares with the new one stays in the engine.
                .cancelSequence(SequenceID(2)),
            ])
        #expect(next.granted?.heldTokens == 20)
        #expect(bench.machine.keptSequences == 0)
    }

    @Test func `a kept sequence stays where there is room for it beside the new one`() {
        var bench = answered(capacity: 60)
        let next = bench.reserve(terms(attempt(2)), prompt: prompt + [50])
        #expect(next.count == 2 && next.granted?.heldTokens == 20)
        #expect(bench.machine.keptKVTokens == 22)
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
        var bench = WorkerBench(.decode) { $0.keptSequences = 1 }
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
