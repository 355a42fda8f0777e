import ClusterRules
import DeviceProfile
import RequestTraces
import ServingSimulation
import ServingTypes
import Testing

/// A device with round times: 1 ms per prompt token, 10 ms per step, 1 kB of KV per token.
private struct RoundDevice: PerformanceModel {
    var kvBytesPerToken = 1000
    var kvCapacityTokens = 100_000
    var kvExportBytesPerSecond = Double.infinity
    var kvImportBytesPerSecond = Double.infinity
    var linkBytesPerSecond = 1e9

    func prefillSeconds(_ runs: [Range<Int>]) -> Double {
        runs.reduce(0) { $0 + Double($1.count) } / 1000
    }

    func decodeSeconds(sequences: Int, contextTokens: Int) -> Double { 0.01 }

    func mixedSeconds(_ runs: [Range<Int>], sequences: Int, contextTokens: Int) -> Double {
        prefillSeconds(runs) + 0.01
    }
}

@Suite("Simulated clusters")
struct ServingRunTests {
    private static func scenario(ttft: Duration = .seconds(60)) -> ScenarioSpec {
        var scenario = ScenarioSpec(name: ScenarioSpec.defaultName)
        scenario.ttftLimit = ttft
        scenario.deflection = false
        return scenario
    }

    private static func plan(
        _ entries: [RequestTrace.Entry], device: RoundDevice = RoundDevice(), prefill: Int = 1,
        decode: Int = 1, seconds: Double = 60
    ) -> ServingPlan {
        var plan = ServingPlan(
            load: .open(RequestTrace(entries: entries)),
            machines: MachinePlan.fleet(prefill, .prefill, device: "round", model: device)
                + MachinePlan.fleet(decode, .decode, device: "round", model: device),
            scenario: scenario(), seconds: seconds)
        plan.network.messageSeconds = 0
        plan.network.handOverSeconds = 0
        plan.gateways = 1
        return plan
    }

    private static func requests(
        _ count: Int, every seconds: Double, prompt: Int = 1000, output: Int = 11
    ) -> [RequestTrace.Entry] {
        (0..<count).map {
            RequestTrace.Entry(
                arrivalSeconds: Double($0) * seconds, promptTokens: prompt, outputTokens: output)
        }
    }

