import ChatAPI
import HTTPTypes
import NIOCore
import NIOHTTPTypes

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Holds one connection to the limits and tells at once when its client leaves.
///
///     waiting ──head──▶ reading ──end──▶ answering ──end of answer──▶ waiting
///        └─late──▶ close   └─late, too large──▶ refusing ──▶ lingering ──▶ close
///
/// Works on events alone, never on writes, so a client that leaves while nothing is being written
/// is noticed as well: the kernel reports the end of its stream although nobody reads.
final class ConnectionGuard: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private enum Phase {
        case serving
        /// Answers begun before the refused request are still being written.
        case refusing(APIError, isCurrentOpen: Bool)
        /// The last answer is written; what the client still sends is thrown away.
        case lingering
    }

    private let limits: HTTPLimits
    private let connection: HTTPConnection
    private let refusal: APIError?
    private let connections: OpenConnections
    private let count: HTTPCounting
    private var phase = Phase.serving
    /// Heads handed on less answers completed.
    private var openAnswers = 0
    private var isBodyOpen = false
    private var isStalled = false
    private var bodyBytes = 0
    private var discardedBytes = 0
    /// Of bodies that are not answered yet, as counted in all connections together.
    private var heldBytes = 0
    /// For head, body, idle time or lingering, whichever is due.
    private var timer: Scheduled<Void>?
    private var stallTimer: Scheduled<Void>?

    /// - Parameter refusal: what every request of this connection is answered with.
    init(
        limits: HTTPLimits, connection: HTTPConnection, refusal: APIError?,
        connections: OpenConnections, count: HTTPCounting
    ) {
        self.connections = connections
        self.count = count
        self.limits = limits
        self.connection = connection
        self.refusal = refusal
    }

    // MARK: The connection's life

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { awaitFirstHead(context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        awaitFirstHead(context)
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        stopTimers()
        connection.clientLeft()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        stopTimers()
        giveBodiesBack()
    }

    private func giveBodiesBack() {
        _ = connections.holdsBody(-heldBytes)
        heldBytes = 0
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed {
            connection.clientLeft()
            if case .lingering = phase { context.close(promise: nil) }
        }
        context.fireUserInboundEventTriggered(event)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard !(error is IOError), !(error is ChannelError), case .serving = phase else {
            // The kernel has given up a client that took nothing of what it holds for it.
            if (error as? IOError)?.errnoCode == ETIMEDOUT { countStalled() }
            connection.clientLeft()
            context.fireErrorCaught(error)
            return
        }
        // What can't be read as HTTP; there is no way to find the next request.
        refuse(
            context, .invalid("The request is not valid HTTP.", code: "invalid_http"),
            isCurrentOpen: isBodyOpen)
    }

    // MARK: Requests

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let part = unwrapInboundIn(data)
        guard case .serving = phase else {
            if case .body(let bytes) = part { discardedBytes += bytes.readableBytes }
            return
        }
        switch part {
        case .head(let head):
            stopTimer()
            if let error = refusalReason(head) {
                refuse(context, error, isCurrentOpen: false)
                return
            }
            isBodyOpen = true
            bodyBytes = 0
            openAnswers += 1
            if head.headerFields[.expect]?.lowercased() == "100-continue", openAnswers == 1 {
                let go = HTTPResponse(status: .continue)
                context.writeAndFlush(wrapOutboundOut(.head(go)), promise: nil)
            }
            startBodyTimer(context)
        case .body(let bytes):
            bodyBytes += bytes.readableBytes
            if bodyBytes > limits.bodyBytes {
                refuse(
                    context, .bodyTooLarge(limitBytes: limits.bodyBytes), isCurrentOpen: true)
                return
            }
            heldBytes += bytes.readableBytes
            if connections.holdsBody(bytes.readableBytes) > limits.allBodyBytes {
                count.refused("bodies")
                refuse(
                    context,
                    .overloaded(
                        "Too many large requests at once.",
                        retryAfterSeconds: HTTPLimits.retryAfterSeconds), isCurrentOpen: true)
                return
            }
        case .end:
            isBodyOpen = false
            stopTimer()
        }
        context.fireChannelRead(data)
    }

    private func refusalReason(_ head: HTTPRequest) -> APIError? {
        if let refusal { return refusal }
        guard let length = head.headerFields[.contentLength] else { return nil }
        guard let bytes = Int(length), bytes <= limits.bodyBytes else {
            return .bodyTooLarge(limitBytes: limits.bodyBytes)
        }
        return nil
    }

    func read(context: ChannelHandlerContext) {
        // A refused client that goes on sending is not read any further; the timer ends it.
        if case .lingering = phase, discardedBytes > HTTPLimits.lingerBytes { return }
        context.read()
    }

    private func startBodyTimer(_ context: ChannelHandlerContext) {
        timer = schedule(context, after: limits.bodyTime) { guardian, context in
            guard guardian.isBodyOpen else { return }
            if guardian.openAnswers > 1 {
                // Behind another answer the body waits for us, not for the client.
                guardian.startBodyTimer(context)
                return
            }
            let late = APIError(
                status: 408, message: "The body did not arrive in time.",
                type: "invalid_request_error", code: "request_timeout")
            guardian.count.cut(.body)
            guardian.refuse(context, late, isCurrentOpen: true)
        }
    }

    private func awaitFirstHead(_ context: ChannelHandlerContext) {
        stopTimer()
        timer = schedule(context, after: limits.headTime) { guardian, context in
            guardian.count.cut(.head)
            context.close(promise: nil)
        }
    }

    // MARK: Answers

    func write(
        context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?
    ) {
        if case .lingering = phase {
            promise?.fail(ChannelError.outputClosed)
            return
        }
        guard case .end = unwrapOutboundIn(data) else {
            context.write(data, promise: promise)
            return
        }
        context.write(data, promise: promise)
        openAnswers -= 1
        if openAnswers == 0, !isBodyOpen { giveBodiesBack() }
        switch phase {
        case .refusing(let error, let isCurrentOpen):
            if openAnswers == (isCurrentOpen ? 1 : 0) { writeRefusal(context, error) }
        case .serving where openAnswers == 0 && !isBodyOpen:
            closeLater(context, after: limits.idleTime)
        case .serving, .lingering: break
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        stallTimer?.cancel()
        stallTimer = nil
        if !context.channel.isWritable {
            stallTimer = schedule(context, after: limits.stallTime) { guardian, context in
                guardian.countStalled()
                guardian.drop(context)
            }
        }
        context.fireChannelWritabilityChanged()
    }

    func close(
        context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?
    ) {
        guard mode == .output else {
            context.close(mode: mode, promise: promise)
            return
        }
        closeOutput(context, promise)
    }

    /// Ends our side once everything is written, then gives the client a moment to end its own.
    private func closeOutput(_ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>?) {
        let written = promise ?? context.eventLoop.makePromise(of: Void.self)
        let loopBound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        written.futureResult.whenComplete { _ in
            let (guardian, context) = loopBound.value
            guard context.channel.isActive else { return }
            guardian.closeLater(context, after: HTTPLimits.lingerTime)
        }
        context.close(mode: .output, promise: written)
    }

    private func countStalled() {
        if !isStalled { count.cut(.stalled) }
        isStalled = true
    }

    /// Closes with a reset: what the kernel holds for the client is freed at once.
    private func drop(_ context: ChannelHandlerContext) {
        let now = linger(l_onoff: 1, l_linger: 0)
        (context.channel as? any SocketOptionProvider)?.setSoLinger(now).whenFailure { _ in }
        context.close(promise: nil)
    }

    // MARK: Refusing

    private func refuse(
        _ context: ChannelHandlerContext, _ error: APIError, isCurrentOpen: Bool
    ) {
        stopTimer()
        phase = .refusing(error, isCurrentOpen: isCurrentOpen)
        if openAnswers == (isCurrentOpen ? 1 : 0) { writeRefusal(context, error) }
    }

    private func writeRefusal(_ context: ChannelHandlerContext, _ error: APIError) {
        let reply = HTTPReply.error(error)
        var head = reply.head(date: nil)
        head.headerFields[.connection] = "close"
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(
            wrapOutboundOut(.body(ByteBuffer(bytes: error.json))), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        phase = .lingering
        closeOutput(context, nil)
    }

    // MARK: Timers

    private func closeLater(_ context: ChannelHandlerContext, after time: Duration) {
        stopTimer()
        timer = schedule(context, after: time) { _, context in context.close(promise: nil) }
    }

    private func schedule(
        _ context: ChannelHandlerContext, after time: Duration,
        _ action: @escaping (ConnectionGuard, ChannelHandlerContext) -> Void
    ) -> Scheduled<Void> {
        context.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(time)) {
            action(self, context)
        }
    }

    private func stopTimer() {
        timer?.cancel()
        timer = nil
    }

    private func stopTimers() {
        stopTimer()
        stallTimer?.cancel()
        stallTimer = nil
    }
}
