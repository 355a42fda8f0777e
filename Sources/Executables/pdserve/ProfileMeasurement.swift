import Calibration
import DeviceDiscovery
import DeviceProfile
import Foundation
import InferenceEngine
import LlamaEngine
import ServingTypes

/// Measures a model on this host, or finds what is kept of it.
struct ProfileMeasurement {
    let command: ProfileCommand
    let model: String

    func report(profiles: [DeviceProfile]) async throws -> ProfileReport {
        let shape = try LlamaEngine.shape(ofModelAt: model)
        let tap = CalibrationTap()
        let engine = try LlamaEngine(settings: engineSettings) { tap.engineEvent($0) }
        do {
            let report = try await report(engine, tap, shape, profiles)
            await engine.shutdown()
            return report
        } catch {
            await engine.shutdown()
            throw error
        }
    }

    private var engineSettings: LlamaEngine.Settings {
        var settings = LlamaEngine.Settings(modelPath: model)
        settings.threads = command.threads
        settings.kvCapacityTokens = command.kvTokens
        settings.microBatchTokens = command.microBatch
        settings.maximumSequences = command.sequences
        return settings
    }

    private func report(
        _ engine: LlamaEngine, _ tap: CalibrationTap, _ shape: ModelShape,
        _ profiles: [DeviceProfile]
    ) async throws -> ProfileReport {
        let facts = engine.description
        let key = key(of: facts)
        let folder =
            command.profileFolder.map { URL(fileURLWithPath: $0) }
            ?? ProfileStore.usualFolder(ProcessInfo.processInfo.environment)
        let store = folder.map { ProfileStore(folder: $0) }
        var kept = command.renew ? nil : store?.kept(key)
        var held: [MeasuredPoints.Point] = []
        let isKept = kept != nil
        if kept == nil {
            let limit = Duration.seconds(command.seconds)
            let turn = await store?.turn(patience: limit * 4)
            defer { turn?.end() }
            let bounds = CalibrationPlan.Bounds(facts)
            // Half of the others before and half after: the host's speed may drift meanwhile.
            let others = CalibrationPlan.heldOut(bounds)
            let brief = Calibrator(engine: engine, tap: tap, limit: limit / 2)
            let before = try? await brief.measure(others)
            let result = try await Calibrator(engine: engine, tap: tap, limit: limit)
                .measure(CalibrationPlan(bounds))
            let after = try? await brief.measure(others)
            held = (before?.points ?? MeasuredPoints()).mean(with: after?.points).points
            guard let curves = MeasuredCurves(result, of: facts) else {
                throw Calibrator.Failure.tooFewPoints
            }
            let new = ProfileStore.Kept(
                key: key, curves: curves, measuredAt: Date(),
                loadPerProcessor: HostLoad.perProcessor)
            try? store?.keep(new)
            kept = new
        }
        guard let kept else { throw Calibrator.Failure.tooFewPoints }
        let profile = profile(facts, profiles)
        return ProfileReport(
            kept: kept, isKept: isKept, shape: shape, device: facts.device, profile: profile,
            held: held)
    }

    private func key(of engine: EngineDescription) -> ProfileStore.Key {
        ProfileStore.Key(
            fingerprint: engine.fingerprint, device: engine.device,
            host: ProcessInfo.processInfo.hostName, threads: command.threads,
            microBatchTokens: engine.microBatchTokens,
            maximumSequences: engine.maximumSequences,
            kvCapacityTokens: engine.kvCapacityTokens, kvType: "f16",
            settings: "llama gpu-layers=-1 window=full speed=1.0")
    }

    /// Of the device that computes: an accelerator if there is one.
    private func profile(
        _ engine: EngineDescription, _ profiles: [DeviceProfile]
    ) -> DeviceProfile? {
        if let found = DeviceProfile.matching(engine.device, in: profiles) { return found }
        return DeviceDiscovery.processors().map {
            DeviceProfile.derived(from: $0, threads: command.threads)
        }
    }
}

