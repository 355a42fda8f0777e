package import DeviceProfile
package import InferenceEngine
import ServingTypes

/// Measures how long an idle engine's iterations take.
package struct Calibrator {
    /// What a measurement came to.
    package struct Result: Sendable {
        package var points: MeasuredPoints
        package var kvExportBytesPerSecond: Double
        package var kvImportBytesPerSecond: Double
        package var duration: Duration
    }

    /// Why there is no result; the worker starts without one.
    package enum Failure: Error, Hashable, Sendable {
        /// The engine reported nothing for that long.
        case silent(Duration)
        case engineLost
        /// It is too slow, or too small, for a prompt and a decode step within the limit.
        case tooFewPoints
    }

    private let engine: any InferenceEngine
    private let tap: CalibrationTap
    private let limit: Duration

    /// - Parameters:
    ///   - tap: what the engine's events are told to; the engine is idle.
    ///   - limit: time to spend; an iteration is begun only if it should end within.
    package init(engine: any InferenceEngine, tap: CalibrationTap, limit: Duration) {
        self.engine = engine
        self.tap = tap
        self.limit = limit
    }

    package func measure(_ plan: CalibrationPlan) async throws(Failure) -> Result {
        let before = engine.progress
        let start = ContinuousClock.now
        var run = CalibrationRun(
            engine: engine, tap: tap, events: tap.listen(to: engine).makeAsyncIterator(),
            end: start + limit, compute: before.computeDuration)
        // A first iteration of a huge model may take long: no event for many limits is a hang.
        let patience = limit * Self.patience
        let watch = Task { [tap] in
            try await Task.sleep(for: patience)
            tap.timeOut()
        }
        defer {
            watch.cancel()
            tap.end()
        }
        do throws(CalibrationRun.Stop) {
            try await run.measure(plan)
            try await run.close()
        } catch {
            for sequence in run.open { engine.submit(.cancel(sequence)) }
            throw error == .lost ? .engineLost : .silent(patience)
        }
        let progress = engine.progress
        let points = MeasuredPoints(run.usual)
        guard !points.prefill.isEmpty, !points.decode.isEmpty else { throw .tooFewPoints }
        return Result(
            points: points,
            kvExportBytesPerSecond: Self.rate(
                progress.exportedKVBytes - before.exportedKVBytes,
                progress.exportDuration - before.exportDuration),
            kvImportBytesPerSecond: Self.rate(
                progress.importedKVBytes - before.importedKVBytes,
                progress.importDuration - before.importDuration),
            duration: .now - start)
    }

    /// Limits after which an engine counts as hanging.
    private static let patience = 12

    private static func rate(_ bytes: Int, _ duration: Duration) -> Double {
        duration > .zero ? Double(bytes) / duration.inSeconds : 0
    }
}

extension Duration {
    var inSeconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}

extension MeasuredCurves {
    /// Curves of an engine by what was measured of it; nil if that is too little.
    package init?(
        _ result: Calibrator.Result, of engine: EngineDescription, linkBytesPerSecond: Double = 0
    ) {
        self.init(
            fitting: result.points, kvBytesPerToken: engine.kvBytesPerToken,
            kvCapacityTokens: engine.kvCapacityTokens,
            kvExportBytesPerSecond: result.kvExportBytesPerSecond,
            kvImportBytesPerSecond: result.kvImportBytesPerSecond,
            linkBytesPerSecond: linkBytesPerSecond)
    }
}

extension CalibrationPlan.Bounds {
    package init(_ engine: EngineDescription) {
        self.init(
            contextTokens: engine.contextTokens, kvCapacityTokens: engine.kvCapacityTokens,
            kvBytesPerToken: engine.kvBytesPerToken, microBatchTokens: engine.microBatchTokens,
            maximumSequences: engine.maximumSequences)
    }
}
