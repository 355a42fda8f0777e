internal import FileBudget
package import Logging
package import NIOCore
internal import NIOPosix
package import ServingTypes
internal import Synchronization

/// Accepts control connections and runs a closure for each.
///
/// So many handshakes are in progress at a time; other connections wait, oldest first, and cost
/// nothing if their peer goes meanwhile.
package final class ControlListener: Sendable {
    private struct State {
        var server: (any Channel)?
        var isStopping = false
        /// It has been logged that no more connections are taken.
        var isFull = false
        var channels: [ObjectIdentifier: any Channel] = [:]
        var handshakes: HandshakeQueue<NIOLoopBound<HandshakeGate>>
    }

    private let address: NetworkAddress
    private let context: TLSContext
    private let policy: PeerPolicy
    private let limits: ControlHandler.Limits
    private let connectionLimit: Int
    private let logger: Logger
    private let reporter: RefusalReporter
    private let group: any EventLoopGroup
    private let state: Mutex<State>
    private let sessions: AsyncStream<ControlSession>
    private let newSession: AsyncStream<ControlSession>.Continuation

    /// - Parameters:
    ///   - address: port 0 takes a free one.
    ///   - hello: names the same process as the context's certificate.
    ///   - connectionLimit: open connections; more are closed at once.
    package convenience init(
        address: NetworkAddress, context: TLSContext, hello: Hello, allowedRoles: Set<Role>,
        accepts: HelloCheck? = nil, idle: Duration = TransportLimits.idle,
        connectionLimit: Int = TransportLimits.controlConnections,
        eventLoopGroup: any EventLoopGroup = .singletonMultiThreadedEventLoopGroup, logger: Logger
    ) throws(TransportError) {
        try self.init(
            address: address, context: context, hello: hello, allowedRoles: allowedRoles,
            accepts: accepts, limits: ControlHandler.Limits(idle: idle),
            connectionLimit: connectionLimit, eventLoopGroup: eventLoopGroup, logger: logger)
    }

    init(
        address: NetworkAddress, context: TLSContext, hello: Hello, allowedRoles: Set<Role>,
        accepts: HelloCheck? = nil, limits: ControlHandler.Limits,
        connectionLimit: Int = TransportLimits.controlConnections,
        eventLoopGroup: any EventLoopGroup = .singletonMultiThreadedEventLoopGroup, logger: Logger
    ) throws(TransportError) {
        policy = try PeerPolicy(
            context: context, hello: hello, roles: allowedRoles, accepts: accepts)
        self.address = address
        self.context = context
        self.limits = limits
        self.connectionLimit = connectionLimit
        self.logger = logger
        reporter = RefusalReporter(logger: logger)
        group = eventLoopGroup
        state = Mutex(
            State(
                handshakes: HandshakeQueue(
                    limit: limits.handshakes,
                    waitingLimit: TransportLimits.handshakesWaiting)))
        (sessions, newSession) = AsyncStream.makeStream(
            bufferingPolicy: .bufferingOldest(connectionLimit))
    }

    /// The address with its real port; nil before `start`.
    package var boundAddress: NetworkAddress? {
        guard let local = state.withLock(\.server?.localAddress), let host = local.ipAddress,
            let port = local.port
        else { return nil }
        return NetworkAddress(host: host, port: port)
    }

    /// Connections in their handshake, and those that wait for it.
    var handshakes: (inProgress: Int, waiting: Int) {
        state.withLock { ($0.handshakes.inProgress.count, $0.handshakes.waitingCount) }
    }

    /// Begins to listen; sessions wait until `run`.
    ///
    /// A second call changes nothing.
    ///
    /// - Returns: the address with its real port.
    @discardableResult
    package func start() async throws(TransportError) -> NetworkAddress {
        if let boundAddress { return boundAddress }
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: TransportLimits.acceptBacklog)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { server in
                server.eventLoop.makeCompletedFuture {
                    try server.pipeline.syncOperations.addHandler(
                        AcceptGate(FileShortage(listener: "control", logger: self.logger)))
                }
            }
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.socketOption(.so_keepalive), value: 1)
            .childChannelInitializer { channel in self.take(channel) }
        do {
            let server = try await bootstrap.bind(host: address.host, port: address.port).get()
            server.closeFuture.whenComplete { _ in self.newSession.finish() }
            state.withLock { $0.server = server }
        } catch {
            throw .listenFailed(address: address, problem: "\(error)")
        }
        return boundAddress ?? address
    }

    /// Runs a closure for each session until the task is cancelled, then closes all of them.
    ///
    /// A session is closed when its closure ends, however it ends. Returns when everything is
    /// closed. Called once.
    package func run(
        _ onSession: @escaping @Sendable (ControlSession) async throws -> Void
    ) async throws(TransportError) {
        try await start()
        await withTaskCancellationHandler {
            await withDiscardingTaskGroup { group in
                for await session in sessions {
                    group.addTask { await self.serve(session, onSession) }
                }
                group.cancelAll()
            }
        } onCancel: {
            stop()
        }
        stop()
        // Those still greeting, and those greeted that nobody has taken.
        for channel in state.withLock({ Array($0.channels.values) }) {
            channel.close(promise: nil)
            try? await channel.closeFuture.get()
        }
        if !Task.isCancelled { throw .connectionLost("the listening socket was closed") }
    }

    private func serve(
        _ session: ControlSession,
        _ onSession: @Sendable (ControlSession) async throws -> Void
    ) async {
        do {
            try await onSession(session)
        } catch is CancellationError {
        } catch {
            logger.info(
                "Control session ended",
                metadata: ["peer": "\(session.peer)", "error": "\(error)"])
        }
        await session.finish()
    }

    private func stop() {
        let server = state.withLock { state in
            state.isStopping = true
            return state.server
        }
        server?.close(promise: nil)
        newSession.finish()
    }

    // MARK: On event loops

    private func take(_ channel: any Channel) -> EventLoopFuture<Void> {
        let (isAdmitted, isNews) = state.withLock { state in
            let isAdmitted = !state.isStopping && state.channels.count < connectionLimit
            if isAdmitted { state.channels[ObjectIdentifier(channel)] = channel }
            defer { state.isFull = !isAdmitted }
            return (isAdmitted, !isAdmitted && !state.isFull)
        }
        guard isAdmitted else {
            let error = TransportError.tooManyConnections(limit: connectionLimit)
            Refusals.count(error)
            logger.log(
                level: isNews ? .warning : .debug, "Control connection not taken",
                metadata: ["error": "\(error)"])
            return channel.eventLoop.makeFailedFuture(error)
        }
        channel.closeFuture.whenComplete { _ in
            self.state.withLock { $0.channels[ObjectIdentifier(channel)] = nil }
        }
        let greeted = channel.eventLoop.makePromise(of: ControlSession.self)
        greeted.futureResult.whenSuccess { session in
            if case .enqueued = self.newSession.yield(session) { return }
            session.close()
        }
        return channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.addHandler(
                HandshakeGate(
                    limits: self.limits, greeted: greeted, reporter: self.reporter,
                    enter: { self.enter($0, until: greeted.futureResult) },
                    begin: { channel in
                        try addHandlers(
                            to: channel, context: self.context, side: .server,
                            policy: self.policy, limits: self.limits,
                            reporter: self.reporter, greeted: greeted)
                    }))
        }
    }

    private func enter(
        _ gate: NIOLoopBound<HandshakeGate>, until greeted: EventLoopFuture<ControlSession>
    ) -> Bool {
        guard let ticket = state.withLock({ $0.handshakes.enter(gate) }) else { return false }
        greeted.whenComplete { _ in
            self.admit(after: ticket)
        }
        admit()
        return true
    }

    /// Lets handshakes begin where there are places, after one has ended.
    private func admit(after ended: UInt64? = nil) {
        let admitted = state.withLock { state in
            if let ended { state.handshakes.leave(ended) }
            return state.handshakes.admitted()
        }
        for gate in admitted { gate.eventLoop.execute { gate.value.admit() } }
    }
}

/// The handlers of a control connection, for either side.
func addHandlers(
    to channel: any Channel, context: TLSContext, side: TLSSide, policy: PeerPolicy,
    limits: ControlHandler.Limits, reporter: RefusalReporter,
    greeted: EventLoopPromise<ControlSession>
) throws {
    do {
        var firstAnswer: Duration?
        // A listener with many connections lets this one wait.
        if case .client = side { firstAnswer = limits.handshakeWait }
        try channel.pipeline.syncOperations.addHandlers([
            TLSHandler(
                context: context, side: side, handshakeDeadline: limits.handshake,
                firstAnswer: firstAnswer),
            ControlHandler(
                side: side, policy: policy, limits: limits, reporter: reporter,
                greeted: greeted),
        ])
    } catch {
        if let error = error as? TransportError {
            reporter.refused(
                "Control peer refused", error, certificate: nil, remote: channel.remoteText)
        }
        greeted.fail(error)
        throw error
    }
}
