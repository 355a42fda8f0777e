import InferenceEngine
import KVHandOver
import Roles
import ServingTypes
import Testing

/// Sequences that would outlast their decode-worker.
@Suite struct MoveTests {
    private let target = KVTarget(
        instance: decode2, bulkAddress: NetworkAddress(host: "decode-2", port: 2),
        secret: secret(9), heldTokens: 2)

    /// Attempt 1 decodes as sequence 1: three tokens of prompt, then 7 and 8.
    private func decoding(maximumNewTokens: Int = 9) -> WorkerBench {
        var bench = WorkerBench(.decode)
        bench.run(terms(attempt(1), maximumNewTokens: maximumNewTokens), as: 1)
        _ = bench.sampled(1, 8)
        return bench
    }

    private let asks = sends(.moveWanted(MoveWanted(attempt: attempt(1))))

    private func held(_ bench: inout WorkerBench) -> [WorkerAction] {
        let hold = HoldSequence(attempt: attempt(1), successor: 2)
        #expect(bench.hear(.holdSequence(hold)) == [.holdSequence(SequenceID(1))])
        #expect(bench.hear(.holdSequence(hold)) == [], "once")
        return bench.engine(.held(SequenceID(1)))
    }

    @Test func `it decodes until it is held, and then its KV goes where the gateway says`() throws {
        var bench = decoding()
        #expect(bench.machine.drain() == [])
        #expect(bench.tick(.milliseconds(100)) == [asks])
        #expect(bench.sampled(1, 9) == [writes(attempt(1), at: 2, 9)])
        let message = SequenceHeld(attempt: attempt(1), successor: 2, outputTokens: 3)
        #expect(held(&bench) == [sends(.sequenceHeld(message))])
        #expect(bench.status.reservedKVBytes == 0 && bench.machine.promisedKVTokens == 5)
        let place = PlaceKV(attempt: attempt(1, 2), target: target)
        let plan = TransferPlan(
            attempt: attempt(1, 2), decodeInstance: decode2, address: target.bulkAddress,
            secret: secret(9), tokens: 5, heldTokens: 2, expires: seconds(60))
        #expect(
            bench.hear(.placeKV(place)) == [.openTransfer(plan), .export(SequenceID(1), from: 2)])
        #expect(bench.machine.exportingAttempt(SequenceID(1)) == attempt(1, 2))
        let end = KVEnd(attempt: attempt(1, 2), tokens: 5, firstToken: TokenOutput(token: 9))
        #expect(
            bench.engine(.exportEnded(SequenceID(1)))
                == [.endTransfer(end), .cancelSequence(SequenceID(1))])
        let delivered = KVDelivered(attempt: attempt(1, 2))
        #expect(
            bench.machine.transferEnded(attempt(1, 2), failure: nil)
                == [sends(.kvDelivered(delivered)), .drained])
        #expect(bench.machine.movedSequences == 1)
    }

    @Test func `it asks again, but not all the time`() {
        var bench = decoding()
        _ = bench.machine.drain()
        #expect(bench.tick(.milliseconds(100)) == [asks])
        #expect(bench.tick(.milliseconds(400)) == [])
        #expect(bench.tick(.milliseconds(100)) == [asks])
    }

    @Test func `what ends in time stays`() {
        // Seven tokens are to come; three seconds are kept for handing on.
        for (seconds, step, isAsked) in [
            (10.0, 900.0, false), (10.0, 1100.0, true), (10.0, 0.0, true), (2.0, 1.0, true),
        ] {
            var bench = decoding()
            _ = bench.machine.drain(until: bench.now + .seconds(seconds))
            let actions = bench.machine.tick(now: bench.now, stepMilliseconds: step)
            #expect(actions == (isAsked ? [asks] : []), "\(seconds) s, \(step) ms")
        }
    }

    @Test func `a worker that goes on decoding asks for nothing`() {
        var bench = decoding()
        #expect(bench.tick(.seconds(1)) == [])
        _ = bench.machine.assigned(
            Assign(number: 1, role: .mixed, group: nil, stepLimit: nil), now: bench.now)
        #expect(bench.tick(.seconds(1)) == [])
    }

    @Test func `another role waits only until what it does not have is held`() {
        var bench = decoding()
        _ = bench.machine.assigned(
            Assign(number: 1, role: .prefill, group: nil, stepLimit: nil), now: bench.now)
        #expect(bench.tick(.milliseconds(100)) == [asks])
        #expect(held(&bench).last == .roleChanged(.prefill))
        #expect(bench.status.freePrefillSlots == 1, "its KV is still here")
        #expect(bench.hear(.cancelRequest(CancelRequest(attempt: attempt(1, 2)))) != [])
        #expect(bench.status.freePrefillSlots == 2 && bench.machine.promisedKVTokens == 0)
    }

    @Test func `a cancellation on the way frees everything`() {
        var bench = decoding()
        _ = bench.machine.drain()
        _ = bench.hear(.holdSequence(HoldSequence(attempt: attempt(1), successor: 2)))
        #expect(bench.cancel(attempt(1)) == [.cancelSequence(SequenceID(1))])
        #expect(bench.engine(.held(SequenceID(1))) == [])
        #expect(bench.engineCancelled(1) == [.drained])
    }

    @Test func `an answer that ends before it is held just ends`() {
        var bench = decoding()
        _ = bench.machine.drain()
        _ = bench.hear(.holdSequence(HoldSequence(attempt: attempt(1), successor: 2)))
        #expect(
            bench.sampled(1, 9, finish: .stop)
                == [writes(attempt(1), at: 2, 9, finish: .stop), .drained])
    }

    @Test func `only its gateway holds it, and only what decodes`() {
        var bench = decoding()
        let hold = ControlMessage.holdSequence(HoldSequence(attempt: attempt(1), successor: 2))
        #expect(bench.hear(hold, from: LinkID(77)) == [])
        let old = HoldSequence(attempt: attempt(1), successor: 1)
        #expect(bench.hear(.holdSequence(old)) == [])
        _ = bench.reserve(terms(attempt(2)))
        #expect(
            bench.hear(.holdSequence(HoldSequence(attempt: attempt(2), successor: 2))) == [])
    }

    @Test func `the loss of its gateway frees what it held`() {
        var bench = decoding()
        _ = bench.machine.drain()
        _ = held(&bench)
        #expect(bench.machine.gatewayLost(WorkerBench.gateway).last == .drained)
        #expect(bench.machine.promisedKVTokens == 0)
    }
}
