import InferenceEngine
import Roles
import ServingTypes
import Testing

@Suite struct WorkerTests {
    @Test func `a worker takes the work of its role only`() {
        var prefill = WorkerBench(.prefill)
        #expect(prefill.reserve(terms(attempt(1))).refusal?.code == .role)
        var decode = WorkerBench(.decode)
        #expect(decode.offer(terms(attempt(1))).rejection == .role)
        #expect(prefill.hear(.subscribe(Subscribe())) == [])
    }

    @Test func `the status tells what is free and how far the engine is`() {
        let prefill = WorkerBench(.prefill)
        #expect(prefill.status.freePrefillSlots == 2)
        #expect(prefill.status.freeKVBytes == 0)
        let decode = WorkerBench(.decode)
        #expect(decode.status.freePrefillSlots == 0)
        #expect(decode.status.freeKVBytes == 1000)
        #expect(decode.status.engineSteps == 5)
        #expect(decode.status.stepAgeMilliseconds == 30)
        #expect(!decode.status.isDraining)
    }

    @Test func `an idle worker has drained at once`() {
        for role in ServingRole.allCases {
            var bench = WorkerBench(role)
            #expect(bench.machine.drain() == [.drained])
            #expect(bench.status.isDraining)
        }
    }

    @Test func `a draining prefill-worker ends what it has, takes no more and calls nobody`() {
        var bench = WorkerBench(.prefill, slots: 1)
        _ = bench.offer(terms(attempt(1)))
        #expect(bench.offer(terms(attempt(2))).rejection == .busy)
        #expect(bench.machine.drain() == [])
        #expect(bench.status.freePrefillSlots == 0)
        #expect(bench.offer(terms(attempt(3))).rejection == .draining)
        _ = bench.sampled(1, 7)
        #expect(
            bench.machine.transferEnded(attempt(1), failure: nil)
                == [sends(.kvDelivered(KVDelivered(attempt: attempt(1)))), .drained])
    }

    @Test func `a draining decode-worker ends what it has, takes no more and calls nobody`() {
        var bench = WorkerBench(.decode, sequences: 1)
        bench.run(terms(attempt(1)), as: 1)
        #expect(bench.reserve(terms(attempt(2))).refusal?.code == .noKVRoom)
        #expect(bench.machine.drain() == [])
        #expect(bench.reserve(terms(attempt(3))).refusal?.code == .draining)
        _ = bench.sampled(1, 8)
        #expect(
            bench.sampled(1, 9, finish: .stop)
                == [writes(attempt(1), at: 2, 9, finish: .stop), .drained])
    }

    @Test func `a lost engine fails everything and drains`() {
        var decode = WorkerBench(.decode)
        decode.run(terms(attempt(1)), as: 1)
        _ = decode.reserve(terms(attempt(2)))
        let actions = decode.engine(.engineLost(.computeFailed(code: 1)))
        #expect(actions.failures == [.engine, .engine])
        #expect(actions.last == .drained)
        #expect(decode.machine.isIdle)
        #expect(decode.reserve(terms(attempt(3))).refusal?.code == .draining)

        var prefill = WorkerBench(.prefill)
        _ = prefill.offer(terms(attempt(1)))
        let lost = prefill.engine(.engineLost(.computeFailed(code: 1)))
        #expect(lost.failures == [.engine])
        #expect(lost.aborts == [attempt(1)])
        #expect(!lost.contains(.drained))
        #expect(prefill.machine.transferEnded(attempt(1), failure: nil) == [.drained])

        var idle = WorkerBench(.prefill)
        #expect(idle.engine(.engineLost(.computeFailed(code: 1))) == [.drained])
    }
}
