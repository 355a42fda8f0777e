package import DeviceProfile
package import RequestTraces

/// What a plan has to know of its requests before it simulates them.
package struct TrafficProfile: Sendable, Hashable {
    package var meanPrompt: Double
    package var meanOutput: Double
    package var longestPrompt: Int
    /// Tokens of KV of a sequence in the middle of its answer, on average over its steps.
    package var meanContext: Double
    /// Longest sequence with its answer.
    package var longestSequence: Int
    package var longestOutput: Int
    package var iterationTokens: Int
    /// Prompt lengths in order, for times that are not proportional to them; not more than needed.
    private var prompts: [Int]

    private static let sampledPrompts = 512

    package init(_ trace: RequestTrace, iterationTokens: Int) {
        let entries = trace.entries
        let count = Double(max(1, entries.count))
        self.iterationTokens = iterationTokens
        meanPrompt = entries.reduce(0) { $0 + Double($1.promptTokens) } / count
        meanOutput = entries.reduce(0) { $0 + Double($1.outputTokens) } / count
        longestPrompt = entries.map(\.promptTokens).max() ?? 1
        longestSequence = entries.map { $0.promptTokens + $0.outputTokens }.max() ?? 1
        longestOutput = entries.map(\.outputTokens).max() ?? 1
        // Long answers have more steps, and so more weight.
        let steps = max(1, entries.reduce(0) { $0 + Double($1.outputTokens) })
        meanContext =
            entries.reduce(0) {
                $0 + Double($1.outputTokens)
                    * (Double($1.promptTokens) + Double($1.outputTokens) / 2)
            } / steps
        let sorted = entries.map(\.promptTokens).sorted()
        let wanted = min(sorted.count, Self.sampledPrompts)
        prompts = (0..<wanted).map { sorted[(2 * $0 + 1) * sorted.count / (2 * wanted)] }
    }

    /// Seconds of one prompt on average, alone on the machine.
    package func promptSeconds(_ model: any PerformanceModel) -> Double {
        guard !prompts.isEmpty else { return 0 }
        return prompts.reduce(0) {
            $0 + model.promptSeconds($1, chunk: iterationTokens)
        } / Double(prompts.count)
    }
}
