import Synchronization

/// Joins the two halves of a connection: the event loop sees the client leave, a task answers.
final class HTTPConnection: Sendable {
    private struct State {
        var hasLeft = false
        var cancel: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    var hasLeft: Bool { state.withLock { $0.hasLeft } }

    /// Cancels the running answer and all later ones.
    func clientLeft() {
        let cancel = state.withLock { state in
            state.hasLeft = true
            return state.cancel.take()
        }
        cancel?()
    }

    /// Runs a part of an answer; it is cancelled when the client leaves or the caller is cancelled.
    func run<Value: Sendable>(
        _ part: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let task = Task { try await part() }
        let isLate = state.withLock { state in
            if !state.hasLeft { state.cancel = { task.cancel() } }
            return state.hasLeft
        }
        if isLate { task.cancel() }
        defer { state.withLock { $0.cancel = nil } }
        return try await withTaskCancellationHandler {
            try await task.value
        } onCancel: {
            task.cancel()
        }
    }
}
