import KVHandOver
import ServingTypes
import Testing

@Suite struct KVAssemblyTests {
    let one = KVLinkID(1)
    let two = KVLinkID(2)

    private func assembly(
        _ tokens: Int = 30, held: Int = 0, resends: Int = 1
    ) -> KVAssembly {
        var assembly = KVAssembly(
            tokens: tokens, heldTokens: held, allowedResends: resends)
        assembly.beginRound()
        return assembly
    }

    @Test func `chunks in order go to the engine one by one`() {
        var assembly = assembly()
        #expect(assembly.begins(chunk(0, 20), on: one) == .land)
        #expect(assembly.isArriving)
        #expect(assembly.landed(at: 0, on: one) == .importChunks([0]))
        #expect(!assembly.isArriving && assembly.pendingBytes == 200)
        #expect(assembly.begins(chunk(20, 10), on: one) == .land)
        #expect(assembly.landed(at: 20, on: one) == .importChunks([20]))
        #expect(assembly.submittedTokens == 30 && !assembly.isWhole)
        #expect(assembly.ended(end(tokens: 30, of: [chunk(0, 20), chunk(20, 10)])) == .none)
        #expect(assembly.isWhole && !assembly.isImported)
        #expect(assembly.imported(tokens: 20) == chunk(0, 20))
        #expect(assembly.imported(tokens: 30) == chunk(20, 10))
        #expect(assembly.isImported && assembly.pendingBytes == 0)
    }

    @Test func `chunks of two connections are put in order`() {
        var assembly = assembly()
        #expect(assembly.begins(chunk(0, 10), on: one) == .land)
        #expect(assembly.begins(chunk(10, 10), on: two) == .land)
        #expect(assembly.landed(at: 10, on: two) == .none)
        #expect(assembly.begins(chunk(20, 10), on: two) == .land)
        #expect(assembly.landed(at: 20, on: two) == .none)
        #expect(assembly.landedBytes == 200)
        let chunks = [chunk(0, 10), chunk(10, 10), chunk(20, 10)]
        #expect(assembly.ended(end(tokens: 30, of: chunks)) == .none)
        #expect(assembly.landed(at: 0, on: one) == .importChunks([0, 10, 20]))
        #expect(assembly.landedBytes == 0 && assembly.isWhole)
    }

    @Test func `held tokens are not awaited, and imported only when the engine says so`() {
        var assembly = assembly(30, held: 30)
        #expect(assembly.isWithEngine)
        #expect(assembly.ended(end(tokens: 30, of: [])) == .none)
        #expect(assembly.isWhole && !assembly.isImported)
        #expect(assembly.imported(tokens: 30) == nil)
        #expect(assembly.isImported)
    }

    @Test func `held tokens that can't be used fail the transfer`() {
        var assembly = assembly(30, held: 20)
        _ = assembly.begins(chunk(20, 10), on: one)
        #expect(assembly.landed(at: 20, on: one) == .importChunks([20]))
        let (none, outcome) = assembly.refused(reason: "gone")
        #expect(none == nil)
        #expect(outcome == .fail(reason: "the held KV can't be used: gone"))
        #expect(assembly.isWithEngine, "the engine has not answered the chunk")
        #expect(assembly.refused(reason: "out of order").chunk == chunk(20, 10))
        #expect(!assembly.isWithEngine)
    }

    @Test func `chunks outside of the sequence are refused`() {
        var assembly = assembly(30, held: 10)
        for (start, count) in [(0, 10), (9, 5), (20, 11), (30, 1), (31, 1), (10, 0), (-1, 2)] {
            guard case .refuse = assembly.begins(chunk(start, count), on: one) else {
                Issue.record("\(start)+\(count) was taken")
                continue
            }
        }
        guard case .refuse = assembly.begins(chunk(.max, .max / 20), on: one) else {
            Issue.record("numbers overflow")
            return
        }
        #expect(assembly.begins(chunk(10, 20), on: one) == .land)
    }

