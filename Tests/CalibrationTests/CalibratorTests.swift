import Calibration
import DeviceProfile
import Foundation
import InferenceEngine
import LlamaEngine
import ServingTypes
import SimulatedEngine
import Testing

struct CalibratorTests {
    /// Modelled times are slept, so that a loaded machine only adds to them; the limit is far off.
    @Test func findsTheTimesOfASimulatedDevice() async throws {
        var settings = SimulatedEngine.Settings()
        settings.maximumSequences = 17
        settings.microBatchTokens = 32
        settings.kvCapacityTokens = 8192
        settings.prefillTokensPerSecond = 2000
        settings.decodeStep = .milliseconds(4)
        settings.decodeStepPerSequence = .milliseconds(1)
        settings.decodeStepPerThousandTokens = .zero
        let tap = CalibrationTap()
        let engine = try SimulatedEngine(settings: settings) { tap.engineEvent($0) }
        let plan = CalibrationPlan(CalibrationPlan.Bounds(engine.description))
        let result = try await Calibrator(engine: engine, tap: tap, limit: .seconds(20))
            .measure(plan)
        let curves = try #require(MeasuredCurves(result, of: engine.description))
        let prompt = curves.promptSeconds(256, chunk: 32)
        #expect((0.5...3).contains(prompt / (256 / 2000)), "\(prompt)")
        let step = curves.decodeSeconds(sequences: 8, contextTokens: 2048)
        #expect((0.5...3).contains(step / 0.012), "\(step)")
        #expect(result.kvExportBytesPerSecond > 0)
        #expect(result.kvImportBytesPerSecond > 0)
        #expect(engine.progress.openSequences == 0)
        #expect(engine.progress.usedKVTokens == 0)
        await engine.shutdown()
    }

    @Test func anEngineThatHangsIsLeft() async throws {
        var settings = SimulatedEngine.Settings()
        settings.prefillTokensPerSecond = 0.01
        let tap = CalibrationTap()
        let engine = try SimulatedEngine(settings: settings) { tap.engineEvent($0) }
        let plan = CalibrationPlan(CalibrationPlan.Bounds(engine.description))
        let limit = Duration.milliseconds(20)
        await #expect(throws: Calibrator.Failure.silent(limit * 12)) {
            _ = try await Calibrator(engine: engine, tap: tap, limit: limit).measure(plan)
        }
        await engine.shutdown()
    }

    @Test func measuresTheRealEngineAndKeepsItsTimes() async throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appending(path: "../../Models/tiny.gguf").standardizedFileURL.path
        let tap = CalibrationTap()
        var settings = LlamaEngine.Settings(modelPath: path)
        settings.kvCapacityTokens = 4096
        settings.maximumSequences = 9
        settings.threads = 1
        let engine = try LlamaEngine(settings: settings) { tap.engineEvent($0) }
        let facts = engine.description
        let plan = CalibrationPlan(CalibrationPlan.Bounds(facts))
        let result = try await Calibrator(engine: engine, tap: tap, limit: .seconds(3))
            .measure(plan)
        let curves = try #require(MeasuredCurves(result, of: facts))
        #expect(curves.prefillSeconds([0..<256]) > curves.prefillSeconds([0..<16]))
        #expect(engine.progress.openSequences == 0)
        #expect(engine.progress.usedKVTokens == 0)
        await engine.shutdown()

        let folder = FileManager.default.temporaryDirectory
            .appending(path: "profiles-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let store = ProfileStore(folder: folder)
        let key = Self.key(facts, threads: 1)
        #expect(store.kept(key) == nil)
        let kept = ProfileStore.Kept(
            key: key, curves: curves, measuredAt: Date(timeIntervalSince1970: 1e9),
            loadPerProcessor: HostLoad.perProcessor)
        try store.keep(kept)
        #expect(store.kept(key) == kept)
        #expect(store.kept(Self.key(facts, threads: 2)) == nil)
        // A damaged file counts as none.
        let files = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        #expect(files.count == 1)
        for file in files { try Data("{".utf8).write(to: folder.appending(path: file)) }
        #expect(store.kept(key) == nil)
    }

    private static func key(_ facts: EngineDescription, threads: Int) -> ProfileStore.Key {
        ProfileStore.Key(
            fingerprint: facts.fingerprint, device: facts.device, host: "host", threads: threads,
            microBatchTokens: 256, maximumSequences: 9, kvCapacityTokens: 4096, kvType: "f16",
            settings: "")
    }

    @Test func aFolderThatCannotBeWrittenIsNoFailureOfTheEngine() async throws {
        let store = ProfileStore(folder: URL(fileURLWithPath: "/proc/no/profiles"))
        #expect(await store.turn(patience: .milliseconds(10)) == nil)
        var settings = SimulatedEngine.Settings.instant
        settings.modelName = "unwritten"
        let engine = try SimulatedEngine(settings: settings) { _ in }
        let key = Self.key(engine.description, threads: 1)
        #expect(store.kept(key) == nil)
        let curves = MeasuredCurves(
            prefill: .init(fixed: 1, perToken: 1, perAttended: 1),
            decode: .init(fixed: 1, perSequence: 1, perContext: 1), kvBytesPerToken: 1,
            kvCapacityTokens: 1, kvExportBytesPerSecond: 1, kvImportBytesPerSecond: 1,
            linkBytesPerSecond: 1)
        #expect(throws: (any Error).self) {
            try store.keep(
                ProfileStore.Kept(
                    key: key, curves: curves, measuredAt: Date(), loadPerProcessor: 0))
        }
        await engine.shutdown()
    }

    @Test func processesOfAHostMeasureOneAfterTheOther() async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "turns-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let store = ProfileStore(folder: folder)
        let first = try #require(await store.turn(patience: .seconds(5)))
        #expect(await store.turn(patience: .milliseconds(60)) == nil)
        first.end()
        let second = try #require(await store.turn(patience: .seconds(5)))
        second.end()
    }
}
