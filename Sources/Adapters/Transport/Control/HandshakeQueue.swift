internal import Logging
internal import NIOCore
internal import ServingTypes

/// Which connections of a listener are in their handshake, and which wait for it.
///
/// Those that came first go first. Who leaves frees its place at once, and who waits has cost no
/// handshake work.
struct HandshakeQueue<Waiting> {
    typealias Ticket = UInt64

    let limit: Int
    let waitingLimit: Int
    private(set) var inProgress: Set<Ticket> = []
    private var waiting: [Ticket: Waiting] = [:]
    /// No ticket before it waits.
    private var oldest: Ticket = 0
    private var next: Ticket = 0

    /// - Parameters:
    ///   - limit: handshakes in progress, at least 1.
    ///   - waitingLimit: connections that wait for theirs.
    init(limit: Int, waitingLimit: Int) {
        self.limit = max(1, limit)
        self.waitingLimit = max(0, waitingLimit)
    }

    var waitingCount: Int { waiting.count }

    /// Takes a connection in; it waits until `admitted` gives it.
    ///
    /// - Returns: nil if as many as may wait do already.
    mutating func enter(_ connection: Waiting) -> Ticket? {
        guard inProgress.count < limit || waiting.count < waitingLimit else { return nil }
        let ticket = next
        next += 1
        waiting[ticket] = connection
        return ticket
    }

    /// The handshake has ended, or the connection.
    mutating func leave(_ ticket: Ticket) {
        inProgress.remove(ticket)
        waiting[ticket] = nil
    }

    /// Those whose handshake may begin now.
    mutating func admitted() -> [Waiting] {
        var admitted: [Waiting] = []
        while inProgress.count < limit, oldest < next {
            if let connection = waiting.removeValue(forKey: oldest) {
                inProgress.insert(oldest)
                admitted.append(connection)
            }
            oldest += 1
        }
        return admitted
    }
}

/// Holds an accepted connection until its handshake may begin.
///
///     silent ──first bytes──▶ waiting ──admitted──▶ gone from the pipeline
///        └──────deadline, peer gone───┴───────────▶ closed
///
/// It reads no more than the peer's first bytes, so a connection whose peer has gone ends here
/// before it has cost a signature.
final class HandshakeGate: ChannelInboundHandler, ChannelOutboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum State { case silent, waiting, admitted, ended }

    private let limits: ControlHandler.Limits
    /// The peer has begun to speak: asks for a place; false if there is no room to wait.
    private let enter: (NIOLoopBound<HandshakeGate>) -> Bool
    /// Puts the handlers of the connection behind this one.
    private let begin: (any Channel) throws -> Void
    private let greeted: EventLoopPromise<ControlSession>
    private let reporter: RefusalReporter
    private var state = State.silent
    private var held = ByteBuffer()
    private var context: ChannelHandlerContext?
    private var timer: Scheduled<Void>?

    init(
        limits: ControlHandler.Limits, greeted: EventLoopPromise<ControlSession>,
        reporter: RefusalReporter,
        enter: @escaping (NIOLoopBound<HandshakeGate>) -> Bool,
        begin: @escaping (any Channel) throws -> Void
    ) {
        self.limits = limits
        self.greeted = greeted
        self.reporter = reporter
        self.enter = enter
        self.begin = begin
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        schedule(limits.firstBytes)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        end(.shutDown)
        self.context = nil
    }

    func channelInactive(context: ChannelHandlerContext) {
        end(.tls(.closed, isReportedByPeer: false, details: ""))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if case .admitted = state { return context.fireErrorCaught(error) }
        end(.connectionLost("\(error)"))
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard state != .admitted else { return context.fireChannelRead(data) }
        guard state != .ended else { return }
        var bytes = unwrapInboundIn(data)
        held.writeBuffer(&bytes)
        if held.readableBytes > TransportLimits.bytesBeforePlace {
            end(.tls(.notTLS, isReportedByPeer: false, details: "it speaks before it is asked"))
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        guard state != .admitted else { return context.fireChannelReadComplete() }
        guard state == .silent else { return }
        guard held.readableBytes > 0 else { return context.read() }
        state = .waiting
        schedule(limits.handshakeWait)
        if !enter(NIOLoopBound(self, eventLoop: context.eventLoop)) {
            end(.tooManyHandshakes(limit: TransportLimits.handshakesWaiting))
        }
    }

    /// Reads until the peer has spoken, not beyond; the system tells of its end all the same.
    func read(context: ChannelHandlerContext) {
        if state == .silent || state == .admitted { context.read() }
    }

    /// The handshake may begin.
    func admit() {
        guard state == .waiting, let context else { return }
        state = .admitted
        timer?.cancel()
        do {
            try begin(context.channel)
        } catch {
            context.close(promise: nil)
            return
        }
        context.fireChannelRead(wrapInboundOut(held))
        context.fireChannelReadComplete()
        context.read()
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    private func schedule(_ delay: Duration) {
        timer?.cancel()
        let due = NIODeadline.now() + TimeAmount(delay)
        timer = context?.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(delay)) {
            if due.wasMissed { self.schedule(delay) } else { self.end(.handshakeDeadline) }
        }
    }

    private func end(_ error: TransportError) {
        guard state == .silent || state == .waiting else { return }
        state = .ended
        timer?.cancel()
        held = ByteBuffer()
        if error != .shutDown {
            Refusals.count(error)
            let remote = context?.channel.remoteText ?? "unknown"
            reporter.refused("Control peer refused", error, certificate: nil, remote: remote)
        }
        greeted.fail(error)
        context?.close(promise: nil)
    }
}
