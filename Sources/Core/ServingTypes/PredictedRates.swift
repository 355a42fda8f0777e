/// How fast a worker will be, known before it has served anything.
package struct PredictedRates: Hashable, Sendable, Codable {
    /// Measured when the worker started or earlier; otherwise computed from data sheets, or for
    /// more sequences or longer prompts than twice what was measured.
    package var isMeasured: Bool
    /// Of a prompt of typical length.
    package var prefillTokensPerSecond: Double
    /// Parts of a decode step: always, for each sequence, for each 1000 tokens of their KV.
    package var stepMilliseconds: Double
    package var stepMillisecondsPerSequence: Double
    package var stepMillisecondsPerThousandTokens: Double
    /// The engine's rates of writing KV out and taking it in.
    package var kvExportBytesPerSecond: Double
    package var kvImportBytesPerSecond: Double

    package init(
        isMeasured: Bool, prefillTokensPerSecond: Double, stepMilliseconds: Double,
        stepMillisecondsPerSequence: Double, stepMillisecondsPerThousandTokens: Double,
        kvExportBytesPerSecond: Double, kvImportBytesPerSecond: Double
    ) {
        self.isMeasured = isMeasured
        self.prefillTokensPerSecond = prefillTokensPerSecond
        self.stepMilliseconds = stepMilliseconds
        self.stepMillisecondsPerSequence = stepMillisecondsPerSequence
        self.stepMillisecondsPerThousandTokens = stepMillisecondsPerThousandTokens
        self.kvExportBytesPerSecond = kvExportBytesPerSecond
        self.kvImportBytesPerSecond = kvImportBytesPerSecond
    }

    /// Milliseconds of an iteration in which so many sequences decode, which together have
    /// `contextTokens` tokens of KV.
    package func decodeStepMilliseconds(sequences: Double, contextTokens: Double) -> Double {
        stepMilliseconds + stepMillisecondsPerSequence * sequences
            + stepMillisecondsPerThousandTokens * contextTokens / 1000
    }
}
