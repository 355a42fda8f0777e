import Calibration
import DeviceProfile
import InferenceEngine
import Measurement
import ServingSimulation

/// What a cluster's requests cost beyond what its workers measured of their engines.
struct FidelityCosts: Sendable {
    var network = NetworkPlan()
    var contention = HostContention()
    /// Times as long as measured: workers keep the fastest of some runs, requests have the usual.
    var prefillFactor = 1.0
    var decodeFactor = 1.0

    /// Half of these and half of others.
    func mean(with other: FidelityCosts) -> FidelityCosts {
        var mean = self
        func half(_ figure: WritableKeyPath<FidelityCosts, Double>) {
            mean[keyPath: figure] = (self[keyPath: figure] + other[keyPath: figure]) / 2
        }
        half(\.network.gatewaySeconds)
        half(\.network.handOverSeconds)
        half(\.contention.prefill)
        half(\.contention.decode)
        half(\.prefillFactor)
        half(\.decodeFactor)
        return mean
    }
}

/// A worker's curves, as slow as requests find them.
struct ScaledModel: PerformanceModel {
    let base: MeasuredCurves
    let costs: FidelityCosts

    func prefillSeconds(_ runs: [Range<Int>]) -> Double {
        base.prefillSeconds(runs) * costs.prefillFactor
    }

    func decodeSeconds(sequences: Int, contextTokens: Int) -> Double {
        base.decodeSeconds(sequences: sequences, contextTokens: contextTokens)
            * costs.decodeFactor
    }

    func mixedSeconds(_ runs: [Range<Int>], sequences: Int, contextTokens: Int) -> Double {
        base.mixedSeconds(runs, sequences: sequences, contextTokens: contextTokens)
            * costs.prefillFactor
    }

    var kvBytesPerToken: Int { base.kvBytesPerToken }
    var kvCapacityTokens: Int { base.kvCapacityTokens }
    var kvExportBytesPerSecond: Double { base.kvExportBytesPerSecond }
    var kvImportBytesPerSecond: Double { base.kvImportBytesPerSecond }
    var linkBytesPerSecond: Double { base.linkBytesPerSecond }
}

/// Asks an idle cluster some requests, one by one and beside running answers.
struct FidelityProbe: Sendable {
    /// Times each length is asked; the first warms up.
    private static let repeats = 4
    /// Tokens of their answers: as many as take about so long, for the first steps of an answer are
    /// slower than later ones.
    private static let stepSeconds = 0.1
    private static let newTokens = 17...65
    /// Tokens of the answers that run beside, and how many do.
    private static let longAnswer = 400
    /// About as long as one of them would take alone at most.
    private static let answerSeconds = 8.0
    private static let answersAtOnce = 3

    let load: OpenLoad
    let kept: ProfileStore.Kept
    let longest: Int
    /// Before each request that is asked alone, as in a load: a machine that just computed answers
    /// sooner than one that was idle.
    let pause: Duration

    private var lengths: [Int] {
        [32, 96, 256, 512, 1024].filter { $0 + newTokens <= longest }
    }

    private var newTokens: Int {
        let step = kept.curves.decodeSeconds(sequences: 1, contextTokens: 32)
        let fitting = min(Self.stepSeconds / max(step, 1e-6), Double(Self.newTokens.upperBound))
        return max(Self.newTokens.lowerBound, Int(fitting))
    }

    func measure() async throws -> FidelityCosts {
        var costs = FidelityCosts()
        costs.network.messageSeconds = 0
        var points: [(alone: Double, ttft: Double)] = []
        var steps: [Double] = []
        var gaps: [(tokens: Int, seconds: Double)] = []
        var quiet: [Int: Double] = [:]
        for tokens in lengths {
            var answers: [OpenLoad.Answer] = []
            for _ in 0..<Self.repeats {
                try await Task.sleep(for: pause)
                answers.append(try await ask(tokens, newTokens))
            }
            answers.removeFirst()
            let ttft = median(answers.map(\.ttft))
            quiet[tokens] = ttft
            points.append((promptSeconds(tokens), ttft))
            steps += answers.compactMap { step($0) }.map { $0 / alone(tokens) }
            gaps += answers.compactMap { answer in
                answer.second.map { (tokens, $0 - answer.ttft) }
            }
        }
        (costs.network.gatewaySeconds, costs.prefillFactor) = line(points)
        costs.decodeFactor = max(0.1, median(steps))
        costs.network.handOverSeconds = max(
            0,
            median(
                gaps.map { gap in
                    gap.seconds - alone(gap.tokens) * costs.decodeFactor - copies(gap.tokens)
                }))
        try await measureContention(quiet, &costs)
        return costs
    }

