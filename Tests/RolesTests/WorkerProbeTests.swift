import Roles
import ServingTypes
import Testing

/// How a health-agent comes from one missed beat to ending a worker.
@Suite struct WorkerProbeTests {
    let decode = worker(decode1, .decodeWorker)

    private func states(_ actions: [HealthAction]) -> [String] {
        actions.compactMap { action in
            guard case .judged(let finding) = action else { return nil }
            return finding.isSuspect ? "suspect" : finding.isResponding ? "well" : "down"
        }
    }

    private func ends(_ actions: [HealthAction]) -> [(reason: String, isSilent: Bool)] {
        actions.compactMap { action in
            if case .end(_, let reason, let isSilent) = action { (reason, isSilent) } else { nil }
        }
    }

    private func running(_ steps: UInt64) -> InstanceStatus {
        var status = InstanceStatus()
        status.runningSequences = 1
        status.engineSteps = steps
        return status
    }

    @Test func `one missed beat says nothing, some make it suspect, more take it down`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        bench.answer(decode1)
        #expect(states(bench.tick(.milliseconds(700))) == [])
        #expect(states(bench.tick(.milliseconds(400))) == ["suspect"])
        #expect(states(bench.tick(.milliseconds(1000))) == ["down"])
        bench.answer(decode1)
        #expect(states(bench.tick(.milliseconds(100))) == ["well"])
    }

    @Test func `a change of state is reported at once`() throws {
        var bench = HealthBench()
        _ = bench.show([decode])
        let actions = bench.tick(.seconds(3))
        for (index, action) in actions.enumerated() {
            guard case .judged(let finding) = action else { continue }
            let next = try #require(
                actions[index...].first { action in
                    if case .report = action { true } else { false }
                })
            #expect(next == .report([finding]))
        }
    }

    @Test func `a silent worker is ended after the kill deadline, a few times`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        #expect(ends(bench.tick(.seconds(9))).isEmpty)
        let ended = ends(bench.tick(.seconds(60)))
        #expect(ended.count == HealthLimits().maximumEnds)
        #expect(ended.allSatisfy { $0.isSilent })
    }

    @Test func `a silent worker is ended though its lease has run out`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        #expect(states(bench.tick(.seconds(3))) == ["suspect", "down"])
        #expect(bench.show([]).isEmpty)
        #expect(ends(bench.tick(.seconds(30))).count == HealthLimits().maximumEnds)
        #expect(bench.tick(.seconds(120)).contains(.forget(decode1)))
        #expect(states(bench.tick(.seconds(10))).isEmpty)
    }

    @Test func `a worker that leaves while it is well is forgotten at once`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        bench.answer(decode1)
        #expect(bench.show([]) == [.forget(decode1)])
    }

    @Test func `one that left and answers again is forgotten`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        _ = bench.tick(.seconds(3))
        _ = bench.show([])
        bench.answer(decode1)
        let actions = bench.tick(.milliseconds(600))
        #expect(states(actions) == ["well"])
        #expect((actions + bench.tick(.milliseconds(600))).contains(.forget(decode1)))
    }

    @Test func `a hung engine is told to end at once`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        let actions = bench.live(decode1, for: .seconds(1)) { _ in
            var status = running(7)
            status.stepAgeMilliseconds = 120_001
            return status
        }
        #expect(states(actions) == ["down"])
        #expect(ends(actions).map(\.isSilent) == [false])
    }

    @Test func `an engine that begins no iteration while sequences decode is hung`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        #expect(states(bench.live(decode1, for: .seconds(40)) { running(UInt64($0)) }) == [])
        let stalled = bench.live(decode1, for: .seconds(31)) { _ in running(1_000_000) }
        #expect(states(stalled) == ["suspect", "down"])
        #expect(ends(stalled).count == 1)
        // Idle engines make no steps either.
        _ = bench.live(decode1, for: .seconds(1)) { _ in running(1_000_001) }
        #expect(states(bench.live(decode1, for: .seconds(9)) { _ in InstanceStatus() }) == [])
    }

    @Test func `an idle worker is asked for tokens, a busy one is not`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        let busy = bench.live(decode1, for: .seconds(20)) { running(UInt64($0)) }
        #expect(canaries(busy) == [])
        let idle = bench.live(decode1, for: .seconds(1)) { _ in InstanceStatus() }
        #expect(canaries(idle) == [1])
        let done = CanaryDone(number: 1, outcome: .generated, tokens: 4)
        #expect(
            bench.machine.canaryDone(decode1, done, now: bench.now)
                == [.canaryEnded(decode1, .generated)])
        #expect(bench.machine.canaryDone(decode1, done, now: bench.now) == [], "counted once")
        let next = bench.live(decode1, for: .seconds(14)) { _ in InstanceStatus() }
        #expect(canaries(next) == [])
        #expect(
            canaries(bench.live(decode1, for: .seconds(2)) { _ in InstanceStatus() }) == [2])
    }

    @Test func `canaries that fail in a row take a worker down, one that comes back helps`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        let actions = bench.live(decode1, for: .seconds(60)) { _ in InstanceStatus() }
        #expect(states(actions) == ["suspect", "down"])
        #expect(ends(actions).first?.isSilent == false)
        #expect(actions.contains(.canaryEnded(decode1, .late)))
        var number: UInt64 = 0
        while number == 0 {
            number =
                canaries(bench.live(decode1, for: .seconds(1)) { _ in InstanceStatus() })
                .last ?? 0
        }
        let done = CanaryDone(number: number, outcome: .generated, tokens: 4)
        _ = bench.machine.canaryDone(decode1, done, now: bench.now)
        #expect(
            states(bench.live(decode1, for: .seconds(1)) { _ in InstanceStatus() }) == ["well"])
    }

    @Test func `a canary that finds work says nothing`() {
        var bench = HealthBench()
        _ = bench.show([decode])
        for number in 1...5 {
            _ = bench.live(decode1, for: .seconds(15)) { _ in InstanceStatus() }
            let done = CanaryDone(number: UInt64(number), outcome: .busy)
            #expect(
                bench.machine.canaryDone(decode1, done, now: bench.now)
                    == [.canaryEnded(decode1, .busy)])
        }
        #expect(
            states(bench.live(decode1, for: .seconds(1)) { _ in InstanceStatus() }) == [])
    }

    private func canaries(_ actions: [HealthAction]) -> [UInt64] {
        actions.compactMap { action in
            if case .canary(_, let canary) = action { canary.number } else { nil }
        }
    }
}
