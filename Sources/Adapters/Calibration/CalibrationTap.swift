package import InferenceEngine
import Synchronization

/// Sees an engine's events while it is calibrated.
///
/// An iteration's time is what the engine's count of computing time has grown by since the
/// iteration before; every run of a calibration reports something, so none is missed.
package final class CalibrationTap: Sendable {
    /// What happened, and the engine's computing time until then.
    enum Event: Sendable {
        /// A run of a prompt was computed.
        case run(SequenceID, Range<Int>)
        case token(SequenceID, isLast: Bool)
        case imported(SequenceID, tokens: Int)
        /// Gone, with or without a failure.
        case closed(SequenceID)
        case lost
        case timedOut
    }

    struct Record: Sendable {
        var event: Event
        var compute: Duration
    }

    private struct State {
        var sink: AsyncStream<Record>.Continuation?
        var compute: (@Sendable () -> Duration)?
        var kept: SequenceID?
        var blocks: [KVBlock] = []
    }

    private let state = Mutex(State())

    package init() {}

    /// Called on the engine's thread; ignored while nobody listens.
    package func engineEvent(_ event: EngineEvent) {
        guard let kind = Self.event(event) else { return }
        let (sink, compute) = state.withLock { state in
            if case .exported(let sequence, let block) = event, sequence == state.kept {
                state.blocks.append(block)
            }
            return (state.sink, state.compute)
        }
        guard let sink, let compute else { return }
        sink.yield(Record(event: kind, compute: compute()))
    }

    func listen(to engine: any InferenceEngine) -> AsyncStream<Record> {
        let (stream, sink) = AsyncStream.makeStream(of: Record.self)
        state.withLock { state in
            state.sink = sink
            state.compute = { engine.progress.computeDuration }
        }
        return stream
    }

    func end() {
        let sink = state.withLock { state in
            defer { state = State() }
            return state.sink
        }
        sink?.finish()
    }

    /// Tells the listener that it has waited for too long.
    func timeOut() {
        state.withLock { $0.sink }?.yield(Record(event: .timedOut, compute: .zero))
    }

    /// Keeps the blocks that a sequence exports from now on.
    func keepBlocks(of sequence: SequenceID) {
        state.withLock { state in
            state.kept = sequence
            state.blocks = []
        }
    }

    var blocks: [KVBlock] { state.withLock { $0.blocks } }

    private static func event(_ event: EngineEvent) -> Event? {
        switch event {
        case .exported(let sequence, let block):
            .run(sequence, block.tokenStart..<(block.tokenStart + block.tokenCount))
        case .token(let sequence, _, let finish): .token(sequence, isLast: finish != nil)
        case .imported(let sequence, let tokens): .imported(sequence, tokens: tokens)
        case .failed(let sequence, _), .cancelled(let sequence): .closed(sequence)
        case .blockRefused(let sequence, _, _): .closed(sequence)
        case .engineLost: .lost
        case .exportEnded, .held: nil
        }
    }
}
