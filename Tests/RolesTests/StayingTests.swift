import InferenceEngine
import Roles
import ServingTypes
import Testing

/// KV whose place is the worker that computed it: a worker that prefills and decodes.
@Suite struct StayingTests {
    private func place(
        _ bench: inout WorkerBench, _ number: UInt64 = 1, held: Int = 0, secret code: UInt64 = 9,
        from link: LinkID = WorkerBench.gateway
    ) -> [WorkerAction] {
        let target = KVTarget(
            instance: WorkerBench.instance,
            bulkAddress: NetworkAddress(host: "worker-1", port: 2), secret: secret(code),
            heldTokens: held)
        return bench.hear(.placeKV(PlaceKV(attempt: attempt(number), target: target)), from: link)
    }

    private func offer(_ bench: inout WorkerBench, _ prompt: [TokenID]) -> [WorkerAction] {
        bench.hear(
            .prefillOffer(
                PrefillOffer(terms: terms(attempt(1), maximumNewTokens: 5), target: nil)),
            tokens: prompt)
    }

    /// Sequence 1 is computed, sequence 2 is promised room.
    private func promised(
        _ prompt: [TokenID] = [1, 2, 3], capacity: Int = 100, kept: Int = 0
    ) -> WorkerBench {
        var bench = WorkerBench(.mixed, capacity: capacity) { $0.keptSequences = kept }
        _ = offer(&bench, prompt)
        _ = bench.sampled(1, 7, finish: .length)
        _ = bench.reserve(terms(attempt(1), maximumNewTokens: 5), prompt: prompt)
        return bench
    }

    private func job(
        _ number: UInt64, _ prompt: [TokenID] = [1, 2, 3], retains: Bool = false
    ) -> WorkerAction {
        .run(
            SequenceJob(
                sequence: SequenceID(number), tokens: prompt + [7], outputTokens: 1,
                importedTokens: prompt.count,
                sampling: terms(attempt(1), maximumNewTokens: 5).sampling, maximumNewTokens: 4,
                retainsKV: retains))
    }

