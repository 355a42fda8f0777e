package import DeviceProfile
import ServingSimulation

/// When a fleet serves well enough.
package enum PlanGoals: Sendable {
    /// Limits in seconds that so large a part of the requests has to keep, both at once.
    case limits(ttft: Double, tpot: Double, part: Double)
    /// The nine goals of Splitwise (arXiv 2311.18677, table VI) against the request alone on a
    /// reference machine: P50, P90 and P99 of TTFT, time per token and whole time.
    case slowdowns(reference: any PerformanceModel)

    static let slowdownLimits: [[Double]] = [[2, 3, 6], [1.25, 1.5, 5], [1.25, 1.5, 5]]
    private static let parts = [0.5, 0.9, 0.99]

    /// Why a fleet does not serve well; nil if it does.
    package enum Shortfall: Sendable, Hashable {
        /// First tokens come too late, or requests are refused.
        case prefill
        /// Further tokens come too slowly.
        case decode
    }

    /// Longest time to the first token that a gateway should let a request wait for.
    func ttftLimit(_ traffic: TrafficProfile) -> Double {
        switch self {
        case .limits(let ttft, _, _): ttft
        case .slowdowns(let reference):
            // Who is six times as slow as the longest prompt alone has missed every goal.
            6 * reference.promptSeconds(traffic.longestPrompt, chunk: traffic.iterationTokens)
        }
    }

    /// Time per token that a decode machine may take at most in the long run.
    func tpotLimit(_ traffic: TrafficProfile) -> Double {
        switch self {
        case .limits(_, let tpot, _): tpot
        case .slowdowns(let reference):
            1.25
                * reference.decodeSeconds(
                    sequences: 1, contextTokens: Int(traffic.meanContext.rounded()))
        }
    }

    /// Judges what became of the requests of a trial; `chunk` is the tokens of an iteration.
    func shortfall(_ outcomes: [RequestOutcome], chunk: Int) -> Shortfall? {
        guard !outcomes.isEmpty else { return .prefill }
        switch self {
        case .limits(let ttft, let tpot, let part):
            let late = outcomes.count { ($0.ttft ?? .infinity) > ttft }
            let slow = outcomes.count { outcome in
                guard (outcome.ttft ?? .infinity) <= ttft else { return false }
                return outcome.endToEnd == nil || (outcome.tpot ?? 0) > tpot
            }
            guard Double(late + slow) > (1 - part) * Double(outcomes.count) else { return nil }
            return late >= slow ? .prefill : .decode
        case .slowdowns(let reference):
            return slowdownShortfall(outcomes, reference, chunk: chunk)
        }
    }

    private func slowdownShortfall(
        _ outcomes: [RequestOutcome], _ reference: any PerformanceModel, chunk: Int
    ) -> Shortfall? {
        var slowdowns: [[Double]] = [[], [], []]
        for outcome in outcomes {
            let prefill = reference.promptSeconds(outcome.promptTokens, chunk: chunk)
            let step = reference.decodeSeconds(
                sequences: 1, contextTokens: outcome.promptTokens + outcome.outputTokens / 2)
            let alone = prefill + step * Double(outcome.outputTokens - 1)
            slowdowns[0].append((outcome.ttft ?? .infinity) / prefill)
            slowdowns[1].append(outcome.endToEnd == nil ? .infinity : (outcome.tpot ?? 0) / step)
            slowdowns[2].append((outcome.endToEnd ?? .infinity) / alone)
        }
        var worst = (excess: 1.0, kind: 0)
        for kind in slowdowns.indices {
            let sorted = slowdowns[kind].sorted()
            for (part, limit) in zip(Self.parts, Self.slowdownLimits[kind]) {
                let place = min(sorted.count - 1, Int(part * Double(sorted.count)))
                let excess = sorted[place] / limit
                if excess >= worst.excess { worst = (excess, kind + 1) }
            }
        }
        return worst.kind == 0 ? nil : worst.kind == 1 ? .prefill : .decode
    }
}
