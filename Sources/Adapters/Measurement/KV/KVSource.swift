import InferenceEngine
import KVCarriers
import KVTransfer
import LlamaEngine
import ServingTypes
import Synchronization

/// The bytes that are sent.
struct KVSource: Sendable {
    /// At least as long as what a codec looks at, so that no codec sees them twice.
    let bytes: [UInt8]
    let description: String

    static func synthetic(regionBytes: Int) -> KVSource {
        let buffer = KVBuffer(
            capacityBytes: min(regionBytes, KVMeasurementLimits.patternBytes))
        CodecSelfTest.fill(buffer)
        return KVSource(
            bytes: unsafe buffer.withBytes { unsafe Array($0) },
            description: "synthetic half-precision numbers")
    }

    /// Computes a prompt in this process and exports its KV.
    ///
    /// - Throws: `promptTooLong`, `kvTooSmall`, or why the model can't be loaded or computed.
    static func exported(modelPath: String, promptTokens: Int) async throws -> KVSource {
        let tokenizer = try LlamaTokenizer(modelPath: modelPath)
        let prompt = PromptSource {
            tokenizer.tokenize($0, addsSpecial: false, parsesSpecial: false)
        }.prompt(tokens: promptTokens, number: 0)
        var settings = LlamaEngine.Settings(modelPath: modelPath)
        settings.maximumSequences = 1
        settings.kvCapacityTokens = promptTokens + 256
        let collector = KVCollector()
        let engine = try LlamaEngine(settings: settings) { collector.receive($0) }
        let longest = engine.description.contextTokens
        do {
            guard promptTokens < longest else {
                throw MeasurementError.promptTooLong(tokens: promptTokens, contextTokens: longest)
            }
            let bytes = try await collector.collect(prompt, from: engine)
            guard bytes.count >= KVTransferLimits.pieceBytes else {
                throw MeasurementError.kvTooSmall(
                    bytes: bytes.count, neededBytes: KVTransferLimits.pieceBytes)
            }
            await engine.shutdown()
            return KVSource(
                bytes: bytes,
                description: "\(bytes.count) bytes of \(promptTokens) tokens, \(modelPath)")
        } catch {
            await engine.shutdown()
            throw error
        }
    }
}

/// Takes the blocks of one sequence.
private final class KVCollector: Sendable {
    private struct State {
        var bytes: [UInt8] = []
        var continuation: CheckedContinuation<[UInt8], any Error>?
    }

    private static let sequence = SequenceID(1)
    private let state = Mutex(State())

    func collect(_ prompt: [TokenID], from engine: LlamaEngine) async throws -> [UInt8] {
        let job = SequenceJob(
            sequence: Self.sequence, tokens: prompt, sampling: SamplingParameters(),
            maximumNewTokens: 1, exportsKV: true)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                state.withLock { $0.continuation = continuation }
                engine.submit(.run(job))
            }
        } onCancel: {
            engine.submit(.cancel(Self.sequence))
        }
    }

    /// Called on the engine's thread.
    func receive(_ event: EngineEvent) {
        switch event {
        case .exported(_, let block):
            let bytes = unsafe block.bytes.withBytes { unsafe Array($0) }
            state.withLock { $0.bytes += bytes }
        case .token(_, _, let finish):
            if finish != nil { end(nil) }
        case .failed(_, let error): end(error)
        case .cancelled: end(CancellationError())
        case .engineLost(let error): end(error)
        case .imported, .blockRefused, .exportEnded, .held: break
        }
    }

    private func end(_ failure: (any Error)?) {
        let (continuation, bytes) = state.withLock { state in
            defer { state.continuation = nil }
            return (state.continuation, state.bytes)
        }
        if let failure {
            continuation?.resume(throwing: failure)
        } else {
            continuation?.resume(returning: bytes)
        }
    }
}
