import InferenceEngine
import Roles
import ServingTypes
import Testing

@Suite struct DecodeTests {
    let free = 1000

    @Test func `room is promised for prompt and longest output`() {
        var bench = WorkerBench(.decode)
        let granted = ReservationGranted(attempt: attempt(1), secret: secret(9), kvBytes: 80)
        #expect(bench.reserve(terms(attempt(1))) == [sends(.reservationGranted(granted))])
        #expect(bench.status.freeKVBytes == free - 80)
        #expect(bench.status.reservedKVBytes == 80)
        #expect(bench.status.runningSequences == 0)
    }

    @Test func `numbers that do not fit together are refused`() {
        var bench = WorkerBench(.decode)
        #expect(bench.reserve(terms(attempt(1)), prompt: []).refusal?.code == .invalid)
        #expect(bench.reserve(terms(attempt(1), maximumNewTokens: 0)).refusal?.code == .invalid)
        #expect(bench.reserve(terms(attempt(1), outputTokens: 3)).refusal?.code == .invalid)
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.reserve(terms(attempt(1))).refusal?.code == .invalid)
        #expect(bench.status.reservedKVBytes == 80)
    }

    @Test func `a sequence longer than context or KV is too long`() {
        var bench = WorkerBench(.decode, capacity: 50, context: 60)
        #expect(bench.reserve(terms(attempt(1), maximumNewTokens: 48)).refusal?.code == .tooLong)
        #expect(bench.reserve(terms(attempt(1), maximumNewTokens: 47)).refusal == nil)
        var short = WorkerBench(.decode, capacity: 100, context: 60)
        #expect(short.reserve(terms(attempt(1), maximumNewTokens: 58)).refusal?.code == .tooLong)
    }

    @Test func `KV is never over-committed`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1), maximumNewTokens: 57))
        let refused = bench.reserve(terms(attempt(2), maximumNewTokens: 38)).refusal
        #expect(
            refused
                == ReservationRefused(
                    attempt: attempt(2), code: .noKVRoom, neededBytes: 410, freeBytes: 400))
        #expect(bench.reserve(terms(attempt(3), maximumNewTokens: 37)).refusal == nil)
        #expect(bench.status.freeKVBytes == 0)
    }

    @Test func `sequences are limited whatever their size`() {
        var bench = WorkerBench(.decode)
        for number in UInt64(1)...3 { _ = bench.reserve(terms(attempt(number))) }
        let refused = bench.reserve(terms(attempt(4))).refusal
        #expect(refused?.code == .noKVRoom)
        #expect(refused.map { $0.freeBytes >= $0.neededBytes } == true)
    }

    @Test func `after a refusal freed room is called until all is free`() {
        var bench = WorkerBench(.decode)
        for number in UInt64(1)...4 { _ = bench.reserve(terms(attempt(number))) }
        for (number, bytes) in [(UInt64(1), 840), (2, 920), (3, 1000)] {
            #expect(
                bench.cancel(attempt(number))
                    == [.broadcast(.kvRoomOpen(KVRoomOpen(freeKVBytes: bytes)))])
        }
        _ = bench.reserve(terms(attempt(5)))
        #expect(bench.cancel(attempt(5)) == [])
    }

    @Test func `a reservation nobody used is freed at once by a cancellation`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.cancel(attempt(1)) == [])
        #expect(bench.machine.isIdle)
        #expect(bench.status.freeKVBytes == free)
    }

    @Test func `a cancelled sequence sends nothing more, even if it ends by itself`() {
        for finishes in [true, false] {
            var bench = WorkerBench(.decode)
            bench.run(terms(attempt(1)), as: 1)
            #expect(bench.cancel(attempt(1)) == [.cancelSequence(SequenceID(1))])
            #expect(bench.status.runningSequences == 0)
            #expect(bench.cancel(attempt(1)) == [])
            #expect(bench.sampled(1, 8, finish: finishes ? .stop : nil) == [])
            #expect(bench.machine.isIdle == finishes)
            #expect(bench.engineCancelled(1) == [])
            #expect(bench.machine.isIdle)
            #expect(bench.status.freeKVBytes == free)
        }
    }

    @Test func `a failed engine fails the request and frees its room`() {
        var bench = WorkerBench(.decode)
        bench.run(terms(attempt(1)), as: 1)
        #expect(bench.engineFailed(1).failures == [.engine])
        #expect(bench.machine.isIdle)
    }

    @Test func `a failure that crosses the cancellation only frees the room`() {
        var bench = WorkerBench(.decode)
        bench.run(terms(attempt(1)), as: 1)
        _ = bench.cancel(attempt(1))
        #expect(bench.engineFailed(1) == [])
        #expect(bench.machine.isIdle)
    }

    @Test func `a sequence the engine dropped by itself fails its request`() {
        var bench = WorkerBench(.decode)
        bench.run(terms(attempt(1)), as: 1)
        #expect(bench.engineCancelled(1).failures == [.engine])
        #expect(bench.machine.isIdle)
    }

    @Test func `a lost gateway takes its own requests with it, in order`() {
        var bench = WorkerBench(.decode, sequences: 9)
        for number in UInt64(1)...4 { bench.run(terms(attempt(number)), as: number) }
        _ = bench.reserve(terms(attempt(5)), from: WorkerBench.otherGateway)
        #expect(
            bench.machine.gatewayLost(WorkerBench.gateway)
                == (1...4).map { .cancelSequence(SequenceID($0)) })
        for number in UInt64(1)...4 { _ = bench.engineCancelled(number) }
        #expect(bench.status.reservedKVBytes == 80)
    }

    @Test func `whatever outlives its request is ended, the oldest first`() {
        var bench = WorkerBench(.decode)
        bench.run(terms(attempt(1), deadline: .seconds(5)), as: 1)
        _ = bench.reserve(terms(attempt(2), deadline: .seconds(5)))
        _ = bench.reserve(terms(attempt(3), deadline: .seconds(9)))
        #expect(bench.tick(.milliseconds(4999)) == [])
        let actions = bench.tick(.milliseconds(1))
        #expect(actions.failures == [.deadline, .deadline])
        #expect(actions.contains(.cancelSequence(SequenceID(1))))
        _ = bench.engineCancelled(1)
        #expect(bench.status.reservedKVBytes == 80)
    }

    @Test func `words about unknown sequences are ignored`() {
        var bench = WorkerBench(.decode)
        #expect(bench.cancel(attempt(1)) == [])
        #expect(bench.sampled(1, 7) == [])
        #expect(bench.engineFailed(1) == [])
        #expect(bench.engineCancelled(1) == [])
        #expect(bench.imported(1, tokens: 3) == [])
        #expect(bench.refused(1, at: 0) == [])
        #expect(bench.linkLost() == [])
        #expect(bench.missed(chunk(0, 3), of: attempt(1)) == [])
        #expect(bench.machine.kvAborted(attempt(1), by: prefill1) == [])
    }
}
