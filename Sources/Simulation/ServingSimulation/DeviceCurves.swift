import DeviceProfile

/// How long a machine takes for prefill and decode, by measured points with straight lines between.
package struct DeviceCurves: Sendable, Hashable, PerformanceModel {
    package struct Point: Sendable, Hashable {
        package var tokens: Double
        package var milliseconds: Double
    }

    package var name: String
    /// Time of one prefill iteration by its prompt tokens.
    private var prefill: [Point]
    /// Time of one decode iteration by the context tokens of all its sequences.
    private var decode: [Point]
    /// KV bytes one token takes.
    package var kvBytesPerToken: Int
    package var kvCapacityTokens = 1 << 20
    /// GPUs copy KV while they compute.
    package var kvExportBytesPerSecond = Double.infinity
    package var kvImportBytesPerSecond = Double.infinity
    /// Bytes per second of its link.
    package var linkBytesPerSecond: Double

    package init(
        name: String, prefill: [(Double, Double)], decode: [(Double, Double)],
        kvBytesPerToken: Int, linkBytesPerSecond: Double
    ) {
        self.name = name
        self.prefill = prefill.map { Point(tokens: $0.0, milliseconds: $0.1) }
        self.decode = decode.map { Point(tokens: $0.0, milliseconds: $0.1) }
        self.kvBytesPerToken = kvBytesPerToken
        self.linkBytesPerSecond = linkBytesPerSecond
    }

    /// Llama2-70B on 8 H100: medians of `data/perf_model.csv` of SplitwiseSim
    /// (github.com/Mutinifni/splitwise-sim, commit 8f99e7d, MIT), tensor parallel 8.
    package static let llama70BOnH100 = DeviceCurves(
        name: "H100",
        prefill: [
            (128, 51.7), (512, 53.4), (1024, 77.9), (2048, 136.8), (4096, 380), (8192, 831.5),
            (16384, 1551.7), (32768, 2936.3),
        ],
        decode: [
            (128, 29.8), (512, 29.8), (2048, 31.1), (4096, 31.3), (8192, 32.6), (16384, 38.6),
            (32768, 50.2),
        ],
        kvBytesPerToken: 327_680, linkBytesPerSecond: 50e9)

    /// The same on 8 A100.
    package static let llama70BOnA100 = DeviceCurves(
        name: "A100",
        prefill: [
            (128, 65.4), (256, 66.8), (512, 93), (1024, 154.5), (2048, 274.2), (4096, 661.2),
            (8192, 1549.8), (16384, 3524.5), (32768, 7554),
        ],
        decode: [
            (128, 43), (512, 44.9), (2048, 45.4), (4096, 46.5), (8192, 48.5), (16384, 53),
            (32768, 71.6),
        ],
        kvBytesPerToken: 327_680, linkBytesPerSecond: 25e9)

    /// Seconds for prompt runs: tokens that follow tokens already there cost what they add.
    package func prefillSeconds(_ runs: [Range<Int>]) -> Double {
        let fresh = runs.reduce(0) { $0 + ($1.lowerBound == 0 ? $1.count : 0) }
        let first = fresh == 0 ? 0 : Self.value(prefill, at: Double(fresh))
        let added = runs.reduce(0.0) { sum, run in
            guard run.lowerBound > 0 else { return sum }
            return sum + Self.value(prefill, at: Double(run.upperBound))
                - Self.value(prefill, at: Double(run.lowerBound))
        }
        return max(first + added, runs.isEmpty ? 0 : Self.value(prefill, at: 1)) / 1000
    }

    /// Seconds for one prompt alone, in iterations of at most 2048 tokens.
    package func seconds(ofPrompt tokens: Int) -> Double {
        stride(from: 0, to: tokens, by: 2048).reduce(0) {
            $0 + prefillSeconds([$1..<min(tokens, $1 + 2048)])
        }
    }

    package func decodeSeconds(sequences: Int, contextTokens: Int) -> Double {
        Self.value(decode, at: Double(contextTokens)) / 1000
    }

    /// A prefill of all its tokens, a tenth longer (SplitwiseSim).
    package func mixedSeconds(
        _ runs: [Range<Int>], sequences: Int, contextTokens: Int
    ) -> Double {
        1.1
            * max(
                prefillSeconds(runs),
                decodeSeconds(sequences: sequences, contextTokens: contextTokens))
    }

    private static func value(_ points: [Point], at tokens: Double) -> Double {
        guard let first = points.first, tokens > first.tokens else {
            return points.first?.milliseconds ?? 0
        }
        let end = points.dropFirst().firstIndex { $0.tokens >= tokens } ?? points.count - 1
        let (left, right) = (points[end - 1], points[end])
        let slope = (right.milliseconds - left.milliseconds) / (right.tokens - left.tokens)
        return left.milliseconds + (tokens - left.tokens) * slope
    }
}
