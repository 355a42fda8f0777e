/// How many prompt tokens an iteration takes beside decoding sequences.
///
/// An iteration is taken to last as long as its decoding sequences need, plus a time for each
/// prompt token. Both times are running estimates. A mixed iteration corrects both by the same
/// factor, so that the forecast becomes right for iterations like the last ones.
package struct StepBudget: Sendable, Hashable {
    /// Prompt tokens that an iteration takes at least, however long it lasts: prompts never stand
    /// still.
    package static let fewestTokens = 8
    /// How much of a deviation is taken over.
    private static let weight = 0.25
    /// Largest deviation that is taken over; beyond it something else held the thread up.
    private static let largestFactor = 4.0

    /// How long an iteration may last while sequences decode; nil is no limit.
    package var limit: Duration?
    /// Time of the decoding sequences of an iteration; nil until there was one.
    package private(set) var decodeSeconds: Double?
    /// Time of one prompt token; nil until there was one.
    package private(set) var promptTokenSeconds: Double?

    package init() {}

    /// Prompt tokens for an iteration in which sequences decode, at most `most`.
    package func promptTokens(atMost most: Int) -> Int {
        guard let limit else { return most }
        let least = min(Self.fewestTokens, most)
        guard let decodeSeconds, let promptTokenSeconds else { return least }
        let left = limit.seconds - decodeSeconds
        guard left > 0 else { return least }
        let tokens = left / promptTokenSeconds
        return tokens < Double(most) ? max(least, Int(tokens)) : most
    }

    /// Takes in how long an iteration lasted.
    package mutating func measured(
        _ duration: Duration, decodingSequences: Int, promptTokens: Int
    ) {
        let seconds = duration.seconds
        guard seconds > 0 else { return }
        let tokens = Double(promptTokens)
        switch (decodingSequences > 0, promptTokens > 0) {
        case (true, false): decodeSeconds = corrected(decodeSeconds, by: seconds)
        case (false, true):
            // Large runs cost less per token than small ones: a first estimate only.
            promptTokenSeconds = promptTokenSeconds ?? seconds / tokens
        case (true, true):
            guard let decode = decodeSeconds else {
                let prompt = promptTokenSeconds.map { min($0 * tokens, seconds / 2) }
                decodeSeconds = seconds - (prompt ?? seconds / 2)
                promptTokenSeconds = promptTokenSeconds ?? seconds / 2 / tokens
                return
            }
            guard let prompt = promptTokenSeconds else {
                promptTokenSeconds = max(seconds - decode, seconds / 8) / tokens
                return
            }
            let factor = Self.factor(seconds / (decode + prompt * tokens))
            decodeSeconds = decode * factor
            promptTokenSeconds = prompt * factor
        case (false, false): break
        }
    }

    private func corrected(_ estimate: Double?, by seconds: Double) -> Double {
        guard let estimate else { return seconds }
        return estimate * Self.factor(seconds / estimate)
    }

    private static func factor(_ ratio: Double) -> Double {
        1 + weight * (min(max(ratio, 1 / largestFactor), largestFactor) - 1)
    }
}

extension Duration {
    fileprivate var seconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
