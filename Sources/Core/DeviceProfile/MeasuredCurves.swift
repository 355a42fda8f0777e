/// Times of one engine, fitted to what was measured of it.
///
/// An iteration over prompts takes `fixed + perToken · tokens + perAttended · pairs`, pairs of a
/// token and one that it attends to; iterations of few tokens may attend more slowly. A decode step
/// takes `fixed + perSequence · sequences + perOdd · odd sequences + perContext · context tokens +
/// perCrossing · sequences · context tokens`. Odd sequences are those beyond a multiple of four:
/// kernels that take rows in fours do others one by one. And where all sequences share one cache,
/// each passes over the others' tokens. An iteration of both takes the parts together, the larger
/// of the fixed times once, and what the prompts' tokens take to pass over the other sequences'.
package struct MeasuredCurves: PerformanceModel, Hashable, Sendable, Codable {
    package struct Prefill: Hashable, Sendable, Codable {
        package var fixed: Double
        package var perToken: Double
        package var perAttended: Double
        /// Takes the place of `perAttended` in iterations of fewer than `smallTokens` tokens.
        package var perAttendedSmall: Double
        package var smallTokens: Int

        package init(
            fixed: Double, perToken: Double, perAttended: Double, perAttendedSmall: Double? = nil,
            smallTokens: Int = 0
        ) {
            self.fixed = fixed
            self.perToken = perToken
            self.perAttended = perAttended
            self.perAttendedSmall = perAttendedSmall ?? perAttended
            self.smallTokens = smallTokens
        }
    }

    package struct Decode: Hashable, Sendable, Codable {
        package var fixed: Double
        package var perSequence: Double
        package var perContext: Double
        package var perCrossing: Double
        package var perOdd: Double

        package init(
            fixed: Double, perSequence: Double, perContext: Double, perCrossing: Double = 0,
            perOdd: Double = 0
        ) {
            self.fixed = fixed
            self.perSequence = perSequence
            self.perContext = perContext
            self.perCrossing = perCrossing
            self.perOdd = perOdd
        }

        /// Sequences that kernels take together.
        static let together = 4
    }

    package var prefill: Prefill
    package var decode: Decode
    /// Factor of iterations that do both.
    package var mixedFactor: Double
    /// Seconds per pair of a prompt's token and one of another sequence's KV.
    package var mixedPerCrossing = 0.0
    package var kvBytesPerToken: Int
    package var kvCapacityTokens: Int
    package var kvExportBytesPerSecond: Double
    package var kvImportBytesPerSecond: Double
    package var linkBytesPerSecond: Double
    /// What it was fitted to.
    package var measured: MeasuredPoints

    package init(
        prefill: Prefill, decode: Decode, mixedFactor: Double = 1, kvBytesPerToken: Int,
        kvCapacityTokens: Int, kvExportBytesPerSecond: Double, kvImportBytesPerSecond: Double,
        linkBytesPerSecond: Double, measured: MeasuredPoints = MeasuredPoints()
    ) {
        self.prefill = prefill
        self.decode = decode
        self.mixedFactor = mixedFactor
        self.kvBytesPerToken = kvBytesPerToken
        self.kvCapacityTokens = kvCapacityTokens
        self.kvExportBytesPerSecond = kvExportBytesPerSecond
        self.kvImportBytesPerSecond = kvImportBytesPerSecond
        self.linkBytesPerSecond = linkBytesPerSecond
        self.measured = measured
    }

    /// Fits the factors to measured points; nil without a prefill point and a decode point.
    package init?(
        fitting measured: MeasuredPoints, kvBytesPerToken: Int, kvCapacityTokens: Int,
        kvExportBytesPerSecond: Double, kvImportBytesPerSecond: Double, linkBytesPerSecond: Double
    ) {
        let usable = MeasuredPoints(
            measured.points.filter { $0.seconds > 0 && $0.seconds.isFinite })
        guard !usable.prefill.isEmpty, !usable.decode.isEmpty else { return nil }
        guard let prefill = Self.prefill(usable.prefill), let decode = Self.decode(usable.decode)
        else { return nil }
        self.init(
            prefill: prefill, decode: decode, kvBytesPerToken: kvBytesPerToken,
            kvCapacityTokens: kvCapacityTokens, kvExportBytesPerSecond: kvExportBytesPerSecond,
            kvImportBytesPerSecond: kvImportBytesPerSecond,
            linkBytesPerSecond: linkBytesPerSecond, measured: usable)
        fitMixed(usable.mixed)
    }

    private static func prefill(_ points: [MeasuredPoints.Point]) -> Prefill? {
        var best: (criterion: Double, prefill: Prefill?) = (.infinity, nil)
        // Kernels change at powers of two, if at all: those of ggml for CPUs at 64 tokens.
        for smallTokens in [0, 64, 32, 128, 16] {
            let (factors, criterion) = LeastSquares.trimmedFit(
                rows: points.map { point in
                    let tokens = point.tokens
                    let attended = point.ranges.reduce(0) { $0 + $1.attendedTokens }
                    let isSmall = tokens < smallTokens
                    return [
                        1, Double(tokens), isSmall ? 0 : attended, isSmall ? attended : 0,
                    ]
                }, values: points.map(\.seconds), needs: [0: 1, 2: 1, 3: 1])
            guard factors.count == 4, criterion < best.criterion else { continue }
            best.criterion = criterion
            best.prefill = Prefill(
                fixed: factors[0], perToken: factors[1], perAttended: factors[2],
                perAttendedSmall: factors[3], smallTokens: smallTokens)
        }
        return best.prefill
    }

    private static func decode(_ points: [MeasuredPoints.Point]) -> Decode? {
        let (factors, _) = LeastSquares.trimmedFit(
            rows: points.map { point in
                let (sequences, context) = (Double(point.sequences), Double(point.contextTokens))
                let odd = Double(point.sequences % Decode.together)
                return [1, sequences, context, sequences * context, odd]
            }, values: points.map(\.seconds), needs: [2: 0, 3: 2, 4: 1])
        guard factors.count == 5 else { return nil }
        return Decode(
            fixed: factors[0], perSequence: factors[1], perContext: factors[2],
            perCrossing: factors[3], perOdd: factors[4])
    }

    private mutating func fitMixed(_ points: [MeasuredPoints.Point]) {
        let (factors, _) = LeastSquares.fit(
            rows: points.map { point in
                [
                    mixedSeconds(
                        point.ranges, sequences: point.sequences,
                        contextTokens: point.contextTokens),
                    Double(point.tokens * point.contextTokens),
                ]
            }, values: points.map(\.seconds))
        guard factors.count == 2 else { return }
        // Both parts are there in any case: the crossing alone would make short prompts free.
        mixedFactor = factors[0] > 0 ? factors[0] : 1
        mixedPerCrossing = factors[1]
    }

    package func prefillSeconds(_ runs: [Range<Int>]) -> Double {
        runs.allSatisfy(\.isEmpty) ? 0 : prefill.fixed + prefillPart(runs)
    }

    package func decodeSeconds(sequences: Int, contextTokens: Int) -> Double {
        sequences == 0 ? 0 : decode.fixed + decodePart(sequences, contextTokens)
    }

    package func mixedSeconds(
        _ runs: [Range<Int>], sequences: Int, contextTokens: Int
    ) -> Double {
        if sequences == 0 { return prefillSeconds(runs) }
        if runs.allSatisfy(\.isEmpty) {
            return decodeSeconds(sequences: sequences, contextTokens: contextTokens)
        }
        let parts = prefillPart(runs) + decodePart(sequences, contextTokens)
        let tokens = runs.reduce(0) { $0 + $1.count }
        return (max(prefill.fixed, decode.fixed) + parts) * mixedFactor
            + mixedPerCrossing * Double(tokens * contextTokens)
    }

    private func prefillPart(_ runs: [Range<Int>]) -> Double {
        let tokens = runs.reduce(0) { $0 + $1.count }
        let perAttended =
            tokens < prefill.smallTokens ? prefill.perAttendedSmall : prefill.perAttended
        return prefill.perToken * Double(tokens)
            + perAttended * runs.reduce(0) { $0 + $1.attendedTokens }
    }

    private func decodePart(_ sequences: Int, _ contextTokens: Int) -> Double {
        decode.perSequence * Double(sequences) + decode.perContext * Double(contextTokens)
            + decode.perCrossing * Double(sequences * contextTokens)
            + decode.perOdd * Double(sequences % Decode.together)
    }

    /// Whether prompts and batches of this size, or half of it, were among what was measured.
    package func covers(prompt: Int, chunk: Int, sequences: Int) -> Bool {
        let longest = measured.prefill.map(\.tokens).max() ?? 0
        let most = measured.decode.map(\.sequences).max() ?? 0
        return 2 * longest >= min(prompt, chunk) && 2 * most >= sequences
    }

    /// How far the fit is from the points it was made of.
    package var fitError: FitError? { FitError(of: self, at: measured.points) }
}
