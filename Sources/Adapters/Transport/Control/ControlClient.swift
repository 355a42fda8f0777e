internal import FileBudget
package import Logging
package import NIOCore
internal import NIOPosix
package import ServingTypes
internal import Synchronization

/// Keeps one control connection to one peer, which may be at one of several addresses.
package struct ControlClient: Sendable {
    let addresses: [NetworkAddress]
    private let context: TLSContext
    private let policy: PeerPolicy
    private let limits: ControlHandler.Limits
    let logger: Logger
    private let reporter: RefusalReporter
    private let group: any EventLoopGroup

    /// - Parameters:
    ///   - address: a host name is looked up for each attempt.
    ///   - hello: names the same process as the context's certificate.
    package init(
        address: NetworkAddress, context: TLSContext, hello: Hello, expects: PeerExpectation,
        accepts: HelloCheck? = nil, idle: Duration = TransportLimits.idle,
        eventLoopGroup: any EventLoopGroup = .singletonMultiThreadedEventLoopGroup, logger: Logger
    ) throws(TransportError) {
        try self.init(
            address: address, context: context, hello: hello, expects: expects, accepts: accepts,
            limits: ControlHandler.Limits(idle: idle), eventLoopGroup: eventLoopGroup,
            logger: logger)
    }

    /// - Parameter addresses: of several peers of which one leads; whoever answers is followed.
    package init(
        addresses: [NetworkAddress], context: TLSContext, hello: Hello, expects: PeerExpectation,
        logger: Logger
    ) throws(TransportError) {
        precondition(!addresses.isEmpty, "a peer has an address")
        var limits = ControlHandler.Limits()
        if addresses.count > 1 {
            limits.idle = TransportLimits.idleOfSeveral
            limits.handshakeWait = TransportLimits.idleOfSeveral
        }
        try self.init(
            addresses: addresses, context: context, hello: hello, expects: expects, accepts: nil,
            limits: limits, logger: logger)
    }

    init(
        address: NetworkAddress, context: TLSContext, hello: Hello, expects: PeerExpectation,
        accepts: HelloCheck? = nil, limits: ControlHandler.Limits,
        eventLoopGroup: any EventLoopGroup = .singletonMultiThreadedEventLoopGroup, logger: Logger
    ) throws(TransportError) {
        try self.init(
            addresses: [address], context: context, hello: hello, expects: expects,
            accepts: accepts, limits: limits, eventLoopGroup: eventLoopGroup, logger: logger)
    }

    private init(
        addresses: [NetworkAddress], context: TLSContext, hello: Hello, expects: PeerExpectation,
        accepts: HelloCheck? = nil, limits: ControlHandler.Limits,
        eventLoopGroup: any EventLoopGroup = .singletonMultiThreadedEventLoopGroup, logger: Logger
    ) throws(TransportError) {
        policy = try PeerPolicy(
            context: context, hello: hello, roles: expects.roles, instance: expects.instance,
            accepts: accepts)
        self.addresses = addresses
        self.context = context
        self.limits = limits
        self.logger = logger
        reporter = RefusalReporter(logger: logger)
        group = eventLoopGroup
    }

    /// Whether the peer is always at the same address.
    package var hasOneAddress: Bool { addresses.count == 1 }

    /// Runs a closure for one session after the other until the task is cancelled.
    ///
    /// The first connection waits for a part of `spread`, by chance. When the closure or the
    /// connection ends, it connects again after a pause that grows from `firstBackoff` to
    /// `longestBackoff`; after a refusal that only an operator can mend it waits
    /// `permanentRefusalBackoff`. All pauses are shortened by chance. Several addresses are tried
    /// at once, and their pauses grow to `longestBackoffOfSeveral`.
    package func run(
        spread: Duration = TransportLimits.firstConnectionSpread,
        onSession: @escaping @Sendable (ControlSession) async throws -> Void
    ) async {
        if spread > .zero { try? await Task.sleep(for: spread * .random(in: 0...1)) }
        if hasOneAddress {
            await runAlone(onSession)
        } else {
            await followLeader(onSession)
        }
    }

    private func runAlone(
        _ onSession: @escaping @Sendable (ControlSession) async throws -> Void
    ) async {
        let address = addresses[0]
        var backoff = Backoff()
        let problems = ConnectionProblems()
        while !Task.isCancelled {
            let start = ContinuousClock.now
            var problem: TransportError?
            do {
                try await connectOnce(onSession)
            } catch let error as TransportError {
                problem = error
            } catch is CancellationError {
                break
            } catch {
                logger.info("Control session ended", metadata: metadata(error, address))
            }
            if ContinuousClock.now - start >= TransportLimits.steadySession {
                backoff = Backoff()
                problems.forget()
            }
            let pause = backoff.next(afterPermanentRefusal: problem?.isPermanent ?? false)
            if let problem, !Task.isCancelled {
                report(problem, at: address, isNew: problems.note(problem, at: address), pause)
            }
            try? await Task.sleep(for: pause)
        }
    }

    /// Connects once, to the first address, runs the closure and closes.
    ///
    /// - Throws: `TransportError` if there is no session, otherwise what the closure throws.
    package func connectOnce<Result: Sendable>(
        _ body: @Sendable (ControlSession) async throws -> Result
    ) async throws -> Result {
        let session = try await connect(to: addresses[0])
        do {
            let result = try await body(session)
            await session.finish()
            return result
        } catch {
            await session.finish()
            throw error
        }
    }

    func connect(to address: NetworkAddress) async throws -> ControlSession {
        guard !OpenFiles.areVeryScarce else {
            throw TransportError.connectFailed(address: address, problem: Sockets.filesAreScarce)
        }
        let attempt = Attempt()
        return try await withTaskCancellationHandler {
            let greeted: EventLoopFuture<ControlSession>
            do {
                greeted = try await ClientBootstrap(group: group)
                    .channelOption(.tcpOption(.tcp_nodelay), value: 1)
                    .channelOption(.socketOption(.so_keepalive), value: 1)
                    .connectTimeout(TimeAmount(limits.handshake))
                    .connect(host: address.host, port: address.port) { channel in
                        prepare(channel, attempt)
                    }
            } catch {
                try Task.checkCancellation()
                throw TransportError.connectFailed(address: address, problem: "\(error)")
            }
            return try await greeted.get()
        } onCancel: {
            attempt.cancel()
        }
    }

    /// The future in the future: one for the TCP connection, one for the greeting.
    private func prepare(
        _ channel: any Channel, _ attempt: Attempt
    ) -> EventLoopFuture<EventLoopFuture<ControlSession>> {
        let greeted = channel.eventLoop.makePromise(of: ControlSession.self)
        return channel.eventLoop.makeCompletedFuture {
            try addHandlers(
                to: channel, context: context, side: .client(serverName: nil), policy: policy,
                limits: limits, reporter: reporter, greeted: greeted)
            attempt.add(channel)
            return greeted.futureResult
        }
    }

    func report(
        _ problem: TransportError, at address: NetworkAddress, isNew: Bool, _ pause: Duration
    ) {
        // Of several addresses those of standbys refuse all the time.
        let usual: Logger.Level = hasOneAddress ? .warning : .info
        let level: Logger.Level = !isNew ? .debug : problem.isPermanent ? .error : usual
        var metadata = metadata(problem, address)
        metadata["retry_in"] = "\(pause)"
        logger.log(level: level, "Control connection failed", metadata: metadata)
    }

    func metadata(_ error: any Error, _ address: NetworkAddress) -> Logger.Metadata {
        ["address": "\(address)", "error": "\(error)"]
    }
}

