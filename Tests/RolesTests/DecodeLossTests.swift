import InferenceEngine
import KVHandOver
import Roles
import ServingTypes
import Testing

@Suite struct DecodeLossTests {
    private func receiving(
        _ change: (inout WorkerLimits) -> Void = { _ in }
    ) -> WorkerBench {
        var bench = WorkerBench(.decode, change)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1), chunkTokens: 1)
        _ = bench.land(attempt(1), 0, 1)
        return bench
    }

    // MARK: Lost connections

    @Test func `after a loss the sender goes on where the KV ends`() throws {
        var bench = receiving()
        _ = bench.begin(chunk(1, 1), of: attempt(1))
        #expect(bench.linkLost() == [])
        #expect(bench.landed(chunk(1, 1), of: attempt(1)).isKept == false)
        let actions = bench.offerKV(
            attempt(1), chunkTokens: 1, on: WorkerBench.otherLink)
        #expect(actions.first == .dropChunks(attempt(1)))
        let grant = try #require(actions.grant)
        #expect(grant.heldTokens == 1 && grant.round == 2 && grant.creditBytes == 10)
        #expect(bench.machine.landedKVBytes == 10, "one chunk is with the engine")
        #expect(bench.land(attempt(1), 1, 1, round: 2, on: WorkerBench.otherLink).imports == [1])
        #expect(bench.land(attempt(1), 2, 1, round: 2, on: WorkerBench.otherLink).imports == [2])
        #expect(
            bench.endKV(attempt(1), of: [(0, 1), (1, 1), (2, 1)]).job?.importedTokens == 3)
    }

    @Test func `room of what a lost connection was bringing goes to others`() {
        var bench = receiving { $0.landingBytes = 20 }
        _ = bench.begin(chunk(1, 1), of: attempt(1))
        _ = bench.reserve(terms(attempt(2)))
        #expect(
            bench.offerKV(attempt(2), chunkTokens: 1, on: WorkerBench.otherLink).grant?
                .creditBytes == 0)
        #expect(bench.machine.landedKVBytes == 20)
        #expect(bench.linkLost().credits == [:], "the older one comes first")
        #expect(bench.machine.landedKVBytes == 10)
        #expect(bench.imported(1, tokens: 1).credits == [2: 10])
    }

    @Test func `chunks of the round before are read away and cost no credit`() {
        var bench = receiving()
        // The old connection is not known to be lost yet.
        #expect(bench.offerKV(attempt(1), chunkTokens: 1, on: WorkerBench.otherLink).grant != nil)
        #expect(bench.begin(chunk(1, 1), of: attempt(1)).isWanted == false)
        #expect(bench.linkLost() == [])
        #expect(bench.tick(.seconds(5)) == [], "the transfer has another connection")
        #expect(bench.land(attempt(1), 1, 1, round: 2, on: WorkerBench.otherLink).imports == [1])
    }

    @Test func `a sender that does not come again is given up, the others are not`() {
        var bench = receiving()
        _ = bench.reserve(terms(attempt(2)))
        _ = bench.reserve(terms(attempt(3)))
        _ = bench.offerKV(attempt(3), on: WorkerBench.otherLink)
        _ = bench.linkLost()
        #expect(bench.tick(.milliseconds(2999)) == [])
        let actions = bench.tick(.milliseconds(1))
        #expect(actions.failures == [.transfer])
        #expect(actions.answers == [], "there is nobody to hear it")
        #expect(actions.last == .cancelSequence(SequenceID(1)))
        #expect(bench.status.reservedKVBytes == 240)
    }

    @Test func `a sequence that runs does not need its sender`() {
        var bench = WorkerBench(.decode)
        bench.run(terms(attempt(1)), as: 1)
        _ = bench.linkLost()
        #expect(bench.tick(.seconds(30)) == [])
        #expect(bench.status.runningSequences == 1)
    }

    @Test func `a last word that was lost is the answer to the next offer`() {
        var bench = WorkerBench(.decode)
        bench.run(terms(attempt(1)), as: 1)
        _ = bench.linkLost()
        #expect(
            bench.offerKV(attempt(1), on: WorkerBench.otherLink).transferAnswers == [nil])
        #expect(bench.status.runningSequences == 1)
    }

    @Test func `an offer of what is whole, but not imported, is granted and done in the end`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 3)
        #expect(bench.endKV(attempt(1), of: [(0, 3)]).job != nil)
        _ = bench.linkLost()
        let grant = bench.offerKV(attempt(1), on: WorkerBench.otherLink).grant
        #expect(grant?.heldTokens == 3 && grant?.creditBytes == 0)
        let again = bench.endKV(attempt(1), of: [(0, 3)], on: WorkerBench.otherLink)
        #expect(again == [], "it runs already")
        #expect(bench.imported(1, tokens: 3).transferAnswers == [nil])
    }

    @Test func `an offer comes again after the whole KV was refused`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 3)
        _ = bench.endKV(attempt(1), of: [(0, 3)])
        _ = bench.linkLost()
        #expect(bench.refused(1, at: 0).answers == [], "nobody hears it")
        #expect(bench.status.runningSequences == 0)
        let grant = bench.offerKV(attempt(1), on: WorkerBench.otherLink).grant
        #expect(grant?.heldTokens == 0 && grant?.round == 3 && grant?.creditBytes == 30)
    }

    // MARK: Damage

    @Test func `a chunk damaged on the way is asked for again`() throws {
        var bench = receiving()
        _ = bench.begin(chunk(1, 1), of: attempt(1))
        let actions = bench.missed(chunk(1, 1), of: attempt(1))
        let resend = try #require(actions.resend)
        #expect(resend.fromToken == 1 && resend.round == 2 && resend.creditBytes == 10)
        #expect(actions.answers.last == .kvResend(resend), "older credit is void with it")
        #expect(actions.contains(.dropChunks(attempt(1))))
        #expect(bench.land(attempt(1), 2, 1) == [], "the round before")
        #expect(bench.land(attempt(1), 1, 1, round: 2).imports == [1])
        #expect(bench.land(attempt(1), 2, 1, round: 2).imports == [2])
        _ = bench.missed(chunk(2, 1), of: attempt(1))
        #expect(
            bench.endKV(attempt(1), of: [(0, 1), (1, 1), (2, 1)]).job?.importedTokens == 3)
    }

    @Test func `a chunk broken off by its sender is not asked for`() {
        var bench = receiving()
        _ = bench.begin(chunk(1, 1), of: attempt(1))
        #expect(bench.missed(chunk(1, 1), of: attempt(1), isDamaged: false).resend == nil)
        #expect(bench.machine.landedKVBytes == 10)
    }

    @Test func `a block the engine refuses is sent again, and the sequence runs after all`() throws
    {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1), chunkTokens: 1)
        for start in 0..<3 { _ = bench.land(attempt(1), start, 1) }
        #expect(bench.endKV(attempt(1), of: [(0, 1), (1, 1), (2, 1)]).job != nil)
        #expect(bench.status.runningSequences == 1)
        _ = bench.imported(1, tokens: 1)
        let resend = try #require(bench.refused(1, at: 1).resend)
        #expect(resend.fromToken == 1)
        #expect(bench.status.runningSequences == 0, "the engine has dropped the job")
        #expect(bench.refused(1, at: 1).resend == nil, "it was refused with the other")
        for start in 1..<3 { _ = bench.land(attempt(1), start, 1, round: 2) }
        let job = bench.endKV(attempt(1), of: [(0, 1), (1, 1), (2, 1)]).job
        #expect(job?.importedTokens == 3)
        _ = bench.imported(1, tokens: 2)
        #expect(bench.imported(1, tokens: 3).transferAnswers == [nil])
        #expect(bench.machine.landedKVBytes == 0)
        #expect(bench.sampled(1, 8) == [writes(attempt(1), at: 0, 7, 8)])
    }

    @Test func `KV that is damaged twice fails the request`() {
        for isOnTheWay in [true, false] {
            var bench = receiving()
            let first =
                isOnTheWay
                ? bench.begin(chunk(1, 1), of: attempt(1)).actions
                    + bench.missed(chunk(1, 1), of: attempt(1)) : bench.refused(1, at: 0)
            #expect(first.failures == [])
            let start = isOnTheWay ? 1 : 0
            _ = bench.land(attempt(1), start, 1, round: 2)
            if isOnTheWay { _ = bench.imported(1, tokens: 1) }
            let second = bench.refused(1, at: start)
            #expect(second.failures == [.transfer])
            #expect(second.transferAnswers == [.transfer])
            #expect(bench.machine.landedKVBytes == 0)
            if isOnTheWay { _ = bench.engineCancelled(1) }
            #expect(bench.machine.isIdle)
        }
    }

    // MARK: Standing still

    @Test func `a sender that stands inside a chunk is given up, one that computes is not`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1), deadline: .seconds(600)))
        _ = bench.offerKV(attempt(1), chunkTokens: 2)
        #expect(bench.tick(.seconds(100)) == [])
        _ = bench.begin(chunk(0, 2), of: attempt(1))
        #expect(bench.tick(.milliseconds(9900)) == [])
        bench.machine.kvProgressed(attempt(1), now: bench.now)
        #expect(bench.tick(.milliseconds(9900)) == [])
        let actions = bench.tick(.milliseconds(100))
        #expect(actions.failures == [.deadline])
        #expect(actions.transferAnswers == [.deadline])
        #expect(bench.machine.isIdle && bench.tick(.seconds(60)) == [])
    }

    @Test func `KV that makes no progress is told with its bytes and age`() {
        var bench = receiving()
        #expect(bench.machine.strandedKV(now: bench.now + .seconds(9)) == StrandedKV([]))
        _ = bench.begin(chunk(1, 1), of: attempt(1))
        let now = bench.now
        #expect(bench.machine.strandedKV(now: now + .milliseconds(999)) == StrandedKV([]))
        #expect(
            bench.machine.strandedKV(now: now + .seconds(2))
                == StrandedKV([(bytes: 10, age: .seconds(2))]))
        bench.now = now + .seconds(2)
        _ = bench.landed(chunk(1, 1), of: attempt(1))
        #expect(bench.machine.strandedKV(now: now + .seconds(9)) == StrandedKV([]))
        _ = bench.linkLost()
        #expect(
            bench.machine.strandedKV(now: now + .seconds(4))
                == StrandedKV([(bytes: 20, age: .seconds(2))]))
        // The engine has not let go.
        _ = bench.cancel(attempt(1))
        #expect(bench.machine.strandedKV(now: now + .seconds(4)).transfers == 1)
        _ = bench.engineCancelled(1)
        #expect(bench.machine.strandedKV(now: now + .seconds(4)) == StrandedKV([]))
    }
}
