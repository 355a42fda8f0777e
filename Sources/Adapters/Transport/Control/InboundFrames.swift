internal import NIOCore
internal import Synchronization
package import WireProtocol

/// The frames of one control session, in order; for one loop at a time.
///
/// Ends when either side closes or the task is cancelled; throws what broke the connection.
package final class InboundFrames: AsyncSequence, Sendable {
    package typealias Element = Frame
    private typealias Answer = Result<Frame?, TransportError>
    private typealias Waiting = CheckedContinuation<Answer, Never>

    private struct State {
        var frames = CircularBuffer<Frame>()
        /// The loop, while it waits for a frame.
        var waiting: Waiting?
        /// What the loop gets after the last frame.
        var end: Answer?
        var isFull = false
    }

    private let state = Mutex(State())
    /// Called from any thread when there is room again after `add` said that there was none.
    private let onRoom: @Sendable () -> Void

    init(onRoom: @escaping @Sendable () -> Void) { self.onRoom = onRoom }

    /// Adds a frame.
    ///
    /// - Returns: whether there is room for more.
    func add(_ frame: Frame) -> Bool {
        let (waiting, hasRoom) = state.withLock { state -> (Waiting?, Bool) in
            guard state.end == nil else { return (nil, true) }
            if let waiting = state.waiting {
                state.waiting = nil
                return (waiting, true)
            }
            state.frames.append(frame)
            // Stays set while the loop catches up: only the loop says that there is room again.
            if state.frames.count >= TransportLimits.waitingFrames { state.isFull = true }
            return (nil, !state.isFull)
        }
        waiting?.resume(returning: .success(frame))
        return hasRoom
    }

    /// Ends the sequence after the frames that are there.
    func finish(_ error: TransportError?) {
        if let error { end(.failure(error)) } else { end(.success(nil)) }
    }

    private func end(_ answer: Answer) {
        let waiting = state.withLock { state in
            if state.end == nil { state.end = answer }
            defer { state.waiting = nil }
            return state.waiting
        }
        waiting?.resume(returning: answer)
    }

    package func makeAsyncIterator() -> AsyncIterator { AsyncIterator(frames: self) }

    package struct AsyncIterator: AsyncIteratorProtocol, Sendable {
        fileprivate let frames: InboundFrames

        /// The next frame; nil at the end.
        package func next(
            isolation actor: isolated (any Actor)?
        ) async throws(TransportError) -> Frame? {
            try await frames.next()
        }
    }

    private func next() async throws(TransportError) -> Frame? {
        if Task.isCancelled { cancel() }
        let answer = await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                if let answer = takeOrWait(continuation) { continuation.resume(returning: answer) }
            }
        } onCancel: {
            cancel()
        }
        return try answer.get()
    }

    /// Drops the frames that nobody will take; an error that came before stays.
    private func cancel() {
        end(.success(nil))
        state.withLock { $0.frames.removeAll() }
    }

    /// The next answer, or nil if the continuation is kept for it.
    private func takeOrWait(_ continuation: Waiting) -> Answer? {
        let (answer, hasRoomAgain) = state.withLock { state -> (Answer?, Bool) in
            precondition(state.waiting == nil, "one loop at a time takes frames")
            guard let frame = state.frames.popFirst() else {
                if state.end == nil { state.waiting = continuation }
                return (state.end, false)
            }
            let hasRoom = state.frames.count <= TransportLimits.waitingFrames / 4
            defer { if hasRoom { state.isFull = false } }
            return (.success(frame), state.isFull && hasRoom)
        }
        if hasRoomAgain { onRoom() }
        return answer
    }
}