/// What was last wrong at each address, so that it is said once.
final class ConnectionProblems: Sendable {
    private let last = Mutex<[NetworkAddress: String]>([:])

    /// Whether it is another problem than the one before.
    func note(_ problem: TransportError, at address: NetworkAddress) -> Bool {
        let text = problem.description
        return last.withLock { $0.updateValue(text, forKey: address) } != text
    }

    func forget() { last.withLock { $0 = [:] } }
}

/// The channels of one attempt to connect: a host name may have several addresses.
private final class Attempt: Sendable {
    private struct State {
        var channels: [any Channel] = []
        var isCancelled = false
    }

    private let state = Mutex(State())

    func add(_ channel: any Channel) {
        let isCancelled = state.withLock { state in
            state.channels.append(channel)
            return state.isCancelled
        }
        if isCancelled { channel.close(promise: nil) }
    }

    func cancel() {
        let channels = state.withLock { state in
            state.isCancelled = true
            return state.channels
        }
        for channel in channels { channel.close(promise: nil) }
    }
}

/// Pauses between attempts: longer each time, and shorter by chance, so that those who lost the
/// same listener don't come back together.
struct Backoff {
    private var longest = TransportLimits.firstBackoff
    /// What pauses grow to.
    var bound = TransportLimits.longestBackoff

    mutating func next(afterPermanentRefusal isPermanent: Bool) -> Duration {
        let pause = isPermanent ? TransportLimits.permanentRefusalBackoff : longest
        longest = min(longest * TransportLimits.backoffGrowth, bound)
        return pause * Double.random(in: 1 - TransportLimits.backoffJitter...1)
    }
}
