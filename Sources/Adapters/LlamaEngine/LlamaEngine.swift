import CLlama
import EngineRuntime
import Foundation
package import InferenceEngine
package import ServingTypes
import Synchronization

/// Bounds of this module.
enum Limits {
    /// libllama keeps a bit per sequence and cell; one sequence is spare.
    static let sequences = 256
    static let threads = Int(GGML_MAX_N_THREADS)
    static let metadataBytes = 4096
    static let fingerprintSamples = 64
    static let fingerprintSampleBytes = 1024
    /// Caches in the state of a sequence, and layers of a cache.
    static let caches = 4
    static let layers = 4096
    /// libllama's caches have a multiple of this many cells.
    static let cellPadding = 256
}

/// Computes with libllama on the devices of this host.
package final class LlamaEngine: InferenceEngine {
    /// Number type of the KV.
    package enum KVType: String, Sendable {
        case f16
        /// The range of 32-bit numbers with fewer digits; for models whose KV leaves that of f16.
        case bf16
        /// Half the bytes; on CPUs long prompts take up to twice the time.
        case q8_0
    }

    /// Which KV the layers with a sliding window keep.
    ///
    /// Hand-over is exact with either, and between the two.
    package enum WindowKV: String, Sendable {
        /// All tokens': a sequence can be cut back, as long as nothing else took its cells.
        case full
        /// What the window needs: less memory, but a sequence can only be continued at its end.
        case window
    }

    /// Memory of the layers with a window, for people.
    package struct WindowUse: Sendable, Hashable {
        package var windowTokens: Int
        /// KV bytes of one token in these layers.
        package var bytesPerToken: Int
        /// With `WindowKV.full`, and with `WindowKV.window`.
        package var fullBytes: Int
        package var neededBytes: Int
    }

    package struct Settings: Sendable {
        package var modelPath: String
        /// Replaces the name in the model's metadata.
        package var modelName: String?
        /// Tokens of KV that all sequences share.
        package var kvCapacityTokens = 8192
        /// Longest sequence; nil is the model's own limit.
        package var contextTokens: Int?
        /// Range 1…255.
        package var maximumSequences = 16
        /// Most tokens in one iteration; at least `maximumSequences`.
        package var microBatchTokens = 256
        /// Most prompt tokens in an iteration in which a sequence decodes; nil is no limit.
        package var prefillBudgetTokens: Int?
        /// Most tokens in the last run of a prompt longer than a micro-batch; 0 is no limit.
        package var finalRunTokens = BatchPlanner.Limits.defaultFinalRunTokens
        /// Threads that compute; of all engines of a host not more than it has cores.
        package var threads = ProcessInfo.processInfo.activeProcessorCount
        /// Layers computed on accelerators; -1 is all.
        package var gpuLayers = -1
        package var kvType = KVType.f16
        package var windowKV = WindowKV.full
        /// Bytes of export buffers kept for reuse.
        package var keptBufferBytes = 256 << 20
        /// What exported KV is written into.
        package var kvMemory: any KVMemorySource = OrdinaryKVMemory()

        package init(modelPath: String) { self.modelPath = modelPath }
    }

    package let description: EngineDescription
    /// Shape of the KV; nil if the model's layers differ or the KV is quantised.
    package let kvShape: KVShape?
    /// Nil if no layer has a window.
    package let windowUse: WindowUse?
    /// Numbers in the model's weights.
    package let parameterCount: Int
    private let layout: LlamaKVLayout
    private let thread: EngineThread

    /// Loads the model and starts the engine's thread; blocks until the model is there.
    package init(
        settings: Settings, onEvent: @escaping EngineEventSink
    ) throws(EngineError) {
        let facts = Mutex<Facts?>(nil)
        thread = try EngineThread(name: "llama-engine", onEvent: onEvent) {
            (stop) throws(EngineError) in
            let backend = try LlamaBackend(settings: settings, stop: stop)
            facts.withLock { $0 = Facts(backend) }
            return backend
        }
        description = thread.description
        guard let facts = facts.withLock({ $0 }) else { throw .shutDown }
        kvShape = facts.kvShape
        windowUse = facts.windowUse
        parameterCount = facts.parameterCount
        layout = facts.layout
    }

    /// What the engine's thread found out of the model.
    private struct Facts: Sendable {
        var kvShape: KVShape?
        var windowUse: WindowUse?
        var parameterCount: Int
        var layout: LlamaKVLayout

        init(_ backend: LlamaBackend) {
            kvShape = backend.kvShape
            windowUse = backend.windowUse
            parameterCount = backend.parameterCount
            layout = backend.layout
        }
    }

    /// Looks at a file's header: cheap, and weights are not read.
    ///
    /// - Throws: why it can't be loaded, as far as that can be told beforehand.
    package static func check(modelPath: String) throws(EngineError) {
        LlamaLog.prepareLibrary()
        _ = try GGUFFile(path: modelPath)
    }

    package func shifted(_ block: KVBlock, to tokenStart: Int) -> KVBlock? {
        layout.shifted(block, to: tokenStart)
    }

    package func submit(_ command: EngineCommand) { thread.submit(command) }

    package var progress: EngineProgress { thread.progress }

    package func shutdown() async { await thread.shutdown() }
}
