/// What became of one simulated request; times in seconds.
package struct RequestOutcome: Sendable, Hashable {
    package var promptTokens: Int
    package var outputTokens: Int
    package var arrival: Double
    /// From arrival to the first token; nil if none came in time.
    package var ttft: Double?
    /// From arrival to the last token; nil if it failed.
    package var endToEnd: Double?
    /// Times it began again because a worker was lost.
    package var restarts = 0

    /// Time per token after the first.
    package var tpot: Double? {
        guard let ttft, let endToEnd, outputTokens > 1 else { return nil }
        return (endToEnd - ttft) / Double(outputTokens - 1)
    }
}

/// Figures of one simulated run.
package struct ServingFigures: Sendable, Hashable {
    package var requests: Int
    /// Part of the requests whose first token came within its limit and that were answered whole.
    package var success: Double
    /// Requests per second that were answered within both limits.
    package var goodput: Double
    package var ttft: Percentiles
    package var tpot: Percentiles
    package var endToEnd: Percentiles

    package struct Percentiles: Sendable, Hashable {
        package var p50: Double
        package var p90: Double
        package var p99: Double

        /// Of values in any order; all 0 if there are none.
        package init(_ values: [Double]) {
            let sorted = values.sorted()
            func at(_ part: Double) -> Double {
                sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, Int(part * Double(sorted.count)))]
            }
            p50 = at(0.5)
            p90 = at(0.9)
            p99 = at(0.99)
        }
    }

    /// - Parameters:
    ///   - outcomes: of the measured time.
    ///   - seconds: how long that was.
    package init(
        _ outcomes: [RequestOutcome], seconds: Double, ttftLimit: Double, tpotLimit: Double
    ) {
        requests = outcomes.count
        let answered = outcomes.filter { $0.endToEnd != nil && ($0.ttft ?? .infinity) <= ttftLimit }
        let good = answered.filter { ($0.tpot ?? 0) <= tpotLimit }
        success = outcomes.isEmpty ? 1 : Double(answered.count) / Double(outcomes.count)
        goodput = Double(good.count) / seconds
        ttft = Percentiles(outcomes.compactMap(\.ttft))
        tpot = Percentiles(outcomes.compactMap(\.tpot))
        endToEnd = Percentiles(outcomes.compactMap(\.endToEnd))
    }
}