    /// Prompts beside running answers, and the answers beside prompts.
    ///
    /// Some answers at once, as under a load: one alone mostly waits for memory and leaves a
    /// processor that two workers share to the prompts.
    private func measureContention(
        _ quiet: [Int: Double], _ costs: inout FidelityCosts
    ) async throws {
        let tokens = lengths.last ?? 32
        let before = try await answers()
        async let running = answers()
        var ratios: [Double] = []
        let longest = before.map(\.endToEnd).min() ?? 0
        let last = ContinuousClock.now + .seconds(longest * 0.8)
        while ContinuousClock.now < last {
            let ttft = try await ask(tokens, 1).ttft
            guard let usual = quiet[tokens] else { continue }
            let gateway = costs.network.gatewaySeconds
            ratios.append((ttft - gateway) / max(usual - gateway, 1e-6))
        }
        let beside = try await running
        costs.contention.prefill = max(1, median(ratios))
        let (slow, fast) = (median(beside.compactMap(step)), median(before.compactMap(step)))
        if fast > 0 { costs.contention.decode = max(1, slow / fast) }
    }

    /// Some long answers at once.
    private func answers() async throws -> [OpenLoad.Answer] {
        let inTime = Int(Self.answerSeconds / max(alone(32), 1e-6))
        let tokens = min(Self.longAnswer, longest - 32, max(inTime, Self.newTokens.lowerBound))
        return try await withThrowingTaskGroup(of: OpenLoad.Answer.self) { group in
            for _ in 0..<Self.answersAtOnce { group.addTask { try await ask(32, tokens) } }
            var answers: [OpenLoad.Answer] = []
            for try await answer in group { answers.append(answer) }
            return answers
        }
    }

    private func ask(_ tokens: Int, _ newTokens: Int) async throws -> OpenLoad.Answer {
        try await load.ask(
            OpenLoad.Request(seconds: 0, promptTokens: tokens, newTokens: newTokens))
    }

    // MARK: What the curves say

    /// Seconds of a prompt as workers compute it: long ones end with a short run.
    private func promptSeconds(_ tokens: Int) -> Double {
        let chunk = kept.key.microBatchTokens
        let last = BatchPlanner.Limits.defaultFinalRunTokens
        guard tokens > chunk else { return kept.curves.promptSeconds(tokens, chunk: chunk) }
        return kept.curves.promptSeconds(tokens - last, chunk: chunk)
            + kept.curves.prefillSeconds([(tokens - last)..<tokens])
    }

    /// Seconds of one sequence's step in the middle of its answer.
    private func alone(_ tokens: Int) -> Double {
        kept.curves.decodeSeconds(sequences: 1, contextTokens: tokens + newTokens / 2)
    }

    /// Seconds in which KV is copied after the first token.
    private func copies(_ tokens: Int) -> Double {
        let curves = kept.curves
        let last = min(BatchPlanner.Limits.defaultFinalRunTokens, tokens)
        return Double(last * curves.kvBytesPerToken) / curves.kvExportBytesPerSecond
            + Double(tokens * curves.kvBytesPerToken) / curves.kvImportBytesPerSecond
    }

    /// Seconds per token after the second.
    private func step(_ answer: OpenLoad.Answer) -> Double? {
        guard let second = answer.second, answer.request.newTokens > 2 else { return nil }
        return (answer.endToEnd - second) / Double(answer.request.newTokens - 2)
    }

    private func median(_ values: [Double]) -> Double {
        values.isEmpty ? 0 : values.sorted()[values.count / 2]
    }

    /// Start and slope of the line through the points, the start not negative; relative errors
    /// count, so that short prompts do.
    private func line(_ points: [(alone: Double, ttft: Double)]) -> (Double, Double) {
        var (s, x, y, xx, xy) = (0.0, 0.0, 0.0, 0.0, 0.0)
        for point in points {
            let weight = 1 / max(point.ttft * point.ttft, 1e-12)
            s += weight
            x += weight * point.alone
            y += weight * point.ttft
            xx += weight * point.alone * point.alone
            xy += weight * point.alone * point.ttft
        }
        let slope = (s * xy - x * y) / max(s * xx - x * x, 1e-30)
        let start = (y - slope * x) / max(s, 1e-30)
        guard start >= 0, slope > 0 else { return (0, xy / max(xx, 1e-30)) }
        return (start, slope)
    }
}
