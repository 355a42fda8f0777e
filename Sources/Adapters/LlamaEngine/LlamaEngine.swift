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
}

/// Computes with libllama on the devices of this host.
package final class LlamaEngine: InferenceEngine {
    /// Number type of the KV.
    package enum KVType: String, Sendable {
        case f16
        /// Half the bytes; on CPUs long prompts take up to twice the time.
        case q8_0
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
        /// Threads that compute; of all engines of a host not more than it has cores.
        package var threads = ProcessInfo.processInfo.activeProcessorCount
        /// Layers computed on accelerators; -1 is all.
        package var gpuLayers = -1
        package var kvType = KVType.f16
        /// Bytes of export buffers kept for reuse.
        package var keptBufferBytes = 256 << 20
        /// What exported KV is written into.
        package var kvMemory: any KVMemorySource = OrdinaryKVMemory()

        package init(modelPath: String) { self.modelPath = modelPath }
    }

    package let description: EngineDescription
    /// Shape of the KV; nil if the model's layers differ or the KV is quantised.
    package let kvShape: KVShape?
    /// Numbers in the model's weights.
    package let parameterCount: Int
    private let thread: EngineThread

    /// Loads the model and starts the engine's thread; blocks until the model is there.
    package init(
        settings: Settings, onEvent: @escaping EngineEventSink
    ) throws(EngineError) {
        let facts = Mutex<(shape: KVShape?, parameters: Int)>((nil, 0))
        thread = try EngineThread(name: "llama-engine", onEvent: onEvent) {
            (stop) throws(EngineError) in
            let backend = try LlamaBackend(settings: settings, stop: stop)
            facts.withLock { $0 = (backend.kvShape, backend.parameterCount) }
            return backend
        }
        description = thread.description
        (kvShape, parameterCount) = facts.withLock { $0 }
    }

    package func submit(_ command: EngineCommand) { thread.submit(command) }

    package var progress: EngineProgress { thread.progress }

    package func shutdown() async { await thread.shutdown() }
}
