import InferenceEngine
import Roles
import ServingTypes
import Testing

/// Roles that change while a worker lives.
@Suite struct RoleTests {
    private func assign(
        _ bench: inout WorkerBench, _ number: UInt64, _ role: ServingRole,
        stepLimit: Duration? = nil, modelPath: String = ""
    ) -> [WorkerAction] {
        bench.machine.assigned(
            Assign(
                number: number, role: role, group: GroupID("g"), stepLimit: stepLimit,
                modelPath: modelPath), now: bench.now)
    }

    @Test func `an idle worker takes up any role at once`() {
        for old in ServingRole.allCases {
            for new in ServingRole.allCases {
                var bench = WorkerBench(old)
                #expect(bench.status.role == old && bench.status.assignment == 0)
                #expect(assign(&bench, 3, new) == [.roleChanged(new)])
                #expect(bench.status.role == new && bench.status.assignment == 3)
                #expect(
                    (bench.offer(terms(attempt(1))).rejection == .role) == !new.takesPrompts)
                #expect(
                    (bench.reserve(terms(attempt(2))).refusal?.code == .role)
                        == !new.takesSequences)
                #expect((bench.status.freePrefillSlots > 0) == new.takesPrompts)
                #expect((bench.status.freeKVBytes > 0) == new.takesSequences)
            }
        }
    }

    @Test func `a prefill-worker finishes its prompts before it decodes`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1)))
        #expect(assign(&bench, 1, .decode) == [])
        #expect(bench.status.role == .prefill && bench.status.assignment == 0)
        #expect(bench.status.freePrefillSlots == 0)
        #expect(bench.offer(terms(attempt(2))).rejection == .role)
        #expect(bench.reserve(terms(attempt(3))).refusal?.code == .role)
        _ = bench.sampled(1, 7, finish: .length)
        #expect(bench.machine.transferEnded(attempt(1), failure: nil) == [.roleChanged(.decode)])
        #expect(bench.status.role == .decode && bench.status.assignment == 1)
        #expect(bench.reserve(terms(attempt(3))).refusal == nil)
    }

    @Test func `a decode-worker finishes its sequences before it prefills`() {
        var bench = WorkerBench(.decode)
        bench.run(terms(attempt(1)), as: 1)
        _ = bench.reserve(terms(attempt(2)))
        #expect(assign(&bench, 1, .prefill) == [])
        #expect(bench.reserve(terms(attempt(3))).refusal?.code == .role)
        // A promise is kept.
        _ = bench.offerKV(attempt(2))
        #expect(bench.sampled(1, 8, finish: .stop).contains(.roleChanged(.prefill)) == false)
        _ = bench.land(attempt(2), 0, 3)
        _ = bench.endKV(attempt(2), of: [(0, 3)])
        _ = bench.imported(2, tokens: 3)
        #expect(bench.sampled(2, 8, finish: .stop).last == .roleChanged(.prefill))
        #expect(bench.offer(terms(attempt(4))).rejection == nil)
    }

    @Test func `a mixed worker goes on with the kind that stays`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1)))
        #expect(assign(&bench, 1, .mixed) == [.roleChanged(.mixed)])
        _ = bench.reserve(terms(attempt(2)))
        #expect(assign(&bench, 2, .prefill) == [])
        #expect(bench.offer(terms(attempt(3))).rejection == nil)
        #expect(bench.reserve(terms(attempt(4))).refusal?.code == .role)
        #expect(bench.cancel(attempt(2)) == [.roleChanged(.prefill)])
        #expect(bench.status.freePrefillSlots == 0, "both prompts are still there")
    }

    @Test func `later numbers count, earlier ones do not, until the scheduler changes`() {
        var bench = WorkerBench(.prefill)
        _ = bench.offer(terms(attempt(1)))
        #expect(assign(&bench, 5, .decode) == [])
        #expect(assign(&bench, 4, .prefill) == [])
        #expect(bench.offer(terms(attempt(2))).rejection == .role)
        #expect(assign(&bench, 6, .prefill) == [.roleChanged(.prefill)])
        #expect(bench.status.assignment == 6)
        #expect(bench.offer(terms(attempt(2))).rejection == nil)
        bench.machine.schedulerChanged()
        #expect(assign(&bench, 1, .mixed) == [.roleChanged(.mixed)])
        #expect(bench.status.assignment == 1)
        // The same again, because the scheduler did not hear of it.
        #expect(assign(&bench, 1, .mixed) == [.roleChanged(.mixed)])
    }

    @Test func `the length of iterations goes to the engine when it changes`() {
        var bench = WorkerBench(.decode)
        #expect(
            assign(&bench, 1, .decode, stepLimit: .milliseconds(50))
                == [.limitStep(.milliseconds(50)), .roleChanged(.decode)])
        #expect(
            assign(&bench, 2, .decode, stepLimit: .milliseconds(50)) == [.roleChanged(.decode)])
        #expect(assign(&bench, 3, .decode) == [.limitStep(nil), .roleChanged(.decode)])
    }

    @Test func `what is kept outlives a change of roles`() {
        let prompt = (1...20).map { TokenID($0) }
        var bench = WorkerBench(.prefill) { $0.keptSequences = 2 }
        _ = bench.offer(terms(attempt(1)), prompt: prompt)
        _ = bench.sampled(1, 7, finish: .length)
        _ = bench.machine.transferEnded(attempt(1), failure: nil)
        _ = assign(&bench, 1, .decode)
        #expect(bench.reserve(terms(attempt(2)), prompt: prompt).granted?.heldTokens == 19)
    }

    @Test func `another model is loaded when nothing is open`() {
        let prompt = (1...20).map { TokenID($0) }
        var bench = WorkerBench(.prefill) { $0.keptSequences = 2 }
        _ = bench.offer(terms(attempt(1)), prompt: prompt)
        #expect(assign(&bench, 1, .prefill, modelPath: "other.gguf") == [])
        #expect(bench.offer(terms(attempt(2))).rejection == .role)
        _ = bench.sampled(1, 7, finish: .length)
        #expect(
            bench.machine.transferEnded(attempt(1), failure: nil)
                == [.cancelSequence(SequenceID(1)), .loadModel("other.gguf")])
        #expect(bench.tick(.seconds(1)) == [], "it is told once")
        var failing = bench
        #expect(failing.machine.modelLoaded(false) == [])
        #expect(failing.status.assignment == 1, "the scheduler hears that it was refused")
        #expect(failing.offer(terms(attempt(2))).rejection == nil)
        #expect(bench.machine.modelLoaded(true) == [.roleChanged(.prefill)])
        #expect(bench.status.assignment == 1)
        #expect(
            assign(&bench, 2, .prefill, modelPath: "other.gguf") == [.roleChanged(.prefill)])
    }

    // MARK: Fallback

    private func reserveFallback(_ bench: inout WorkerBench, _ number: UInt64) -> [WorkerAction] {
        bench.hear(
            .reserveKV(ReserveKV(terms: terms(attempt(number)), isFallback: true)),
            tokens: [1, 2, 3])
    }

    private func offerFallback(_ bench: inout WorkerBench, _ number: UInt64) -> [WorkerAction] {
        bench.hear(
            .prefillOffer(
                PrefillOffer(
                    terms: terms(attempt(number)),
                    target: KVTarget(
                        instance: decode1, bulkAddress: NetworkAddress(host: "d", port: 1),
                        secret: secret(9)), isFallback: true)), tokens: [1, 2, 3])
    }

    @Test func `where nobody else is left a worker of the other role helps`() {
        var prefill = WorkerBench(.prefill)
        #expect(reserveFallback(&prefill, 1).granted != nil)
        var decode = WorkerBench(.decode)
        #expect(offerFallback(&decode, 1).rejection == nil)
        #expect(decode.status.localPrefills == 1 && decode.status.freePrefillSlots == 0)
        var spare = WorkerBench(.spare)
        #expect(reserveFallback(&spare, 1).refusal?.code == .role)
        #expect(offerFallback(&spare, 1).rejection == .role)
        var unable = WorkerBench(.prefill, sequences: 0)
        #expect(reserveFallback(&unable, 1).refusal?.code == .role)
        var draining = WorkerBench(.decode)
        _ = draining.machine.drain()
        #expect(offerFallback(&draining, 1).rejection == .draining)
        #expect(reserveFallback(&draining, 1).refusal?.code == .draining)
    }

    @Test func `a worker that helps calls for work when it has room again`() {
        var bench = WorkerBench(.prefill, sequences: 1)
        #expect(reserveFallback(&bench, 1).granted != nil)
        #expect(reserveFallback(&bench, 2).refusal?.code == .noKVRoom)
        let calls = bench.cancel(attempt(1))
        #expect(calls.last == .broadcast(.kvRoomOpen(KVRoomOpen(freeKVBytes: 1000))))
        // Nobody is called to a worker that is about to change.
        #expect(reserveFallback(&bench, 2).granted != nil)
        #expect(reserveFallback(&bench, 3).refusal?.code == .noKVRoom)
        _ = bench.machine.drain()
        let silence = bench.cancel(attempt(2))
        #expect(!silence.contains { if case .broadcast = $0 { true } else { false } })
    }

    @Test func `help does not hold up a change of roles`() {
        var bench = WorkerBench(.prefill)
        _ = reserveFallback(&bench, 1)
        _ = bench.offer(terms(attempt(2)))
        #expect(assign(&bench, 1, .decode) == [])
        #expect(reserveFallback(&bench, 3).refusal?.code == .role)
        _ = bench.sampled(2, 7, finish: .length)
        #expect(bench.machine.transferEnded(attempt(2), failure: nil) == [.roleChanged(.decode)])
        #expect(assign(&bench, 2, .prefill) == [.roleChanged(.prefill)])
    }

    // MARK: Both kinds of work

    @Test func `prompts and sequences share the room, and each calls for what the other frees`() {
        var bench = WorkerBench(.mixed)
        let long = [TokenID](repeating: 1, count: 50)
        _ = bench.offer(terms(attempt(1)), prompt: long)
        #expect(bench.status.freeKVBytes == 500)
        #expect(bench.reserve(terms(attempt(2)), prompt: long).refusal?.code == .noKVRoom)
        let room = bench.sampled(1, 7, finish: .length)
        #expect(room.last == .broadcast(.kvRoomOpen(KVRoomOpen(freeKVBytes: 1000))))
        _ = bench.machine.transferEnded(attempt(1), failure: nil)
        _ = bench.reserve(terms(attempt(2)), prompt: long)
        #expect(bench.offer(terms(attempt(3)), prompt: long).rejection == .busy)
        #expect(
            bench.cancel(attempt(2)).last
                == .broadcast(.slotsOpen(SlotsOpen(freePrefillSlots: 2))))
        #expect(bench.offer(terms(attempt(3)), prompt: long).rejection == nil)
    }

    @Test func `a mixed worker has drained when both sides have`() {
        var bench = WorkerBench(.mixed)
        bench.run(terms(attempt(1)), as: 1)
        _ = bench.offer(terms(attempt(2)))
        #expect(bench.machine.drain() == [])
        #expect(bench.sampled(1, 8, finish: .stop).contains(.drained) == false)
        _ = bench.sampled(2, 7, finish: .length)
        #expect(bench.machine.transferEnded(attempt(2), failure: nil).last == .drained)
        #expect(bench.tick(.seconds(1)) == [], "once")
    }

    // MARK: Rates

    @Test func `rates are running averages of what the engine has done`() {
        var rates = EngineRates()
        var progress = EngineProgress(steps: 0, stepAge: nil, openSequences: 0, usedKVTokens: 0)
        rates.record(progress)
        #expect(rates.prefillTokensPerSecond == 0 && rates.decodeStepMilliseconds == 0)
        progress.prefillTokens = 1000
        progress.prefillDuration = .seconds(1)
        progress.decodeSteps = 10
        progress.decodeDuration = .milliseconds(200)
        rates.record(progress)
        #expect(rates.prefillTokensPerSecond == 1000 && rates.decodeStepMilliseconds == 20)
        for _ in 0..<100 {
            progress.prefillTokens += 500
            progress.prefillDuration += .seconds(1)
            rates.record(progress)
        }
        #expect((499.0...501.0).contains(rates.prefillTokensPerSecond))
        let status = WorkerBench(.decode).machine.status(progress, rates: rates)
        #expect(status.decodeStepMilliseconds == 20)
    }
}
