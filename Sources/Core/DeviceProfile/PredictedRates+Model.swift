package import ServingTypes

extension PerformanceModel {
    /// What a worker tells about itself before it has served anything.
    ///
    /// - Parameters:
    ///   - prompt: tokens of a typical prompt, computed in iterations of at most `chunk`.
    ///   - sequences: as many as it decodes at once.
    package func rates(
        isMeasured: Bool, prompt: Int, chunk: Int, sequences: Int
    ) -> PredictedRates {
        let (prompt, most) = (max(prompt, 1), max(sequences, 2))
        let alone = decodeSeconds(sequences: 1, contextTokens: prompt)
        let together = decodeSeconds(sequences: most, contextTokens: prompt)
        let longer = decodeSeconds(sequences: most, contextTokens: prompt * most)
        let perSequence = max(0, together - alone) / Double(most - 1)
        let perToken = max(0, longer - together) / Double(prompt * (most - 1))
        let fixed = max(0, alone - perSequence - perToken * Double(prompt))
        let seconds = promptSeconds(prompt, chunk: chunk)
        return PredictedRates(
            isMeasured: isMeasured,
            prefillTokensPerSecond: seconds > 0 ? Double(prompt) / seconds : 0,
            stepMilliseconds: fixed * 1000, stepMillisecondsPerSequence: perSequence * 1000,
            stepMillisecondsPerThousandTokens: perToken * 1_000_000,
            kvExportBytesPerSecond: kvExportBytesPerSecond,
            kvImportBytesPerSecond: kvImportBytesPerSecond)
    }
}
