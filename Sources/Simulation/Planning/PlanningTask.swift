import DeviceProfile
package import RequestTraces

/// What the plan is for.
package enum PlanObjective: String, Sendable, CaseIterable {
    /// Most requests per second within the budget.
    case throughput
    /// Fewest dollars per hour, or watts, for the wanted requests per second.
    case cost, power
}

/// What machines may cost together.
package struct PlanBudget: Sendable, Hashable {
    package var dollarsPerHour: Double?
    package var watts: Double?
    package var machines: Int?

    package init(dollarsPerHour: Double? = nil, watts: Double? = nil, machines: Int? = nil) {
        self.dollarsPerHour = dollarsPerHour
        self.watts = watts
        self.machines = machines
    }

    package var isOpen: Bool { dollarsPerHour == nil && watts == nil && machines == nil }

    /// Rounding errors don't break a budget.
    func allows(_ fleet: Fleet, _ kinds: [MachineKind]) -> Bool {
        let slack = 1 + 1e-9
        if let dollarsPerHour {
            guard let price = kinds.price(of: fleet), price <= dollarsPerHour * slack else {
                return false
            }
        }
        if let watts, kinds.power(of: fleet) > watts * slack { return false }
        if let machines, fleet.machines > machines { return false }
        return true
    }
}

/// What a plan has to reach, with what.
package struct PlanningTask: Sendable {
    package var kinds: [MachineKind]
    /// Lengths of the requests; times only if `rate` is nil.
    package var trace: RequestTrace
    /// Requests per second that the machines have to serve; nil: find the most.
    package var rate: Double?
    package var goals: PlanGoals
    package var objective: PlanObjective
    package var budget = PlanBudget()
    /// Prompts a prefill machine takes at once, and sequences a machine decodes at once.
    package var slots = 2
    package var decodeSequences = 64
    package var iterationTokens = 2048
    package var mixedPromptTokens = 512
    /// Bytes per second of every machine's link; nil: what its model says.
    package var linkBytesPerSecond: Double?
    /// Simulated traffic that a plan is judged by: at least so many seconds and so many requests,
    /// after a beginning that does not count.
    package var trialSeconds = 60.0
    package var trialRequests = 300
    package var seed: UInt64 = 1

    package init(
        kinds: [MachineKind], trace: RequestTrace, rate: Double?, goals: PlanGoals,
        objective: PlanObjective
    ) {
        self.kinds = kinds
        self.trace = trace
        self.rate = rate
        self.goals = goals
        self.objective = objective
    }

    /// Beginning and whole length of a trial.
    func trialTime(rate: Double) -> (warmUp: Double, whole: Double) {
        let measured = max(trialSeconds, Double(trialRequests) / max(rate, 1e-6))
        return (measured / 6, measured * 7 / 6)
    }

    func link(of kind: Int) -> Double { linkBytesPerSecond ?? kinds[kind].model.linkBytesPerSecond }
}
