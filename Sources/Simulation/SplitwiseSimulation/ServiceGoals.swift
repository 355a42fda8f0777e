/// The nine goals of Splitwise's Table VI: limits of slowdowns, each strictly kept.
///
/// A slowdown is a time divided by that of the same request alone on a reference machine.
package struct ServiceGoals: Sendable, Hashable {
    package var ttft: Percentiles
    package var tbt: Percentiles
    package var e2e: Percentiles

    package init(ttft: Percentiles, tbt: Percentiles, e2e: Percentiles) {
        self.ttft = ttft
        self.tbt = tbt
        self.e2e = e2e
    }

    package static let splitwise = ServiceGoals(
        ttft: Percentiles(p50: 2, p90: 3, p99: 6), tbt: Percentiles(p50: 1.25, p90: 1.5, p99: 5),
        e2e: Percentiles(p50: 1.25, p90: 1.5, p99: 5))
}

/// Percentiles of a run, and whether it kept the goals.
package struct ServiceFigures: Sendable, Hashable, Codable {
    package var requests: Int
    /// Slowdowns against the reference machine.
    package var ttftSlowdown: Percentiles
    package var tbtSlowdown: Percentiles
    package var e2eSlowdown: Percentiles
    package var ttftSeconds: Percentiles
    package var tbtSeconds: Percentiles
    package var e2eSeconds: Percentiles

    package func meets(_ goals: ServiceGoals) -> Bool {
        ttftSlowdown.isBelow(goals.ttft) && tbtSlowdown.isBelow(goals.tbt)
            && e2eSlowdown.isBelow(goals.e2e)
    }
}

/// Takes outcomes and judges them against goals.
package struct ServiceJudge: Sendable {
    private static let knownLengths = 8192

    private let reference: PhaseCurves
    private var known: [(prefill: Double, step: Double)] = []
    private let goals: ServiceGoals
    /// How many slowdowns of each kind may be at each limit or above, of all expected requests.
    private let spared: [Int]
    /// How many have been.
    private var exceeded = Array(repeating: 0, count: 9)
    private var slowdowns: [PercentileRecorder]
    private var seconds: [PercentileRecorder]

    /// Whether goals can't be met any more, whatever comes.
    package private(set) var isLost = false

    /// `expected` is the number of requests of the whole run; without it, nothing is ever lost.
    package init(
        reference: PhaseCurves, goals: ServiceGoals = .splitwise, expected: Int? = nil,
        exactValues: Int = 1_000_000
    ) {
        self.reference = reference
        self.goals = goals
        spared = [0.5, 0.9, 0.99].map { share in
            guard let expected, expected > 0 else { return .max }
            return expected - 1 - Int(share * Double(expected - 1))
        }
        slowdowns = Array(repeating: PercentileRecorder(exactValues: exactValues), count: 3)
        seconds = slowdowns
    }

    package mutating func record(_ outcome: RequestOutcome) {
        let (prefill, step) = timesAlone(promptTokens: Int(outcome.promptTokens))
        let alone = prefill + step * (Double(outcome.outputTokens) - 1)
        let tbt = outcome.tbtSeconds
        record(0, seconds: outcome.ttftSeconds, alone: prefill, limits: goals.ttft)
        record(1, seconds: tbt, alone: step, limits: goals.tbt)
        record(2, seconds: outcome.e2eSeconds, alone: alone, limits: goals.e2e)
    }

    private mutating func record(
        _ kind: Int, seconds time: Double, alone: Double, limits: Percentiles
    ) {
        let slowdown = time / alone
        seconds[kind].record(time)
        slowdowns[kind].record(slowdown)
        if slowdown >= limits.p50 { exceed(3 * kind, 0) }
        if slowdown >= limits.p90 { exceed(3 * kind, 1) }
        if slowdown >= limits.p99 { exceed(3 * kind, 2) }
    }

    private mutating func exceed(_ first: Int, _ percentile: Int) {
        exceeded[first + percentile] += 1
        if exceeded[first + percentile] > spared[percentile] { isLost = true }
    }

    /// Prefill and decode step of a request alone; looked up once per length.
    private mutating func timesAlone(promptTokens: Int) -> (prefill: Double, step: Double) {
        guard promptTokens < Self.knownLengths else {
            return (reference.prefill(Double(promptTokens)), reference.decode(Double(promptTokens)))
        }
        if known.isEmpty { known = Array(repeating: (0, 0), count: Self.knownLengths) }
        if known[promptTokens].prefill == 0 {
            known[promptTokens] = (
                reference.prefill(Double(promptTokens)), reference.decode(Double(promptTokens))
            )
        }
        return known[promptTokens]
    }

    package var figures: ServiceFigures {
        ServiceFigures(
            requests: slowdowns[0].count, ttftSlowdown: Percentiles(slowdowns[0]),
            tbtSlowdown: Percentiles(slowdowns[1]), e2eSlowdown: Percentiles(slowdowns[2]),
            ttftSeconds: Percentiles(seconds[0]), tbtSeconds: Percentiles(seconds[1]),
            e2eSeconds: Percentiles(seconds[2]))
    }

    package var meetsGoals: Bool { !isLost && figures.meets(goals) }
}
