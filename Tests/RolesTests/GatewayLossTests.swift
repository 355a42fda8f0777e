import Roles
import ServingTypes
import Testing

@Suite struct GatewayLossTests {
    /// Two workers of each role; gives the ones that were chosen for request 1.
    func placed() -> (GatewayBench, prefill: InstanceID, decode: InstanceID) {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker), worker(prefill2, .prefillWorker),
            worker(decode1, .decodeWorker), worker(decode2, .decodeWorker),
        ])
        let decode = bench.submit(1).reservedAt[0]
        let prefill = bench.grant(attempt(1), from: decode).offeredTo[0]
        _ = bench.accept(attempt(1), from: prefill)
        return (bench, prefill, decode)
    }

    @Test func `a lost prefill-worker before any token means the next attempt`() throws {
        var (bench, prefill, decode) = placed()
        let actions = bench.disconnect(prefill)
        #expect(actions.first == cancels(attempt(1), at: decode))
        #expect(actions.restarts == [2])
        #expect(actions.reservations == [attempt(1, 2)])
        let other = try #require(actions.reservedAt.only)
        #expect(bench.grant(attempt(1, 2), from: other).offeredTo != [prefill])
    }

    @Test func `a lost prefill-worker after its token but before the decode-worker's restarts`() {
        var (bench, prefill, _) = placed()
        _ = bench.tokens(attempt(1), at: 0, 7, from: prefill)
        #expect(bench.disconnect(prefill).restarts == [2])
    }

    @Test func `a lost prefill-worker is not missed once the decode-worker has written`() {
        var (bench, prefill, decode) = placed()
        _ = bench.tokens(attempt(1), at: 0, 7, 8, from: decode)
        #expect(bench.disconnect(prefill) == [])
        #expect(bench.fail(attempt(1), from: prefill) == [])
        #expect(bench.tokens(attempt(1), at: 2, 9, from: decode).delivered == [9])
    }

    @Test func `a lost decode-worker restarts with prompt and delivered tokens`() throws {
        var (bench, prefill, decode) = placed()
        _ = bench.tokens(attempt(1), at: 0, 7, from: prefill)
        _ = bench.tokens(attempt(1), at: 0, 7, 8, 9, from: decode)
        bench.now = seconds(100)
        let actions = bench.disconnect(decode)
        #expect(actions.restarts == [2])
        #expect(actions.first == cancels(attempt(1), at: prefill))
        let other = try #require(actions.reservedAt.only)
        #expect(other != decode)
        let again = terms(
            attempt(1, 2), outputTokens: 3, maximumNewTokens: 2, deadline: .seconds(500))
        #expect(
            actions.last
                == .send(
                    .reserveKV(ReserveKV(terms: again)), to: other, tokens: [1, 2, 3, 7, 8, 9]))
        let offer = try #require(bench.grant(attempt(1, 2), from: other).only)
        guard case .send(.prefillOffer(let message), let next, let tokens) = offer else {
            Issue.record("\(offer)")
            return
        }
        #expect(message.terms == again)
        #expect(tokens == [1, 2, 3, 7, 8, 9])
        _ = bench.accept(attempt(1, 2), from: next)
        #expect(bench.tokens(attempt(1, 2), at: 3, 10, from: next).delivered == [10])
        #expect(
            bench.tokens(attempt(1, 2), at: 3, 10, 11, finish: .length, from: other)
                == [.deliver(request(1), outputs(11)), .finish(request(1), .length)])
    }

    @Test func `tokens that waited for predecessors are forgotten with their attempt`() {
        var (bench, prefill, decode) = placed()
        _ = bench.tokens(attempt(1), at: 0, 7, from: prefill)
        _ = bench.tokens(attempt(1), at: 2, 99, finish: .stop, from: decode)
        let other = bench.disconnect(decode).reservedAt[0]
        let next = bench.grant(attempt(1, 2), from: other).offeredTo[0]
        _ = bench.accept(attempt(1, 2), from: next)
        #expect(bench.tokens(attempt(1, 2), at: 1, 8, from: next).delivered == [8])
        #expect(bench.tokens(attempt(1, 2), at: 1, 8, 9, from: other).delivered == [9])
        #expect(bench.machine.requestCount == 1)
    }

    @Test func `a lost decode-worker is missed at every stage`() {
        for stage in 0..<3 {
            var bench = GatewayBench()
            _ = bench.submit(1)
            if stage > 0 { _ = bench.grant(attempt(1)) }
            if stage > 1 { _ = bench.reject(attempt(1)) }
            #expect(bench.disconnect(decode1).restarts == [2], "stage \(stage)")
            #expect(bench.connect(decode1).reservations == [], "it is avoided for a while")
            #expect(bench.tick(.milliseconds(250)).reservations == [attempt(1, 2)])
        }
    }

    @Test func `a request that waits loses nothing with a worker it did not ask`() {
        var bench = GatewayBench()
        bench.hold(1)
        #expect(bench.disconnect(prefill1) == [])
        #expect(bench.connect(prefill1).offers == [attempt(1)])
    }

    @Test func `a failure report starts the next attempt elsewhere`() {
        var (bench, prefill, decode) = placed()
        let actions = bench.fail(attempt(1), from: decode)
        #expect(
            actions.prefix(2) == [
                cancels(attempt(1), at: prefill), cancels(attempt(1), at: decode),
            ]
        )
        #expect(actions.restarts == [2])
        #expect(actions.reservedAt != [decode])
    }

    @Test func `after a failed transfer both workers are avoided`() {
        var (bench, prefill, decode) = placed()
        let other = bench.fail(attempt(1), .transfer, from: prefill).reservedAt
        #expect(other != [decode])
        #expect(bench.grant(attempt(1, 2), from: other[0]).offeredTo != [prefill])
    }

    @Test func `a request with a single pair of workers tries it again after a while`() {
        var bench = GatewayBench()
        bench.place(1)
        #expect(bench.fail(attempt(1), .transfer, from: prefill1).reservations == [])
        #expect(bench.tick(.milliseconds(249)) == [])
        #expect(bench.tick(.milliseconds(1)).reservations == [attempt(1, 2)])
    }

    @Test func `attempts are limited`() {
        var bench = GatewayBench()
        for number in UInt32(1)...3 {
            _ = number == 1 ? bench.submit(1) : bench.tick(.milliseconds(250))
            _ = bench.grant(attempt(1, number))
            _ = bench.accept(attempt(1, number))
            #expect(bench.fail(attempt(1, number), from: decode1).restarts == [number + 1])
        }
        _ = bench.tick(.milliseconds(250))
        _ = bench.grant(attempt(1, 4))
        _ = bench.accept(attempt(1, 4))
        #expect(
            bench.fail(attempt(1, 4), from: decode1)
                == [
                    cancels(attempt(1, 4), at: prefill1), cancels(attempt(1, 4), at: decode1),
                    .fail(request(1), .attemptsExhausted(attempts: 4, reason: "decode-1: why")),
                ])
        #expect(bench.machine.requestCount == 0)
    }

    @Test func `a worker that does not answer is left, cancelled and avoided`() {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker), worker(decode1, .decodeWorker),
            worker(decode2, .decodeWorker),
        ])
        let silent = bench.submit(1).reservedAt[0]
        #expect(bench.tick(.milliseconds(4999)) == [])
        let actions = bench.tick(.milliseconds(1))
        #expect(actions.first == cancels(attempt(1), at: silent))
        #expect(actions.restarts == [2])
        #expect(actions.reservedAt.only != nil && actions.reservedAt != [silent])
        // Others don't ask it either.
        #expect(bench.submit(2).reservedAt != [silent])
    }

    @Test func `an offer that is not answered starts the next attempt`() {
        var bench = GatewayBench()
        _ = bench.submit(1)
        _ = bench.grant(attempt(1))
        let actions = bench.tick(.seconds(5))
        #expect(
            actions.prefix(2)
                == [cancels(attempt(1), at: prefill1), cancels(attempt(1), at: decode1)])
        #expect(actions.restarts == [2])
    }

    @Test func `a decode-worker that writes proves that the offer was accepted`() {
        var bench = GatewayBench()
        _ = bench.submit(1)
        _ = bench.grant(attempt(1))
        #expect(bench.tokens(attempt(1), at: 0, 7, 8, from: decode1).delivered == [7, 8])
        #expect(bench.machine.waitingCount == 0)
        #expect(bench.tick(.seconds(6)) == [])
        #expect(bench.accept(attempt(1)) == [.started(request(1), cachedTokens: 0)])
    }

    @Test(arguments: [true, false])
    func `a worker the scheduler gives up is lost although its connection stands`(isDown: Bool) {
        var (bench, _, decode) = placed()
        let members = bench.view.members
        let actions = bench.show(
            members.filter { isDown || $0.description.instance != decode }
                .map {
                    $0.description.instance == decode ? serving($0.description, state: .down) : $0
                }
        )
        #expect(actions.restarts == [2])
        #expect(actions.contains(cancels(attempt(1), at: decode)))
        #expect(actions.reservedAt.only != nil && actions.reservedAt != [decode])
    }

    @Test func `a worker with another incarnation has lost what it had`() {
        var bench = GatewayBench()
        bench.place(1)
        let actions = bench.show([
            serving(worker(decode1, .decodeWorker, incarnation: 2)),
            serving(worker(prefill1, .prefillWorker)),
        ])
        #expect(actions.restarts == [2])
    }

    @Test(arguments: [InstanceState.suspect, .draining])
    func `a suspect or draining worker goes on with what it has`(state: InstanceState) {
        var bench = GatewayBench()
        bench.place(1)
        let members = [
            serving(worker(decode1, .decodeWorker), state: state),
            serving(worker(prefill1, .prefillWorker), state: state),
        ]
        #expect(bench.show(members) == [])
        #expect(bench.tokens(attempt(1), at: 0, 7, from: prefill1).delivered == [7])
        #expect(bench.submit(2) == [])
    }

    @Test func `a request that lost its worker goes before those who came after it`() {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker, slots: 1), worker(decode1, .decodeWorker),
        ])
        bench.place(1)
        _ = bench.tick(.seconds(10))
        bench.hold(2)
        #expect(bench.fail(attempt(1), from: prefill1).reservations == [attempt(1, 2)])
        #expect(bench.grant(attempt(1, 2)) == [])
        #expect(bench.tick(.milliseconds(250)).offers == [attempt(1, 2)])
        _ = bench.accept(attempt(1, 2))
        #expect(bench.callSlots(1).offers == [attempt(2)])
    }

    @Test func `a restarted scheduler's first views take nobody away for a while`() {
        var limits = GatewayLimits()
        limits.schedulerGrace = .seconds(5)
        var bench = GatewayBench(limits: limits)
        bench.place(1)
        #expect(bench.show([], epoch: 2) == [])
        #expect(bench.machine.view.members.count == 2)
        #expect(bench.submit(2).reservations == [attempt(2)])
        #expect(bench.show([serving(worker(decode1, .decodeWorker))]) == [])
        #expect(bench.tick(.milliseconds(4999)).restarts == [])
        // The prefill-worker has not come back.
        #expect(bench.tick(.milliseconds(1)).restarts.contains(2))
        #expect(bench.machine.view.members.map(\.description.instance) == [decode1])
    }

    @Test func `a worker that leaves a restarted scheduler again is gone`() {
        var bench = GatewayBench()
        bench.place(1)
        let members = bench.view.members
        _ = bench.show(members, epoch: 2)
        #expect(bench.show([serving(worker(decode1, .decodeWorker))]).restarts == [2])
    }

    @Test func `a worker that drained and left is heard to its end`() {
        var bench = GatewayBench()
        bench.place(1)
        let prefill = serving(worker(prefill1, .prefillWorker))
        _ = bench.show([serving(worker(decode1, .decodeWorker), state: .draining), prefill])
        #expect(bench.show([prefill]) == [])
        #expect(bench.machine.view.members.count == 2, "its connection is to be kept")
        #expect(
            bench.tokens(attempt(1), at: 0, 7, 8, finish: .stop, from: decode1).last
                == .finish(request(1), .stop))
        _ = bench.disconnect(decode1)
        #expect(bench.machine.view.members == [prefill])
    }

    @Test func `a worker that drained, left and closed is lost`() {
        var bench = GatewayBench()
        bench.place(1)
        let prefill = serving(worker(prefill1, .prefillWorker))
        _ = bench.show([serving(worker(decode1, .decodeWorker), state: .draining), prefill])
        _ = bench.show([prefill])
        #expect(bench.disconnect(decode1).restarts == [2])
    }

    @Test func `an older view is ignored`() {
        var bench = GatewayBench()
        bench.place(1)
        let old = GroupView(epoch: 0, version: 99, members: [])
        #expect(bench.machine.viewChanged(old, now: bench.now) == [])
        #expect(bench.machine.canServe)
    }
}
