package import ServingTypes
internal import Synchronization
package import WireProtocol

/// A connection for KV: frames whose payload goes straight from and into the caller's memory.
///
/// All calls block, so they belong on threads of their own. One thread may receive while others
/// send; a frame is sent whole before the next one begins. Times are time left.
package final class BulkConnection: Sendable {
    package let peer: PeerIdentity
    /// What the peer said of itself.
    package let hello: Hello
    package var remoteAddress: NetworkAddress? { socket.remoteAddress }
    /// What both sides agreed on.
    package var records: BulkRecords { socket.records }
    /// Whether the peer is on this host, by the addresses of both ends.
    package var isSameHost: Bool { socket.isSameHost }
    /// Time so far in which sending threads waited for the socket: the link or the peer's reading
    /// was the limit then.
    package var timeWaitingToWrite: Duration { socket.timeWaitingToWrite }

    private let socket: BulkSocket
    /// Held while a frame is sent, of which a payload may take several writes.
    private let writing = Mutex<Void>(())

    /// Connects, shakes hands and exchanges `Hello`.
    ///
    /// - Parameters:
    ///   - records: what this side wants; `tls` if either side wants that.
    ///   - deadline: for all of it, at most `TransportLimits.handshake`.
    package static func connect(
        to address: NetworkAddress, context: TLSContext, hello: Hello, expects: PeerExpectation,
        accepts: HelloCheck? = nil, records: BulkRecords = .sealed,
        deadline: Duration = TransportLimits.handshake
    ) throws(TransportError) -> BulkConnection {
        let policy = try PeerPolicy(
            context: context, hello: hello, roles: expects.roles, instance: expects.instance,
            accepts: accepts)
        let deadline = Deadline(after: min(deadline, TransportLimits.handshake))
        let file = try Sockets.connect(to: address, deadline: deadline)
        let socket = try BulkSocket(
            file: file, context: context, side: .client(serverName: nil), records: records)
        return try BulkConnection(socket, policy: policy, deadline: deadline)
    }

    /// Shakes hands and exchanges `Hello` on an open socket; a bad peer is told why.
    init(
        _ socket: BulkSocket, policy: PeerPolicy, deadline: Deadline
    ) throws(TransportError) {
        do throws(TransportError) {
            try socket.handshake(deadline)
            let identity = try policy.check(socket.peerIdentity)
            let greeting = try frameBytes(.hello(policy.hello))
            // The first frame of each direction travels in TLS, so that a handshake that fails at
            // the peer is reported in TLS, too.
            try socket.write(greeting, deadline)
            try socket.sealWriting()
            let first = try socket.readFrame(from: nil, deadline)
            try socket.sealReading()
            let hello = try policy.check(first.message, from: identity)
            peer = PeerIdentity(
                cluster: identity.cluster, role: identity.role, instance: hello.instance)
            self.hello = hello
        } catch {
            Refusals.count(error == .deadline ? .handshakeDeadline : error)
            if let refusal = refusalFrame(error) { try? socket.write(refusal, deadline) }
            if error != .shutDown { socket.finish() }
            throw error == .deadline ? .handshakeDeadline : error
        }
        self.socket = socket
    }

    /// Sends a message without payload.
    package func send(
        _ message: ControlMessage, stream: UInt32 = 0, flags: FrameFlags = [], deadline: Duration
    ) throws(TransportError) {
        let frame = try frameBytes(message, stream: stream, flags: flags)
        try write(Deadline(after: deadline)) { deadline throws(TransportError) in
            try socket.write(frame, deadline)
        }
    }

    /// Sends a message and its payload, region by region.
    ///
    /// - Parameters:
    ///   - payloadBytes: raw bytes as they land at the receiver; compressed regions hold fewer.
    ///   - payload: must stay as it is until the call returns.
    package func send(
        _ message: ControlMessage, stream: UInt32 = 0, flags: FrameFlags = [], payloadBytes: Int,
        payload: [UnsafeRawBufferPointer], deadline: Duration
    ) throws(TransportError) {
        try unsafe send(
            message, stream: stream, flags: flags, payloadBytes: payloadBytes, deadline: deadline
        ) { write throws(TransportError) in
            for index in unsafe payload.indices { try unsafe write(payload[index]) }
        }
    }

    /// Sends a message and a payload that is made while it is sent.
    ///
    /// - Parameters:
    ///   - payloadBytes: raw bytes as they land at the receiver.
    ///   - writePayload: calls its argument with one region after the other.
    package func send(
        _ message: ControlMessage, stream: UInt32 = 0, flags: FrameFlags = [], payloadBytes: Int,
        deadline: Duration,
        writePayload: ((UnsafeRawBufferPointer) throws(TransportError) -> Void)
            throws(TransportError) -> Void
    ) throws(TransportError) {
        let frame = try frameBytes(
            message, stream: stream, payloadBytes: payloadBytes, flags: flags)
        try write(Deadline(after: deadline)) { deadline throws(TransportError) in
            try socket.write(frame, deadline, isMore: true)
            try unsafe writePayload { region throws(TransportError) in
                try unsafe socket.write(region, deadline, isMore: true)
            }
            try socket.flush(deadline)
        }
    }

    /// Sends one frame; a frame that breaks off leaves the peer waiting, so that ends everything.
    private func write(
        _ deadline: Deadline, _ body: (Deadline) throws(TransportError) -> Void
    ) throws(TransportError) {
        try writing.withLock { _ throws(TransportError) in
            do throws(TransportError) {
                try body(deadline)
            } catch {
                socket.shutdown()
                throw error
            }
        }
    }

    /// The next frame's header and message; its payload, if it has one, is read with `receive`.
    ///
    /// A message that the peer may not send ends the connection, the peer is told why. If the
    /// deadline passes between two frames, the connection stays usable.
    package func receiveFrame(deadline: Duration) throws(TransportError) -> Frame {
        let deadline = Deadline(after: deadline)
        do throws(TransportError) {
            let frame = try socket.readFrame(from: peer.role, deadline)
            try ConnectionKind.bulk.check(frame.message, from: peer.role)
            return frame
        } catch {
            // What was good and is so no more is counted where that is found out.
            if case .tls = error {} else { Refusals.count(error) }
            if error.refusal != nil { close(refusing: error) }
            throw error
        }
    }

    /// Fills the buffer with payload.
    package func receive(
        into buffer: UnsafeMutableRawBufferPointer, deadline: Duration
    ) throws(TransportError) {
        do throws(TransportError) {
            try unsafe socket.read(into: buffer, Deadline(after: deadline))
        } catch {
            // The rest of the payload would be taken for a frame.
            socket.shutdown()
            guard error == .closedByPeer else { throw error }
            throw .truncated(receivedBytes: 0, expectedBytes: buffer.count)
        }
    }

    /// Ends the connection at once, from any thread; calls that wait throw `shutDown`.
    package func shutdown() { socket.shutdown() }

    /// Ends the connection once the peer has all that was sent; waits at most
    /// `TransportLimits.closeLinger`.
    ///
    /// - Parameter refusal: tells the peer why.
    package func close(refusal: Refusal? = nil) {
        if let refusal {
            try? send(.refusal(refusal), deadline: TransportLimits.closeLinger)
        }
        socket.finish()
        socket.shutdown()
    }

    private func close(refusing error: TransportError) { close(refusal: error.refusal) }
}