    @Test func `a chunk that is here is discarded, one that overlaps is refused`() {
        var assembly = assembly()
        _ = assembly.begins(chunk(0, 10), on: one)
        _ = assembly.landed(at: 0, on: one)
        #expect(assembly.begins(chunk(0, 10), on: one) == .discard)
        _ = assembly.begins(chunk(20, 5), on: one)
        #expect(assembly.begins(chunk(20, 5), on: two) == .discard, "it is arriving")
        _ = assembly.landed(at: 20, on: one)
        #expect(assembly.begins(chunk(20, 5), on: two) == .discard, "it has landed")
        for (start, count) in [(5, 10), (15, 10), (22, 2), (24, 6)] {
            guard case .refuse = assembly.begins(chunk(start, count), on: two) else {
                Issue.record("\(start)+\(count) was taken")
                continue
            }
        }
        #expect(assembly.begins(chunk(10, 10), on: two) == .land)
        guard case .refuse = assembly.begins(chunk(25, 5), on: two) else {
            Issue.record("a chunk inside a chunk was taken")
            return
        }
    }

    @Test func `a gap waits for the chunk that fills it`() {
        var assembly = assembly()
        _ = assembly.begins(chunk(10, 10), on: one)
        #expect(assembly.landed(at: 10, on: one) == .none)
        #expect(assembly.submittedTokens == 0)
        #expect(assembly.ended(end(tokens: 30, of: [])) == .none)
        #expect(!assembly.isWhole)
    }

