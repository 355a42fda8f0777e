import Calibration
import DeviceProfile
import Foundation
import InferenceEngine
import LlamaEngine
import Logging
import ServiceStart
import ServingTypes

/// Finds out how fast a worker will be, before it registers.
struct WorkerCalibration {
    let settings: WorkerSettings
    let tap: CalibrationTap
    let logger: Logger

    /// Nil if nothing is known: the cluster measures in service then.
    func rates(of engine: any InferenceEngine) async throws -> PredictedRates? {
        let profiles = try settings.calibration.profiles()
        if let curves = await curves(of: engine) {
            let facts = engine.description
            let isMeasured = curves.covers(
                prompt: prompt(facts), chunk: facts.microBatchTokens, sequences: sequences)
            return rates(by: curves, isMeasured: isMeasured, facts)
        }
        return predicted(engine.description, profiles)
    }

    /// Tokens of a typical prompt.
    private static let typicalPrompt = 1024

    private func rates(
        by model: some PerformanceModel, isMeasured: Bool, _ engine: EngineDescription
    ) -> PredictedRates {
        model.rates(
            isMeasured: isMeasured, prompt: prompt(engine), chunk: engine.microBatchTokens,
            sequences: sequences)
    }

    private func prompt(_ engine: EngineDescription) -> Int {
        min(Self.typicalPrompt, engine.contextTokens / 2)
    }

    private var sequences: Int { max(1, min(settings.work.decodeSequences, 64)) }

    // MARK: Data sheets

    private func predicted(
        _ engine: EngineDescription, _ profiles: [DeviceProfile]
    ) -> PredictedRates? {
        guard settings.engine == .llama, let path = settings.modelPath,
            let profile = DeviceProfile.matching(engine.device, in: profiles),
            let shape = try? LlamaEngine.shape(ofModelAt: path)
        else { return nil }
        let kvType = KVType(rawValue: settings.kvType.rawValue) ?? .float16
        return rates(
            by: Roofline(profile: profile, shape: shape, kvType: kvType), isMeasured: false,
            engine)
    }

    // MARK: Measurement

    private func curves(of engine: any InferenceEngine) async -> MeasuredCurves? {
        let calibration = settings.calibration
        guard calibration.when != .never else { return nil }
        let store = calibration.folder.map { ProfileStore(folder: $0) }
        let key = key(of: engine.description)
        if calibration.when == .once, let kept = store?.kept(key) { return kept.curves }
        // Engines of one host that measure at the same time would measure each other.
        let turn = await store?.turn(patience: calibration.limit * 3)
        defer { turn?.end() }
        if calibration.when == .once, let kept = store?.kept(key) { return kept.curves }
        return await measure(engine, key: key, store: store)
    }

    private func measure(
        _ engine: any InferenceEngine, key: ProfileStore.Key, store: ProfileStore?
    ) async -> MeasuredCurves? {
        let calibrator = Calibrator(
            engine: engine, tap: tap, limit: settings.calibration.limit)
        let plan = CalibrationPlan(CalibrationPlan.Bounds(engine.description))
        let result: Calibrator.Result
        do {
            result = try await calibrator.measure(plan)
        } catch {
            logger.warning(
                "the engine's speed could not be measured beforehand",
                metadata: ["reason": "\(error)"])
            return nil
        }
        guard let curves = MeasuredCurves(result, of: engine.description) else { return nil }
        let prompt = curves.promptSeconds(Self.typicalPrompt, chunk: key.microBatchTokens)
        logger.notice(
            "the engine's speed was measured",
            metadata: [
                "seconds": "\(result.duration)", "points": "\(result.points.points.count)",
                "fit-error": "\(curves.fitError?.median ?? 0)",
                "prefill-tokens-per-second": "\(Int(Double(Self.typicalPrompt) / prompt))",
                "decode-step-milliseconds":
                    "\(curves.decodeSeconds(sequences: 1, contextTokens: 1024) * 1000)",
            ])
        do {
            try store?.keep(
                ProfileStore.Kept(
                    key: key, curves: curves, measuredAt: Date(),
                    loadPerProcessor: HostLoad.perProcessor))
        } catch {
            logger.warning(
                "the measured speed can't be kept; the next start measures again",
                metadata: ["reason": "\(error)"])
        }
        return curves
    }

    private func key(of engine: EngineDescription) -> ProfileStore.Key {
        ProfileStore.Key(
            fingerprint: engine.fingerprint, device: engine.device,
            host: settings.common.hostName, threads: settings.threads,
            microBatchTokens: engine.microBatchTokens,
            maximumSequences: engine.maximumSequences,
            kvCapacityTokens: engine.kvCapacityTokens, kvType: settings.kvType.rawValue,
            settings:
                "\(settings.engine.rawValue) gpu-layers=\(settings.gpuLayers) "
                + "window=\(settings.windowKV.rawValue) speed=\(settings.simulated.speed) "
                + "model=\(settings.simulated.device == nil ? "" : settings.simulated.model)")
    }
}
