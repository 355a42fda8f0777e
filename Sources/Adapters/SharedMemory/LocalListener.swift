import CSharedMemory
import Dispatch
import FileBudget
import Foundation
package import Logging

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Listens on a unix socket for processes of this host and user that show an expected token.
///
/// Root is no exception: a listener of root takes only root, any other takes only its own user.
package final class LocalListener: Sendable {
    /// Where senders connect to.
    package let path: String
    private let tokens: ExpectedTokens
    private let door: LocalDoor
    private let thread = DispatchGroup()

    /// Begins to listen on a thread of its own.
    ///
    /// A socket that a dead process left there is replaced.
    ///
    /// - Parameters:
    ///   - directory: made if missing; other users must not be able to change names in it.
    ///   - name: of the socket in the directory; beside it lies `<name>.lock` meanwhile.
    package init(
        directory: String, name: String,
        connectionLimit: Int = SharedMemoryLimits.connections,
        tokenDeadline: Duration = SharedMemoryLimits.tokenDeadline, logger: Logger
    ) throws(LocalTransferError) {
        let door = try LocalDoor(directory: directory, name: name)
        let tokens = ExpectedTokens(connectionLimit: connectionLimit)
        self.door = door
        self.tokens = tokens
        path = door.path
        let accepting = AcceptLoop(
            listener: door.socket, tokens: tokens, tokenDeadline: tokenDeadline, logger: logger,
            shortage: FileShortage(listener: "local", logger: logger))
        thread.enter()
        let body = Thread { [thread] in
            accepting.run()
            thread.leave()
        }
        body.name = "local accept"
        body.start()
    }

    deinit { stop() }

    /// Lets one connection in that shows the token.
    package func expect(_ token: LocalToken) throws(LocalTransferError) {
        try tokens.expect(token)
    }

    /// Expects the token no longer, and closes its connection if nobody has taken it.
    package func forget(_ token: LocalToken) { tokens.forget(token) }

    /// The connection that has shown the token, once; nil if none has come in time or the token is
    /// not expected.
    ///
    /// Blocks, for one thread a token. If nothing came, the token stays expected.
    ///
    /// - Parameter deadline: time left.
    package func take(_ token: LocalToken, deadline: Duration) -> LocalConnection? {
        tokens.take(token, deadline)
    }

    /// Closes the listener and what nobody has taken, and removes the socket.
    ///
    /// Connections that were taken stay open.
    package func stop() {
        tokens.close()
        door.endListening()
        thread.wait()
        door.remove()
    }
}

/// The accepting thread's work: it alone has the connections that have shown no token yet.
private struct AcceptLoop {
    private struct Unproven {
        let file: Int32
        let deadline: Deadline
        var shown: [UInt8] = []
    }

    let listener: Int32
    let tokens: ExpectedTokens
    let tokenDeadline: Duration
    let logger: Logger
    let shortage: FileShortage

    func run() {
        var unproven: [Unproven] = []
        while !tokens.isClosed {
            let hasRoom = unproven.count < SharedMemoryLimits.unprovenConnections
            var entries = unproven.map { pollfd(fd: $0.file, events: Int16(POLLIN), revents: 0) }
            entries.append(pollfd(fd: listener, events: hasRoom ? Int16(POLLIN) : 0, revents: 0))
            let wait = unproven.map(\.deadline.milliseconds).min() ?? -1
            guard unsafe poll(&entries, nfds_t(entries.count), wait) >= 0 else { continue }
            let isReady = entries.map { $0.revents != 0 }
            var waiting: [Unproven] = []
            for (index, entry) in unproven.enumerated() {
                var entry = entry
                if keepsWaiting(&entry, isReady: isReady[index]) { waiting.append(entry) }
            }
            unproven = waiting
            if isReady.last == true, !tokens.isClosed, let file = accept() {
                unproven.append(
                    Unproven(file: file, deadline: Deadline(after: tokenDeadline)))
            }
        }
        for entry in unproven { close(entry.file) }
    }

    /// The next connection of this user.
    private func accept() -> Int32? {
        guard !shortage.checks() else {
            LocalSocket.pause(FileShortage.pause)
            return nil
        }
        let file = local_socket_accept(listener)
        guard file >= 0 else {
            if ![EAGAIN, EWOULDBLOCK, EINTR, ECONNABORTED].contains(-file) {
                shortage.occurred(LocalSocket.text(-file))
                LocalSocket.pause(FileShortage.pause)
            }
            return nil
        }
        do throws(LocalTransferError) {
            try LocalSocket.checkUser(of: file)
            return file
        } catch {
            refuse(file, "\(error)")
            return nil
        }
    }

    /// Reads on; a connection whose token is whole is let in or closed.
    private func keepsWaiting(_ entry: inout Unproven, isReady: Bool) -> Bool {
        guard isReady else {
            guard entry.deadline.hasPassed else { return true }
            refuse(entry.file, "no token in time")
            return false
        }
        var part = [UInt8](repeating: 0, count: LocalToken.byteCount - entry.shown.count)
        let count = unsafe recv(entry.file, &part, part.count, 0)
        if count < 0, errno == EAGAIN || errno == EINTR { return true }
        guard count > 0 else {
            refuse(entry.file, "closed without a token")
            return false
        }
        entry.shown += part[..<count]
        if entry.shown.count < LocalToken.byteCount { return true }
        if let reason = tokens.admit(entry.file, shown: entry.shown) {
            refuse(entry.file, reason)
        }
        return false
    }

    private func refuse(_ file: Int32, _ reason: String) {
        close(file)
        logger.warning("Local connection refused", metadata: ["reason": "\(reason)"])
    }
}
