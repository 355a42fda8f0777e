import Roles
import ServingTypes
import Testing

@Suite struct GatewayEndingTests {
    @Test func `tokens are handed on once and in order when both workers send the first one`() {
        var bench = GatewayBench()
        bench.place(1)
        #expect(bench.tokens(attempt(1), at: 0, 7, from: prefill1).delivered == [7])
        #expect(bench.tokens(attempt(1), at: 0, 7, 8, from: decode1).delivered == [8])
        #expect(bench.tokens(attempt(1), at: 2, 9, from: decode1).delivered == [9])
    }

    @Test func `the decode-worker may be faster than the prefill-worker`() {
        var bench = GatewayBench()
        bench.place(1)
        #expect(bench.tokens(attempt(1), at: 0, 7, 8, from: decode1).delivered == [7, 8])
        #expect(bench.tokens(attempt(1), at: 0, 7, from: prefill1) == [])
        #expect(bench.tokens(attempt(1), at: 2, 9, from: decode1).delivered == [9])
    }

    @Test func `tokens that come too early wait for their predecessors`() {
        var bench = GatewayBench()
        bench.place(1)
        #expect(bench.tokens(attempt(1), at: 1, 8, 9, from: decode1) == [])
        #expect(bench.tokens(attempt(1), at: 2, 9, from: decode1) == [])
        #expect(bench.tokens(attempt(1), at: 0, 7, from: prefill1).delivered == [7, 8, 9])
    }

    @Test func `a doubled batch gives its tokens once`() {
        var bench = GatewayBench()
        bench.place(1)
        _ = bench.tokens(attempt(1), at: 0, 7, 8, from: decode1)
        #expect(bench.tokens(attempt(1), at: 0, 7, 8, from: decode1) == [])
        #expect(bench.tokens(attempt(1), at: 1, 8, 9, from: decode1).delivered == [9])
    }

    @Test func `tokens beyond the limit are dropped and end the request all the same`() {
        var bench = GatewayBench()
        bench.place(1, maximumNewTokens: 2)
        let actions = bench.tokens(attempt(1), at: 0, 7, 8, 9, finish: .length, from: decode1)
        #expect(actions == [.deliver(request(1), outputs(7, 8)), .finish(request(1), .length)])
        #expect(bench.machine.requestCount == 0)
    }

