import Foundation
import InferenceEngine
import KVTransfer
package import ServiceRuntime
package import ServiceStart
package import ServingTypes

/// Settings of both worker roles.
package struct WorkerSettings: Sendable {
    package enum Engine: String, Sendable, CaseIterable {
        case llama
        case simulated
    }

    /// Number type of the KV cache.
    package enum KVType: String, Sendable, CaseIterable {
        case f16
        case bf16
        case q8 = "q8_0"

        /// What shrinks it best for the time.
        var codec: PieceCodec {
            switch self {
            case .f16, .bf16: .bytePlanes
            // Splitting scales from quants saves 1 % more and takes 10 % longer.
            case .q8: .zstd
            }
        }
    }

    /// Which KV layers with a sliding window keep.
    package enum WindowKV: String, Sendable, CaseIterable {
        case full
        case window
    }

    package var common: CommonSettings
    package var schedulers: [NetworkAddress]
    package var listen: NetworkAddress
    package var bulkListen: NetworkAddress
    package var advertise: String?
    package var engine: Engine
    package var modelPath: String?
    /// Loaded instead if `modelPath` can't be.
    package var previousModelPath: String?
    package var modelName: String?
    package var threads: Int
    package var contextTokens: Int
    package var kvTokens: Int
    package var microBatchTokens: Int
    package var finalRunTokens: Int
    package var work: WorkSettings
    package var gpuLayers: Int
    package var kvType: KVType
    package var windowKV: WindowKV
    package var simulated: SimulatedSettings
    package var transfers: TransferSettings
    package var watchdog: WatchdogSettings
    package var calibration: CalibrationSettings

    package init(_ reader: inout SettingsReader, role: Role) throws(SettingsError) {
        let port = role == .prefillWorker ? 7410 : 7420
        common = try CommonSettings(
            &reader, role: role, adminListen: NetworkAddress(host: "127.0.0.1", port: port + 1))
        schedulers = try reader.schedulers()
        listen = try reader.address(
            "listen", default: NetworkAddress(host: "127.0.0.1", port: port),
            "Address for control connections of gateways and health-agents.")
        bulkListen = try reader.address(
            "bulk-listen", default: NetworkAddress(host: "127.0.0.1", port: port + 2),
            "Address for KV transfers.")
        advertise = try reader.optionalText(
            "advertise",
            "Host under which others reach it; default: that of 'listen', or this machine's name.")
        engine = try reader.choice(
            "engine", default: Engine.llama,
            "'llama' computes with libllama, 'simulated' only takes the time it would take.")
        modelPath = try reader.optionalText("model", "The GGUF file to serve.")
        previousModelPath = try reader.optionalText(
            "previous-model",
            "The GGUF file to go back to if 'model' can't be loaded; an upgrade sets it.")
        modelName = try reader.optionalText(
            "model-name", "Name for clients; default: the name written in the model file.")
        threads = try reader.integer(
            "threads", default: max(1, ProcessInfo.processInfo.activeProcessorCount / 2),
            in: 1...1024,
            "Computing threads; all workers of a host together must not exceed its cores.")
        contextTokens = try reader.integer(
            "context", default: 0, in: 0...(1 << 20),
            "Longest sequence in tokens; 0: what the model allows.")
        kvTokens = try reader.integer(
            "kv-tokens", default: 16_384, in: 64...(1 << 24),
            "Tokens of KV for all sequences together.")
        microBatchTokens = try reader.integer(
            "micro-batch", default: 256, in: 16...8192,
            "Tokens per engine iteration, and so per piece of KV that travels.")
        finalRunTokens = try reader.integer(
            "final-run", default: BatchPlanner.Limits.defaultFinalRunTokens, in: 0...8192,
            "Most tokens of the last run of a long prompt, whose KV travels after the first "
                + "token; 0: as many as are left.")
        work = try WorkSettings(&reader, role: role)
        gpuLayers = try reader.integer(
            "gpu-layers", default: -1, in: -1...10_000, "Layers on the device; -1: all.")
        kvType = try reader.choice(
            "kv-type", default: KVType.f16, "Number type of the KV cache; the same on all workers.")
        windowKV = try reader.choice(
            "window-kv", default: WindowKV.full,
            "What layers with a sliding window keep: 'full' all KV, so that kept prefixes can be "
                + "shortened, 'window' what the window needs, which takes less memory.")
        transfers = try TransferSettings(&reader)
        watchdog = try WatchdogSettings(&reader)
        calibration = try CalibrationSettings(&reader)
        simulated = try SimulatedSettings(&reader)
    }
}
