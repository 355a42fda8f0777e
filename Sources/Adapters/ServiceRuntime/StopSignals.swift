import UnixSignals

/// How an operation under signals ended.
package enum SignalOutcome: Sendable {
    case finished
    case interrupted
    case failed(any Error)
}

/// Runs the operation until it ends or a person asks to stop (SIGINT, SIGTERM).
package func withStopSignals(
    _ operation: @escaping @Sendable () async throws -> Void
) async -> SignalOutcome {
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm)
    return await withTaskGroup(of: SignalOutcome.self) { group in
        group.addTask {
            do {
                try await operation()
                return .finished
            } catch {
                return .failed(error)
            }
        }
        group.addTask {
            for await _ in signals { return .interrupted }
            return .finished
        }
        let first = await group.next() ?? .finished
        group.cancelAll()
        return first
    }
}
