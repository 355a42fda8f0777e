import EngineRuntime
import InferenceEngine
import LlamaEngine
import ServingTypes
import Synchronization

/// The model in this process, undivided: what the cluster's answers are compared with.
final class UndividedModel: Sendable {
    let tokenizer: LlamaTokenizer
    private let engine: LlamaEngine
    private let listener: Listener

    private final class Listener: Sendable {
        let streams = Mutex<[SequenceID: AsyncStream<EngineEvent>.Continuation]>([:])

        func receive(_ event: EngineEvent) {
            switch event {
            case .token(let sequence, _, let finish):
                streams.withLock { streams in
                    streams[sequence]?.yield(event)
                    if finish != nil { streams.removeValue(forKey: sequence)?.finish() }
                }
            case .failed(let sequence, _), .cancelled(let sequence):
                streams.withLock { streams in
                    streams[sequence]?.yield(event)
                    streams.removeValue(forKey: sequence)?.finish()
                }
            default: break
            }
        }
    }

    init(
        model: String = TestCluster.model, kvType: LlamaEngine.KVType = .f16
    ) throws {
        tokenizer = try LlamaTokenizer(modelPath: model)
        var settings = LlamaEngine.Settings(modelPath: model)
        settings.threads = 1
        settings.kvType = kvType
        let listener = Listener()
        self.listener = listener
        engine = try LlamaEngine(settings: settings) { listener.receive($0) }
    }

    func shutdown() async { await engine.shutdown() }

    /// Generates alone, in one engine, without any hand-over.
    func generate(
        _ tokens: [TokenID], sampling: SamplingParameters, maximumNewTokens: Int
    ) async throws -> (tokens: [TokenID], finish: FinishReason) {
        let sequence = SequenceID(.random(in: 0 ... .max))
        let (stream, continuation) = AsyncStream.makeStream(of: EngineEvent.self)
        listener.streams.withLock { $0[sequence] = continuation }
        engine.submit(
            .run(
                SequenceJob(
                    sequence: sequence, tokens: tokens, sampling: sampling,
                    maximumNewTokens: maximumNewTokens)))
        var output: [TokenID] = []
        for await event in stream {
            switch event {
            case .token(_, let token, let finish):
                output.append(token.token)
                if let finish { return (output, finish) }
            case .failed(_, let error): throw error
            default: break
            }
        }
        throw TestFailure("the engine gave no end")
    }
}
