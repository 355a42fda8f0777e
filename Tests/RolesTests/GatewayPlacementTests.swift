import Roles
import ServingTypes
import Testing

@Suite struct GatewayPlacementTests {
    @Test func `a request reserves room, is offered with the secret, and is placed`() throws {
        var bench = GatewayBench()
        let reserve = try #require(bench.submit(1).only)
        let expected = terms(attempt(1), deadline: .seconds(600))
        #expect(
            reserve
                == .send(.reserveKV(ReserveKV(terms: expected)), to: decode1, tokens: [1, 2, 3]))
        bench.now = seconds(1)
        let offer = try #require(bench.grant(attempt(1)).only)
        #expect(
            offer
                == .send(
                    .prefillOffer(
                        PrefillOffer(
                            terms: terms(attempt(1), deadline: .seconds(599)),
                            decodeInstance: decode1,
                            decodeBulkAddress: NetworkAddress(host: "decode-1", port: 2),
                            secret: secret(9))), to: prefill1, tokens: [1, 2, 3]))
        #expect(bench.machine.waitingCount == 1)
        #expect(bench.accept(attempt(1)) == [.started(request(1), cachedTokens: 0)])
        #expect(bench.machine.waitingCount == 0)
        #expect(bench.machine.requestCount == 1)
    }

    @Test func `it can serve once a pair is in the view and connected`() {
        var bench = GatewayBench([])
        #expect(!bench.machine.canServe)
        _ = bench.show([
            serving(worker(decode1, .decodeWorker)), serving(worker(prefill1, .prefillWorker)),
        ])
        _ = bench.connect(decode1)
        #expect(!bench.machine.canServe)
        _ = bench.connect(prefill1)
        #expect(bench.machine.canServe)
        _ = bench.disconnect(decode1)
        #expect(!bench.machine.canServe)
    }

    @Test func `a request that came before its workers goes on when they come`() {
        var bench = GatewayBench([])
        #expect(bench.submit(1) == [])
        _ = bench.show([
            serving(worker(decode1, .decodeWorker)), serving(worker(prefill1, .prefillWorker)),
        ])
        #expect(bench.connect(decode1).reservations == [])
        #expect(bench.connect(prefill1).reservations == [attempt(1)])
    }

    @Test(arguments: [InstanceState.draining, .suspect, .down])
    func `a worker that does not serve is not asked`(state: InstanceState) {
        var bench = GatewayBench()
        _ = bench.show([
            serving(worker(decode1, .decodeWorker), state: state),
            serving(worker(prefill1, .prefillWorker)),
        ])
        #expect(bench.submit(1) == [])
        let woken = bench.show([
            serving(worker(decode1, .decodeWorker)), serving(worker(prefill1, .prefillWorker)),
        ])
        #expect(woken.reservations == [attempt(1)])
    }

    @Test func `a rejected offer goes to the next prefill-worker`() throws {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker), worker(prefill2, .prefillWorker),
            worker(decode1, .decodeWorker),
        ])
        _ = bench.submit(1)
        let first = try #require(bench.grant(attempt(1)).offeredTo.only)
        let second = try #require(bench.reject(attempt(1), from: first).offeredTo.only)
        #expect(Set([first, second]) == [prefill1, prefill2])
        #expect(bench.reject(attempt(1), from: second) == [])
    }

    @Test func `a refused reservation is asked for at the next decode-worker`() throws {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker), worker(decode1, .decodeWorker),
            worker(decode2, .decodeWorker),
        ])
        let first = try #require(bench.submit(1).reservedAt.only)
        let second = try #require(bench.refuse(attempt(1), from: first).reservedAt.only)
        #expect(Set([first, second]) == [decode1, decode2])
        #expect(bench.refuse(attempt(1), from: second) == [])
    }

    @Test func `who said no is not asked by others until it calls`() {
        var bench = GatewayBench()
        bench.hold(1)
        _ = bench.submit(2)
        #expect(bench.grant(attempt(2)) == [])
        #expect(bench.callSlots(1).offers == [attempt(1)])
    }

    @Test func `free slots wake as many as there are, who came first is served first`() {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker, slots: 4), worker(decode1, .decodeWorker),
        ])
        bench.hold(1)
        for number in UInt64(2)...4 {
            bench.now = bench.now + .milliseconds(1)
            _ = bench.submit(number)
            _ = bench.grant(attempt(number))
        }
        #expect(bench.callSlots(2).offers == [attempt(1), attempt(2)])
        #expect(bench.callSlots(1).offers == [attempt(3)])
        #expect(bench.callSlots(1).offers == [attempt(4)])
    }

    @Test func `a prefill-worker is asked at most once for each of its slots at a time`() {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker, slots: 2), worker(decode1, .decodeWorker),
        ])
        for number in UInt64(1)...4 { _ = bench.submit(number) }
        #expect(bench.grant(attempt(1)).offers == [attempt(1)])
        #expect(bench.grant(attempt(2)).offers == [attempt(2)])
        #expect(bench.grant(attempt(3)).offers == [])
        #expect(bench.grant(attempt(4)).offers == [])
        #expect(bench.accept(attempt(1)).offers == [attempt(3)])
        // All slots are taken: the others wait for its call.
        #expect(bench.reject(attempt(3)).offers == [])
        #expect(bench.accept(attempt(2)).offers == [])
    }

    @Test func `free room wakes those who fit, who came first is served first`() {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker), worker(decode1, .decodeWorker, sequences: 9),
        ])
        _ = bench.submit(1, maximumNewTokens: 5)
        _ = bench.refuse(attempt(1))
        _ = bench.submit(2, maximumNewTokens: 17)
        _ = bench.submit(3, maximumNewTokens: 5)
        _ = bench.submit(4, maximumNewTokens: 5)
        // 8 tokens each, and 20 for the second.
        #expect(bench.callRoom(18).reservations == [attempt(1)])
        #expect(bench.grant(attempt(1)).reservations == [attempt(3)])
        #expect(bench.grant(attempt(3)).reservations == [])
        #expect(bench.callRoom(28).reservations == [attempt(2)])
        #expect(bench.grant(attempt(2)).reservations == [attempt(4)])
    }

    @Test func `a refusal for size lets smaller requests be asked for`() {
        var bench = GatewayBench()
        _ = bench.submit(1, maximumNewTokens: 40)
        #expect(bench.refuse(attempt(1), needed: 430, free: 200) == [])
        #expect(bench.submit(2, maximumNewTokens: 5).reservations == [attempt(2)])
        #expect(bench.submit(3, maximumNewTokens: 15).reservations == [])
    }

    @Test func `a refusal although there is room means that all sequences are taken`() {
        var bench = GatewayBench()
        _ = bench.submit(1, maximumNewTokens: 40)
        #expect(bench.refuse(attempt(1), needed: 430, free: 800) == [])
        #expect(bench.submit(2).reservations == [])
    }

    @Test func `after its first no a prefill-worker is offered what it called, and no more`() {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker, slots: 2), worker(decode1, .decodeWorker),
        ])
        bench.hold(1)
        #expect(bench.callSlots(2).offers == [attempt(1)])
        _ = bench.accept(attempt(1))
        _ = bench.submit(2)
        #expect(bench.grant(attempt(2)).offers == [attempt(2)])
        _ = bench.accept(attempt(2))
        _ = bench.submit(3)
        #expect(bench.grant(attempt(3)).offers == [])
        #expect(bench.callSlots(1).offers == [attempt(3)])
    }

    @Test func `an idle decode-worker's call lifts every limit`() {
        var bench = GatewayBench()
        _ = bench.submit(1)
        _ = bench.refuse(attempt(1))
        _ = bench.submit(2)
        // One after the other while there are limits, together without.
        #expect(bench.callRoom(99).reservations == [attempt(1)])
        _ = bench.refuse(attempt(1))
        #expect(bench.callRoom(100).reservations == [attempt(1), attempt(2)])
    }

    @Test func `a worker that does not call is asked again after a while, by one request`() {
        var bench = GatewayBench()
        bench.hold(1)
        bench.hold(2)
        #expect(bench.tick(.milliseconds(100)) == [])
        #expect(bench.tick(.milliseconds(200)).offers == [attempt(1)])
        #expect(bench.reject(attempt(1)) == [])
        #expect(bench.tick(.milliseconds(100)) == [])
        #expect(bench.tick(.milliseconds(200)).offers == [attempt(1)])
        #expect(bench.accept(attempt(1)) == [.started(request(1), cachedTokens: 0)])
    }

    @Test func `a worker that says it drains is left alone for a while`() {
        var bench = GatewayBench()
        _ = bench.submit(1)
        #expect(bench.refuse(attempt(1), .draining) == [])
        #expect(bench.submit(2) == [])
        #expect(bench.tick(.milliseconds(250)).reservations == [attempt(1)])
    }

    @Test(arguments: [FailureCode.role, .model, .invalid])
    func `an odd refusal concerns only its request`(code: FailureCode) {
        var bench = GatewayBench()
        _ = bench.submit(1)
        #expect(bench.refuse(attempt(1), code) == [])
        #expect(bench.submit(2).reservations == [attempt(2)])
        #expect(bench.tick(.milliseconds(250)).reservations == [attempt(1)])
        _ = bench.grant(attempt(1))
        #expect(bench.reject(attempt(1), code) == [])
        #expect(bench.grant(attempt(2)).offers == [attempt(2)])
        #expect(bench.tick(.milliseconds(250)).offers == [attempt(1)])
    }

    @Test func `a connection that comes back lifts the limits of the old one`() {
        var bench = GatewayBench()
        bench.hold(1)
        _ = bench.disconnect(prefill1)
        #expect(bench.connect(prefill1).offers == [attempt(1)])
    }

    @Test func `a request is only placed on workers of its model and of one revision`() {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker, fingerprint: model),
            worker(prefill2, .prefillWorker, modelName: "large", fingerprint: otherModel),
            worker(decode1, .decodeWorker, fingerprint: otherModel),
            worker(decode2, .decodeWorker, modelName: "large", fingerprint: otherModel),
        ])
        #expect(bench.submit(1, modelName: "none") == [])
        // The only decode-worker of the small model is of a revision nobody prefills for.
        #expect(bench.submit(2, modelName: "small") == [])
        #expect(bench.submit(3, modelName: "large").reservedAt == [decode2])
        #expect(bench.grant(attempt(3), from: decode2).offeredTo == [prefill2])
        let failures = bench.tick(.seconds(30)).failures
        #expect(
            failures.sorted { "\($0)" < "\($1)" } == [
                .noWorker(.decodeWorker), .noWorker(.prefillWorker),
            ])
    }

    @Test func `free KV by the last status counts, less what was reserved since`() {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker, slots: 9), worker(decode1, .decodeWorker),
            worker(decode2, .decodeWorker),
        ])
        var members = [
            serving(worker(decode1, .decodeWorker)), serving(worker(decode2, .decodeWorker)),
            serving(worker(prefill1, .prefillWorker, slots: 9)),
        ]
        members[0].status.freeKVBytes = 500
        _ = bench.show(members)
        // 8 tokens each: the second is freer until 50 of its 100 tokens are taken.
        for number in UInt64(1)...6 {
            #expect(bench.submit(number).reservedAt == [decode2])
            _ = bench.grant(attempt(number), from: decode2)
        }
        #expect(bench.submit(7).reservedAt == [decode2])
        #expect(bench.submit(8).reservedAt == [decode1])
    }

    @Test func `a prompt goes to the prefill-worker with the least open tokens`() {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker, slots: 9), worker(prefill2, .prefillWorker, slots: 9),
            worker(decode1, .decodeWorker, sequences: 9),
        ])
        _ = bench.submit(1, prompt: [1, 2, 3, 4, 5])
        let first = bench.grant(attempt(1)).offeredTo
        _ = bench.submit(2, prompt: [1, 2])
        let second = bench.grant(attempt(2)).offeredTo
        _ = bench.submit(3, prompt: [1, 2])
        let third = bench.grant(attempt(3)).offeredTo
        #expect(first != second)
        #expect(third == second)
        // Once the decode-worker has written, the prompt is no work any more.
        _ = bench.tokens(attempt(1), at: 0, 7, 8, from: decode1)
        _ = bench.submit(4, prompt: [1, 2])
        #expect(bench.grant(attempt(4)).offeredTo == first)
    }
}
