internal import NIOCore
package import ServingTypes
internal import Synchronization
package import WireProtocol

/// One control connection after both sides have said `Hello`.
package final class ControlSession: Sendable {
    private struct Outgoing {
        var queue = ByteBuffer()
        /// Queued, or given to the channel and not yet to the kernel.
        var waitingBytes = 0
        var isScheduled = false
        var isOpen = true
    }

    private enum Decision: Sendable {
        case nothing, schedule
        case giveUp(waitingBytes: Int)
    }

    package let peer: PeerIdentity
    /// The name in the peer's certificate, which may be good for any process of its role.
    package let certificate: PeerIdentity
    /// What the peer said of itself.
    package let hello: Hello
    package let remoteAddress: String
    /// Frames from the peer, each of a kind that it may send.
    ///
    /// While nobody takes them, the socket is not read.
    package let inbound: InboundFrames

    private let channel: any Channel
    private let handler: NIOLoopBound<ControlHandler>
    private let waitingLimit: Int
    private let outgoing = Mutex(Outgoing())

    init(
        peer: PeerIdentity, certificate: PeerIdentity, hello: Hello, inbound: InboundFrames,
        channel: any Channel, handler: NIOLoopBound<ControlHandler>, waitingLimit: Int
    ) {
        self.peer = peer
        self.certificate = certificate
        self.hello = hello
        self.inbound = inbound
        self.channel = channel
        self.handler = handler
        self.waitingLimit = waitingLimit
        remoteAddress = channel.remoteText
    }

    /// Sends a message; from any thread, without waiting.
    ///
    /// What can't be sent any more is dropped: `inbound` ends then. A peer that lets
    /// `TransportLimits.waitingBytes` wait loses the session with `slowPeer`.
    ///
    /// - Throws: if the message can't be written; the session stays as it is.
    package func send(
        _ message: ControlMessage, stream: UInt32 = 0, flags: FrameFlags = [],
        payload: [UInt8] = []
    ) throws(WireError) {
        enqueue(
            try encodeFrame(message, stream: stream, payloadBytes: payload.count, flags: flags),
            payload: payload)
    }

    /// Sends one message to many; it is encoded once.
    ///
    /// - Throws: if the message can't be written; the sessions stay as they are.
    package static func send(
        _ message: ControlMessage, to sessions: [ControlSession]
    ) throws(WireError) {
        let frame = try encodeFrame(message, stream: 0, payloadBytes: 0, flags: [])
        for session in sessions { session.enqueue(frame, payload: []) }
    }

    private func enqueue(_ frame: [UInt8], payload: [UInt8]) {
        let decision: Decision = outgoing.withLock { outgoing in
            guard outgoing.isOpen else { return .nothing }
            let waitingBytes = outgoing.waitingBytes + frame.count + payload.count
            guard waitingBytes <= waitingLimit else {
                outgoing.isOpen = false
                outgoing.queue = ByteBuffer()
                return .giveUp(waitingBytes: waitingBytes)
            }
            outgoing.waitingBytes = waitingBytes
            outgoing.queue.writeBytes(frame)
            outgoing.queue.writeBytes(payload)
            if outgoing.isScheduled { return .nothing }
            outgoing.isScheduled = true
            return .schedule
        }
        switch decision {
        case .nothing: break
        case .schedule: channel.eventLoop.execute { self.drain() }
        case .giveUp(let waitingBytes):
            channel.eventLoop.execute {
                self.handler.value.end(.slowPeer(waitingBytes: waitingBytes))
            }
        }
    }

    /// Closes the session once everything sent has left; `inbound` ends.
    ///
    /// - Parameter refusal: tells the peer why.
    package func close(refusal: Refusal? = nil) {
        if let refusal { try? send(.refusal(refusal)) }
        outgoing.withLock { $0.isOpen = false }
        channel.eventLoop.execute {
            self.drain()
            self.handler.value.end(nil)
        }
    }

    /// Time since the peer's last frame; zero while nobody takes its frames.
    func silence() async -> Duration {
        (try? await channel.eventLoop.submit { self.handler.value.silence }.get()) ?? .zero
    }

    /// Closes the session and waits until its socket is closed.
    func finish() async {
        close()
        try? await channel.closeFuture.get()
    }

    /// Gives everything queued to the channel; on its event loop.
    private func drain() {
        let queue = outgoing.withLock { outgoing in
            outgoing.isScheduled = false
            let queue = outgoing.queue
            outgoing.queue = ByteBuffer()
            return queue
        }
        let count = queue.readableBytes
        guard count > 0 else { return }
        channel.writeAndFlush(queue).whenComplete { _ in
            self.outgoing.withLock { $0.waitingBytes -= count }
        }
    }
}
