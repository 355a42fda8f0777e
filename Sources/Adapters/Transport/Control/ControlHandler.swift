internal import Logging
internal import NIOCore
internal import ServingTypes
internal import WireProtocol

/// Greets the peer, then cuts its bytes into frames and checks each.
///
///     waitingForTLS ──certificate fits──▶ waitingForHello ──Hello fits──▶ open ──▶ ended
///
/// Any fault ends it: the peer gets a `Refusal` if it is to blame, the session gets the error.
final class ControlHandler: ChannelInboundHandler, ChannelOutboundHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = Never
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// Settings that tests shorten.
    struct Limits: Sendable {
        var handshake = TransportLimits.handshake
        var handshakeWait = TransportLimits.handshakeWait
        var firstBytes = TransportLimits.firstBytes
        var handshakes = TransportLimits.handshakes
        var idle = TransportLimits.idle
        var waitingBytes = TransportLimits.waitingBytes
    }

    private enum State {
        case waitingForTLS
        case waitingForHello(PeerIdentity)
        case open(PeerIdentity, InboundFrames)
        case ended
    }

    private let side: TLSSide
    private let policy: PeerPolicy
    private let limits: Limits
    private let reporter: RefusalReporter
    /// Completed exactly once: with the session, or with why there is none.
    private let greeted: EventLoopPromise<ControlSession>
    private var state = State.waitingForTLS
    private var parser = FrameParser()
    private var context: ChannelHandlerContext?
    private var timer: Scheduled<Void>?
    private var lastFrame = NIODeadline.now()
    /// The caller takes no frames for now.
    private var isPaused = false
    private var wantsRead = false
    /// What the peer's certificate says, fitting or not.
    private var certificate: PeerIdentity?

    init(
        side: TLSSide, policy: PeerPolicy, limits: Limits, reporter: RefusalReporter,
        greeted: EventLoopPromise<ControlSession>
    ) {
        self.side = side
        self.policy = policy
        self.limits = limits
        self.reporter = reporter
        self.greeted = greeted
    }

    // MARK: Life of the channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        // The side that connects waits as long as TCP and TLS get on.
        if case .server = side { limitHandshake() }
    }

    private func limitHandshake() {
        let due = NIODeadline.now() + TimeAmount(limits.handshake)
        schedule(TimeAmount(limits.handshake)) { handler in
            if due.wasMissed { handler.limitHandshake() } else { handler.end(.handshakeDeadline) }
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        end(nil)
        self.context = nil
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let event = event as? TLSEstablished, case .waitingForTLS = state else {
            return context.fireUserInboundEventTriggered(event)
        }
        certificate = event.peer
        do throws(TransportError) {
            let identity = try policy.check(event.peer)
            let greeting: [UInt8]
            do throws(WireError) {
                greeting = try encodeFrame(.hello(policy.hello))
            } catch { throw .unsendable(error) }
            state = .waitingForHello(identity)
            if case .client = side { limitHandshake() }
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: greeting)), promise: nil)
        } catch { end(error) }
    }

    func channelInactive(context: ChannelHandlerContext) {
        switch state {
        case .waitingForTLS, .waitingForHello: end(.closedByPeer)
        case .open where !parser.isAtFrameBoundary:
            end(.connectionLost("the peer closed it inside a frame"))
        case .open, .ended: end(nil)
        }
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        end(error as? TransportError ?? .connectionLost("\(error)"))
    }

    // MARK: Frames

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if case .ended = state { return }
        unsafe unwrapInboundIn(data).withUnsafeReadableBytes { unsafe parser.append($0) }
        do throws(TransportError) {
            while let frame = try nextFrame() { try receive(frame) }
        } catch { end(error) }
    }

    private func nextFrame() throws(TransportError) -> Frame? {
        do throws(WireError) {
            switch state {
            case .ended: return nil
            default: return try parser.next()
            }
        } catch { throw .received(error, from: peer?.role) }
    }

    private var peer: PeerIdentity? {
        switch state {
        case .waitingForHello(let peer), .open(let peer, _): peer
        case .waitingForTLS, .ended: nil
        }
    }

    private func receive(_ frame: Frame) throws(TransportError) {
        lastFrame = .now()
        switch state {
        case .waitingForTLS, .ended: break
        case .waitingForHello(let peer):
            let hello = try policy.check(frame.message, from: peer)
            let named = PeerIdentity(
                cluster: peer.cluster, role: peer.role, instance: hello.instance)
            open(named, hello)
        case .open(let peer, let inbound):
            try ConnectionKind.control.check(frame.message, from: peer.role)
            if !inbound.add(frame) { isPaused = true }
        }
    }

    private func open(_ peer: PeerIdentity, _ hello: Hello) {
        guard let context else { return }
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        let inbound = InboundFrames {
            bound.eventLoop.execute { bound.value.resume() }
        }
        state = .open(peer, inbound)
        watchIdleness(after: TimeAmount(limits.idle))
        greeted.succeed(
            ControlSession(
                peer: peer, certificate: certificate ?? peer, hello: hello, inbound: inbound,
                channel: context.channel,
                handler: bound, waitingLimit: limits.waitingBytes))
    }

    // MARK: Back-pressure

    func read(context: ChannelHandlerContext) {
        if isPaused {
            wantsRead = true
        } else {
            context.read()
        }
    }

    private func resume() {
        isPaused = false
        guard wantsRead else { return }
        wantsRead = false
        context?.read()
    }

    // MARK: Time

    private func schedule(
        _ delay: TimeAmount, _ action: @escaping (ControlHandler) -> Void
    ) {
        timer?.cancel()
        timer = context?.eventLoop.assumeIsolated().scheduleTask(in: delay) { action(self) }
    }

    /// Time since the peer's last frame; zero while the caller takes none.
    var silence: Duration {
        isPaused ? .zero : .nanoseconds((NIODeadline.now() - lastFrame).nanoseconds)
    }

    private func watchIdleness(after delay: TimeAmount) {
        schedule(delay) { handler in
            let limit = TimeAmount(handler.limits.idle)
            // A caller that takes no frames makes the peer only look silent.
            if handler.isPaused { handler.lastFrame = .now() }
            let silence = NIODeadline.now() - handler.lastFrame
            if silence >= limit {
                handler.end(.idle(handler.limits.idle))
            } else {
                handler.watchIdleness(after: limit - silence)
            }
        }
    }

    // MARK: The end

    /// Ends the connection; the first call decides how.
    ///
    /// - Parameter error: nil if either side closed it in good order.
    func end(_ error: TransportError?) {
        let before = state
        if case .ended = before { return }
        state = .ended
        timer?.cancel()
        timer = nil
        if let error, let context, let refusal = refusalFrame(error) {
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(bytes: refusal)), promise: nil)
        }
        if let error { report(error, before) }
        switch before {
        case .waitingForTLS, .waitingForHello: greeted.fail(error ?? .shutDown)
        case .open(_, let inbound): inbound.finish(error)
        case .ended: break
        }
        context?.close(promise: nil)
    }

    private func report(_ error: TransportError, _ before: State) {
        let remote = context?.channel.remoteText ?? "unknown"
        switch before {
        case .waitingForTLS, .waitingForHello:
            Refusals.count(error)
            // Who connects tries again, and says so itself.
            guard case .server = side, error != .shutDown else { return }
            reporter.refused(
                "Control peer refused", error, certificate: certificate, remote: remote)
        case .open(let peer, _):
            // What was good and is so no more is counted where that is found out.
            if case .tls = error {} else { Refusals.count(error) }
            reporter.refused("Control session broken", error, certificate: peer, remote: remote)
        case .ended: break
        }
    }
}
