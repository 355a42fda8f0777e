import InferenceEngine
import Roles
import ServingTypes
import Testing

/// Prompts that are computed before anybody knows who decodes them.
@Suite struct LatePlacementTests {
    private let target = KVTarget(
        instance: decode1, bulkAddress: NetworkAddress(host: "decode-1", port: 2),
        secret: secret(9), heldTokens: 1)

    private func offer(
        _ bench: inout WorkerBench, _ number: UInt64 = 1, maximumNewTokens: Int = 5
    ) -> [WorkerAction] {
        let terms = terms(attempt(number), maximumNewTokens: maximumNewTokens)
        return bench.hear(
            .prefillOffer(PrefillOffer(terms: terms, target: nil)), tokens: [1, 2, 3])
    }

    private func place(
        _ bench: inout WorkerBench, _ number: UInt64 = 1, held: Int = 1,
        from link: LinkID = WorkerBench.gateway
    ) -> [WorkerAction] {
        var target = target
        target.heldTokens = held
        return bench.hear(.placeKV(PlaceKV(attempt: attempt(number), target: target)), from: link)
    }

    private func waiting(kept: Int = 0) -> WorkerBench {
        var bench = WorkerBench(.prefill) { $0.keptSequences = kept }
        _ = offer(&bench)
        _ = bench.sampled(1, 7, finish: .length)
        return bench
    }

    private var plan: TransferPlan {
        TransferPlan(
            attempt: attempt(1), decodeInstance: decode1, address: target.bulkAddress,
            secret: secret(9), tokens: 3, heldTokens: 1, expires: seconds(60))
    }

    private let end = KVEnd(attempt: attempt(1), tokens: 3, firstToken: TokenOutput(token: 7))

    @Test func `the KV waits in its slot until its place is known`() {
        var bench = WorkerBench(.prefill)
        let actions = offer(&bench)
        #expect(actions.count == 2 && actions.first == accepts(attempt(1)))
        #expect(actions.job?.retainsKV == true && actions.job?.exportsKV == false)
        #expect(bench.sampled(1, 7, finish: .length) == [writes(attempt(1), at: 0, 7)])
        #expect(bench.status.freePrefillSlots == 1 && bench.machine.promisedKVTokens == 3)
        #expect(place(&bench) == [.openTransfer(plan), .export(SequenceID(1), from: 1)])
        #expect(bench.machine.exportingAttempt(SequenceID(1)) == attempt(1))
        #expect(
            bench.engine(.exportEnded(SequenceID(1)))
                == [.endTransfer(end), .cancelSequence(SequenceID(1))])
        #expect(bench.machine.promisedKVTokens == 0 && bench.status.freePrefillSlots == 1)
        #expect(bench.machine.transferEnded(attempt(1), failure: nil) == [])
        #expect(bench.machine.isIdle)
    }

    @Test func `a place that comes before the first token is remembered`() {
        var bench = WorkerBench(.prefill)
        _ = offer(&bench)
        #expect(place(&bench) == [])
        #expect(
            bench.sampled(1, 7, finish: .length)
                == [
                    writes(attempt(1), at: 0, 7), .openTransfer(plan),
                    .export(SequenceID(1), from: 1),
                ])
    }

    @Test func `a decode-worker that holds everything gets only the end`() {
        var bench = waiting()
        let actions = place(&bench, held: 3)
        #expect(actions.dropFirst() == [.endTransfer(end), .cancelSequence(SequenceID(1))])
        _ = bench.machine.transferEnded(attempt(1), failure: nil)
        #expect(bench.machine.isIdle)
    }

    @Test func `an answer that ends with its first token waits for no place`() {
        for (count, finish) in [(1, FinishReason.length), (5, .stop)] {
            var bench = WorkerBench(.prefill)
            _ = offer(&bench, maximumNewTokens: count)
            let actions = bench.sampled(1, 7, finish: finish)
            #expect(actions.first == writes(attempt(1), at: 0, 7, finish: finish))
            #expect(bench.machine.isIdle)
        }
    }

    @Test func `a place for an unknown prompt fails`() {
        var bench = waiting()
        #expect(place(&bench, 2).failures == [.unknownRequest])
        #expect(place(&bench, from: WorkerBench.otherGateway).failures == [.unknownRequest])
        _ = bench.cancel(attempt(1))
        #expect(place(&bench).failures == [.unknownRequest])
        var early = WorkerBench(.prefill)
        _ = early.offer(terms(attempt(1)))
        let actions = place(&early)
        #expect(actions.failures == [.invalid] && actions.aborts == [attempt(1)])
    }

    @Test func `a place that holds more than there is fails the prompt`() {
        var bench = waiting()
        #expect(place(&bench, held: 4).failures == [.invalid])
        #expect(bench.machine.isIdle)
    }

    @Test func `what waits goes with its request, its gateway, its time, or the engine`() {
        let ends: [(inout WorkerBench) -> [WorkerAction]] = [
            { $0.cancel(attempt(1)) },
            { $0.machine.gatewayLost(WorkerBench.gateway) },
            { $0.tick(.seconds(60)) },
        ]
        for end in ends {
            var bench = waiting()
            #expect(end(&bench).last == .cancelSequence(SequenceID(1)))
            #expect(bench.machine.isIdle && bench.machine.promisedKVTokens == 0)
        }
        var bench = waiting()
        let actions = bench.engine(.engineLost(.computeFailed(code: 1)))
        #expect(actions.failures == [.engine] && actions.last == .drained)
    }

    @Test func `what waits in vain can serve others`() {
        let prompt = (1...20).map { TokenID($0) }
        var bench = WorkerBench(.prefill) { $0.keptSequences = 1 }
        let offer = PrefillOffer(terms: terms(attempt(1)), target: nil)
        _ = bench.hear(.prefillOffer(offer), tokens: prompt)
        _ = bench.sampled(1, 7, finish: .length)
        #expect(bench.machine.keptKVTokens == 0, "nobody may throw it out yet")
        #expect(bench.cancel(attempt(1)) == [])
        #expect(bench.machine.isIdle && bench.machine.keptKVTokens == 20)
    }

    @Test func `a cancelled export frees the slot when engine and transfer let go`() {
        for engineFirst in [true, false] {
            for exportEnds in [true, false] {
                var bench = waiting(kept: 1)
                _ = place(&bench)
                let actions = bench.cancel(attempt(1))
                #expect(actions.first == .cancelSequence(SequenceID(1)))
                #expect(actions.aborts == [attempt(1)])
                if exportEnds { #expect(bench.engine(.exportEnded(SequenceID(1))) == []) }
                for step in engineFirst ? [0, 1] : [1, 0] {
                    #expect(!bench.machine.isIdle)
                    #expect(
                        (step == 0
                            ? bench.engineCancelled(1)
                            : bench.machine.transferEnded(attempt(1), failure: nil)) == [])
                }
                #expect(bench.machine.isIdle && bench.machine.keptSequences == 0)
            }
        }
    }

    @Test func `a failed transfer or export fails the request`() {
        var bench = waiting()
        _ = place(&bench)
        let done = KVDone(attempt: attempt(1), code: .transfer, reason: "lost")
        #expect(bench.machine.transferEnded(attempt(1), failure: done).failures == [.transfer])
        _ = bench.engineCancelled(1)
        #expect(bench.machine.isIdle)
        var other = waiting()
        _ = place(&other)
        let actions = other.engineFailed(1)
        #expect(actions.failures == [.engine] && actions.aborts == [attempt(1)])
        _ = other.machine.transferEnded(attempt(1), failure: nil)
        #expect(other.machine.isIdle)
    }
}