    @Test func `a damaged chunk is asked for again, with all that follows`() {
        var assembly = assembly()
        _ = assembly.begins(chunk(0, 10), on: one)
        _ = assembly.begins(chunk(10, 10), on: two)
        _ = assembly.landed(at: 10, on: two)
        _ = assembly.begins(chunk(20, 10), on: two)
        #expect(
            assembly.missed(at: 0, on: one, isDamaged: true, reason: "piece 3")
                == .resend(fromToken: 0, reason: "piece 3"))
        #expect(assembly.round == 2 && assembly.landedBytes == 0 && !assembly.isArriving)
        #expect(assembly.landed(at: 20, on: two) == .drop, "it belongs to the round before")
        let chunks = [0, 10, 20].map { chunk($0, 10, round: 2) }
        for chunk in chunks {
            #expect(assembly.begins(chunk, on: one) == .land)
            #expect(
                assembly.landed(at: chunk.tokenStart, on: one)
                    == .importChunks([chunk.tokenStart]))
        }
        #expect(assembly.ended(end(tokens: 30, of: chunks)) == .none)
        #expect(assembly.isWhole)
    }

    @Test func `damaged again, the transfer has failed`() {
        var assembly = assembly()
        for round in 1...2 {
            _ = assembly.begins(chunk(0, 10), on: one)
            let outcome = assembly.missed(at: 0, on: one, isDamaged: true, reason: "bad")
            #expect(
                outcome
                    == (round == 1
                        ? .resend(fromToken: 0, reason: "bad")
                        : .fail(reason: "damaged again: bad")))
        }
        #expect(assembly.resends == 1)
    }

    @Test func `a chunk that was broken off is not asked for`() {
        var assembly = assembly()
        _ = assembly.begins(chunk(0, 10), on: one)
        #expect(
            assembly.missed(at: 0, on: one, isDamaged: false, reason: "broken off") == .none)
        #expect(assembly.missed(at: 0, on: one, isDamaged: true, reason: "late") == .drop)
        #expect(assembly.resends == 0)
    }

    @Test func `a lost connection takes what it was bringing`() {
        var assembly = assembly()
        _ = assembly.begins(chunk(0, 10), on: one)
        #expect(assembly.forget(two) == 0)
        #expect(assembly.forget(one) == 100)
        #expect(assembly.forget(one) == 0)
        #expect(assembly.landed(at: 0, on: one) == .drop)
        assembly.beginRound()
        #expect(assembly.begins(chunk(0, 10, round: 2), on: two) == .land)
        #expect(assembly.landed(at: 0, on: two) == .importChunks([0]))
    }

    @Test func `a refused chunk takes those behind it along, and once they come again`() {
        var assembly = assembly()
        for start in [0, 10, 20] {
            _ = assembly.begins(chunk(start, 10), on: one)
            _ = assembly.landed(at: start, on: one)
        }
        _ = assembly.ended(end(tokens: 30, of: [0, 10, 20].map { chunk($0, 10) }))
        #expect(assembly.imported(tokens: 10) == chunk(0, 10))
        let (chunk10, again) = assembly.refused(reason: "checksum")
        #expect(chunk10 == chunk(10, 10))
        #expect(again == .resend(fromToken: 10, reason: "checksum"))
        #expect(assembly.submittedTokens == 10 && assembly.end == nil && !assembly.isWhole)
        // The resent chunk may be with the engine before the old refusal comes.
        _ = assembly.begins(chunk(10, 10, round: 2), on: one)
        #expect(assembly.landed(at: 10, on: one) == .importChunks([10]))
        let (chunk20, none) = assembly.refused(reason: "out of order")
        #expect(chunk20 == chunk(20, 10) && none == .none)
        #expect(assembly.imported(tokens: 20) == chunk(10, 10, round: 2))
        _ = assembly.begins(chunk(20, 10, round: 2), on: one)
        #expect(assembly.landed(at: 20, on: one) == .importChunks([20]))
        #expect(
            assembly.ended(end(tokens: 30, of: [0, 10, 20].map { chunk($0, 10) })) == .none)
        let (last, failure) = assembly.refused(reason: "checksum")
        #expect(last == chunk(20, 10, round: 2))
        #expect(failure == .fail(reason: "damaged again: checksum"))
    }

    @Test func `a chunk refused after the sender came again is missed all the same`() {
        var assembly = assembly()
        _ = assembly.begins(chunk(0, 10), on: one)
        _ = assembly.landed(at: 0, on: one)
        assembly.beginRound()
        #expect(assembly.submittedTokens == 10, "the sender goes on behind it")
        let (refused, again) = assembly.refused(reason: "checksum")
        #expect(refused == chunk(0, 10))
        #expect(again == .resend(fromToken: 0, reason: "checksum"))
        #expect(assembly.round == 3 && !assembly.isWithEngine)
    }

    @Test func `other chunks than were exported are not whole`() {
        let exported = [chunk(0, 10), chunk(10, 20)]
        let others = [
            [chunk(0, 10), chunk(10, 20, checksum: 2)], [chunk(0, 20), chunk(20, 10)],
            [chunk(10, 20), chunk(0, 10)], [chunk(0, 10)], [],
        ]
        for digested in [exported] + others {
            for endsFirst in [true, false] {
                var assembly = assembly()
                var outcomes: [KVAssembly.Outcome] = []
                if endsFirst { outcomes.append(assembly.ended(end(tokens: 30, of: digested))) }
                for chunk in exported {
                    _ = assembly.begins(chunk, on: one)
                    outcomes.append(assembly.landed(at: chunk.tokenStart, on: one))
                }
                if !endsFirst { outcomes.append(assembly.ended(end(tokens: 30, of: digested))) }
                let hasFailed = outcomes.contains {
                    if case .fail = $0 { true } else { false }
                }
                #expect(hasFailed == (digested != exported))
            }
        }
    }

    @Test func `an end for other tokens fails`() {
        var assembly = assembly()
        guard case .fail = assembly.ended(end(tokens: 29, of: [])) else {
            Issue.record("it was taken")
            return
        }
    }

    @Test func `answers of the engine that belong to nothing are ignored`() {
        var assembly = assembly()
        #expect(assembly.imported(tokens: 10) == nil)
        let (nothing, outcome) = assembly.refused(reason: "")
        #expect(nothing == nil && outcome == .none)
        _ = assembly.begins(chunk(0, 10), on: one)
        _ = assembly.landed(at: 0, on: one)
        #expect(assembly.imported(tokens: 9) == nil)
        #expect(assembly.imported(tokens: 10) == chunk(0, 10))
    }
}
