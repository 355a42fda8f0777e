/// Predicts how long a worker's iterations and transfers take.
package protocol PerformanceModel: Sendable {
    /// Seconds of one iteration that computes prompts only: the token positions of each run.
    ///
    /// `0..<512` is a prompt's beginning, `512..<1024` its next chunk.
    func prefillSeconds(_ runs: [Range<Int>]) -> Double
    /// Seconds of one iteration that gives each of `sequences` its next token; together they have
    /// `contextTokens` tokens of KV.
    func decodeSeconds(sequences: Int, contextTokens: Int) -> Double
    /// Seconds of one iteration that does both.
    func mixedSeconds(_ runs: [Range<Int>], sequences: Int, contextTokens: Int) -> Double

    var kvBytesPerToken: Int { get }
    /// Tokens of KV that fit beside the weights.
    var kvCapacityTokens: Int { get }
    var kvExportBytesPerSecond: Double { get }
    var kvImportBytesPerSecond: Double { get }
    var linkBytesPerSecond: Double { get }
}

extension PerformanceModel {
    /// Seconds for one prompt alone, in iterations of at most `chunk` tokens.
    package func promptSeconds(_ tokens: Int, chunk: Int) -> Double {
        stride(from: 0, to: tokens, by: max(chunk, 1)).reduce(0) {
            $0 + prefillSeconds([$1..<min(tokens, $1 + max(chunk, 1))])
        }
    }
}

extension Range<Int> {
    /// Sum over its tokens of how many tokens each attends to, itself included.
    package var attendedTokens: Double {
        Double(count) * Double(lowerBound + upperBound + 1) / 2
    }
}