    @Test func `the last token ends the request`() {
        var bench = GatewayBench()
        bench.place(1)
        _ = bench.tokens(attempt(1), at: 0, 7, 8, from: decode1)
        #expect(
            bench.tokens(attempt(1), at: 2, 9, finish: .stop, from: decode1)
                == [.deliver(request(1), outputs(9)), .finish(request(1), .stop)])
        #expect(bench.machine.requestCount == 0)
        #expect(bench.machine.waitingCount == 0)
    }

    @Test func `an end that came before its tokens waits for them`() {
        var bench = GatewayBench()
        bench.place(1)
        #expect(bench.tokens(attempt(1), at: 1, 8, finish: .stop, from: decode1) == [])
        #expect(
            bench.tokens(attempt(1), at: 0, 7, from: prefill1)
                == [
                    .deliver(request(1), outputs(7, 8)), cancels(attempt(1), at: prefill1),
                    cancels(attempt(1), at: decode1), .finish(request(1), .stop),
                ])
    }

    @Test func `an answer of one token frees the reservation`() {
        var bench = GatewayBench()
        bench.place(1, maximumNewTokens: 1)
        let actions = bench.tokens(attempt(1), at: 0, 7, finish: .length, from: prefill1)
        #expect(
            actions == [
                .deliver(request(1), outputs(7)), cancels(attempt(1), at: prefill1),
                cancels(attempt(1), at: decode1), .finish(request(1), .length),
            ])
        #expect(bench.machine.requestCount == 0)
    }

    @Test func `a client that left is forgotten and its workers are told`() {
        var bench = GatewayBench()
        bench.place(1)
        #expect(
            bench.machine.cancel(request(1))
                == [cancels(attempt(1), at: prefill1), cancels(attempt(1), at: decode1)])
        #expect(bench.machine.requestCount == 0)
        #expect(bench.machine.cancel(request(1)) == [])
    }

    @Test func `a client that left while it waited leaves nothing behind`() {
        var bench = GatewayBench()
        _ = bench.submit(1)
        #expect(bench.machine.cancel(request(1)) == [cancels(attempt(1), at: decode1)])
        bench.hold(2)
        #expect(bench.machine.cancel(request(2)) == [cancels(attempt(2), at: decode1)])
        #expect(bench.callSlots(1) == [])
        #expect(bench.machine.waitingCount == 0)
    }

    @Test func `late answers of workers that would go on are answered by cancellation`() {
        var bench = GatewayBench()
        #expect(bench.grant(attempt(1)) == [cancels(attempt(1), at: decode1)])
        #expect(bench.accept(attempt(1)) == [cancels(attempt(1), at: prefill1)])
        #expect(
            bench.tokens(attempt(1), at: 0, 7, from: decode1) == [cancels(attempt(1), at: decode1)])
    }

    @Test func `late answers of workers that keep nothing are ignored`() {
        var bench = GatewayBench()
        #expect(bench.refuse(attempt(1)) == [])
        #expect(bench.reject(attempt(1)) == [])
        #expect(bench.fail(attempt(1), from: decode1) == [])
    }

    @Test func `answers of an older attempt do not touch the current one`() {
        var bench = GatewayBench()
        bench.place(1)
        _ = bench.fail(attempt(1), from: decode1)
        _ = bench.tick(.milliseconds(250))
        #expect(bench.grant(attempt(1)) == [cancels(attempt(1), at: decode1)])
        #expect(
            bench.tokens(attempt(1), at: 0, 7, from: decode1) == [cancels(attempt(1), at: decode1)])
        #expect(bench.fail(attempt(1), from: decode1) == [])
        #expect(bench.grant(attempt(1, 2)).offers == [attempt(1, 2)])
    }

    @Test func `answers of workers that were not asked are answered by cancellation`() {
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker), worker(decode1, .decodeWorker),
        ])
        _ = bench.submit(1)
        #expect(bench.grant(attempt(1), from: decode2) == [cancels(attempt(1), at: decode2)])
        _ = bench.grant(attempt(1))
        #expect(bench.accept(attempt(1), from: prefill2) == [cancels(attempt(1), at: prefill2)])
        _ = bench.accept(attempt(1))
        #expect(
            bench.tokens(attempt(1), at: 0, 7, from: decode2)
                == [cancels(attempt(1), at: decode2)])
        #expect(bench.fail(attempt(1), from: decode2) == [])
        #expect(bench.machine.requestCount == 1)
    }

    @Test func `doubled answers of the right workers change nothing`() {
        var bench = GatewayBench()
        bench.place(1)
        #expect(bench.grant(attempt(1)) == [])
        #expect(bench.accept(attempt(1)) == [])
        #expect(bench.refuse(attempt(1)) == [])
        #expect(bench.reject(attempt(1)) == [])
        #expect(bench.tokens(attempt(1), at: 0, 7, from: prefill1).delivered == [7])
    }

    @Test func `more requests than the limit are turned away`() {
        var limits = GatewayLimits()
        limits.maximumRequests = 2
        var bench = GatewayBench(limits: limits)
        _ = bench.submit(1)
        _ = bench.submit(2)
        #expect(bench.submit(3) == [.fail(request(3), .tooManyRequests(limit: 2))])
        _ = bench.machine.cancel(request(1))
        #expect(bench.submit(4).failures == [])
    }

    @Test func `a gateway that shuts down takes nothing new and ends what it has`() {
        var bench = GatewayBench()
        bench.place(1)
        bench.machine.beginShutdown()
        #expect(bench.submit(2) == [.fail(request(2), .shuttingDown)])
        #expect(
            bench.tokens(attempt(1), at: 0, 7, finish: .stop, from: decode1).last
                == .finish(request(1), .stop))
    }

    @Test func `a request longer than every context fails without asking anybody`() {
        var bench = GatewayBench()
        #expect(
            bench.submit(1, maximumNewTokens: 98)
                == [.fail(request(1), .tooLong(contextTokens: 100))])
        #expect(bench.submit(2, maximumNewTokens: 97).reservations == [attempt(2)])
    }

    @Test func `a long request waits for the worker with the long context`() {
        let long = worker(decode2, .decodeWorker, context: 200, capacity: 200)
        var bench = GatewayBench([
            worker(prefill1, .prefillWorker, context: 200), worker(decode1, .decodeWorker), long,
        ])
        _ = bench.disconnect(decode2)
        #expect(bench.submit(1, maximumNewTokens: 150) == [])
        #expect(bench.connect(decode2).reservedAt == [decode2])
    }

    @Test func `workers that find a request too long are not asked again`() {
        var bench = GatewayBench()
        _ = bench.submit(1)
        #expect(
            bench.refuse(attempt(1), .tooLong)
                == [.fail(request(1), .tooLong(contextTokens: 100))])
        _ = bench.submit(2)
        _ = bench.grant(attempt(2))
        #expect(
            bench.reject(attempt(2), .tooLong)
                == [
                    cancels(attempt(2), at: decode1),
                    .fail(request(2), .tooLong(contextTokens: 100)),
                ])
    }

    @Test func `without workers a request fails at its placement deadline`() {
        var bench = GatewayBench([])
        _ = bench.submit(1)
        #expect(bench.tick(.milliseconds(29_999)) == [])
        #expect(bench.tick(.milliseconds(1)) == [.fail(request(1), .noWorker(.prefillWorker))])
        #expect(bench.machine.requestCount == 0)
    }

    @Test func `a request that never gets a slot fails as overload and frees its room`() {
        var bench = GatewayBench()
        bench.hold(1)
        for _ in 0..<119 {
            for attempt in bench.tick(.milliseconds(250)).offers { _ = bench.reject(attempt) }
        }
        #expect(
            bench.tick(.milliseconds(250))
                == [
                    cancels(attempt(1), at: decode1),
                    .fail(request(1), .overloaded(waited: .seconds(30))),
                ])
    }

    @Test func `a request that runs too long is ended everywhere`() {
        var bench = GatewayBench()
        bench.place(1)
        #expect(bench.tick(.milliseconds(599_999)) == [])
        #expect(
            bench.tick(.milliseconds(1))
                == [
                    cancels(attempt(1), at: prefill1), cancels(attempt(1), at: decode1),
                    .fail(request(1), .deadline(.seconds(600))),
                ])
        #expect(bench.machine.requestCount == 0)
    }
}
