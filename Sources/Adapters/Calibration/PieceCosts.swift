import DeviceProfile

/// What pieces of a plan take, by those that were measured.
struct PieceCosts {
    /// Seconds per token and per sequence, by the context before it.
    private var perToken: [Int: Double] = [:]
    private var perSequence: [Int: Double] = [:]
    /// Of one sequence; more of them take no less.
    private var perBatch = 0.0

    mutating func learn(_ piece: CalibrationPlan.Piece, seconds: Double) {
        switch piece {
        case .prompt(let prompt):
            perToken[prompt.start] = seconds / Double(max(prompt.count, 1))
        case .batch(let batch) where batch.prompt == 0:
            if batch.sequences == 1 { perBatch = seconds }
            perSequence[batch.context] = seconds / Double(batch.sequences)
        case .batch: break
        }
    }

    /// Seconds that a piece takes, about; contexts that are not known are as slow as the slowest.
    func expected(_ piece: CalibrationPlan.Piece) -> Double {
        switch piece {
        case .prompt(let prompt):
            Double(prompt.count) * known(perToken, prompt.start)
        case .batch(let batch):
            max(perBatch, Double(batch.sequences) * known(perSequence, batch.context))
                + Double(batch.prompt) * known(perToken, 0)
        }
    }

    /// What is measured next has the least.
    ///
    /// Prompts and batches share the time. Whole prompts are what most requests bring, so they
    /// count for more than their time.
    ///
    /// - Parameter spent: seconds that each group has had.
    func order(
        _ piece: CalibrationPlan.Piece, _ spent: [CalibrationPlan.Piece.Group: Double]
    ) -> (Double, Double) {
        let seconds = expected(piece)
        if case .prompt(let prompt) = piece, prompt.start == 0 {
            return (spent[piece.group] ?? 0, seconds / Self.wholePromptWorth)
        }
        return (spent[piece.group] ?? 0, seconds)
    }

    private static let wholePromptWorth = 3.0

    private func known(_ rates: [Int: Double], _ context: Int) -> Double {
        rates[context] ?? rates.values.max() ?? 1e-9 * Double(1 + context)
    }
}
