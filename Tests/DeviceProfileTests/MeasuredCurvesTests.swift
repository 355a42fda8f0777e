import DeviceProfile
import Testing

struct MeasuredCurvesTests {
    private static func truth(
        _ runs: [Range<Int>], _ sequences: Int, _ context: Int, factor: Double
    ) -> MeasuredPoints.Point {
        let exact = MeasuredCurves(
            prefill: .init(fixed: 0.004, perToken: 0.0003, perAttended: 2e-8),
            decode: .init(fixed: 0.006, perSequence: 0.0005, perContext: 1e-7),
            kvBytesPerToken: 1, kvCapacityTokens: 1, kvExportBytesPerSecond: 1,
            kvImportBytesPerSecond: 1, linkBytesPerSecond: 1)
        let seconds = exact.mixedSeconds(runs, sequences: sequences, contextTokens: context)
        return .init(
            runs: runs, sequences: sequences, contextTokens: context, seconds: seconds * factor)
    }

    @Test func findsTheFactorsAgain() throws {
        var points: [MeasuredPoints.Point] = []
        for (place, tokens) in [16, 64, 128, 256, 512].enumerated() {
            let noise = 1 + 0.02 * (place.isMultiple(of: 2) ? 1 : -1)
            points.append(Self.truth([0..<tokens], 0, 0, factor: noise))
            points.append(Self.truth([2048..<(2048 + tokens)], 0, 0, factor: 2 - noise))
        }
        for sequences in [1, 2, 4, 8] {
            for context in [100, 1000, 10_000] {
                points.append(Self.truth([], sequences, context * sequences, factor: 1))
            }
        }
        points.append(Self.truth([0..<128], 4, 4000, factor: 1.2))
        let curves = try #require(
            MeasuredCurves(
                fitting: MeasuredPoints(points), kvBytesPerToken: 1, kvCapacityTokens: 1,
                kvExportBytesPerSecond: 1, kvImportBytesPerSecond: 1, linkBytesPerSecond: 1))
        #expect(abs(curves.prefill.perToken / 0.0003 - 1) < 0.05)
        #expect(abs(curves.decode.perSequence / 0.0005 - 1) < 0.001)
        #expect(abs(curves.decode.perContext / 1e-7 - 1) < 0.001)
        #expect(abs(curves.mixedFactor / 1.2 - 1) < 0.03)
        let error = try #require(curves.fitError)
        #expect(error.median < 0.02)
        #expect(error.points == 23)
        let unseen = Self.truth([512..<700], 0, 0, factor: 1)
        #expect(abs(curves.prefillSeconds([512..<700]) / unseen.seconds - 1) < 0.05)
    }

    private static func fitted(_ points: [MeasuredPoints.Point]) throws -> MeasuredCurves {
        try #require(
            MeasuredCurves(
                fitting: MeasuredPoints(points), kvBytesPerToken: 1, kvCapacityTokens: 1,
                kvExportBytesPerSecond: 1, kvImportBytesPerSecond: 1, linkBytesPerSecond: 1))
    }

    @Test func sequencesBeyondAMultipleOfFourMayTakeLonger() throws {
        func seconds(_ sequences: Int, _ context: Int) -> Double {
            0.036 + 0.016 * Double(sequences) + 0.014 * Double(sequences % 4)
                + 4e-5 * Double(context)
        }
        var points = [Self.truth([0..<64], 0, 0, factor: 1)]
        for sequences in [1, 2, 3, 4, 6, 8, 12] {
            for context in [128, 512].map({ $0 * sequences }) {
                let seconds = seconds(sequences, context)
                points.append(
                    .init(sequences: sequences, contextTokens: context, seconds: seconds))
            }
        }
        let curves = try Self.fitted(points)
        for sequences in [5, 7, 16] {
            let predicted = curves.decodeSeconds(sequences: sequences, contextTokens: 1000)
            #expect(abs(predicted / seconds(sequences, 1000) - 1) < 1e-6)
        }
    }

    /// A slow engine has time for little: steps of one sequence show what a context costs.
    @Test func fewPointsTellContextFromTheRest() throws {
        let points = [
            Self.truth([0..<16], 0, 0, factor: 1), Self.truth([0..<64], 0, 0, factor: 1),
            .init(sequences: 1, contextTokens: 128, seconds: 0.070),
            .init(sequences: 1, contextTokens: 512, seconds: 0.085),
            .init(sequences: 1, contextTokens: 2048, seconds: 0.136),
        ]
        let curves = try Self.fitted(points)
        let step = curves.decodeSeconds(sequences: 1, contextTokens: 1024)
        #expect(abs(step / 0.102 - 1) < 0.05)
        #expect(curves.prefillSeconds([0..<128]) > 1.5 * curves.prefillSeconds([0..<64]))
    }

    @Test func knowsHowFarItWasMeasured() throws {
        let curves = try Self.fitted([
            Self.truth([0..<16], 0, 0, factor: 1), Self.truth([0..<64], 0, 0, factor: 1),
            Self.truth([], 1, 100, factor: 1), Self.truth([], 4, 400, factor: 1),
        ])
        #expect(curves.covers(prompt: 1024, chunk: 128, sequences: 8))
        #expect(!curves.covers(prompt: 1024, chunk: 256, sequences: 8))
        #expect(!curves.covers(prompt: 1024, chunk: 128, sequences: 9))
        #expect(curves.covers(prompt: 100, chunk: 256, sequences: 1))
    }

    @Test func fewTokensMayAttendMoreSlowly() throws {
        var points = [Self.truth([], 1, 10, factor: 1), Self.truth([], 2, 4000, factor: 1)]
        for tokens in [8, 16, 48, 64, 128, 256] {
            for start in [0, 512, 2048] {
                let run = start..<(start + tokens)
                let perPair = tokens < 64 ? 3e-6 : 4e-7
                let seconds = 0.002 + 1e-4 * Double(tokens) + perPair * run.attendedTokens
                points.append(.init(runs: [run], seconds: seconds))
            }
        }
        let curves = try #require(
            MeasuredCurves(
                fitting: MeasuredPoints(points), kvBytesPerToken: 1, kvCapacityTokens: 1,
                kvExportBytesPerSecond: 1, kvImportBytesPerSecond: 1, linkBytesPerSecond: 1))
        #expect(curves.prefill.smallTokens == 64)
        #expect(abs(curves.prefill.perAttendedSmall / 3e-6 - 1) < 0.01)
        #expect(abs(curves.prefill.perAttended / 4e-7 - 1) < 0.01)
    }

    @Test func fewPointsAreNotOverdone() throws {
        // Three prompts that all begin at 0 say nothing of what attention costs far behind.
        let points = [
            Self.truth([], 1, 10, factor: 1), Self.truth([], 2, 40, factor: 1),
            Self.truth([0..<16], 0, 0, factor: 1), Self.truth([0..<64], 0, 0, factor: 1.05),
            Self.truth([0..<256], 0, 0, factor: 1.2),
        ]
        let curves = try #require(
            MeasuredCurves(
                fitting: MeasuredPoints(points), kvBytesPerToken: 1, kvCapacityTokens: 1,
                kvExportBytesPerSecond: 1, kvImportBytesPerSecond: 1, linkBytesPerSecond: 1))
        let far = curves.prefillSeconds([8192..<8448])
        #expect(far < 2 * curves.prefillSeconds([0..<256]))
    }

    @Test func termsNeverGoBelowZero() throws {
        // Falling times would need a negative factor.
        let points = [
            Self.truth([], 1, 10, factor: 3), Self.truth([], 8, 80, factor: 0.1),
            Self.truth([0..<10], 0, 0, factor: 3), Self.truth([0..<100], 0, 0, factor: 0.1),
        ]
        let curves = try #require(
            MeasuredCurves(
                fitting: MeasuredPoints(points), kvBytesPerToken: 1, kvCapacityTokens: 1,
                kvExportBytesPerSecond: 1, kvImportBytesPerSecond: 1, linkBytesPerSecond: 1))
        for factor in [
            curves.prefill.fixed, curves.prefill.perToken, curves.decode.fixed,
            curves.decode.perSequence, curves.decode.perContext,
        ] {
            #expect(factor >= 0)
        }
    }

    @Test func nothingMeasuredIsNoCurve() {
        let only = MeasuredPoints([Self.truth([0..<10], 0, 0, factor: 1)])
        #expect(
            MeasuredCurves(
                fitting: only, kvBytesPerToken: 1, kvCapacityTokens: 1, kvExportBytesPerSecond: 1,
                kvImportBytesPerSecond: 1, linkBytesPerSecond: 1) == nil)
    }

    @Test("points of two times are averaged where they are of one iteration")
    func mean() {
        func step(_ sequences: Int, _ context: Int, _ seconds: Double) -> MeasuredPoints.Point {
            MeasuredPoints.Point(sequences: sequences, contextTokens: context, seconds: seconds)
        }
        let prompt = MeasuredPoints.Point(runs: [0..<64], seconds: 3)
        let before = MeasuredPoints([step(2, 256, 1), step(2, 512, 4), prompt])
        let after = MeasuredPoints([step(4, 512, 7), step(2, 260, 2)])
        #expect(
            before.mean(with: after).points
                == [step(2, 256, 1.5), step(2, 512, 4), prompt, step(4, 512, 7)])
        #expect(before.mean(with: nil) == before)
    }
}
