import ClusterRules
import DeviceProfile
import RequestTraces
package import ServingSimulation
import ServingTypes

/// One fleet under one rate, simulated.
package struct PlanTrial: Sendable {
    package var fleet: Fleet
    package var rate: Double
    package var figures: ServingFigures
    /// Nil: it keeps the goals.
    package var shortfall: PlanGoals.Shortfall?
    package var prefillBusy: Double
    package var decodeBusy: Double
    package var requests: Int

    /// What a somewhat higher rate lacks; nil if nobody tried.
    package var shortfallAbove: PlanGoals.Shortfall?

    package var isGood: Bool { shortfall == nil }
}

extension PlanningTask {
    /// The simulated cluster of a fleet.
    package func servingPlan(
        _ fleet: Fleet, rate: Double, traffic: TrafficProfile
    ) -> ServingPlan {
        var machines: [MachinePlan] = []
        let parts: [(ServingRole, [Int: Int])] = [
            (.prefill, fleet.prefill), (.decode, fleet.decode), (.mixed, fleet.mixed),
        ]
        for (part, counts) in parts {
            // Without prefill machines, a decode machine computes the prompts it takes.
            let role = part == .mixed && !fleet.isSplit ? ServingRole.decode : part
            var first = 1
            for (kind, count) in counts.sorted(by: { $0.key < $1.key }) {
                machines += MachinePlan.fleet(
                    count, role, device: kinds[kind].name, model: kinds[kind].model, first: first
                ).map {
                    var machine = $0
                    machine.linkBytesPerSecond = linkBytesPerSecond
                    return machine
                }
                first += count
            }
        }
        var scenario = ScenarioSpec(name: ScenarioSpec.defaultName)
        scenario.ttftLimit = .nanoseconds(Int64(goals.ttftLimit(traffic) * 1e9))
        scenario.tpotLimit = .nanoseconds(Int64(goals.tpotLimit(traffic) * 1e9))
        let time = trialTime(rate: rate)
        let arrivals = trace.poisson(
            perSecond: rate, seconds: time.whole, seed: seed, lengths: .paired)
        var plan = ServingPlan(
            load: .open(arrivals), machines: machines, scenario: scenario, seconds: time.whole)
        plan.warmUpSeconds = time.warmUp
        plan.waiting = .slots(slots)
        plan.decodeSequences = decodeSequences
        plan.iterationTokens = iterationTokens
        plan.mixedPromptTokens = mixedPromptTokens
        plan.kvCapacityTokens = .max
        plan.gateways = 1
        let answer = Double(traffic.longestOutput) * goals.tpotLimit(traffic)
        plan.drainSeconds = goals.ttftLimit(traffic) + 1.5 * answer
        plan.seed = seed
        return plan
    }

    /// Simulates a fleet; nil if `goesOn` said no.
    func trial(
        _ fleet: Fleet, rate: Double, traffic: TrafficProfile, goesOn: @escaping () -> Bool
    ) -> PlanTrial? {
        let plan = servingPlan(fleet, rate: rate, traffic: traffic)
        var outcomes: [RequestOutcome] = []
        var isWhole = true
        let run = ServingRun(plan) { outcomes.append($0) }
        run.run { _ in
            isWhole = goesOn()
            return isWhole
        }
        guard isWhole else { return nil }
        return PlanTrial(
            fleet: fleet, rate: rate,
            figures: ServingFigures(
                outcomes, seconds: plan.seconds - plan.warmUpSeconds,
                ttftLimit: goals.ttftLimit(traffic), tpotLimit: goals.tpotLimit(traffic)),
            shortfall: goals.shortfall(outcomes, chunk: iterationTokens),
            prefillBusy: run.utilisation(.prefillWorker),
            decodeBusy: run.utilisation(.decodeWorker), requests: outcomes.count)
    }
}
