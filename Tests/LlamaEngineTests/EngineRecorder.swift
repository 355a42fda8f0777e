import InferenceEngine
import ServingTypes

/// What one sequence got from an engine until it was closed.
struct Outcome {
    var tokens: [TokenID] { outputs.map(\.token) }
    var outputs: [TokenOutput] = []
    var blocks: [KVBlock] = []
    var importedTokens = 0
    /// Refused blocks: which token was due, and why.
    var refusals: [Refusal] = []
    var finish: FinishReason?
    var error: EngineError?
    var wasCancelled = false
    /// Blocks and tokens in the order in which they came.
    var order = ""

    var isClosed: Bool { finish != nil || error != nil || wasCancelled }

    fileprivate mutating func add(_ event: EngineEvent) {
        switch event {
        case .imported(_, let tokens): importedTokens = tokens
        case .blockRefused(_, let expectedToken, let reason):
            refusals.append(Refusal(expectedToken: expectedToken, reason: reason))
        case .exported(_, let block):
            blocks.append(block)
            order += "b"
        case .token(_, let output, let finish):
            outputs.append(output)
            self.finish = finish
            order += "t"
        case .failed(_, let error): self.error = error
        case .exportEnded: order += "e"
        case .held: order += "h"
        case .cancelled: wasCancelled = true
        case .engineLost(let error): self.error = error
        }
    }
}

struct Refusal: Equatable {
    var expectedToken: Int
    var reason: String
}

/// Receives an engine's events and hands them out by sequence.
struct EngineRecorder {
    let sink: EngineEventSink
    private var iterator: AsyncStream<EngineEvent>.AsyncIterator
    private var outcomes: [SequenceID: Outcome] = [:]

    init() {
        let (stream, continuation) = AsyncStream<EngineEvent>.makeStream()
        sink = { continuation.yield($0) }
        iterator = stream.makeAsyncIterator()
    }

    /// Waits until a sequence is closed.
    mutating func outcome(of id: SequenceID) async -> Outcome {
        await outcome(of: id) { $0.isClosed }
    }

    /// Waits until a sequence is as wanted.
    mutating func outcome(
        of id: SequenceID, until isDone: (Outcome) -> Bool
    ) async -> Outcome {
        while true {
            if let outcome = outcomes[id], isDone(outcome) { return outcome }
            guard let event = await iterator.next(isolation: #isolation) else {
                return outcomes[id] ?? Outcome()
            }
            if let sequence = event.sequence { outcomes[sequence, default: Outcome()].add(event) }
        }
    }

    /// Forgets a sequence, so that its number can be used again.
    mutating func forget(_ id: SequenceID) { outcomes[id] = nil }
}

extension EngineEvent {
    var sequence: SequenceID? {
        switch self {
        case .imported(let id, _), .blockRefused(let id, _, _), .exported(let id, _),
            .token(let id, _, _), .failed(let id, _), .cancelled(let id), .exportEnded(let id),
            .held(let id):
            id
        case .engineLost: nil
        }
    }
}
