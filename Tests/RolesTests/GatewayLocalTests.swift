import ClusterRules
import Roles
import ServingTypes
import Testing

/// Workers that do another role's work: since it is sooner, or since nobody else is left.
@Suite struct GatewayLocalTests {
    func members(
        prefillRate: Double, decodeRate: Double, running: Int = 0
    ) -> [GroupMember] {
        var decode = serving(worker(decode1, .decodeWorker, context: 2000, capacity: 2000))
        decode.status.prefillTokensPerSecond = decodeRate
        decode.status.runningSequences = running
        decode.status.decodeStepMilliseconds = running > 0 ? 20 : 0
        var prefill = serving(worker(prefill1, .prefillWorker, context: 2000))
        prefill.status.prefillTokensPerSecond = prefillRate
        return [decode, prefill]
    }

    func bench(
        prefillRate: Double = 1000, decodeRate: Double = 1000, deflects: Bool = true
    ) -> GatewayBench {
        let members = members(prefillRate: prefillRate, decodeRate: decodeRate)
        var bench = GatewayBench(members.map(\.description))
        _ = bench.rule { $0.deflection = deflects }
        _ = bench.show(members)
        return bench
    }

    let long = [TokenID](repeating: 5, count: 1000)

    @Test func `a prompt that is mostly held is computed where it is held`() throws {
        var bench = bench()
        _ = bench.submit(1, prompt: long)
        let offer = try #require(bench.grant(attempt(1), held: 900).prefillOffers.only)
        #expect(offer.target?.instance == decode1)
        #expect(offer.target?.heldTokens == 900)
        #expect(!offer.isFallback)
        #expect(
            bench.accept(attempt(1), from: decode1, cached: 900)
                == [.started(request(1), cachedTokens: 900)])
        #expect(
            bench.tokens(attempt(1), at: 0, 7, 8, finish: .stop, from: decode1)
                == [.deliver(request(1), outputs(7, 8)), .finish(request(1), .stop)])
        #expect(bench.machine.counts.deflected == 1)
    }

    @Test func `a prompt that nobody holds goes to the prefill-worker`() {
        var bench = bench(decodeRate: 500)
        _ = bench.submit(1, prompt: long)
        #expect(bench.grant(attempt(1)).offeredTo == [prefill1])
        _ = bench.accept(attempt(1))
        #expect(bench.machine.counts.early == 1)
    }

    @Test func `nothing is deflected where the scenario forbids it`() {
        var bench = bench(deflects: false)
        _ = bench.submit(1, prompt: long)
        #expect(bench.grant(attempt(1), held: 990).offeredTo == [prefill1])
    }

    @Test func `a busy prefill-worker makes its slower neighbour the sooner one`() {
        var bench = bench(decodeRate: 500)
        _ = bench.submit(1, prompt: long)
        #expect(bench.grant(attempt(1)).offeredTo == [prefill1])
        _ = bench.submit(2, prompt: long + [6])
        #expect(bench.grant(attempt(2)).offeredTo == [prefill1], "1 s of wait, as much as it gains")
        _ = bench.machine.cancel(request(2))
        _ = bench.reject(attempt(1))
        _ = bench.submit(3, prompt: [TokenID](repeating: 6, count: 400))
        #expect(bench.grant(attempt(3), held: 200).offeredTo == [decode1])
    }

    @Test func `a deflected prompt that is rejected goes the normal way`() {
        var bench = bench()
        _ = bench.submit(1, prompt: long)
        #expect(bench.grant(attempt(1), held: 900).offeredTo == [decode1])
        #expect(bench.reject(attempt(1), from: decode1).offeredTo == [prefill1])
        _ = bench.accept(attempt(1))
        #expect(bench.machine.counts.deflected == 0)
        #expect(bench.machine.counts.early == 1)
        // Others are not sent there either for a while; it never calls.
        _ = bench.submit(2, prompt: long)
        #expect(bench.grant(attempt(2), held: 900).offeredTo == [prefill1])
        _ = bench.tick(GatewayLimits().askAgainInterval + .seconds(1))
        for number in UInt64(3)...5 {
            _ = bench.submit(number, prompt: long)
            #expect(bench.grant(attempt(number), held: 900).offeredTo == [decode1])
            _ = bench.accept(attempt(number), from: decode1)
            _ = bench.tokens(attempt(number), at: 0, 7, finish: .stop, from: decode1)
        }
    }

    @Test func `a helper that computes enough for itself has slots for others`() {
        var bench = GatewayBench([worker(prefill1, .prefillWorker)])
        _ = bench.rule { $0.prefillOnlyFallback = true }
        _ = bench.submit(1)
        #expect(bench.grant(attempt(1), from: prefill1).offeredTo == [prefill1])
        _ = bench.reject(attempt(1), from: prefill1)
        _ = bench.show([
            serving(worker(decode1, .decodeWorker)), serving(worker(prefill1, .prefillWorker)),
        ])
        _ = bench.connect(decode1)
        for number in UInt64(2)...3 {
            _ = bench.submit(number)
            #expect(bench.grant(attempt(number)).offeredTo == [prefill1])
        }
    }

    @Test func `losing a worker that does everything means the next attempt`() {
        var bench = bench()
        _ = bench.submit(1, prompt: long)
        _ = bench.grant(attempt(1), held: 900)
        _ = bench.accept(attempt(1), from: decode1)
        #expect(bench.disconnect(prefill1) == [])
        let actions = bench.disconnect(decode1)
        #expect(actions.restarts == [2])
    }

    @Test func `one that is cancelled is told once`() {
        var bench = bench()
        _ = bench.submit(1, prompt: long)
        _ = bench.grant(attempt(1), held: 900)
        #expect(bench.machine.cancel(request(1)) == [cancels(attempt(1), at: decode1)])
    }

    // MARK: Nobody else is left

    @Test func `without prefill-workers decode-workers compute prompts`() throws {
        var bench = GatewayBench([worker(decode1, .decodeWorker)])
        #expect(!bench.machine.canServe)
        #expect(bench.submit(1) == [])
        let woken = bench.rule { $0.decodeOnlyFallback = true }
        #expect(bench.machine.canServe)
        #expect(woken.reservedAt == [decode1])
        guard case .send(.reserveKV(let reserve), _, _) = woken.only else {
            Issue.record("\(woken)")
            return
        }
        #expect(!reserve.isFallback, "keeping room is its own work")
        let offer = try #require(bench.grant(attempt(1)).prefillOffers.only)
        #expect(offer.isFallback)
        #expect(offer.target?.instance == decode1)
        _ = bench.accept(attempt(1), from: decode1)
        #expect(bench.machine.counts.decodeOnly == 1)
    }

    @Test func `without decode-workers prefill-workers decode`() throws {
        var bench = GatewayBench([worker(prefill1, .prefillWorker)])
        #expect(bench.submit(1) == [])
        let woken = bench.rule { $0.prefillOnlyFallback = true }
        guard case .send(.reserveKV(let reserve), let to, _) = woken.only else {
            Issue.record("\(woken)")
            return
        }
        #expect(to == prefill1)
        #expect(reserve.isFallback)
        let offer = try #require(bench.grant(attempt(1), from: prefill1).prefillOffers.only)
        #expect(offer.isFallback)
        #expect(offer.target?.instance == prefill1)
        _ = bench.accept(attempt(1), from: prefill1)
        #expect(
            bench.tokens(attempt(1), at: 0, 7, 8, finish: .stop, from: prefill1)
                == [.deliver(request(1), outputs(7, 8)), .finish(request(1), .stop)])
        #expect(bench.machine.counts.prefillOnly == 1)
    }

    @Test func `a refused fallback is asked for again, and others wake it`() throws {
        var bench = GatewayBench([worker(prefill1, .prefillWorker)])
        _ = bench.rule { $0.prefillOnlyFallback = true }
        _ = bench.submit(1)
        #expect(bench.refuse(attempt(1), from: prefill1) == [])
        #expect(bench.callRoom(50, from: prefill1).reservedAt == [prefill1])
        _ = bench.grant(attempt(1), from: prefill1)
        #expect(bench.reject(attempt(1), from: prefill1) == [])
        #expect(bench.tick(.milliseconds(250)).offeredTo == [prefill1])
    }

    @Test func `a request that has room when its last prefill-worker goes stays where it is`() {
        var bench = GatewayBench()
        _ = bench.rule { $0.decodeOnlyFallback = true }
        bench.hold(1)
        let actions = bench.disconnect(prefill1)
        #expect(actions.offeredTo == [decode1])
        #expect(actions.prefillOffers.only?.isFallback == true)
        // The right one is back before it answered: what it says decides.
        _ = bench.connect(prefill1)
        #expect(bench.reject(attempt(1), from: decode1).offeredTo == [prefill1])
    }

    @Test func `late placement without decode-workers begins again on prefill-workers`() throws {
        var bench = GatewayBench()
        _ = bench.rule { spec in
            spec.decodePlacement = .late
            spec.prefillOnlyFallback = true
        }
        _ = bench.submit(1)
        _ = bench.accept(attempt(1))
        let lost = bench.disconnect(decode1)
        #expect(lost == [], "it computes")
        let actions = bench.tokens(attempt(1), at: 0, 7, from: prefill1)
        #expect(actions.restarts == [2])
        #expect(actions.reservedAt == [prefill1])
    }

    @Test func `what began where it fits and has no such worker left is too long`() {
        var bench = GatewayBench([worker(prefill1, .prefillWorker, context: 400, capacity: 400)])
        _ = bench.rule { $0.prefillOnlyFallback = true }
        #expect(bench.submit(1, maximumNewTokens: 200).reservedAt == [prefill1])
        _ = bench.grant(attempt(1), from: prefill1)
        _ = bench.accept(attempt(1), from: prefill1)
        _ = bench.tokens(attempt(1), at: 0, 7, from: prefill1)
        // Now a decode-worker is there, on which neither this nor its beginning goes on.
        _ = bench.show(
            [
                serving(worker(prefill1, .prefillWorker, context: 400, capacity: 400)),
                serving(worker(decode1, .decodeWorker)),
            ])
        #expect(bench.fail(attempt(1), from: prefill1).failures == [.tooLong(contextTokens: 100)])
        #expect(bench.machine.requestCount == 0)
    }
}
