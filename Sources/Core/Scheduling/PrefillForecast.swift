/// When a prompt's first token will come, by measured rates and by how wrong that was lately.
///
/// A rate knows nothing of what other gateways placed, or of what an iteration costs besides its
/// tokens; so what came true is compared with what the rate said, and the forecast is stretched
/// until nine of ten prompts keep it.
package struct PrefillForecast: Sendable, Hashable {
    /// Part of the prompts that are to come no later than expected.
    private static let keptPart = 0.9
    /// What one prompt changes at most.
    private static let step = 0.05
    /// Range of the stretch; one slow worker must not make all others look hopeless.
    private static let leastStretch = 1.0
    private static let greatestStretch = 4.0

    /// Times what the rate alone says.
    package private(set) var stretch = 1.0

    package init() {}

    /// Seconds by the rate alone; nil while no rate was measured.
    package static func seconds(tokens: Int, tokensPerSecond: Double) -> Double? {
        tokensPerSecond > 0 ? Double(max(1, tokens)) / tokensPerSecond : nil
    }

    /// A first token came so many seconds after its offer; the rate alone had said `expected`.
    package mutating func learn(expected: Double, taken: Double) {
        // Steps up and down balance where the wanted part comes in time.
        let isKept = taken <= expected * stretch
        stretch += Self.step * (isKept ? Self.keptPart - 1 : Self.keptPart)
        stretch = min(max(stretch, Self.leastStretch), Self.greatestStretch)
    }
}
