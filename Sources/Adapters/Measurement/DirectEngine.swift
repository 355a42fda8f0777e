import InferenceEngine
import LlamaEngine
import ServiceRuntime
import ServingTypes
import Synchronization

/// When the tokens of one answer were there, counted from the request.
struct TokenTimes: Sendable {
    var first = Duration.zero
    /// Nil for answers of one token.
    var second: Duration?
    var last = Duration.zero
    /// With everything that follows the last token.
    var total = Duration.zero
    var tokenCount = 0
    /// The first two tokens, where they are known.
    var beginning: [TokenID] = []

    /// Mean time between tokens from the second one on; nil for answers of fewer than three.
    var step: Duration? {
        guard let second, tokenCount > 2 else { return nil }
        return (last - second) / (tokenCount - 2)
    }

    /// Mean time between all tokens, as clients count it.
    var timePerToken: Duration? {
        tokenCount > 1 ? (last - first) / (tokenCount - 1) : nil
    }
}

/// The model in this process, undivided and without services.
final class DirectEngine: Sendable {
    private struct Open {
        let start: MonotonicTime
        var times = TokenTimes()
        let continuation: CheckedContinuation<TokenTimes, any Error>
    }

    private final class Recorder: Sendable {
        let open = Mutex<[SequenceID: Open]>([:])

        /// Called on the engine's thread.
        func receive(_ event: EngineEvent) {
            switch event {
            case .token(let sequence, let output, let finish):
                let now = ProcessClock.now()
                open.withLock { open in
                    guard var entry = open[sequence] else { return }
                    entry.times.add(output.token, at: now - entry.start)
                    open[sequence] = finish == nil ? entry : nil
                    if finish != nil { entry.continuation.resume(returning: entry.times) }
                }
            case .failed(let sequence, let error): end(sequence, error)
            case .cancelled(let sequence): end(sequence, CancellationError())
            case .engineLost(let error):
                for sequence in open.withLock({ Array($0.keys) }) { end(sequence, error) }
            case .imported, .blockRefused, .exported, .exportEnded, .held: break
            }
        }

        private func end(_ sequence: SequenceID, _ error: any Error) {
            let entry = open.withLock { $0.removeValue(forKey: sequence) }
            entry?.continuation.resume(throwing: error)
        }
    }

    private let engine: LlamaEngine
    private let recorder = Recorder()
    private let sequences = Mutex<UInt64>(0)

    var description: EngineDescription { engine.description }
    var parameterCount: Int { engine.parameterCount }

    init(settings: LlamaEngine.Settings) throws(EngineError) {
        engine = try LlamaEngine(settings: settings) { [recorder] in recorder.receive($0) }
    }

    /// Generates greedily; cancelling stops the engine's work on it.
    ///
    /// - Parameter exportsKV: writes the prompt's KV to memory, as a prefill-worker does.
    func generate(
        _ prompt: [TokenID], newTokens: Int, exportsKV: Bool = false
    ) async throws -> TokenTimes {
        let sequence = SequenceID(
            sequences.withLock {
                $0 += 1
                return $0
            })
        var sampling = SamplingParameters()
        sampling.ignoresEndOfGeneration = true
        let job = SequenceJob(
            sequence: sequence, tokens: prompt, sampling: sampling, maximumNewTokens: newTokens,
            exportsKV: exportsKV)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                recorder.open.withLock {
                    $0[sequence] = Open(start: ProcessClock.now(), continuation: continuation)
                }
                engine.submit(.run(job))
            }
        } onCancel: {
            engine.submit(.cancel(sequence))
        }
    }

    func shutdown() async { await engine.shutdown() }
}

extension TokenTimes {
    fileprivate mutating func add(_ token: TokenID, at time: Duration) {
        tokenCount += 1
        if beginning.count < 2 { beginning.append(token) }
        if tokenCount == 1 { first = time }
        if tokenCount == 2 { second = time }
        last = time
        total = time
    }
}
