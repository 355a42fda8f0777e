import ClusterRules
import Roles
import ServingTypes
import Testing

/// A slot first, and a place for the KV after the first token.
@Suite struct GatewayLateTests {
    static let workers = [
        worker(prefill1, .prefillWorker), worker(decode1, .decodeWorker),
        worker(decode2, .decodeWorker),
    ]

    /// Two decode-workers, late placement.
    func bench(limits: GatewayLimits = GatewayLimits()) -> GatewayBench {
        var bench = GatewayBench(Self.workers, limits: limits)
        _ = bench.rule { $0.decodePlacement = .late }
        return bench
    }

    /// Request 1 has its first token; gives the decode-worker that is asked for room.
    func computed(_ bench: inout GatewayBench) throws -> InstanceID {
        _ = bench.submit(1)
        _ = bench.accept(attempt(1))
        let actions = bench.tokens(attempt(1), at: 0, 7, from: prefill1)
        #expect(actions.delivered == [7])
        return try #require(actions.reservedAt.only)
    }

    @Test func `prefill begins without a place, which is found after the first token`() throws {
        var bench = bench()
        let offer = try #require(bench.submit(1).only)
        #expect(
            offer
                == .send(
                    .prefillOffer(
                        PrefillOffer(
                            terms: terms(attempt(1), deadline: .seconds(600)), target: nil)),
                    to: prefill1, tokens: [1, 2, 3]))
        #expect(bench.accept(attempt(1)) == [.started(request(1), cachedTokens: 0)])
        #expect(bench.machine.waitingCount == 0)
        let actions = bench.tokens(attempt(1), at: 0, 7, from: prefill1)
        let decode = try #require(actions.reservedAt.only)
        // Room for the same attempt: the decode-worker samples the first token again.
        let reserve = ReserveKV(terms: terms(attempt(1), deadline: .seconds(600)))
        #expect(actions.last == .send(.reserveKV(reserve), to: decode, tokens: [1, 2, 3]))
        let (place, prefill) = try #require(
            bench.grant(attempt(1), from: decode, held: 2).only?.places)
        #expect(prefill == prefill1)
        #expect(
            place
                == PlaceKV(
                    attempt: attempt(1),
                    target: KVTarget(
                        instance: decode,
                        bulkAddress: NetworkAddress(host: decode.name, port: 2),
                        secret: secret(9), heldTokens: 2)))
        #expect(
            bench.tokens(attempt(1), at: 0, 7, 8, finish: .stop, from: decode)
                == [.deliver(request(1), outputs(8)), .finish(request(1), .stop)])
        #expect(bench.machine.counts.late == 1)
        #expect(bench.machine.counts.early == 0)
    }

    @Test func `the place may be the worker that computed it, if it decodes, too`() {
        var bench = GatewayBench([worker(decode1, .decodeWorker)])
        _ = bench.rule { $0.decodePlacement = .late }
        _ = bench.show([serving(worker(decode1, .decodeWorker), role: .mixed)])
        #expect(bench.submit(1).offeredTo == [decode1])
        _ = bench.accept(attempt(1), from: decode1)
        #expect(bench.tokens(attempt(1), at: 0, 7, from: decode1).reservedAt == [decode1])
        let place = bench.grant(attempt(1)).only?.places
        #expect(place?.0.target.instance == decode1 && place?.1 == decode1)
        #expect(bench.tokens(attempt(1), at: 0, 7, 8, from: decode1).delivered == [8])
        #expect(
            bench.tokens(attempt(1), at: 2, 9, finish: .stop, from: decode1)
                == [.deliver(request(1), outputs(9)), .finish(request(1), .stop)])
        #expect(bench.machine.counts.late == 1)
    }

    @Test func `an answer of one token needs no place`() {
        var bench = bench()
        _ = bench.submit(1, maximumNewTokens: 1)
        _ = bench.accept(attempt(1))
        #expect(
            bench.tokens(attempt(1), at: 0, 7, finish: .length, from: prefill1)
                == [
                    .deliver(request(1), outputs(7)), cancels(attempt(1), at: prefill1),
                    .finish(request(1), .length),
                ])
    }

    @Test func `a refusal leads to the next decode-worker, then to waiting for room`() throws {
        var bench = bench()
        let first = try computed(&bench)
        let second = try #require(bench.refuse(attempt(1), from: first).reservedAt.only)
        #expect(Set([first, second]) == [decode1, decode2])
        #expect(bench.refuse(attempt(1), from: second) == [])
        #expect(bench.callRoom(50, from: first).reservedAt == [first])
        #expect(bench.grant(attempt(1), from: first).only?.places?.1 == prefill1)
    }

    @Test func `a decode-worker lost before it answered costs no prefill`() throws {
        var bench = bench()
        let first = try computed(&bench)
        let actions = bench.disconnect(first)
        #expect(actions.restarts == [])
        let second = try #require(actions.reservedAt.only)
        #expect(second != first)
        #expect(actions.reservations == [attempt(1)])
        #expect(bench.grant(attempt(1), from: second).only?.places != nil)
    }

    @Test func `a silent decode-worker is left, cancelled, and costs no prefill`() throws {
        var bench = bench()
        let first = try computed(&bench)
        let actions = bench.tick(.seconds(5))
        #expect(actions.first == cancels(attempt(1), at: first))
        #expect(actions.restarts == [])
        #expect(actions.reservedAt.only != first)
        #expect(bench.grant(attempt(1), from: first) == [cancels(attempt(1), at: first)])
    }

    @Test func `a lost prefill-worker takes the KV with it at every stage`() throws {
        for stage in 0..<4 {
            var bench = bench()
            _ = bench.submit(1)
            if stage > 0 { _ = bench.accept(attempt(1)) }
            var decode: InstanceID?
            if stage > 1 {
                decode = bench.tokens(attempt(1), at: 0, 7, from: prefill1).reservedAt.only
            }
            if stage > 2, let decode { _ = bench.grant(attempt(1), from: decode) }
            let actions = bench.disconnect(prefill1)
            #expect(actions.restarts == [2], "stage \(stage)")
            if let decode { #expect(actions.contains(cancels(attempt(1), at: decode))) }
            _ = bench.connect(prefill1)
            let again = bench.tick(.milliseconds(250))
            #expect(again.prefillOffers.only?.terms.outputTokens == (stage > 1 ? 1 : 0))
        }
    }

    @Test func `a lost decode-worker that had the KV means the next attempt`() throws {
        var bench = bench()
        let decode = try computed(&bench)
        _ = bench.grant(attempt(1), from: decode)
        let actions = bench.disconnect(decode)
        #expect(actions.first == cancels(attempt(1), at: prefill1))
        #expect(actions.restarts == [2])
        #expect(actions.offers == [attempt(1, 2)])
    }

    @Test func `a client that leaves frees slot and room`() throws {
        var bench = bench()
        let decode = try computed(&bench)
        #expect(
            bench.machine.cancel(request(1))
                == [cancels(attempt(1), at: prefill1), cancels(attempt(1), at: decode)])
    }

    @Test func `a request that waits for a slot goes by the calls of prefill-workers`() {
        var bench = bench()
        _ = bench.submit(1)
        #expect(bench.reject(attempt(1)) == [])
        #expect(bench.callRoom(100) == [])
        #expect(bench.callSlots(1).offers == [attempt(1)])
    }

    @Test func `who finds no place in time fails, counted from the first token`() throws {
        var bench = bench()
        _ = bench.tick(.seconds(20))
        let first = try computed(&bench)
        _ = bench.tick(.seconds(4))
        let second = bench.refuse(attempt(1), from: first).reservedAt[0]
        _ = bench.refuse(attempt(1), from: second)
        for _ in 0..<103 {
            for (attempt, decode) in bench.tick(.milliseconds(250)).compactMap(\.reserves) {
                for (_, other) in bench.refuse(attempt, from: decode).compactMap(\.reserves) {
                    _ = bench.refuse(attempt, from: other)
                }
            }
        }
        #expect(bench.machine.requestCount == 1)
        let actions = bench.tick(.milliseconds(250))
        #expect(actions.first == cancels(attempt(1), at: prefill1))
        #expect(actions.failures == [.overloaded(waited: .seconds(30))])
    }

    @Test func `early placement may begin without room if it is told to`() throws {
        var limits = GatewayLimits()
        limits.beginsWithoutRoom = true
        var bench = GatewayBench(limits: limits)
        _ = bench.submit(1)
        let offer = try #require(bench.refuse(attempt(1)).prefillOffers.only)
        #expect(offer.target == nil)
        #expect(bench.reject(attempt(1)) == [])
        // Whatever opens first is used.
        #expect(bench.callSlots(1).prefillOffers.only?.target == nil)
        _ = bench.accept(attempt(1))
        _ = bench.tokens(attempt(1), at: 0, 7, from: prefill1)
        #expect(bench.callRoom(50).reservations == [attempt(1)])
        #expect(bench.grant(attempt(1)).only?.places?.1 == prefill1)
        _ = bench.submit(2)
        _ = bench.refuse(attempt(2))
        _ = bench.reject(attempt(2))
        #expect(bench.callRoom(50).reservations == [attempt(2)])
        #expect(bench.grant(attempt(2)).prefillOffers == [])
        #expect(bench.callSlots(1).prefillOffers.only?.target?.instance == decode1)
    }

    @Test func `without that, early placement waits for room`() {
        var bench = GatewayBench()
        _ = bench.submit(1)
        #expect(bench.refuse(attempt(1)) == [])
    }
}
