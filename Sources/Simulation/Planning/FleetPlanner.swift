import DeviceProfile
import Foundation

/// Finds how many machines of which kind should do what.
///
/// Estimates of single machines choose where to begin; simulations of whole fleets, by the code
/// that serves, decide. Each search is a few simulations; whatever was found stands if it is
/// broken off.
package struct FleetPlanner: Sendable {
    /// What a search found.
    package struct Finding: Sendable {
        package var design: Design?
        /// The best fleet that keeps the goals, at the rate it was simulated with; nil: none does.
        package var best: PlanTrial?
        /// What the estimates said of it.
        package var estimatedRate: Double
        package var trials: Int
        /// Why there is no best, for people; empty if there is one.
        package var reason = ""
    }

    /// Bounds of a search.
    private enum Limits {
        static let climbs = 16
        static let descents = 16
        static let bisections = 7
        static let neighbours = 4
        /// Smallest part of an estimated rate that is tried.
        static let leastPart = 0.05
        /// Largest part of a number by which it is changed at once.
        static let stride = 8
        /// Assignments of an inventory that are estimated, and simulated.
        static let assignments = 200_000
        static let simulatedAssignments = 4
    }

    package let task: PlanningTask
    package let traffic: TrafficProfile
    package let estimates: [CapacityEstimate]
    /// What the goals come to for one request: seconds to the first token, and per further one.
    package let goalSeconds: (ttft: Double, tpot: Double)
    private let goesOn: @Sendable () -> Bool

    /// - Parameter goesOn: is asked a few times per simulated second; false ends all searches.
    package init(_ task: PlanningTask, goesOn: @escaping @Sendable () -> Bool) {
        self.task = task
        self.goesOn = goesOn
        let traffic = TrafficProfile(task.trace, iterationTokens: task.iterationTokens)
        self.traffic = traffic
        goalSeconds = (task.goals.ttftLimit(traffic), task.goals.tpotLimit(traffic))
        estimates = task.kinds.indices.map { CapacityEstimate($0, of: task, traffic: traffic) }
    }

    /// All designs of one kind per role that estimates don't rule out, the most promising first.
    package var designs: [Design] {
        let possible = Design.all(task.kinds.count).filter {
            $0.numbers(for: 1e-3, estimates) != nil
        }
        return possible.map { ($0, promise($0)) }.sorted { $0.1 < $1.1 }.map(\.0)
    }

    /// What the objective is estimated to be; less is better.
    private func promise(_ design: Design) -> Double {
        guard let rate = task.rate, let numbers = design.numbers(for: rate, estimates) else {
            return -largest(design).rate
        }
        return value(design.fleet(prefill: numbers.prefill, decode: numbers.decode))
    }

    /// What a fleet costs by the objective; less is better.
    package func value(_ fleet: Fleet) -> Double {
        switch task.objective {
        case .cost: task.kinds.price(of: fleet) ?? .infinity
        case .power, .throughput: task.kinds.power(of: fleet)
        }
    }

    // MARK: A given rate

    /// The cheapest fleet of a design that serves the task's rate.
    ///
    /// - Parameter known: what the best fleet of other designs costs; dearer ones are left.
    package func cheapest(_ design: Design, rate: Double, known: Double) -> Finding {
        var finding = Finding(design: design, estimatedRate: 0, trials: 0)
        guard var numbers = design.numbers(for: rate, estimates) else {
            finding.reason = "the model or a request does not fit, or a step is too slow"
            return finding
        }
        var climbs = 0
        while true {
            let fleet = design.fleet(prefill: numbers.prefill, decode: numbers.decode)
            finding.estimatedRate = design.rate(
                prefill: numbers.prefill, decode: numbers.decode, estimates)
            guard task.kinds.allow(fleet), task.budget.allows(fleet, task.kinds) else {
                finding.reason = "\(fleet.machines) machines or more would be needed"
                return finding
            }
            guard value(fleet).isFinite else {
                finding.reason = "the price of a machine is not known"
                return finding
            }
            guard value(fleet) * CapacityEstimate.busyPart < known else {
                finding.reason = "dearer than another design"
                return finding
            }
            guard climbs < Limits.climbs else {
                finding.reason = "no numbers were found that keep the goals"
                return finding
            }
            guard let trial = trial(fleet, rate, &finding) else { return finding }
            if trial.isGood {
                finding.best = trial
                break
            }
            climbs += 1
            let raisesPrefill = design.isSplit && trial.shortfall == .prefill
            let old = raisesPrefill ? numbers.prefill : numbers.decode
            let new = old + max(1, old / Limits.stride)
            if raisesPrefill { numbers.prefill = new } else { numbers.decode = new }
        }
        descend(design, numbers, rate, &finding)
        return finding
    }

    /// Takes machines away as long as the goals are kept.
    private func descend(
        _ design: Design, _ start: (prefill: Int, decode: Int), _ rate: Double,
        _ finding: inout Finding
    ) {
        var numbers = start
        var left = Limits.descents
        for isPrefill in design.isSplit ? [false, true] : [false] {
            let whole = isPrefill ? numbers.prefill : numbers.decode
            var step = max(1, whole / Limits.stride)
            while step > 0, left > 0 {
                var fewer = numbers
                if isPrefill { fewer.prefill -= step } else { fewer.decode -= step }
                guard min(fewer.decode, isPrefill ? fewer.prefill : 1) >= 1 else {
                    step /= 2
                    continue
                }
                left -= 1
                let fleet = design.fleet(prefill: fewer.prefill, decode: fewer.decode)
                guard let trial = trial(fleet, rate, &finding) else { return }
                if trial.isGood {
                    numbers = fewer
                    finding.best = trial
                } else {
                    step /= 2
                }
            }
        }
    }

    // MARK: A given budget

    /// The fleet of a design within budget and inventory that serves most.
    package func fastest(_ design: Design) -> Finding {
        let start = largest(design)
        var finding = Finding(design: design, estimatedRate: start.rate, trials: 0)
        guard let first = start.numbers else {
            finding.reason = "the budget allows no such fleet, or the model does not fit"
            return finding
        }
        var numbers = first
        bisect(design.fleet(prefill: first.prefill, decode: first.decode), start.rate, &finding)
        // The estimates' ratio may be wrong; its neighbours are tried at a higher rate.
        guard design.isSplit, let found = finding.best else { return finding }
        var rate = found.rate
        var towards = found.shortfallAbove == .prefill ? 1 : -1
        var left = Limits.neighbours
        while left > 0 {
            left -= 1
            let next = complement(design, prefill: numbers.prefill + towards)
            guard let next, let trial = trial(fleet(design, next), rate * 1.03, &finding) else {
                break
            }
            if trial.isGood {
                numbers = next
                rate = trial.rate
                finding.best = trial
            } else if numbers == first, towards > 0 {
                towards = -1
            } else {
                break
            }
        }
        return finding
    }

    private func fleet(_ design: Design, _ numbers: (prefill: Int, decode: Int)) -> Fleet {
        design.fleet(prefill: numbers.prefill, decode: numbers.decode)
    }

    /// The greatest rate that a fleet serves well, to within some percent.
    private func bisect(_ fleet: Fleet, _ estimate: Double, _ finding: inout Finding) {
        guard !fleet.isSplit || fleet.prefill.keys.contains(where: { !isLateAlone($0) }) else {
            finding.reason = "prompts alone take longer than the limit for the first token"
            return
        }
        var low = 0.0
        var high = estimate * 1.4
        var rate = estimate * 0.85
        var above: PlanGoals.Shortfall?
        for _ in 0..<Limits.bisections
        where high > low * 1.03 && rate > estimate * Limits.leastPart {
            guard let trial = trial(fleet, rate, &finding) else { return }
            if trial.isGood {
                low = rate
                finding.best = trial
            } else {
                high = rate
                above = trial.shortfall
            }
            rate = (low + high) / 2
        }
        finding.best?.shortfallAbove = above
        if finding.best == nil {
            finding.reason = "the goals are not kept even at \(rounded(high)) requests/s"
        }
    }

    /// The numbers within budget and inventory that the estimates like best.
    private func largest(_ design: Design) -> (numbers: (prefill: Int, decode: Int)?, rate: Double)
    {
        guard design.isSplit else {
            guard let numbers = complement(design, prefill: 0) else { return (nil, 0) }
            return (numbers, design.rate(prefill: 0, decode: numbers.decode, estimates))
        }
        var best: (numbers: (prefill: Int, decode: Int)?, rate: Double) = (nil, 0)
        var prefill = 1
        while let numbers = complement(design, prefill: prefill) {
            let rate = design.rate(prefill: prefill, decode: numbers.decode, estimates)
            if rate > best.rate { best = (numbers, rate) }
            prefill += 1
        }
        return best
    }

    /// With so many prefill machines: as many others as go; nil if none go.
    private func complement(_ design: Design, prefill: Int) -> (prefill: Int, decode: Int)? {
        guard !design.isSplit || prefill >= 1 else { return nil }
        func isAllowed(_ decode: Int) -> Bool {
            let fleet = design.fleet(prefill: prefill, decode: decode)
            return task.kinds.allow(fleet) && task.budget.allows(fleet, task.kinds)
        }
        guard isAllowed(1) else { return nil }
        var (low, high) = (1, 2)
        while isAllowed(high), high < 1 << 20 {
            low = high
            high *= 2
        }
        while high - low > 1 {
            let middle = (low + high) / 2
            if isAllowed(middle) { low = middle } else { high = middle }
        }
        return (prefill, low)
    }

    /// Whether prompts of usual length miss their limit on an idle machine.
    private func isLateAlone(_ kind: Int) -> Bool {
        task.kinds[kind].model.promptSeconds(
            Int(traffic.meanPrompt), chunk: task.iterationTokens) > goalSeconds.ttft
    }

    // MARK: An inventory

    /// The best uses of all machines of an inventory, kinds of machine mixed as it may be.
    package func assignments() -> [Finding] {
        let fleets = allAssignments().map { ($0, estimatedRate($0)) }.filter { $0.1 > 0 }
            .sorted { ($0.1, $1.0.machines) > ($1.1, $0.0.machines) }
        let split = fleets.filter { $0.0.isSplit }.prefix(Limits.simulatedAssignments)
        let together = fleets.filter { !$0.0.isSplit }.prefix(1)
        return (Array(split) + Array(together)).map { fleet, rate in
            var finding = Finding(design: nil, estimatedRate: rate, trials: 0)
            if goesOn() { bisect(fleet, rate, &finding) }
            return finding
        }
    }

    private func estimatedRate(_ fleet: Fleet) -> Double {
        func sum(_ part: [Int: Int], _ each: (CapacityEstimate) -> Double) -> Double {
            part.sorted { $0.key < $1.key }
                .reduce(0) { $0 + Double($1.value) * each(estimates[$1.key]) }
        }
        return min(sum(fleet.prefill, \.prefill), sum(fleet.decode, \.decode))
            + sum(fleet.mixed, \.mixed)
    }

    /// Every use of every machine; of large inventories none, for they have designs.
    private func allAssignments() -> [Fleet] {
        var fleets = [Fleet()]
        for (kind, machine) in task.kinds.enumerated() {
            guard let available = machine.available else { return [] }
            let uses = (0...available).flatMap { prefill in
                (0...(available - prefill)).map { (prefill, $0) }
            }
            guard fleets.count * uses.count <= Limits.assignments else { return [] }
            fleets = fleets.flatMap { fleet in
                uses.map { prefill, decode in
                    let mixed = available - prefill - decode
                    return Fleet(
                        prefill: fleet.prefill.merging([kind: prefill]) { $1 },
                        decode: fleet.decode.merging([kind: decode]) { $1 },
                        mixed: fleet.mixed.merging([kind: mixed]) { $1 })
                }
            }
        }
        return fleets.filter { $0.prefill.isEmpty || $0.decodeCount > 0 }
    }

    private func trial(_ fleet: Fleet, _ rate: Double, _ finding: inout Finding) -> PlanTrial? {
        finding.trials += 1
        let trial = task.trial(fleet, rate: rate, traffic: traffic, goesOn: goesOn)
        if trial == nil { finding.reason = "interrupted" }
        return trial
    }
}

/// A number with three digits, for people.
private func rounded(_ value: Double) -> Double {
    guard value > 0 else { return value }
    let unit = pow(10, (log10(value)).rounded(.down) - 2)
    return (value / unit).rounded() * unit
}