/// What `pdserve profile --model` tells.
struct ProfileReport: Encodable {
    struct Row: Encodable {
        var what: String
        var measured: Double
        /// From data sheets alone; nil without a profile.
        var predicted: Double?
        var unit: String
    }

    var model: String
    var parameters: Int
    var device: String
    var profile: String?
    var isKept: Bool
    var measuredAt: Date
    var loadPerProcessor: Double
    var rows: [Row]
    var fitError: FitError?
    /// Of points that the curves were not fitted to.
    var heldOutError: FitError?
    var heldOutPrefillError: FitError?
    var heldOutDecodeError: FitError?
    /// Of the data sheets' prediction, at all measured points.
    var dataSheetError: FitError?
    var curves: MeasuredCurves

    init(
        kept: ProfileStore.Kept, isKept: Bool, shape: ModelShape, device: String,
        profile: DeviceProfile?, held: [MeasuredPoints.Point]
    ) {
        let curves = kept.curves
        let roofline = profile.map { Roofline(profile: $0, shape: shape) }
        model = shape.name
        parameters = shape.parameters
        self.device = device
        self.profile = profile?.name
        self.isKept = isKept
        measuredAt = kept.measuredAt
        loadPerProcessor = kept.loadPerProcessor
        self.curves = curves
        let micro = kept.key.microBatchTokens
        rows = [256, 1024, 4096].map { tokens in
            Row(
                what: "prefill of \(tokens) tokens",
                measured: curves.promptSeconds(tokens, chunk: micro),
                predicted: roofline?.promptSeconds(tokens, chunk: micro), unit: "s")
        }
        for (sequences, context) in [(1, 256), (1, 2048), (8, 256), (8, 2048), (32, 512)] {
            let total = sequences * context
            rows.append(
                Row(
                    what: "step of \(sequences) x \(context) tokens",
                    measured: curves.decodeSeconds(sequences: sequences, contextTokens: total),
                    predicted: roofline?.decodeSeconds(
                        sequences: sequences, contextTokens: total), unit: "s"))
        }
        rows += [
            Row(
                what: "KV export", measured: curves.kvExportBytesPerSecond,
                predicted: roofline?.kvExportBytesPerSecond, unit: "B/s"),
            Row(
                what: "KV import", measured: curves.kvImportBytesPerSecond,
                predicted: roofline?.kvImportBytesPerSecond, unit: "B/s"),
        ]
        fitError = curves.fitError
        heldOutError = FitError(of: curves, at: held)
        heldOutPrefillError = FitError(of: curves, at: held.filter(\.isPrefill))
        heldOutDecodeError = FitError(of: curves, at: held.filter(\.isDecode))
        dataSheetError = roofline.flatMap { FitError(of: $0, at: curves.measured.points) }
    }

    var text: String {
        let head = [
            "\(model), \(short(Double(parameters)))parameters, on \(device)",
            isKept
                ? "kept from \(measuredAt.formatted(.iso8601)) (load \(figure(loadPerProcessor)) "
                    + "per processor); --renew measures again"
                : "measured now (load \(figure(loadPerProcessor)) per processor)",
            "data sheet: \(profile ?? "none")", "",
        ]
        let rows = rows.map { row in
            [
                row.what, short(row.measured) + row.unit,
                row.predicted.map { short($0) + row.unit } ?? "-",
            ]
        }
        let errors: [(String, FitError?)] = [
            ("fit", fitError), ("held-out points", heldOutError),
            ("held-out prefill", heldOutPrefillError), ("held-out decode", heldOutDecodeError),
            ("data sheet", dataSheetError),
        ]
        let lines = errors.compactMap { name, error in
            error.map {
                "\(name): median \(percent($0.median)), p90 \(percent($0.p90)) "
                    + "(\($0.points) points)"
            }
        }
        return head.joined(separator: "\n") + table([["", "MEASURED", "DATA SHEET"]] + rows)
            + "\n\n" + (["relative error"] + lines).joined(separator: "\n")
    }

    private func figure(_ value: Double) -> String { String(format: "%.1f", value) }
    private func percent(_ value: Double) -> String { String(format: "%.1f %%", value * 100) }
}
