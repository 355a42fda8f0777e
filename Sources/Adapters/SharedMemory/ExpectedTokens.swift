import CSharedMemory
import Synchronization
import Waiting

/// The tokens a listener expects, and the connections that have shown them.
final class ExpectedTokens: Sendable {
    private struct Entry {
        /// Signalled once: a connection came, or none will.
        let ending = MonotonicSemaphore()
        var connection: LocalConnection?

        /// Of an entry that was removed.
        func end() {
            connection?.shutdown()
            ending.signal()
        }
    }

    private struct State {
        var entries: [LocalToken: Entry] = [:]
        var isClosed = false
    }

    private let state = Mutex(State())
    private let openConnections = Atomic<Int>(0)
    private let connectionLimit: Int

    init(connectionLimit: Int) { self.connectionLimit = connectionLimit }

    var isClosed: Bool { state.withLock(\.isClosed) }

    func expect(_ token: LocalToken) throws(LocalTransferError) {
        try state.withLock { state throws(LocalTransferError) in
            if state.isClosed { throw .shutDown }
            guard state.entries[token] == nil else { return }
            let limit = SharedMemoryLimits.expectedTokens
            guard state.entries.count < limit else { throw .tooManyTokens(limit: limit) }
            state.entries[token] = Entry()
        }
    }

    func forget(_ token: LocalToken) {
        state.withLock { $0.entries.removeValue(forKey: token) }?.end()
    }

    func take(_ token: LocalToken, _ deadline: Duration) -> LocalConnection? {
        guard let ending = state.withLock({ $0.entries[token]?.ending }) else { return nil }
        _ = ending.wait(atMost: deadline)
        return state.withLock { state in
            guard let connection = state.entries[token]?.connection else { return nil }
            state.entries[token] = nil
            return connection
        }
    }

    /// Takes the socket over and tells the peer so, if its token is expected; else says why not.
    func admit(_ file: Int32, shown: [UInt8]) -> String? {
        let token: LocalToken? = state.withLock { state in
            // All of them, so that the time says nothing of any of them.
            var found: LocalToken?
            for (token, entry) in state.entries where token.matches(shown) {
                if entry.connection == nil { found = token }
            }
            return found
        }
        guard let token else { return "the token is not expected" }
        guard openConnections.add(1, ordering: .relaxed).newValue <= connectionLimit else {
            openConnections.subtract(1, ordering: .relaxed)
            return "too many connections"
        }
        let connection = LocalConnection(file: file) { [self] in
            openConnections.subtract(1, ordering: .relaxed)
        }
        let ending = state.withLock { state in
            state.entries[token]?.connection = connection
            return state.entries[token]?.ending
        }
        // One byte fits into an empty socket; a peer that is gone is found when it is read from.
        if ending != nil {
            let answer = LocalMessage.acceptance
            _ = unsafe local_socket_send(file, answer, answer.count, nil, 0)
        }
        ending?.signal()
        return nil
    }

    func close() {
        let entries = state.withLock { state in
            state.isClosed = true
            defer { state.entries = [:] }
            return state.entries
        }
        for entry in entries.values { entry.end() }
    }
}