    @Test("one request takes prefill, transfer and its steps")
    func alone() throws {
        var device = RoundDevice()
        device.linkBytesPerSecond = 1e6
        let outcome = try #require(
            ServingRun.outcomes(Self.plan(Self.requests(1, every: 1), device: device)).first)
        #expect(abs(try #require(outcome.ttft) - 1) < 1e-6)
        // 1 MB takes a second on the link; ten steps follow the first token.
        #expect(abs(try #require(outcome.endToEnd) - 2.1) < 1e-3)
    }

    @Test("KV leaves while the next part of the prompt is computed")
    func overlap() throws {
        var device = RoundDevice()
        device.linkBytesPerSecond = 2e6
        var plan = Self.plan(Self.requests(1, every: 1), device: device)
        plan.iterationTokens = 100
        let outcome = try #require(ServingRun.outcomes(plan).first)
        // Of ten parts only the last is on its way after the first token: 0.05 s.
        #expect(abs(try #require(outcome.endToEnd) - 1.15) < 1e-3)
    }

    @Test("transfers to one machine share its link")
    func contention() throws {
        var device = RoundDevice()
        device.linkBytesPerSecond = 1e6
        let plan = Self.plan(Self.requests(2, every: 0), device: device, prefill: 2)
        let ends = ServingRun.outcomes(plan).compactMap(\.endToEnd).sorted()
        #expect(ends.count == 2)
        #expect(abs(ends[0] - 2.1) < 1e-3)
        #expect(abs(ends[1] - 3.1) < 1e-2, "the second KV waits for the first")
        // Machines of one host hand over in memory.
        var together = plan
        together.machines = plan.machines.map {
            var machine = $0
            machine.host = "one"
            return machine
        }
        #expect(ServingRun.outcomes(together).allSatisfy { ($0.endToEnd ?? 9) < 1.2 })
    }

    @Test("an iteration is slowed by what others of its host compute during it, no longer")
    func sharedHost() throws {
        var plan = Self.plan(Self.requests(2, every: 1))
        for index in plan.machines.indices { plan.machines[index].host = "one" }
        plan.contention.prefill = 2
        plan.contention.decode = 3
        let outcomes = ServingRun.outcomes(plan)
        try #require(outcomes.count == 2)
        // Ten steps beside the second prompt take 0.3 s instead of 0.1, in which half of that time
        // is left for the prompt: it takes 0.15 s more. The second answer is alone.
        #expect(abs(try #require(outcomes[0].ttft) - 1) < 1e-6)
        #expect(abs(try #require(outcomes[0].endToEnd) - 1.3) < 1e-3)
        #expect(abs(try #require(outcomes[1].ttft) - 1.15) < 1e-3)
        #expect(abs(try #require(outcomes[1].endToEnd) - 1.25) < 1e-3)
    }

    @Test("requests of a lost machine begin again elsewhere")
    func loss() throws {
        var plan = Self.plan(
            Self.requests(6, every: 0.5, prompt: 100, output: 400), decode: 2, seconds: 30)
        plan.faults = [
            MachineFault(machine: "decode-1", atSeconds: 3, kind: .lost(backAfterSeconds: 2))
        ]
        plan.timelineStepSeconds = 1
        var outcomes: [RequestOutcome] = []
        let run = ServingRun(plan) { outcomes.append($0) }
        run.run()
        #expect(outcomes.count == 6)
        #expect(outcomes.allSatisfy { $0.endToEnd != nil })
        #expect(outcomes.reduce(0) { $0 + $1.restarts } > 0)
        #expect(run.timeline.points.count >= 5)
        #expect(run.timeline.points.contains { $0.decodeBusy > 0.5 && $0.answering > 0 })
    }

    @Test("a lost last machine loses its requests, and the run ends")
    func lossOfAll() {
        var plan = Self.plan(Self.requests(4, every: 1, output: 1000), seconds: 8)
        plan.scenario.ttftLimit = .seconds(2)
        plan.scenario.prefillOnlyFallback = false
        plan.drainSeconds = 5
        plan.faults = [
            MachineFault(machine: "decode-1", atSeconds: 3, kind: .lost(backAfterSeconds: nil))
        ]
        let outcomes = ServingRun.outcomes(plan)
        #expect(outcomes.count == 4)
        #expect(outcomes.allSatisfy { $0.endToEnd == nil })
    }

    @Test("a slow machine and a slow link are slow for as long as they are")
    func slowness() throws {
        var device = RoundDevice()
        device.linkBytesPerSecond = 1e7
        var plan = Self.plan(Self.requests(3, every: 10), device: device)
        plan.faults = [
            MachineFault(
                machine: "prefill-1", atSeconds: 5, kind: .slow(factor: 3, seconds: 10)),
            MachineFault(
                machine: "decode-1", atSeconds: 5, kind: .slowLink(factor: 20, seconds: 10)),
        ]
        let outcomes = ServingRun.outcomes(plan)
        let ttft = outcomes.compactMap(\.ttft)
        #expect(ttft.count == 3)
        #expect(abs(ttft[1] - 3) < 0.01)
        #expect(abs(ttft[2] - 1) < 0.01)
        let rest = outcomes.compactMap { outcome in
            outcome.ttft.flatMap { ttft in outcome.endToEnd.map { $0 - ttft } }
        }
        #expect(rest[1] - rest[0] > 1.5, "2 s on the slow link instead of 0.1 s")
        #expect(abs(rest[2] - rest[0]) < 0.01)
    }

    @Test("prompts that begin alike are computed once, if their KV is kept")
    func prefixes() {
        let entries = (0..<4).map { index in
            RequestTrace.Entry(
                arrivalSeconds: Double(index) * 5, promptTokens: 2048, outputTokens: 4,
                prefixHashes: [1, 2, 3, UInt64(10 + index)])
        }
        var plan = Self.plan(entries)
        #expect(ServingRun.outcomes(plan).allSatisfy { ($0.ttft ?? 0) > 2 })
        plan.keptSequences = 4
        let kept = ServingRun.outcomes(plan).compactMap(\.ttft)
        #expect(kept[0] > 2)
        #expect(kept.dropFirst().allSatisfy { $0 < 0.6 }, "3 of 4 blocks are there")
    }

    @Test("ten thousand machines need no more than the requests that live")
    func large() {
        let plan = Self.plan(
            Self.requests(40, every: 0.05, prompt: 50), prefill: 4000, decode: 6000, seconds: 3)
        let outcomes = ServingRun.outcomes(plan)
        #expect(outcomes.count == 40)
        #expect(outcomes.allSatisfy { abs(($0.ttft ?? 9) - 0.05) < 1e-6 })
    }

    @Test("a run that is broken off reports what there is")
    func interruption() {
        var outcomes: [RequestOutcome] = []
        let run = ServingRun(Self.plan(Self.requests(60, every: 1, prompt: 100))) {
            outcomes.append($0)
        }
        run.run { $0 < 10 }
        #expect((8...12).contains(outcomes.count))
        #expect(outcomes.contains { $0.endToEnd != nil })
    }
}
