/// What was measured of one engine: seconds of single iterations.
package struct MeasuredPoints: Hashable, Sendable, Codable {
    /// An iteration: prompt runs, and sequences that got a token each.
    package struct Point: Hashable, Sendable, Codable {
        /// First position and token count of each run.
        package var runs: [Run]
        package var sequences: Int
        /// Tokens of KV of all the sequences.
        package var contextTokens: Int
        package var seconds: Double

        package init(
            runs: [Range<Int>] = [], sequences: Int = 0, contextTokens: Int = 0, seconds: Double
        ) {
            self.runs = runs.map { Run(start: $0.lowerBound, count: $0.count) }
            self.sequences = sequences
            self.contextTokens = contextTokens
            self.seconds = seconds
        }

        package var ranges: [Range<Int>] { runs.map { $0.start..<($0.start + $0.count) } }
        /// Of its prompt runs.
        package var tokens: Int { runs.reduce(0) { $0 + $1.count } }
        package var isPrefill: Bool { !runs.isEmpty && sequences == 0 }
        package var isDecode: Bool { runs.isEmpty && sequences > 0 }
    }

    package struct Run: Hashable, Sendable, Codable {
        package var start: Int
        package var count: Int
    }

    package var points: [Point]

    package init(_ points: [Point] = []) { self.points = points }

    package var prefill: [Point] { points.filter(\.isPrefill) }
    package var decode: [Point] { points.filter(\.isDecode) }
    package var mixed: [Point] { points.filter { !$0.isPrefill && !$0.isDecode } }

    /// The mean of what was measured here and, of the same iterations, at another time; what was
    /// measured only once stays as it is.
    package func mean(with others: MeasuredPoints?) -> MeasuredPoints {
        var left = others?.points ?? []
        let both = points.map { point in
            guard let index = left.firstIndex(where: point.isLike) else { return point }
            var mean = point
            mean.seconds = (point.seconds + left.remove(at: index).seconds) / 2
            return mean
        }
        return MeasuredPoints(both + left)
    }
}

extension MeasuredPoints.Point {
    /// Part by which contexts may differ: those of a batch grow by a token with each step.
    private static let growth = 0.05

    fileprivate func isLike(_ other: Self) -> Bool {
        let difference = Double(abs(contextTokens - other.contextTokens))
        return runs == other.runs && sequences == other.sequences
            && difference <= Self.growth * Double(contextTokens)
    }
}

/// How far a model is from what was measured.
package struct FitError: Hashable, Sendable, Codable {
    /// Relative: 0.1 is a tenth of the measured value.
    package var median: Double
    package var p90: Double
    package var points: Int

    package init(median: Double, p90: Double, points: Int) {
        self.median = median
        self.p90 = p90
        self.points = points
    }

    /// Compares a model with measured points; nil without points.
    package init?(of model: some PerformanceModel, at points: [MeasuredPoints.Point]) {
        let errors = points.filter { $0.seconds > 0 }.map { point in
            let predicted = model.mixedSeconds(
                point.ranges, sequences: point.sequences, contextTokens: point.contextTokens)
            return abs(predicted / point.seconds - 1)
        }.sorted()
        guard !errors.isEmpty else { return nil }
        func quantile(_ share: Double) -> Double {
            errors[min(errors.count - 1, Int((Double(errors.count) * share).rounded(.down)))]
        }
        self.init(median: quantile(0.5), p90: quantile(0.9), points: errors.count)
    }
}
