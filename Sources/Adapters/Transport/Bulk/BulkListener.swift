internal import FileBudget
internal import Foundation
package import Logging
package import ServingTypes
internal import Synchronization
internal import Waiting

#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// Accepts bulk connections: one thread accepts, one more serves each connection.
package final class BulkListener: Sendable {
    private struct State {
        var file: Int32 = -1
        /// Closing it wakes the accepting thread.
        var alarmButton: Int32 = -1
        var isStopping = false
        var sockets: [ObjectIdentifier: BulkSocket] = [:]
    }

    private let address: NetworkAddress
    private let context: TLSContext
    private let policy: PeerPolicy
    private let logger: Logger
    private let reporter: RefusalReporter
    private let records: BulkRecords
    private let limit: Int
    private let handshakeDeadline: Duration
    private let state = Mutex(State())
    /// Counts the threads.
    private let threads = DispatchGroup()

    /// - Parameters:
    ///   - address: port 0 takes a free one.
    ///   - hello: names the same process as the context's certificate.
    ///   - records: what this side wants; `tls` if either side wants that.
    package init(
        address: NetworkAddress, context: TLSContext, hello: Hello, allowedRoles: Set<Role>,
        accepts: HelloCheck? = nil, records: BulkRecords = .sealed,
        connectionLimit: Int = TransportLimits.bulkConnections,
        handshakeDeadline: Duration = TransportLimits.handshake, logger: Logger
    ) throws(TransportError) {
        policy = try PeerPolicy(
            context: context, hello: hello, roles: allowedRoles, accepts: accepts)
        self.address = address
        self.context = context
        self.records = records
        self.logger = logger
        reporter = RefusalReporter(logger: logger)
        limit = connectionLimit
        self.handshakeDeadline = handshakeDeadline
    }

    /// The address with its real port; nil before `start` and after `stop`.
    package var boundAddress: NetworkAddress? {
        state.withLock { $0.file < 0 ? nil : Sockets.address(of: $0.file, isPeer: false) }
    }

    /// Begins to listen; called once.
    ///
    /// - Parameter onConnection: called on the connection's own thread; when it returns, the
    ///   connection is closed.
    /// - Returns: the address with its real port.
    @discardableResult
    package func start(
        onConnection: @escaping @Sendable (BulkConnection) -> Void
    ) throws(TransportError) -> NetworkAddress {
        let file = try Sockets.listen(on: address)
        let alarm: (bell: Int32, button: Int32)
        do throws(SystemError) {
            alarm = try Sockets.makeAlarm()
        } catch {
            close(file)
            throw .listenFailed(address: address, problem: error.text)
        }
        let isFirst = state.withLock { state in
            guard state.file < 0, !state.isStopping else { return false }
            state.file = file
            state.alarmButton = alarm.button
            return true
        }
        precondition(isFirst, "a listener starts once")
        do {
            try startThread("bulk accept") {
                self.accept(on: file, alarm: alarm.bell, onConnection)
            }
        } catch {
            throw .listenFailed(address: address, problem: "\(error)")
        }
        return Sockets.address(of: file, isPeer: false) ?? address
    }

    /// Closes the listener and all connections and waits until their threads have ended.
    package func stop() {
        let sockets = state.withLock { state in
            state.isStopping = true
            if state.alarmButton >= 0 { close(state.alarmButton) }
            state.alarmButton = -1
            return Array(state.sockets.values)
        }
        for socket in sockets { socket.shutdown() }
        threads.wait()
    }

    private func startThread(
        _ name: String, _ body: @escaping @Sendable () -> Void
    ) throws(ThreadShortage) {
        threads.enter()
        do {
            try Waiting.startThread(name) { [threads] in
                body()
                threads.leave()
            }
        } catch {
            threads.leave()
            throw error
        }
    }

    private func accept(
        on file: Int32, alarm: Int32,
        _ onConnection: @escaping @Sendable (BulkConnection) -> Void
    ) {
        let shortage = FileShortage(listener: "bulk", logger: logger)
        while !state.withLock(\.isStopping) {
            Sockets.waitForConnection(file, alarm: alarm)
            guard !state.withLock(\.isStopping) else { break }
            guard !shortage.checks() else {
                Thread.sleep(forTimeInterval: FileShortage.pause.seconds)
                continue
            }
            do throws(SystemError) {
                guard let accepted = try Sockets.accept(file) else { continue }
                take(accepted, onConnection)
            } catch {
                shortage.occurred(error.text)
                Thread.sleep(forTimeInterval: FileShortage.pause.seconds)
            }
        }
        state.withLock { $0.file = -1 }
        close(file)
        close(alarm)
    }

    private func take(
        _ file: Int32, _ onConnection: @escaping @Sendable (BulkConnection) -> Void
    ) {
        let socket: BulkSocket
        do throws(TransportError) {
            socket = try BulkSocket(file: file, context: context, side: .server, records: records)
        } catch {
            logger.error("Bulk connection not taken", metadata: ["error": "\(error)"])
            return
        }
        let isAdmitted = state.withLock { state in
            guard !state.isStopping, state.sockets.count < limit else { return false }
            state.sockets[ObjectIdentifier(socket)] = socket
            return true
        }
        guard isAdmitted else {
            let error = TransportError.tooManyConnections(limit: limit)
            Refusals.count(error)
            reporter.refused(
                "Bulk connection not taken", error, certificate: nil,
                remote: socket.remoteAddress?.description ?? "unknown")
            return
        }
        do {
            try startThread("bulk connection") {
                self.serve(socket, onConnection)
                self.forget(socket)
            }
        } catch {
            // Its peer must not wait for an answer that can't come.
            socket.shutdown()
            forget(socket)
            logger.error("Bulk connection not taken", metadata: ["error": "\(error)"])
        }
    }

    private func forget(_ socket: BulkSocket) {
        _ = state.withLock { $0.sockets.removeValue(forKey: ObjectIdentifier(socket)) }
    }

    private func serve(_ socket: BulkSocket, _ onConnection: (BulkConnection) -> Void) {
        do throws(TransportError) {
            let connection = try BulkConnection(
                socket, policy: policy, deadline: Deadline(after: handshakeDeadline))
            onConnection(connection)
            connection.close()
        } catch {
            reporter.refused(
                "Bulk peer refused", error, certificate: socket.peerIdentity,
                remote: socket.remoteAddress?.description ?? "unknown")
        }
    }
}
