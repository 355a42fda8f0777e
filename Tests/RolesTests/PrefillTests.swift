import InferenceEngine
import Roles
import ServingTypes
import Testing

@Suite struct PrefillTests {
    @Test func `an accepted prompt opens its transfer and runs for one token`() {
        var bench = WorkerBench(.prefill)
        let plan = TransferPlan(
            attempt: attempt(1), decodeInstance: decode1,
            address: NetworkAddress(host: "decode-1", port: 2), secret: secret(9), tokens: 4,
            heldTokens: 0, expires: seconds(60))
        let job = SequenceJob(
            sequence: SequenceID(1), tokens: [1, 2, 3, 7], outputTokens: 1,
            sampling: SamplingParameters(), maximumNewTokens: 1, exportsKV: true)
        #expect(
            bench.offer(terms(attempt(1), outputTokens: 1), prompt: [1, 2, 3, 7])
                == [accepts(attempt(1)), .openTransfer(plan), .run(job)])
        #expect(bench.status.freePrefillSlots == 1)
        #expect(bench.machine.exportingAttempt(SequenceID(1)) == attempt(1))
        #expect(bench.machine.exportingAttempt(SequenceID(2)) == nil)
    }

    @Test func `the slot opens when the KV has left`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1), outputTokens: 2))
        let end = KVEnd(attempt: attempt(1), tokens: 3, firstToken: TokenOutput(token: 7))
        #expect(
            bench.sampled(1, 7, finish: .length)
                == [writes(attempt(1), at: 2, 7), .endTransfer(end)])
        #expect(bench.status.freePrefillSlots == 1)
        #expect(bench.machine.transferEnded(attempt(1), failure: nil) == [])
        #expect(bench.status.freePrefillSlots == 2)
        #expect(bench.machine.isIdle)
    }

    @Test func `an answer that ends with its first token needs no transfer`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1), maximumNewTokens: 1))
        _ = bench.offer(terms(attempt(2)))
        #expect(
            bench.sampled(1, 7, finish: .length)
                == [writes(attempt(1), at: 0, 7, finish: .length)])
        let stop = bench.sampled(2, 0, finish: .stop)
        #expect(stop.first == writes(attempt(2), at: 0, 0, finish: .stop))
        #expect(stop.aborts == [attempt(2)])
        #expect(!bench.machine.isIdle)
        _ = bench.machine.transferEnded(attempt(2), failure: nil)
        #expect(bench.machine.isIdle)
    }

    @Test func `an answer of one token opens no transfer and exports nothing`() {
        var bench = WorkerBench(.prefill)
        let actions = bench.offer(terms(attempt(1), maximumNewTokens: 1))
        #expect(actions.count == 2 && actions.first == accepts(attempt(1)))
        #expect(actions.job?.exportsKV == false)
        #expect(bench.cancel(attempt(1)) == [.cancelSequence(SequenceID(1))])
        #expect(bench.engineCancelled(1) == [])
        #expect(bench.machine.isIdle)
    }

    @Test func `KV that the decode-worker holds is neither exported nor sent`() throws {
        var bench = WorkerBench(.prefill)
        let actions = bench.offer(
            terms(attempt(1)), prompt: [1, 2, 3, 4], held: 3)
        let job = try #require(actions.job)
        #expect(job.exportsKV && job.exportedFrom == 3 && job.tokens == [1, 2, 3, 4])
        let plan = try #require(
            actions.compactMap { if case .openTransfer(let plan) = $0 { plan } else { nil } }.only)
        #expect(plan.heldTokens == 3 && plan.tokens == 4)
        // All of it may be there, not more than that.
        #expect(bench.offer(terms(attempt(2)), held: 3).job?.exportedFrom == 3)
        #expect(bench.offer(terms(attempt(3)), held: 4).rejection == .invalid)
    }

    @Test func `numbers that do not fit together are rejected`() {
        var bench = WorkerBench(.prefill)
        #expect(bench.offer(terms(attempt(1)), prompt: []).rejection == .invalid)
        #expect(bench.offer(terms(attempt(1), maximumNewTokens: 0)).rejection == .invalid)
        #expect(bench.offer(terms(attempt(1), outputTokens: 3)).rejection == .invalid)
        _ = bench.offer(terms(attempt(1)))
        #expect(bench.offer(terms(attempt(1))).rejection == .invalid)
        #expect(bench.status.freePrefillSlots == 1)
    }

    @Test func `a prompt longer than context or KV is too long, not busy`() {
        var bench = WorkerBench(.prefill, capacity: 50, context: 60)
        let long = [TokenID](repeating: 1, count: 51)
        #expect(bench.offer(terms(attempt(1), maximumNewTokens: 58)).rejection == .tooLong)
        #expect(bench.offer(terms(attempt(1)), prompt: long).rejection == .tooLong)
        #expect(bench.offer(terms(attempt(1), maximumNewTokens: 57)).rejection == nil)
    }

    @Test func `prompts that together exceed the KV have to wait`() {
        var bench = WorkerBench(.prefill, capacity: 50)
        let half = [TokenID](repeating: 1, count: 26)
        _ = bench.offer(terms(attempt(1)), prompt: half)
        #expect(bench.offer(terms(attempt(2)), prompt: half).rejection == .busy)
        #expect(bench.offer(terms(attempt(3))).rejection == nil)
    }

    @Test func `without a free slot an offer is rejected at once and slots are called later`() {
        var bench = WorkerBench(.prefill)
        for number in UInt64(1)...2 { _ = bench.offer(terms(attempt(number))) }
        #expect(bench.offer(terms(attempt(3))).rejection == .busy)
        _ = bench.sampled(1, 7)
        #expect(
            bench.machine.transferEnded(attempt(1), failure: nil)
                == [.broadcast(.slotsOpen(SlotsOpen(freePrefillSlots: 1)))])
    }

    @Test func `after a rejection each free slot is called`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(9)))
        _ = bench.sampled(1, 7)
        #expect(bench.machine.transferEnded(attempt(9), failure: nil) == [])
        for number in UInt64(1)...3 { _ = bench.offer(terms(attempt(number))) }
        for (number, free) in [(UInt64(1), 1), (2, 2)] {
            _ = bench.sampled(number + 1, 7)
            #expect(
                bench.machine.transferEnded(attempt(number), failure: nil)
                    == [.broadcast(.slotsOpen(SlotsOpen(freePrefillSlots: free)))])
        }
    }

    @Test func `a cancelled prompt keeps its slot until engine and transfer let go`() {
        for engineFirst in [true, false] {
            var bench = WorkerBench(.prefill)
            _ = bench.offer(terms(attempt(1)))
            #expect(
                bench.cancel(attempt(1))
                    == [
                        .cancelSequence(SequenceID(1)),
                        .abortTransfer(attempt(1), reason: "the request was cancelled"),
                    ])
            #expect(bench.cancel(attempt(1)) == [])
            for step in engineFirst ? [0, 1] : [1, 0] {
                #expect(bench.status.freePrefillSlots == 1)
                let actions =
                    step == 0
                    ? bench.engineCancelled(1)
                    : bench.machine.transferEnded(
                        attempt(1), failure: KVDone(attempt: attempt(1), code: .cancelled))
                #expect(actions == [])
            }
            #expect(bench.machine.isIdle)
        }
    }

    @Test func `a token that crosses the cancellation is not sent`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1)))
        _ = bench.cancel(attempt(1))
        #expect(bench.sampled(1, 7, finish: .length) == [])
        _ = bench.machine.transferEnded(attempt(1), failure: nil)
        #expect(bench.machine.isIdle)
    }

    @Test func `a prompt cancelled while its KV leaves only ends the transfer`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1)))
        _ = bench.sampled(1, 7)
        let actions = bench.cancel(attempt(1))
        #expect(actions.aborts == [attempt(1)])
        #expect(actions.count == 1)
        _ = bench.machine.transferEnded(attempt(1), failure: nil)
        #expect(bench.machine.isIdle)
    }

    @Test func `a failed transfer fails the request and stops the engine`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1)))
        let done = KVDone(attempt: attempt(1), code: .unknownRequest, reason: "gone")
        #expect(
            bench.machine.transferEnded(attempt(1), failure: done)
                == [
                    sends(
                        .requestFailed(
                            RequestFailed(
                                attempt: attempt(1), code: .unknownRequest, reason: "gone"))),
                    .cancelSequence(SequenceID(1)),
                ])
        #expect(!bench.machine.isIdle)
        #expect(bench.engineCancelled(1) == [])
        #expect(bench.machine.isIdle)
    }

    @Test func `a transfer that failed without a code counts as a failed transfer`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1)))
        _ = bench.sampled(1, 7)
        let actions = bench.machine.transferEnded(
            attempt(1), failure: KVDone(attempt: attempt(1)))
        #expect(actions.failures == [.transfer])
        #expect(bench.machine.isIdle)
    }

    @Test func `a failed engine fails the request and ends the transfer`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1)))
        let actions = bench.engineFailed(1)
        #expect(actions.failures == [.engine])
        #expect(actions.aborts == [attempt(1)])
        _ = bench.machine.transferEnded(attempt(1), failure: nil)
        #expect(bench.machine.isIdle)
    }

    @Test func `a sequence the engine dropped by itself fails its request`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1)))
        let actions = bench.engineCancelled(1)
        #expect(actions.failures == [.engine])
        #expect(actions.aborts == [attempt(1)])
    }

    @Test func `a lost gateway takes its own prompts with it, in order`() {
        var bench = WorkerBench(.prefill, slots: 9)
        for number in UInt64(1)...8 {
            _ = bench.offer(
                terms(attempt(number)),
                from: number % 4 == 0 ? WorkerBench.otherGateway : WorkerBench.gateway)
        }
        let actions = bench.machine.gatewayLost(WorkerBench.gateway)
        #expect(actions.aborts == [1, 2, 3, 5, 6, 7].map { attempt($0) })
        #expect(actions.failures == [])
        #expect(bench.machine.gatewayLost(WorkerBench.gateway) == [])
    }

    @Test func `a prompt that outlives its request is ended`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1), deadline: .seconds(5)))
        _ = bench.sampled(1, 7)
        #expect(bench.tick(.milliseconds(4999)) == [])
        let actions = bench.tick(.milliseconds(1))
        #expect(actions.failures == [.deadline])
        #expect(actions.aborts == [attempt(1)])
        #expect(bench.tick(.seconds(1)) == [])
    }

    @Test func `words about unknown prompts are ignored`() {
        var bench = WorkerBench(.prefill)
        #expect(bench.cancel(attempt(1)) == [])
        #expect(bench.sampled(1, 7) == [])
        #expect(bench.engineFailed(1) == [])
        #expect(bench.engineCancelled(1) == [])
        #expect(bench.machine.transferEnded(attempt(1), failure: nil) == [])
    }
}