private func frameBytes(
    _ message: ControlMessage, stream: UInt32 = 0, payloadBytes: Int = 0, flags: FrameFlags = []
) throws(TransportError) -> [UInt8] {
    do throws(WireError) {
        return try encodeFrame(
            message, stream: stream, payloadBytes: payloadBytes, flags: flags)
    } catch {
        throw .unsendable(error)
    }
}

extension BulkSocket {
    func write(
        _ bytes: [UInt8], _ deadline: Deadline, isMore: Bool = false
    ) throws(TransportError) {
        try unsafe bytes.span.bytes.withUnsafeBytes { bytes throws(TransportError) in
            try unsafe write(bytes, deadline, isMore: isMore)
        }
    }

    /// Reads header and message.
    ///
    /// - Parameter role: the peer's; nil before `Hello`.
    func readFrame(from role: Role?, _ deadline: Deadline) throws(TransportError) -> Frame {
        let bytes = try read(FrameHeader.byteCount, deadline)
        var header: FrameHeader
        do throws(WireError) {
            header = try unsafe bytes.span.bytes.withUnsafeBytes { bytes throws(WireError) in
                try unsafe FrameHeader(bytes: bytes)
            }
        } catch { throw .received(error, from: role) }
        // Before a byte of the message is stored: this kind may announce a megabyte.
        let isExpected = role.map { header.kind.isBulk && header.kind.isAllowed(from: $0) }
        guard isExpected != false || header.kind == .refusal else {
            throw .messageNotAllowed(header.kind, role ?? .administrator)
        }
        if role == nil, header.kind != .hello, header.kind != .refusal {
            throw .helloMissing(header.kind)
        }
        return try readMessage(header, role, deadline)
    }

    private func readMessage(
        _ header: FrameHeader, _ role: Role?, _ deadline: Deadline
    ) throws(TransportError) -> Frame {
        let control: [UInt8]
        do throws(TransportError) {
            control = try read(header.controlBytes, deadline)
        } catch .closedByPeer {
            throw .truncated(
                receivedBytes: FrameHeader.byteCount,
                expectedBytes: FrameHeader.byteCount + header.controlBytes)
        } catch .deadline {
            shutdown()
            throw .deadline
        }
        do throws(WireError) {
            let message = try unsafe control.span.bytes.withUnsafeBytes {
                control throws(WireError) in
                try unsafe header.message(control: control)
            }
            return Frame(header: header, message: message)
        } catch { throw .received(error, from: role) }
    }

    private func read(_ count: Int, _ deadline: Deadline) throws(TransportError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        try unsafe raw.withUnsafeMutableBytes { buffer throws(TransportError) in
            try unsafe read(into: buffer, deadline)
        }
        return bytes
    }
}
