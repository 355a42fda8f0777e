import Roles
import ServingTypes
import Testing

/// A decode-worker that leaves asks for other places for what it decodes.
@Suite struct GatewayMoveTests {
    private static let workers = [
        worker(prefill1, .prefillWorker), worker(decode1, .decodeWorker),
        worker(decode2, .decodeWorker),
    ]

    /// Request 1 has two tokens, the second one from its decode-worker; gives both workers.
    private func decoding(
        _ workers: [InstanceDescription] = workers
    ) throws -> (GatewayBench, here: InstanceID, there: InstanceID) {
        var bench = GatewayBench(workers)
        let here = try #require(bench.submit(1, maximumNewTokens: 9).reservedAt.only)
        _ = bench.grant(attempt(1), from: here)
        _ = bench.accept(attempt(1))
        _ = bench.tokens(attempt(1), at: 0, 7, 8, from: here)
        return (bench, here, here == decode1 ? decode2 : decode1)
    }

    private func ask(_ bench: inout GatewayBench, _ here: InstanceID) -> [GatewayAction] {
        bench.hear(.moveWanted(MoveWanted(attempt: attempt(1))), from: here)
    }

    private func hold(
        _ bench: inout GatewayBench, _ here: InstanceID, tokens: Int = 2, successor: UInt32 = 2
    ) -> [GatewayAction] {
        bench.hear(
            .sequenceHeld(
                SequenceHeld(attempt: attempt(1), successor: successor, outputTokens: tokens)),
            from: here)
    }

    private func holds(_ here: InstanceID) -> GatewayAction {
        .send(.holdSequence(HoldSequence(attempt: attempt(1), successor: 2)), to: here)
    }

    @Test func `it is held, gets a place and goes on there, each token once`() throws {
        var (bench, here, there) = try decoding()
        #expect(ask(&bench, here) == [holds(here)])
        #expect(ask(&bench, here) == [holds(here)], "the same number, however often it is asked")
        // Written before it was held.
        #expect(bench.tokens(attempt(1), at: 2, 9, from: here).delivered == [9])
        let reserve = ReserveKV(
            terms: terms(
                attempt(1, 2), outputTokens: 2, maximumNewTokens: 7, deadline: .seconds(600)))
        #expect(
            hold(&bench, here, tokens: 3)
                == [.send(.reserveKV(reserve), to: there, tokens: [1, 2, 3, 7, 8])])
        let (place, from) = try #require(bench.grant(attempt(1, 2), from: there).only?.places)
        #expect(from == here && place.attempt == attempt(1, 2) && place.target.instance == there)
        #expect(bench.machine.counts.moved == 1)
        // It samples after the last token again, which the client has.
        #expect(
            bench.tokens(attempt(1, 2), at: 2, 9, 10, finish: .stop, from: there)
                == [.deliver(request(1), outputs(10)), .finish(request(1), .stop)])
        #expect(bench.machine.requestCount == 0)
    }

    @Test func `while there is no other place it stays`() throws {
        var (bench, here, _) = try decoding(Array(Self.workers.dropLast()))
        #expect(ask(&bench, here) == [])
        #expect(bench.tokens(attempt(1), at: 2, 9, from: here).delivered == [9])
    }

    @Test func `nothing moves before its decode-worker has written`() throws {
        var bench = GatewayBench(Self.workers)
        let here = try #require(bench.submit(1).reservedAt.only)
        _ = bench.grant(attempt(1), from: here)
        _ = bench.accept(attempt(1))
        #expect(ask(&bench, here) == [])
        #expect(ask(&bench, prefill1) == [], "it decodes nothing")
    }

    @Test func `its worker may go when the KV has arrived, and not before`() throws {
        for isDelivered in [true, false] {
            var (bench, here, there) = try decoding()
            _ = ask(&bench, here)
            _ = hold(&bench, here)
            _ = bench.grant(attempt(1, 2), from: there)
            if isDelivered {
                _ = bench.hear(.kvDelivered(KVDelivered(attempt: attempt(1, 2))), from: here)
            }
            let actions = bench.machine.disconnected(here, now: bench.now)
            #expect(actions.restarts == (isDelivered ? [] : [3]))
            #expect(actions.contains(cancels(attempt(1, 2), at: there)) == !isDelivered)
        }
    }

    @Test func `what is held for nobody is cancelled`() throws {
        var (bench, here, _) = try decoding()
        _ = ask(&bench, here)
        #expect(bench.machine.cancel(request(1)).contains(cancels(attempt(1), at: here)))
        #expect(hold(&bench, here) == [cancels(attempt(1, 2), at: here)])
    }

    @Test func `a number that was given to a successor is given to nothing else`() throws {
        var (bench, here, _) = try decoding()
        _ = ask(&bench, here)
        #expect(bench.fail(attempt(1), from: here).restarts == [3])
        #expect(hold(&bench, here) == [cancels(attempt(1, 2), at: here)])
        #expect(bench.machine.requestCount == 1)
    }

    @Test func `a worker that has held other tokens than were delivered starts it again`() throws {
        var (bench, here, _) = try decoding()
        _ = ask(&bench, here)
        let actions = hold(&bench, here, tokens: 5)
        #expect(actions.restarts == [3])
        #expect(actions.contains(cancels(attempt(1, 2), at: here)))
        #expect(bench.machine.counts.moved == 0)
    }

    @Test func `moves do not count as failed attempts`() throws {
        var (bench, here, there) = try decoding()
        for number in UInt32(1)...6 {
            bench.now = bench.now + .seconds(1)
            _ = bench.machine.tick(now: bench.now)
            let asked = bench.hear(
                .moveWanted(MoveWanted(attempt: attempt(1, number))), from: here)
            #expect(asked.count == 1)
            _ = bench.hear(
                .sequenceHeld(
                    SequenceHeld(
                        attempt: attempt(1, number), successor: number + 1,
                        outputTokens: Int(number) + 1)), from: here)
            #expect(bench.grant(attempt(1, number + 1), from: there).only?.places?.1 == here)
            _ = bench.tokens(
                attempt(1, number + 1), at: Int(number), 8, 9, from: there)
            (here, there) = (there, here)
        }
        #expect(bench.machine.counts.moved == 6)
        #expect(bench.fail(attempt(1, 7), from: here).failures == [])
    }
}
