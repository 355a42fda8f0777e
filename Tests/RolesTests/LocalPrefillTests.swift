import InferenceEngine
import Roles
import ServingTypes
import Testing

/// Prompts that are computed where they are decoded.
@Suite struct LocalPrefillTests {
    private func offer(
        _ bench: inout WorkerBench, _ number: UInt64 = 1, prompt: [TokenID] = [1, 2, 3],
        terms: AttemptTerms? = nil, secret secretNumber: UInt64 = 9,
        from link: LinkID = WorkerBench.gateway
    ) -> [WorkerAction] {
        let target = KVTarget(
            instance: WorkerBench.instance, bulkAddress: NetworkAddress(host: "here", port: 2),
            secret: secret(secretNumber))
        let terms = terms ?? RolesTests.terms(attempt(number))
        return bench.hear(
            .prefillOffer(PrefillOffer(terms: terms, target: target)), tokens: prompt, from: link)
    }

    @Test func `the tokens of one sequence are the whole answer`() throws {
        for role in [ServingRole.decode, .mixed] {
            var bench = WorkerBench(role)
            let own = terms(attempt(1), outputTokens: 1, maximumNewTokens: 2)
            _ = bench.reserve(own)
            let actions = offer(&bench, terms: own)
            #expect(actions.first == accepts(attempt(1)))
            let job = try #require(actions.job)
            #expect(job.tokens == [1, 2, 3] && job.outputTokens == 1 && job.importedTokens == 0)
            #expect(job.maximumNewTokens == 2 && !job.exportsKV)
            #expect(bench.status.localPrefills == 1 && bench.status.runningSequences == 1)
            #expect(bench.sampled(1, 7) == [writes(attempt(1), at: 1, 7)])
            #expect(bench.status.localPrefills == 0)
            #expect(
                bench.sampled(1, 8, finish: .length)
                    == [writes(attempt(1), at: 2, 8, finish: .length)])
            #expect(bench.machine.isIdle)
        }
    }

    @Test func `it begins with what is held, and is kept whole`() throws {
        let prompt = (1...20).map { TokenID($0) }
        var bench = WorkerBench(.decode, capacity: 200) { $0.keptSequences = 3 }
        _ = bench.reserve(terms(attempt(1)), prompt: prompt)
        _ = offer(&bench, prompt: prompt)
        _ = bench.sampled(1, 21)
        _ = bench.sampled(1, 22, finish: .stop)
        #expect(bench.machine.keptKVTokens == 21)
        let next = prompt + [21, 22, 23]
        #expect(bench.reserve(terms(attempt(2)), prompt: next).granted?.heldTokens == 21)
        let actions = offer(&bench, 2, prompt: next)
        #expect(
            actions.first
                == sends(
                    .prefillAccepted(PrefillAccepted(attempt: attempt(2), cachedTokens: 21))))
        #expect(actions.job?.importedTokens == 21 && actions.job?.retainsKV == true)
        _ = bench.imported(2, tokens: 21)
        #expect(bench.sampled(2, 24) == [writes(attempt(2), at: 0, 24)])
    }

    @Test func `held KV that can't be used is computed`() {
        let prompt = (1...20).map { TokenID($0) }
        for cancels in [false, true] {
            var bench = WorkerBench(.decode, capacity: 200) { $0.keptSequences = 3 }
            bench.run(terms(attempt(1)), prompt: prompt, as: 1)
            _ = bench.sampled(1, 8, finish: .stop)
            _ = bench.reserve(terms(attempt(2)), prompt: prompt)
            #expect(offer(&bench, 2, prompt: prompt).job?.importedTokens == 19)
            if cancels { _ = bench.cancel(attempt(2)) }
            let actions = bench.refused(2, at: 0)
            #expect(actions.first == .cancelSequence(SequenceID(1)))
            #expect(actions.job?.importedTokens == (cancels ? nil : 0))
            if !cancels { _ = bench.sampled(2, 8, finish: .stop) }
            #expect(bench.machine.isIdle)
        }
    }

    @Test func `only so many are computed at once`() {
        var bench = WorkerBench(.decode) { $0.localPrefills = 1 }
        for number in UInt64(1)...2 { _ = bench.reserve(terms(attempt(number))) }
        #expect(offer(&bench).rejection == nil)
        #expect(offer(&bench, 2).rejection == .busy)
        _ = bench.sampled(1, 7)
        #expect(offer(&bench, 2).rejection == nil)
    }

    @Test func `without its reservation a prompt is not computed here`() {
        var bench = WorkerBench(.decode)
        #expect(offer(&bench).rejection == .unknownRequest)
        _ = bench.reserve(terms(attempt(1)))
        #expect(offer(&bench, secret: 8).rejection == .unknownRequest)
        #expect(offer(&bench, from: WorkerBench.otherGateway).rejection == .unknownRequest)
        #expect(offer(&bench, prompt: [1, 2, 4]).rejection == .invalid)
        #expect(
            offer(&bench, terms: terms(attempt(1), maximumNewTokens: 6)).rejection == .invalid)
        #expect(offer(&bench).rejection == nil)
        #expect(offer(&bench).rejection == .unknownRequest)
    }

    @Test func `KV from elsewhere and the own prompt exclude each other`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        _ = offer(&bench)
        #expect(bench.offerKV(attempt(1)).transferAnswers == [.unknownRequest])
        var other = WorkerBench(.decode)
        _ = other.reserve(terms(attempt(1)))
        _ = other.offerKV(attempt(1))
        #expect(offer(&other).rejection == .unknownRequest)
    }

    @Test func `a worker that is leaving or stops to decode takes none`() {
        var draining = WorkerBench(.decode)
        _ = draining.reserve(terms(attempt(1)))
        _ = draining.machine.drain()
        #expect(offer(&draining).rejection == .draining)
        var changing = WorkerBench(.decode)
        _ = changing.reserve(terms(attempt(1)))
        _ = changing.machine.assigned(
            Assign(number: 1, role: .prefill, group: nil), now: changing.now)
        #expect(offer(&changing).rejection == .role)
        var spare = WorkerBench(.spare)
        #expect(offer(&spare).rejection == .unknownRequest)
    }

    @Test func `whatever ends it frees its room`() {
        let ends: [(inout WorkerBench) -> [WorkerAction]] = [
            { $0.cancel(attempt(1)) },
            { $0.machine.gatewayLost(WorkerBench.gateway) },
            { $0.tick(.seconds(60)) },
        ]
        for end in ends {
            var bench = WorkerBench(.decode)
            _ = bench.reserve(terms(attempt(1)))
            _ = offer(&bench)
            #expect(end(&bench).last == .cancelSequence(SequenceID(1)))
            #expect(bench.status.localPrefills == 0)
            #expect(bench.engineCancelled(1) == [])
            #expect(bench.machine.isIdle && bench.status.reservedKVBytes == 0)
        }
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        _ = offer(&bench)
        #expect(bench.engineFailed(1).failures == [.engine])
        #expect(bench.machine.isIdle)
    }
}
