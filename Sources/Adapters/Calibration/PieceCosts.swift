import DeviceProfile
import InferenceEngine

/// What pieces of a plan take, by those that were measured.
struct PieceCosts {
    /// Kernels of few tokens attend more slowly: what they take says little of larger runs.
    ///
    /// The last tokens behind a context are a run by themselves.
    private struct Runs: Hashable {
        /// Those of ggml for CPUs take so many tokens for many.
        private static let manyTokens = 64

        var context: Int
        var areShort: Bool

        init(_ context: Int, tokens: Int) {
            self.context = context
            let last = context == 0 ? 0 : BatchPlanner.Limits.defaultFinalRunTokens
            areShort = tokens < Self.manyTokens + last
        }
    }

    /// Tokens of the longest context.
    private let longest: Int
    /// Seconds per token and per sequence, by the context before it.
    private var perToken: [Runs: Double] = [:]
    private var perSequence: [Int: Double] = [:]
    /// Of one sequence; more of them take no less.
    private var perBatch = 0.0

    init(longest: Int) { self.longest = longest }

    mutating func learn(_ piece: CalibrationPlan.Piece, seconds: Double) {
        switch piece {
        case .prompt(let prompt):
            perToken[Runs(prompt.start, tokens: prompt.count)] =
                seconds / Double(max(prompt.count, 1))
        case .batch(let batch) where batch.prompt == 0:
            if batch.sequences == 1 { perBatch = seconds }
            perSequence[batch.context] = seconds / Double(batch.sequences)
        case .batch: break
        }
    }

    /// Seconds that a piece takes, about.
    func expected(_ piece: CalibrationPlan.Piece) -> Double {
        switch piece {
        case .prompt(let prompt):
            Double(prompt.count) * tokenSeconds(prompt.start, prompt.count)
        case .batch(let batch):
            max(perBatch, Double(batch.sequences) * sequenceSeconds(batch.context))
                + Double(batch.prompt) * tokenSeconds(0, batch.prompt)
        }
    }

    /// What is measured next has the least.
    ///
    /// Prompts and batches share the time. Whole prompts are what most requests bring, and how fast
    /// many tokens attend shows behind the longest context: these count for more than their time.
    ///
    /// - Parameter spent: seconds that each group has had.
    func order(
        _ piece: CalibrationPlan.Piece, _ spent: [CalibrationPlan.Piece.Group: Double]
    ) -> (Double, Double) {
        (spent[piece.group] ?? 0, expected(piece) / worth(piece))
    }

    private func worth(_ piece: CalibrationPlan.Piece) -> Double {
        guard case .prompt(let prompt) = piece else { return 1 }
        let isTelling = prompt.start == longest && !Runs(longest, tokens: prompt.count).areShort
        return prompt.start == 0 || isTelling ? 3 : 1
    }

    /// A context that is not known makes short runs as slow as the slowest, and long ones take
    /// twice as long as without any.
    private func tokenSeconds(_ context: Int, _ tokens: Int) -> Double {
        let runs = Runs(context, tokens: tokens)
        if let known = perToken[runs] { return known }
        guard !runs.areShort else { return perToken.values.max() ?? Self.unknown(context) }
        let whole = perToken[Runs(0, tokens: tokens)] ?? perToken[Runs(0, tokens: 0)]
        let factor = context == 0 ? 1 : Self.longContextFactor
        return whole.map { $0 * factor } ?? Self.unknown(context)
    }

    private static let longContextFactor = 2.0

    /// One that is not known is as slow as the slowest.
    private func sequenceSeconds(_ context: Int) -> Double {
        perSequence[context] ?? perSequence.values.max() ?? Self.unknown(context)
    }

    /// Nothing was measured: shorter contexts come first.
    private static func unknown(_ context: Int) -> Double { 1e-9 * Double(1 + context) }
}
