import DeviceProfile
import Planning
import RequestTraces
import ServingSimulation
import Testing

/// A device with so many prompt tokens per second and seconds per step.
private struct Device: PerformanceModel {
    var tokensPerSecond: Double
    var step: Double
    var kvBytesPerToken = 100_000
    var kvCapacityTokens = 100_000
    var kvExportBytesPerSecond = 1e11
    var kvImportBytesPerSecond = 1e11
    var linkBytesPerSecond = 1e11

    func prefillSeconds(_ runs: [Range<Int>]) -> Double {
        runs.reduce(0) { $0 + Double($1.count) } / tokensPerSecond
    }

    func decodeSeconds(sequences: Int, contextTokens: Int) -> Double {
        step + Double(sequences) * step / 20
    }

    func mixedSeconds(_ runs: [Range<Int>], sequences: Int, contextTokens: Int) -> Double {
        prefillSeconds(runs) + decodeSeconds(sequences: sequences, contextTokens: contextTokens)
    }
}

@Suite("Plans for machines")
struct PlanningTests {
    /// Computes fast, reads memory slowly; and the other way round.
    private static let kinds = [
        MachineKind(
            name: "fast prefill", model: Device(tokensPerSecond: 20_000, step: 0.04),
            pricePerHour: 2, powerWatts: 300),
        MachineKind(
            name: "fast decode", model: Device(tokensPerSecond: 2000, step: 0.01),
            pricePerHour: 2, powerWatts: 300),
    ]

    private static func task(
        rate: Double?, objective: PlanObjective = .cost,
        goals: PlanGoals = .limits(ttft: 0.6, tpot: 0.05, part: 0.9)
    ) -> PlanningTask {
        let trace = RequestTrace(entries: [
            .init(arrivalSeconds: 0, promptTokens: 800, outputTokens: 20),
            .init(arrivalSeconds: 1, promptTokens: 400, outputTokens: 30),
        ])
        var task = PlanningTask(
            kinds: kinds, trace: trace, rate: rate, goals: goals, objective: objective)
        task.trialSeconds = 2
        task.trialRequests = 24
        return task
    }

    @Test("unequal machines do what each is good at")
    func inventory() throws {
        var task = Self.task(rate: nil, objective: .throughput)
        task.kinds[0].available = 1
        task.kinds[1].available = 2
        let findings = FleetPlanner(task) { true }.assignments()
        let best = try #require(
            findings.compactMap(\.best).max { $0.rate < $1.rate })
        #expect(best.fleet.prefill[0] == 1, "\(best.fleet)")
        #expect(best.fleet.decode[0] == nil && best.fleet.decodeCount > 0)
        #expect(best.isGood)
        let together = findings.compactMap(\.best).filter { !$0.fleet.isSplit }
        #expect(together.allSatisfy { $0.rate < best.rate })
    }

    @Test("the cheapest fleet for a rate keeps the goals, and one machine less does not")
    func cheapest() throws {
        let task = Self.task(rate: 12)
        let planner = FleetPlanner(task) { true }
        let design = Design.split(prefill: 0, decode: 1)
        let found = planner.cheapest(design, rate: 12, known: .infinity)
        let best = try #require(found.best)
        #expect(best.fleet.prefillCount >= 1 && best.fleet.decodeCount >= 1)
        #expect(best.figures.success >= 0.9)
        #expect(task.kinds.price(of: best.fleet) == 2 * Double(best.fleet.machines))
        // What is known to be cheaper stops a search at once.
        let beaten = planner.cheapest(design, rate: 12, known: 1)
        #expect(beaten.best == nil && beaten.trials == 0)
        #expect(!beaten.reason.isEmpty)
    }

    @Test("a budget is kept and used")
    func budget() throws {
        var task = Self.task(rate: nil, objective: .throughput)
        task.budget.dollarsPerHour = 8
        let planner = FleetPlanner(task) { true }
        let best = try #require(planner.fastest(.split(prefill: 0, decode: 1)).best)
        #expect(best.fleet.machines == 4)
        task.budget.dollarsPerHour = 3
        let none = FleetPlanner(task) { true }.fastest(.split(prefill: 0, decode: 1))
        #expect(none.best == nil && !none.reason.isEmpty)
    }

    @Test("a slow link limits what a prefill machine is worth")
    func slowLink() {
        var task = Self.task(rate: 5)
        let fast = FleetPlanner(task) { true }.estimates[0]
        #expect(fast.transferSeconds < fast.promptSeconds)
        task.linkBytesPerSecond = 1e8
        let slow = FleetPlanner(task) { true }.estimates[0]
        #expect(abs(slow.transferSeconds - 0.6) < 1e-9, "60 MB of KV")
        #expect(slow.prefill < fast.prefill / 10)
        #expect(slow.mixed == fast.mixed)
    }

    @Test("requests that don't fit, and steps that are too slow, rule a machine out")
    func impossible() {
        var task = Self.task(rate: 5, goals: .limits(ttft: 1, tpot: 0.02, part: 0.9))
        var planner = FleetPlanner(task) { true }
        #expect(planner.estimates[0].decode == 0, "a step alone takes 42 ms")
        #expect(!planner.designs.contains(.split(prefill: 1, decode: 0)))
        task.kinds[1].model = {
            var device = Device(tokensPerSecond: 2000, step: 0.01)
            device.kvCapacityTokens = 500
            return device
        }()
        planner = FleetPlanner(task) { true }
        #expect(planner.designs.isEmpty)
    }

    @Test("Splitwise's goals compare with the request alone")
    func slowdowns() throws {
        let reference = Device(tokensPerSecond: 2000, step: 0.04)
        let task = Self.task(rate: 8, goals: .slowdowns(reference: reference))
        let planner = FleetPlanner(task) { true }
        let found = planner.cheapest(
            .split(prefill: 0, decode: 1), rate: 8, known: .infinity)
        #expect(found.best != nil)
        #expect(abs(planner.goalSeconds.tpot - 1.25 * 0.042) < 1e-9)
    }

    @Test("a search that is broken off says so")
    func interruption() {
        let found = FleetPlanner(Self.task(rate: 12)) { false }
            .cheapest(.split(prefill: 0, decode: 1), rate: 12, known: .infinity)
        #expect(found.best == nil)
        #expect(found.reason == "interrupted")
    }
}
