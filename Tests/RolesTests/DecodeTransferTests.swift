import InferenceEngine
import KVHandOver
import Roles
import ServingTypes
import Testing

@Suite struct DecodeTransferTests {
    @Test func `KV comes in and the sequence runs with the first token appended`() throws {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1), outputTokens: 1))
        let grant = try #require(bench.offerKV(attempt(1), chunkTokens: 2).grant)
        #expect(grant.heldTokens == 0 && grant.round == 1)
        #expect(grant.creditBytes == 20 && grant.maximumChunkBytes == 20)
        #expect(bench.land(attempt(1), 0, 2).imports == [0])
        #expect(bench.machine.landedKVBytes == 20)
        #expect(bench.land(attempt(1), 2, 1).imports == [2])
        let job = SequenceJob(
            sequence: SequenceID(1), tokens: [1, 2, 3, 7], outputTokens: 2, importedTokens: 3,
            sampling: SamplingParameters(), maximumNewTokens: 4)
        #expect(bench.endKV(attempt(1), of: [(0, 2), (2, 1)]) == [.run(job)])
        #expect(bench.status.runningSequences == 1)
        #expect(bench.imported(1, tokens: 2) == [])
        #expect(bench.imported(1, tokens: 3).transferAnswers == [nil])
        #expect(bench.machine.landedKVBytes == 0)
        #expect(bench.sampled(1, 8) == [writes(attempt(1), at: 1, 7, 8)])
        #expect(bench.sampled(1, 9) == [writes(attempt(1), at: 3, 9)])
        #expect(
            bench.sampled(1, 10, finish: .length)
                == [writes(attempt(1), at: 4, 10, finish: .length)])
        #expect(bench.machine.isIdle)
        #expect(bench.status.freeKVBytes == 1000)
    }

    @Test func `only the holder of the secret brings KV, of this model, whole, in chunks that fit`()
    {
        var bench = WorkerBench(.decode) { $0.landingBytes = 20 }
        #expect(bench.offerKV(attempt(1)).transferAnswers == [.unknownRequest])
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.offerKV(attempt(1), secret: 8).transferAnswers == [.unknownRequest])
        #expect(bench.offerKV(attempt(1), fingerprint: otherModel).transferAnswers == [.model])
        #expect(bench.offerKV(attempt(1), tokens: 4).transferAnswers == [.invalid])
        #expect(bench.offerKV(attempt(1), from: 1).transferAnswers == [.invalid])
        #expect(bench.offerKV(attempt(1)).transferAnswers == [.tooLong])
        #expect(bench.offerKV(attempt(1), chunkTokens: 2).grant != nil)
    }

    @Test func `one worker brings a sequence; another one's offer and chunks are not taken`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1))
        #expect(
            bench.offerKV(attempt(1), by: prefill2, on: WorkerBench.otherLink).transferAnswers
                == [.unknownRequest])
        let (isWanted, actions) = bench.begin(chunk(0, 3), of: attempt(1), by: prefill2)
        #expect(!isWanted && actions == [])
        #expect(
            bench.endKV(attempt(1), of: [(0, 3)], by: prefill2).transferAnswers
                == [.unknownRequest])
        #expect(bench.machine.kvAborted(attempt(1), by: prefill2) == [])
        #expect(bench.land(attempt(1), 0, 3).imports == [0])
    }

    @Test func `chunks that break the protocol fail the request`() {
        let wrong = [
            chunk(0, 3, bytes: 31), chunk(0, 2, bytes: 21), chunk(2, 2), chunk(3, 1),
            chunk(0, 0), chunk(-1, 1), chunk(0, .max, bytes: 10), chunk(0, 1, bytes: 0),
        ]
        for chunk in wrong {
            var bench = WorkerBench(.decode)
            _ = bench.reserve(terms(attempt(1)))
            _ = bench.offerKV(attempt(1))
            let (isWanted, actions) = bench.begin(chunk, of: attempt(1))
            #expect(!isWanted, "\(chunk)")
            #expect(actions.failures == [.transfer], "\(chunk)")
            #expect(actions.transferAnswers == [.transfer], "\(chunk)")
            #expect(bench.machine.isIdle && bench.machine.landedKVBytes == 0, "\(chunk)")
        }
    }

    @Test func `a chunk beyond the credit fails the request`() {
        var bench = WorkerBench(.decode) { $0.landingWindowBytes = 20 }
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.offerKV(attempt(1), chunkTokens: 1).grant?.creditBytes == 10)
        #expect(bench.land(attempt(1), 0, 1).credits == [1: 10])
        #expect(bench.land(attempt(1), 1, 1).credits == [:])
        #expect(bench.land(attempt(1), 2, 1).failures == [.transfer])
    }

    @Test func `chunks of no transfer, or of one that is over, are read away`() {
        var bench = WorkerBench(.decode)
        #expect(bench.begin(chunk(0, 3), of: attempt(1)).isWanted == false)
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.begin(chunk(0, 3), of: attempt(1)).isWanted == false)
        _ = bench.offerKV(attempt(1))
        let (isWanted, _) = bench.begin(chunk(0, 3), of: attempt(1))
        #expect(isWanted)
        _ = bench.cancel(attempt(1))
        let (isKept, actions) = bench.landed(chunk(0, 3), of: attempt(1))
        #expect(!isKept && actions == [])
    }

    @Test func `an end that does not fit the chunks fails the request`() {
        for chunks in [[(0, 1), (1, 2)], [(0, 3), (0, 3)], []] {
            var bench = WorkerBench(.decode)
            _ = bench.reserve(terms(attempt(1)))
            _ = bench.offerKV(attempt(1))
            _ = bench.land(attempt(1), 0, 3)
            let actions = bench.endKV(attempt(1), of: chunks)
            #expect(actions.failures == [.transfer])
            #expect(actions.transferAnswers == [.transfer])
            #expect(actions.contains(.cancelSequence(SequenceID(1))))
            #expect(bench.status.reservedKVBytes == 80)
            _ = bench.engineCancelled(1)
            #expect(bench.status.reservedKVBytes == 0)
        }
    }

    @Test func `an end may come before the last chunk of another connection`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1))
        _ = bench.begin(chunk(0, 2), of: attempt(1), on: WorkerBench.otherLink)
        #expect(bench.land(attempt(1), 2, 1).imports == [])
        #expect(bench.endKV(attempt(1), of: [(0, 2), (2, 1)]) == [])
        let (isKept, actions) = bench.landed(
            chunk(0, 2), of: attempt(1), on: WorkerBench.otherLink)
        #expect(isKept && actions.imports == [0, 2])
        #expect(actions.job?.importedTokens == 3)
    }

    @Test func `an end without a transfer is answered`() {
        var bench = WorkerBench(.decode)
        #expect(bench.endKV(attempt(1), of: []).transferAnswers == [.unknownRequest])
        bench.run(terms(attempt(1)), as: 1)
        // Its last word may have been lost.
        #expect(bench.endKV(attempt(1), of: [(0, 3)]).transferAnswers == [nil])
        #expect(bench.status.runningSequences == 1)
    }

    @Test func `KV for a sequence that may not grow is not taken`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1), maximumNewTokens: 1))
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 3)
        #expect(bench.endKV(attempt(1), of: [(0, 3)]).transferAnswers == [.invalid])
    }

    @Test func `a sender that gives up has told the gateway why, so the room is freed silently`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        #expect(bench.machine.kvAborted(attempt(1), by: prefill1) == [])
        #expect(bench.status.reservedKVBytes == 80, "no transfer was open")
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 1)
        #expect(
            bench.machine.kvAborted(attempt(1), by: prefill1)
                == [.dropChunks(attempt(1)), .cancelSequence(SequenceID(1))])
        #expect(bench.engineCancelled(1) == [])
        #expect(bench.status.reservedKVBytes == 0)
        bench.run(terms(attempt(2)), as: 2)
        #expect(bench.machine.kvAborted(attempt(2), by: prefill1) == [])
        #expect(bench.status.runningSequences == 1)
    }

    @Test func `a cancelled transfer is answered and its room freed when the engine lets go`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 1)
        let actions = bench.cancel(attempt(1))
        #expect(actions.transferAnswers == [.cancelled])
        #expect(actions.last == .cancelSequence(SequenceID(1)))
        #expect(bench.land(attempt(1), 1, 1) == [])
        #expect(bench.endKV(attempt(1), of: []).transferAnswers == [.unknownRequest])
        #expect(bench.offerKV(attempt(1)).transferAnswers == [.unknownRequest])
        #expect(bench.status.reservedKVBytes == 80)
        #expect(bench.imported(1, tokens: 1) == [])
        #expect(bench.engineCancelled(1) == [])
        #expect(bench.status.reservedKVBytes == 0)
    }

    @Test func `a cancelled sequence that the engine never opened is free when it says so`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 1)
        _ = bench.land(attempt(1), 1, 1)
        _ = bench.cancel(attempt(1))
        // The refusals were on their way; a sequence that is not open is not cancelled.
        #expect(bench.refused(1, at: 0) == [])
        #expect(!bench.machine.isIdle)
        #expect(bench.refused(1, at: 0) == [])
        #expect(bench.machine.isIdle)
        #expect(bench.status.reservedKVBytes == 0)
    }

    @Test func `an engine without room fails the request and answers the sender`() {
        var bench = WorkerBench(.decode)
        _ = bench.reserve(terms(attempt(1)))
        _ = bench.offerKV(attempt(1))
        _ = bench.land(attempt(1), 0, 1)
        let actions = bench.engineFailed(1, .noRoom(neededTokens: 1, freeTokens: 0))
        #expect(actions.failures == [.engine])
        #expect(actions.transferAnswers == [.transfer])
        #expect(actions.contains(.dropChunks(attempt(1))))
        #expect(bench.machine.isIdle)
        #expect(bench.refused(1, at: 0) == [], "chunks that were on their way")
    }

    @Test func `who waits for room gets it from those who leave`() {
        var bench = WorkerBench(.decode, sequences: 4) { $0.landingBytes = 30 }
        for number in UInt64(1)...3 { _ = bench.reserve(terms(attempt(number))) }
        #expect(bench.offerKV(attempt(1)).grant?.creditBytes == 30)
        for number in UInt64(2)...3 {
            #expect(bench.offerKV(attempt(number)).grant?.creditBytes == 0)
        }
        _ = bench.land(attempt(1), 0, 3)
        #expect(bench.imported(1, tokens: 3).credits == [2: 30])
        #expect(bench.cancel(attempt(2)).credits == [3: 30])
    }
}
