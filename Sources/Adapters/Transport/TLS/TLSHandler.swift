package import NIOCore
package import ServingTypes

/// Says that a TLS handshake has ended well; fired inbound before any plaintext.
package struct TLSEstablished: Sendable, Hashable {
    /// What the peer's certificate says; nil without one or without a single URI name.
    package var peer: PeerIdentity?
}

/// TLS on a NIO channel, for either side and for HTTPS as for the cluster.
///
///     handshaking ──done──▶ open ──close()──▶ closing ──peer's end, linger over──▶ closed
///          └──fault──▶ failed ◀──fault──┘        failed ──peer's end, linger over──▶ closed
///
/// Faults are fired as `TransportError`. `close` first sends what was written. Both then wait up
/// to `TransportLimits.closeLinger` for the peer to close, or the kernel could throw away what the
/// peer has not read yet.
package final class TLSHandler: ChannelDuplexHandler {
    package typealias InboundIn = ByteBuffer
    package typealias InboundOut = ByteBuffer
    package typealias OutboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    private enum State { case handshaking, open, closing, failed, closed }

    private struct Write {
        var buffer: ByteBuffer
        var promise: EventLoopPromise<Void>?
    }

    private let tls: TLSContext
    private let session: TLSSession
    /// From the end of the handshake, if the peer has shown a certificate.
    private var openPeer: OpenPeers.Entry?
    private let handshakeDeadline: Duration
    private let firstAnswer: Duration?
    private var state = State.handshaking
    private var deadline: Scheduled<Void>?
    private var writes: [Write] = []
    private var writtenBytes = 0
    /// Number of writes at the front that a flush has covered.
    private var flushed = 0
    private var hasDelivered = false
    private var closePromise: EventLoopPromise<Void>?

    /// - Parameters:
    ///   - handshakeDeadline: for the whole handshake; with `firstAnswer` for each wait after it.
    ///   - firstAnswer: time that a busy peer is given before it begins; nil if it begins at once.
    package init(
        context: TLSContext, side: TLSSide,
        handshakeDeadline: Duration = TransportLimits.handshake, firstAnswer: Duration? = nil
    ) throws(TransportError) {
        tls = context
        session = try TLSSession(context: context, side: side)
        self.handshakeDeadline = handshakeDeadline
        self.firstAnswer = firstAnswer
    }

    // MARK: Life of the channel

    package func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { start(context) }
    }

    package func channelActive(context: ChannelHandlerContext) {
        start(context)
        context.fireChannelActive()
    }

    package func channelInactive(context: ChannelHandlerContext) {
        if state == .handshaking {
            context.fireErrorCaught(
                TransportError.tls(.closed, isReportedByPeer: false, details: ""))
        }
        end(context)
        context.fireChannelInactive()
    }

    package func handlerRemoved(context: ChannelHandlerContext) { end(context) }

    private func start(_ context: ChannelHandlerContext) {
        guard state == .handshaking, deadline == nil else { return }
        startDeadline(firstAnswer ?? handshakeDeadline, context)
        advance(context)
    }

    private func startDeadline(_ delay: Duration, _ context: ChannelHandlerContext) {
        let due = NIODeadline.now() + TimeAmount(delay)
        schedule(delay, context) { handler, context in
            if due.wasMissed {
                handler.startDeadline(delay, context)
            } else {
                handler.fail(.handshakeDeadline, context)
            }
        }
    }

    /// Replaces the running deadline.
    private func schedule(
        _ delay: Duration, _ context: ChannelHandlerContext,
        _ action: @escaping (TLSHandler, ChannelHandlerContext) -> Void
    ) {
        deadline?.cancel()
        deadline = context.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(delay)) {
            action(self, context)
        }
    }

    /// Lets go of everything that waits; the channel is gone or going.
    private func end(_ context: ChannelHandlerContext) {
        state = .closed
        openPeer = nil
        deadline?.cancel()
        deadline = nil
        let waiting = writes
        writes = []
        flushed = 0
        for write in waiting { write.promise?.fail(ChannelError.ioOnClosedChannel) }
        closePromise?.succeed()
        closePromise = nil
    }

    // MARK: From the network

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        guard state != .closed, state != .failed else { return }
        if state == .handshaking, firstAnswer != nil { startDeadline(handshakeDeadline, context) }
        do throws(TransportError) {
            try unsafe buffer.readableBytesSpan.withUnsafeBytes { bytes throws(TransportError) in
                try unsafe session.receive(bytes)
            }
        } catch { return fail(error, context) }
        if state == .handshaking { advance(context) }
        if state == .open || state == .closing { deliver(context) }
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        let wasOfUse = hasDelivered
        hasDelivered = false
        context.fireChannelReadComplete()
        // Nobody above knows that more bytes are needed before there is anything to read.
        if !wasOfUse, state != .closed { context.read() }
    }

    private func advance(_ context: ChannelHandlerContext) {
        do throws(TransportError) { try session.handshake() } catch { return fail(error, context) }
        sendCiphertext(context, promise: nil)
        context.flush()
        guard session.isEstablished else { return }
        state = .open
        deadline?.cancel()
        deadline = nil
        let certificate = session.peerCertificate
        if let certificate { watch(certificate, context) }
        context.fireUserInboundEventTriggered(TLSEstablished(peer: certificate?.identity))
        sealWrites(context)
    }

    /// Tells those above when the certificate holds no more; they end the connection.
    private func watch(_ certificate: Certificate, _ context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let remote = context.channel.remoteText
        openPeer = tls.peers.add(certificate, remote: remote) { error in
            bound.eventLoop.execute {
                let (handler, context) = bound.value
                if handler.state == .open { context.fireErrorCaught(error) }
            }
        }
    }

    private func deliver(_ context: ChannelHandlerContext) {
        while state == .open || state == .closing {
            var buffer = context.channel.allocator.buffer(
                capacity: TransportLimits.openedChunkBytes)
            var reading = Result<TLSSession.Reading, TransportError>.success(.needsMore)
            unsafe buffer.writeWithUnsafeMutableBytes(
                minimumWritableBytes: TransportLimits.openedChunkBytes
            ) { bytes in
                reading = Result { () throws(TransportError) in
                    try unsafe session.read(into: bytes)
                }
                guard case .success(.bytes(let count)) = reading else { return 0 }
                return count
            }
            switch reading {
            case .success(.bytes):
                guard state == .open else { continue }
                hasDelivered = true
                context.fireChannelRead(wrapInboundOut(buffer))
            case .success(.needsMore):
                // Reading may have produced an answer, such as to a key update.
                if session.waitingBytes > 0 {
                    sendCiphertext(context, promise: nil)
                    context.flush()
                }
                return
            case .success(.closed):
                return finish(context)
            case .failure(let error):
                return fail(error, context)
            }
        }
    }

    // MARK: To the network

    package func write(
        context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?
    ) {
        let buffer = unwrapOutboundIn(data)
        let isTooMuch =
            state == .handshaking
            && writtenBytes + buffer.readableBytes > TransportLimits.bytesBeforeHandshake
        guard state == .open || state == .handshaking, !isTooMuch else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        writtenBytes += buffer.readableBytes
        writes.append(Write(buffer: buffer, promise: promise))
    }

    package func flush(context: ChannelHandlerContext) {
        flushed = writes.count
        if state == .open { sealWrites(context) }
    }

    /// Encrypts what a flush covers and sends it in pieces of `sealedChunkBytes`.
    private func sealWrites(_ context: ChannelHandlerContext) {
        guard flushed > 0 else { return }
        let ready = writes.prefix(flushed)
        writes.removeFirst(flushed)
        flushed = 0
        var promises: [EventLoopPromise<Void>] = []
        for write in ready {
            var buffer = write.buffer
            writtenBytes -= buffer.readableBytes
            while state == .open, buffer.readableBytes > 0 {
                let count = min(buffer.readableBytes, TransportLimits.sealedChunkBytes)
                guard let piece = buffer.readSlice(length: count), seal(piece, context) else {
                    break
                }
                if session.waitingBytes >= TransportLimits.sealedChunkBytes {
                    sendCiphertext(context, promise: joined(&promises, context))
                }
            }
            guard let promise = write.promise else { continue }
            if state == .open {
                promises.append(promise)
            } else {
                promise.fail(ChannelError.ioOnClosedChannel)
            }
        }
        sendCiphertext(context, promise: joined(&promises, context))
        context.flush()
    }

    private func seal(_ piece: ByteBuffer, _ context: ChannelHandlerContext) -> Bool {
        do throws(TransportError) {
            try unsafe piece.readableBytesSpan.withUnsafeBytes { bytes throws(TransportError) in
                try unsafe session.write(bytes)
            }
            return true
        } catch {
            fail(error, context)
            return false
        }
    }

    /// One promise that completes all of them.
    private func joined(
        _ promises: inout [EventLoopPromise<Void>], _ context: ChannelHandlerContext
    ) -> EventLoopPromise<Void>? {
        guard let first = promises.first else { return nil }
        for other in promises.dropFirst() { first.futureResult.cascade(to: other) }
        promises = []
        return first
    }

    private func sendCiphertext(
        _ context: ChannelHandlerContext, promise: EventLoopPromise<Void>?
    ) {
        let waiting = session.waitingBytes
        var buffer = context.channel.allocator.buffer(capacity: waiting)
        unsafe buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: waiting) { bytes in
            unsafe session.takeCiphertext(into: bytes)
        }
        guard buffer.readableBytes > 0 || promise != nil else { return }
        context.write(wrapOutboundOut(buffer), promise: promise)
    }

    // MARK: The end

    package func close(
        context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?
    ) {
        guard mode == .all else {
            promise?.fail(ChannelError.operationUnsupported)
            return
        }
        switch state {
        case .open:
            flush(context: context)
            session.close()
            sendCiphertext(context, promise: nil)
            context.flush()
            keepClosePromise(promise)
            if state == .open { linger(as: .closing, context) }
        case .closing, .failed:
            keepClosePromise(promise)
        case .handshaking, .closed:
            state = .closed
            context.close(promise: promise)
        }
    }

    private func keepClosePromise(_ promise: EventLoopPromise<Void>?) {
        guard let promise else { return }
        if let closePromise {
            closePromise.futureResult.cascade(to: promise)
        } else {
            closePromise = promise
        }
    }

    private func linger(as ending: State, _ context: ChannelHandlerContext) {
        state = ending
        schedule(TransportLimits.closeLinger, context) { handler, context in
            handler.finish(context)
        }
        // Those above may have stopped reading, but the peer's end is to be seen.
        context.read()
    }

    /// Answers the peer's end, or ends without it.
    private func finish(_ context: ChannelHandlerContext) {
        if state == .open {
            session.close()
            sendCiphertext(context, promise: nil)
            context.flush()
        }
        state = .closed
        let promise = closePromise
        closePromise = nil
        context.close(promise: promise)
    }

    private func fail(_ error: TransportError, _ context: ChannelHandlerContext) {
        guard state != .closed, state != .failed else { return }
        if state == .closing { return finish(context) }
        if session.waitingBytes > 0 {
            sendCiphertext(context, promise: nil)  // The alert that tells the peer why.
            context.flush()
            linger(as: .failed, context)
            context.fireErrorCaught(error)
        } else {
            state = .closed
            context.fireErrorCaught(error)
            context.close(promise: nil)
        }
    }
}

extension Channel {
    /// Where the peer is, for people.
    var remoteText: String {
        guard let address = remoteAddress, let host = address.ipAddress, let port = address.port
        else { return "unknown" }
        return NetworkAddress(host: host, port: port).description
    }
}

extension NIODeadline {
    /// Whether this process comes to it so late that its own delay is to blame.
    var wasMissed: Bool { .now() - self >= TimeAmount(TransportLimits.ownDelay) }
}

extension TimeAmount {
    init(_ duration: Duration) { self = .nanoseconds(duration.nanoseconds) }
}
