import InferenceEngine
import Roles
import ServingTypes
import Testing

@Suite struct DecodeTests {
    let free = 1000

    @Test func `room is promised for prompt and longest output`() {
        var bench = WorkerBench(.decodeWorker)
        let granted = ReservationGranted(attempt: attempt(1), secret: secret(9), kvBytes: 80)
        #expect(bench.reserve(terms(attempt(1))) == [sends(.reservationGranted(granted))])
        #expect(bench.status.freeKVBytes == free - 80)
        #expect(bench.status.reservedKVBytes == 80)
        #expect(bench.status.runningSequences == 0)
    }

    @Test func `numbers that do not fit together are refused`() {
        var bench = WorkerBench(.decodeWorker)
        #expect(bench.reserve(terms(attempt(1)), prompt: []).refusal?.code == .invalid)
        #expect(bench.reserve(terms(attempt(1), maximumNewTokens: 0)).refusal?.code == .invalid)
        #expect(bench.reserve(terms(attempt(1), outputTokens: 3)).refusal?.code == .invalid)
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.reserve(terms(attempt(1))).refusal?.code == .invalid)
        #expect(bench.status.reservedKVBytes == 80)
    }

    @Test func `a sequence longer than context or KV is too long`() {
        var bench = WorkerBench(.decodeWorker, capacity: 50, context: 60)
        #expect(bench.reserve(terms(attempt(1), maximumNewTokens: 48)).refusal?.code == .tooLong)
        #expect(bench.reserve(terms(attempt(1), maximumNewTokens: 47)).refusal == nil)
        var short = WorkerBench(.decodeWorker, capacity: 100, context: 60)
        #expect(short.reserve(terms(attempt(1), maximumNewTokens: 58)).refusal?.code == .tooLong)
    }

    @Test func `KV is never over-committed`() {
        var bench = WorkerBench(.decodeWorker)
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
        var bench = WorkerBench(.decodeWorker)
        for number in UInt64(1)...3 { _ = bench.reserve(terms(attempt(number))) }
        let refused = bench.reserve(terms(attempt(4))).refusal
        #expect(refused?.code == .noKVRoom)
        #expect(refused.map { $0.freeBytes >= $0.neededBytes } == true)
    }

    @Test func `after a refusal freed room is called until all is free`() {
        var bench = WorkerBench(.decodeWorker)
        for number in UInt64(1)...4 { _ = bench.reserve(terms(attempt(number))) }
        for (number, bytes) in [(UInt64(1), 840), (2, 920), (3, 1000)] {
            #expect(
                bench.cancel(attempt(number))
                    == [.broadcast(.kvRoomOpen(KVRoomOpen(freeKVBytes: bytes)))])
        }
        _ = bench.reserve(terms(attempt(5)))
        #expect(bench.cancel(attempt(5)) == [])
    }

    @Test func `KV comes in and the sequence runs with the first token appended`() throws {
        var bench = WorkerBench(.decodeWorker)
        _ = bench.reserve(terms(attempt(1), outputTokens: 1))
        #expect(bench.offerKV(attempt(1)) == nil)
        #expect(bench.land(attempt(1), 0, 2) == SequenceID(1))
        #expect(bench.land(attempt(1), 2, 1) == SequenceID(1))
        let job = SequenceJob(
            sequence: SequenceID(1), tokens: [1, 2, 3, 7], outputTokens: 2, importedTokens: 3,
            sampling: SamplingParameters(), maximumNewTokens: 4)
        #expect(
            bench.endKV(attempt(1)) == [.answerTransfer(KVDone(attempt: attempt(1))), .run(job)])
        #expect(bench.status.runningSequences == 1)
        #expect(bench.sampled(1, 8) == [writes(attempt(1), at: 1, 7, 8)])
        #expect(bench.sampled(1, 9) == [writes(attempt(1), at: 3, 9)])
        #expect(
            bench.sampled(1, 10, finish: .length)
                == [writes(attempt(1), at: 4, 10, finish: .length)])
        #expect(bench.machine.isIdle)
        #expect(bench.status.freeKVBytes == free)
    }

    @Test func `only the holder of the secret brings KV, once, of this model, whole`() {
        var bench = WorkerBench(.decodeWorker)
        #expect(bench.offerKV(attempt(1)) == .unknownRequest)
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.offerKV(attempt(1), secret: 8) == .unknownRequest)
        #expect(bench.offerKV(attempt(1), fingerprint: otherModel) == .model)
        #expect(bench.offerKV(attempt(1), tokens: 4) == .invalid)
        #expect(bench.offerKV(attempt(1)) == nil)
        #expect(bench.offerKV(attempt(1)) == .unknownRequest)
    }

    @Test func `chunks come in order, without gaps, and no more than announced`() {
        var bench = WorkerBench(.decodeWorker)
        func refusal(_ start: Int, _ count: Int) -> FailureCode? {
            bench.machine.kvRefusal(
                of: KVChunk(attempt: attempt(1), tokenStart: start, tokenCount: count))?.code
        }
        #expect(refusal(0, 1) == .unknownRequest)
        _ = bench.reserve(terms(attempt(1)))
        #expect(refusal(0, 1) == .unknownRequest)
        _ = bench.offerKV(attempt(1))
        #expect(refusal(0, 2) == nil)
        _ = bench.land(attempt(1), 0, 2)
        for (start, count) in [(0, 2), (1, 1), (3, 1), (2, 2), (2, 0)] {
            #expect(refusal(start, count) == .transfer, "\(start)+\(count)")
            #expect(bench.land(attempt(1), start, count) == nil)
        }
        #expect(refusal(2, 1) == nil)
    }

    @Test func `an end before all KV is there fails the request`() {
        var bench = WorkerBench(.decodeWorker)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 2)
        let actions = bench.endKV(attempt(1))
        #expect(actions.failures == [.transfer])
        #expect(actions.transferAnswers == [.transfer])
        #expect(actions.last == .cancelSequence(SequenceID(1)))
        #expect(bench.status.reservedKVBytes == 80)
        _ = bench.engineCancelled(1)
        #expect(bench.status.reservedKVBytes == 0)
    }

    @Test func `an end without a transfer is answered`() {
        var bench = WorkerBench(.decodeWorker)
        #expect(bench.endKV(attempt(1)).transferAnswers == [.unknownRequest])
        bench.run(terms(attempt(1)))
        #expect(bench.endKV(attempt(1)).transferAnswers == [.unknownRequest])
        #expect(bench.status.runningSequences == 1)
    }

    @Test func `KV for a sequence that may not grow is not taken`() {
        var bench = WorkerBench(.decodeWorker)
        _ = bench.reserve(terms(attempt(1), maximumNewTokens: 1))
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 3)
        #expect(bench.endKV(attempt(1)).transferAnswers == [.transfer])
    }

    @Test func `a lost transfer fails the request, unless it had ended`() {
        var bench = WorkerBench(.decodeWorker)
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.machine.kvLost(attempt(1), reason: "closed") == [])
        _ = bench.offerKV(attempt(1))
        let actions = bench.machine.kvLost(attempt(1), reason: "closed")
        #expect(actions.failures == [.transfer])
        // Nothing had landed: the room is free at once.
        #expect(bench.machine.isIdle)
        bench.run(terms(attempt(2)))
        #expect(bench.machine.kvLost(attempt(2), reason: "closed") == [])
        #expect(bench.status.runningSequences == 1)
    }

    @Test func `a sender that gives up has told the gateway why, so the room is freed silently`() {
        var bench = WorkerBench(.decodeWorker)
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.machine.kvAborted(attempt(1)) == [])
        #expect(bench.status.reservedKVBytes == 80, "no transfer was open")
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 1)
        #expect(bench.machine.kvAborted(attempt(1)) == [.cancelSequence(SequenceID(1))])
        #expect(bench.engineCancelled(1) == [])
        #expect(bench.status.reservedKVBytes == 0)
        bench.run(terms(attempt(2)))
        #expect(bench.machine.kvAborted(attempt(2)) == [])
        #expect(bench.status.runningSequences == 1)
    }

    @Test func `a reservation nobody used is freed at once by a cancellation`() {
        var bench = WorkerBench(.decodeWorker)
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.cancel(attempt(1)) == [])
        #expect(bench.machine.isIdle)
        #expect(bench.status.freeKVBytes == free)
    }

    @Test func `a cancelled transfer is answered and its room freed when the engine lets go`() {
        var bench = WorkerBench(.decodeWorker)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 1)
        let actions = bench.cancel(attempt(1))
        #expect(actions.transferAnswers == [.cancelled])
        #expect(actions.last == .cancelSequence(SequenceID(1)))
        #expect(bench.land(attempt(1), 1, 1) == nil)
        #expect(bench.endKV(attempt(1)).transferAnswers == [.unknownRequest])
        #expect(bench.status.reservedKVBytes == 80)
        #expect(bench.engineCancelled(1) == [])
        #expect(bench.status.reservedKVBytes == 0)
    }

    @Test func `a cancelled sequence sends nothing more, even if it ends by itself`() {
        for finishes in [true, false] {
            var bench = WorkerBench(.decodeWorker)
            bench.run(terms(attempt(1)))
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
        var bench = WorkerBench(.decodeWorker)
        bench.run(terms(attempt(1)))
        #expect(bench.engineFailed(1).failures == [.engine])
        #expect(bench.machine.isIdle)
    }

    @Test func `a damaged block fails the request as a transfer and answers its sender`() {
        var bench = WorkerBench(.decodeWorker)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 1)
        let actions = bench.engineFailed(1, .blockRefused(reason: "damaged"))
        #expect(actions.failures == [.transfer])
        #expect(actions.transferAnswers == [.transfer])
        #expect(bench.machine.isIdle)
        // The engine may refuse the blocks that were on their way, too.
        #expect(bench.engineFailed(1, .blockRefused(reason: "no predecessor")) == [])
    }

    @Test func `a failure that crosses the cancellation only frees the room`() {
        var bench = WorkerBench(.decodeWorker)
        bench.run(terms(attempt(1)))
        _ = bench.cancel(attempt(1))
        #expect(bench.engineFailed(1) == [])
        #expect(bench.machine.isIdle)
    }

    @Test func `a sequence the engine dropped by itself fails its request`() {
        var bench = WorkerBench(.decodeWorker)
        bench.run(terms(attempt(1)))
        #expect(bench.engineCancelled(1).failures == [.engine])
        #expect(bench.machine.isIdle)
    }

    @Test func `a lost gateway takes its own requests with it, in order`() {
        var bench = WorkerBench(.decodeWorker, sequences: 9)
        for number in UInt64(1)...4 { bench.run(terms(attempt(number))) }
        _ = bench.reserve(terms(attempt(5)), from: WorkerBench.otherGateway)
        #expect(
            bench.machine.gatewayLost(WorkerBench.gateway)
                == (1...4).map { .cancelSequence(SequenceID($0)) })
        for number in UInt64(1)...4 { _ = bench.engineCancelled(number) }
        #expect(bench.status.reservedKVBytes == 80)
    }

    @Test func `a transfer that stands still is given up`() {
        var bench = WorkerBench(.decodeWorker)
        _ = bench.reserve(terms(attempt(1), deadline: .seconds(600)))
        _ = bench.tick(.seconds(40))
        _ = bench.offerKV(attempt(1))
        #expect(bench.tick(.seconds(29)) == [])
        _ = bench.land(attempt(1), 0, 1)
        #expect(bench.tick(.seconds(29)) == [])
        let actions = bench.tick(.seconds(1))
        #expect(actions.failures == [.deadline])
        #expect(actions.transferAnswers == [.deadline])
        #expect(bench.tick(.seconds(60)) == [])
    }

    @Test func `whatever outlives its request is ended, the oldest first`() {
        var bench = WorkerBench(.decodeWorker)
        bench.run(terms(attempt(1), deadline: .seconds(5)))
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
        var bench = WorkerBench(.decodeWorker)
        #expect(bench.cancel(attempt(1)) == [])
        #expect(bench.sampled(1, 7) == [])
        #expect(bench.engineFailed(1) == [])
        #expect(bench.engineCancelled(1) == [])
        #expect(bench.machine.kvLost(attempt(1), reason: "") == [])
    }
}