    @Test func `the decode side goes on with it, and nothing travels`() {
        var bench = promised()
        #expect(
            place(&bench) == [
                .fork(SequenceID(3), from: SequenceID(1), tokens: 3), job(3),
                .cancelSequence(SequenceID(1)),
            ])
        #expect(bench.status.freePrefillSlots == 2 && bench.status.runningSequences == 1)
        #expect(bench.imported(3, tokens: 3) == [])
        #expect(bench.sampled(3, 8) == [writes(attempt(1), at: 0, 7, 8)])
        #expect(
            bench.sampled(3, 9, finish: .stop) == [writes(attempt(1), at: 2, 9, finish: .stop)])
        #expect(bench.machine.isIdle && bench.machine.promisedKVTokens == 0)
    }

    @Test func `a place that comes before the first token is remembered`() {
        var bench = WorkerBench(.mixed)
        _ = offer(&bench, [1, 2, 3])
        _ = bench.reserve(terms(attempt(1), maximumNewTokens: 5))
        #expect(place(&bench) == [])
        let actions = bench.sampled(1, 7, finish: .length)
        #expect(
            actions == [
                writes(attempt(1), at: 0, 7),
                .fork(SequenceID(3), from: SequenceID(1), tokens: 3), job(3),
                .cancelSequence(SequenceID(1)),
            ])
    }

    @Test func `its prompt takes room once`() {
        // Prompt and longest answer take eight; prompt, prompt and answer would be eleven.
        var bench = promised(capacity: 8)
        #expect(bench.machine.promisedKVTokens == 8)
        #expect(bench.status.freeKVBytes == 0)
        _ = place(&bench)
        #expect(bench.machine.promisedKVTokens == 8 && bench.status.runningSequences == 1)
        // Somebody else's is counted beside it.
        var other = WorkerBench(.mixed, capacity: 10)
        _ = offer(&other, [1, 2, 3])
        let refused = other.reserve(terms(attempt(2), maximumNewTokens: 5)).refusal
        #expect(refused?.code == .noKVRoom)
    }

    @Test func `what is left of it is kept only where there is room beside the promises`() {
        let prompt = (1...20).map { TokenID($0) }
        for (capacity, kept) in [(44, 0), (45, 20)] {
            var bench = promised(prompt, capacity: capacity, kept: 2)
            _ = place(&bench)
            #expect(bench.machine.keptKVTokens == kept)
            #expect(bench.machine.promisedKVTokens + kept <= capacity)
        }
    }

    @Test func `a reservation begins with no kept KV beside a prompt that is computed here`() {
        let prompt = (1...20).map { TokenID($0) }
        var bench = WorkerBench(.mixed) { $0.keptSequences = 2 }
        _ = offer(&bench, prompt)
        _ = bench.sampled(1, 7, finish: .stop)
        #expect(bench.machine.keptKVTokens == 20)
        _ = offer(&bench, prompt + [30, 31])
        _ = bench.sampled(2, 7, finish: .length)
        let longer = prompt + [30, 31]
        let granted = bench.reserve(terms(attempt(1), maximumNewTokens: 5), prompt: longer)
        #expect(
            !granted.contains { if case .fork = $0 { true } else { false } },
            "it would take room for the beginning a second time")
        let actions = place(&bench, held: 0)
        #expect(
            actions == [
                .fork(SequenceID(4), from: SequenceID(2), tokens: 22),
                job(4, longer, retains: true), .cancelSequence(SequenceID(1)),
            ], "the longer prompt serves in the shorter one's place")
        // What the engine says of the sequence that was let go concerns nobody.
        #expect(bench.engineCancelled(3) == [])
        _ = bench.imported(4, tokens: 22)
        _ = bench.sampled(4, 8, finish: .stop)
        #expect(bench.machine.isIdle)
    }

    @Test func `without its reservation the prompt fails and its slot is free`() {
        var wrong = promised()
        #expect(place(&wrong, secret: 8).failures == [.unknownRequest])
        #expect(wrong.status.freePrefillSlots == 2)
        var none = WorkerBench(.mixed)
        _ = offer(&none, [1, 2, 3])
        _ = none.sampled(1, 7, finish: .length)
        #expect(place(&none).failures == [.unknownRequest])
        #expect(none.machine.isIdle && none.machine.promisedKVTokens == 0)
        var differs = WorkerBench(.mixed)
        _ = offer(&differs, [1, 2, 3])
        _ = differs.sampled(1, 7, finish: .length)
        _ = differs.reserve(terms(attempt(1), maximumNewTokens: 5), prompt: [1, 2, 4])
        #expect(place(&differs).failures == [.unknownRequest])
    }

    @Test func `an engine that can't share the KV fails the request, and nothing is left`() {
        var bench = promised()
        _ = place(&bench)
        #expect(bench.refused(3, at: 0).failures == [.transfer])
        #expect(bench.machine.isIdle && bench.machine.promisedKVTokens == 0)
        var full = promised()
        _ = place(&full)
        #expect(full.engineFailed(3, .noRoom(neededTokens: 3, freeTokens: 0)).failures == [.engine])
        #expect(full.machine.isIdle)
    }

    @Test func `a cancellation at every stage leaves nothing`() {
        var before = promised()
        _ = before.cancel(attempt(1))
        #expect(before.machine.isIdle && before.machine.promisedKVTokens == 0)
        var after = promised()
        _ = place(&after)
        #expect(after.cancel(attempt(1)) == [.cancelSequence(SequenceID(3))])
        _ = after.engineCancelled(3)
        #expect(after.machine.isIdle && after.machine.promisedKVTokens == 0)
    }

    @Test func `nobody brings KV for what stays`() {
        var bench = promised()
        _ = place(&bench)
        #expect(bench.offerKV(attempt(1)).transferAnswers == [.unknownRequest])
    }
}
