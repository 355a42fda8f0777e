import DeviceProfile
import Foundation
import InferenceEngine
import KVCarriers
import KVTransfer
import LlamaEngine
import Logging
import Roles
package import ServiceLifecycle
package import ServiceRuntime
import ServiceStart
import ServingTypes
import SimulatedEngine
import Transport

/// Builds a worker of either role from its settings.
package enum WorkerMain {
    /// Loads the model, binds the ports and gives the services to run.
    package static func services(
        _ settings: WorkerSettings, _ runtime: ServiceRuntime
    ) async throws -> [any Service] {
        let logger = runtime.logger
        let common = settings.common
        var identity = try common.identify(incarnation: .random(in: 1 ... .max), runtime)
        let relay = WorkerRelay()
        let engine = try loadEngine(settings, relay, runtime)
        let engineFacts = engine.description
        let predicted = try await WorkerCalibration(
            settings: settings, tap: relay.calibration, logger: logger
        ).rates(of: engine)
        identity.hello.fingerprint = engineFacts.fingerprint
        let (context, hello) = (identity.context, identity.hello)
        let listener = try ControlListener(
            address: settings.listen, context: context, hello: hello,
            allowedRoles: [.gateway, .healthAgent, .administrator], logger: logger)
        let bulk = try BulkListener(
            address: settings.bulkListen, context: context, hello: hello,
            allowedRoles: [.prefillWorker, .decodeWorker], records: settings.transfers.records,
            logger: logger)
        let control = try await listener.start()
        let bulkAddress = try bulk.start { relay.serve($0, logger: logger) }
        var description = description(
            settings, engineFacts, hello: hello, control: control, bulk: bulkAddress)
        description.predicted = predicted
        let scheduler = try identity.schedulerClient(at: settings.schedulers, logger: logger)
        let worker = WorkerService(
            description: description, limits: limits(settings, engineFacts), engine: engine,
            relay: relay, listener: listener, scheduler: scheduler, bulk: bulk,
            local: settings.transfers.localListener(of: hello.instance, logger: logger),
            sender: KVSender.Settings(
                context: context, hello: hello, fingerprint: engineFacts.fingerprint,
                chunkTokens: engineFacts.microBatchTokens, limits: settings.transfers.handOver,
                pieces: try pieces(settings), records: settings.transfers.records,
                usesLocalMemory: settings.transfers.localDirectory != nil),
            drainDeadline: runtime.settings.shutdownLimit,
            reload: reload(settings, runtime), logger: logger)
        let guarded = GuardedWorker(
            worker, settings: settings.watchdog, engine: engine, logger: logger)
        let admin = Administration(common, runtime) { worker.complaint }
        logger.notice(
            "the worker is ready",
            metadata: [
                "model": "\(engineFacts.modelName)", "device": "\(engineFacts.device)",
                "control": "\(control)", "bulk": "\(bulkAddress)",
            ])
        return [
            CertificateService(identity.certificates), guarded, admin.endpoint,
            Announcer(common, control: control, bulk: bulkAddress, admin: admin.endpoint),
        ]
    }

    private static func pieces(
        _ settings: WorkerSettings
    ) throws -> KVPieceWriter.Settings {
        let compresses = settings.transfers.compression != .off
        let codec = settings.kvType.codec
        return KVPieceWriter.Settings(
            compression: settings.transfers.compression, codec: codec,
            rates: compresses ? try CodecSelfTest.run(codec) : nil,
            checksumsRaw: settings.transfers.checksums)
    }

    /// How a running worker takes up another model: by a new life of its process.
    private static func reload(
        _ settings: WorkerSettings, _ runtime: ServiceRuntime
    ) -> ModelReload {
        ModelReload(
            check: { path in
                if settings.engine == .llama { try LlamaEngine.check(modelPath: path) }
            },
            begin: { path in
                runtime.restart.request(["model": path, "previous-model": settings.modelPath])
            })
    }

    /// Loads the model, or starts again with the one before it.
    private static func loadEngine(
        _ settings: WorkerSettings, _ relay: WorkerRelay, _ runtime: ServiceRuntime
    ) throws -> any InferenceEngine {
        do {
            return try makeEngine(settings, relay: relay, logger: runtime.logger)
        } catch {
            if let previous = settings.previousModelPath, previous != settings.modelPath {
                runtime.logger.error(
                    "the model can't be loaded; the one before it is loaded again",
                    metadata: [
                        "model": "\(settings.modelPath ?? "")", "before": "\(previous)",
                        "reason": "\(error)",
                    ])
                runtime.restart.request(["model": previous, "previous-model": nil])
            }
            throw error
        }
    }

    private static func makeEngine(
        _ settings: WorkerSettings, relay: WorkerRelay, logger: Logger
    ) throws -> any InferenceEngine {
        switch settings.engine {
        case .simulated:
            return try SimulatedEngine(settings: try simulated(settings)) { relay.engineEvent($0) }
        case .llama:
            guard let path = settings.modelPath else {
                throw SettingsError.missing(key: "model", expected: "path of a GGUF file")
            }
            var engine = LlamaEngine.Settings(modelPath: path)
            engine.modelName = settings.modelName
            engine.threads = settings.threads
            engine.contextTokens = settings.contextTokens > 0 ? settings.contextTokens : nil
            engine.kvCapacityTokens = settings.kvTokens
            engine.maximumSequences = settings.work.engineSequences
            engine.kvMemory = settings.exportMemory
            engine.microBatchTokens = max(settings.microBatchTokens, engine.maximumSequences)
            engine.finalRunTokens = min(settings.finalRunTokens, engine.microBatchTokens)
            engine.gpuLayers = settings.gpuLayers
            engine.kvType = kvType(settings.kvType)
            engine.windowKV = settings.windowKV == .full ? .full : .window
            // A backend that can't be loaded tells only here why the processor computes instead.
            LlamaLog.setSink { level, line in
                guard level == .error else { return }
                logger.error("libllama complains as it starts", metadata: ["line": "\(line)"])
            }
            defer { LlamaLog.setSink(nil) }
            let llama = try LlamaEngine(settings: engine) { relay.engineEvent($0) }
            if let use = llama.windowUse {
                logger.notice(
                    "the model has layers with a sliding window",
                    metadata: [
                        "window-tokens": "\(use.windowTokens)",
                        "bytes-per-token": "\(use.bytesPerToken)",
                        "window-kv": "\(settings.windowKV)",
                        "bytes-if-full": "\(use.fullBytes)",
                        "bytes-if-window": "\(use.neededBytes)",
                    ])
            }
            return llama
        }
    }

    private static func kvType(_ type: WorkerSettings.KVType) -> LlamaEngine.KVType {
        switch type {
        case .f16: .f16
        case .bf16: .bf16
        case .q8: .q8_0
        }
    }

    private static func simulated(
        _ settings: WorkerSettings
    ) throws -> SimulatedEngine.Settings {
        var engine = SimulatedEngine.Settings()
        let speed = settings.simulated.speed
        engine = speed > 0 ? engine.accelerated(by: speed) : .instant
        if speed > 0 {
            try settings.simulated.setTimes(of: &engine, profiles: settings.calibration.profiles())
        }
        engine.modelPath = settings.modelPath ?? ""
        engine.kvCapacityTokens = settings.kvTokens
        engine.kvBytesPerToken = settings.simulated.kvBytes
        engine.maximumSequences = settings.work.engineSequences
        engine.kvMemory = settings.exportMemory
        engine.microBatchTokens = max(settings.microBatchTokens, engine.maximumSequences)
        engine.finalRunTokens = min(settings.finalRunTokens, engine.microBatchTokens)
        return engine
    }

    private static func limits(
        _ settings: WorkerSettings, _ engine: EngineDescription
    ) -> WorkerLimits {
        var limits = WorkerLimits(
            prefillSlots: settings.work.prefillSlots,
            decodeSequences: settings.work.decodeSequences,
            kvCapacityTokens: engine.kvCapacityTokens, contextTokens: engine.contextTokens,
            kvBytesPerToken: engine.kvBytesPerToken)
        limits.chunkOverheadBytesPerToken = engine.blockOverheadBytesPerToken
        limits.chunkOverheadBytes = engine.blockOverheadBytes
        limits.landingBytes = max(1, settings.transfers.landingMiB) << 20
        limits.keptSequences = settings.work.keptSequences
        limits.keptTokens = settings.work.keptTokens(
            role: settings.common.role, weightBytes: weightBytes(settings),
            kvBytesPerToken: engine.kvBytesPerToken)
        limits.prefixBlockTokens = settings.work.prefixBlockTokens
        limits.localPrefills = settings.work.localPrefills
        limits.handOver = settings.transfers.handOver
        return limits
    }

    /// Size of the model; nil if the engine computes none.
    private static func weightBytes(_ settings: WorkerSettings) -> Int? {
        guard settings.engine == .llama, let path = settings.modelPath else { return nil }
        return try? LlamaEngine.shape(ofModelAt: path).weightBytes
    }

    private static func description(
        _ settings: WorkerSettings, _ engine: EngineDescription, hello: Hello,
        control: NetworkAddress, bulk: NetworkAddress
    ) -> InstanceDescription {
        var description = InstanceDescription(
            instance: hello.instance, role: settings.common.role,
            incarnation: hello.incarnation, host: settings.common.hostName,
            controlAddress: CommonSettings.reachable(control, advertised: settings.advertise),
            bulkAddress: CommonSettings.reachable(bulk, advertised: settings.advertise),
            modelName: engine.modelName, fingerprint: engine.fingerprint,
            contextTokens: engine.contextTokens, kvBytesPerToken: engine.kvBytesPerToken,
            kvCapacityBytes: engine.kvCapacityTokens * engine.kvBytesPerToken,
            prefillSlots: settings.work.prefillSlots,
            decodeSequences: settings.work.decodeSequences, device: engine.device,
            initialRole: settings.work.role, scenario: settings.work.scenario,
            modelPath: settings.modelPath ?? "")
        description.devices = settings.watchdog.devices
        return description
    }
}
