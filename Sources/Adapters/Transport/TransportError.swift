package import ServingTypes
package import WireProtocol

/// Why a connection, or a file it needs, is not usable.
package enum TransportError: Error, Hashable, Sendable {
    // Files and settings; the process does not start, the operator acts.

    /// A certificate or key file can't be read, parsed or written.
    case file(path: String, problem: String)
    /// A name can't be put into a certificate.
    case certificateName(String, problem: String)
    /// The process calls itself otherwise than its certificate does.
    case ownIdentity(certificate: String, hello: String)
    /// The file with revocations has gone; those in force stay so.
    case revocationsMissing
    /// OpenSSL could not do what no peer influences; a defect or lack of memory.
    case library(String)

    // Reaching a peer; clients try again after a pause.

    case connectFailed(address: NetworkAddress, problem: String)
    case listenFailed(address: NetworkAddress, problem: String)
    /// TCP, TLS or `Hello` took longer than `TransportLimits.handshake`, or did not begin within
    /// `handshakeWait`.
    case handshakeDeadline
    /// The handshake failed.
    ///
    /// - `isReportedByPeer`: the peer found the fault in what we sent; look there, too.
    /// - `details`: OpenSSL's whole error queue.
    case tls(TLSFailure, isReportedByPeer: Bool, details: String)
    /// The listener has all the connections it may have; the peer tries again.
    case tooManyConnections(limit: Int)
    /// As many connections wait for their handshake as may; the peer tries again.
    case tooManyHandshakes(limit: Int)

    // Peers that must not be served; they get a `Refusal`, an operator acts.

    /// The certificate has no single URI name of the form `pdserve://cluster/role/name`.
    case noIdentity
    case otherCluster(expected: String, actual: String)
    /// The role in the certificate is not served on this connection.
    case roleNotAllowed(Role)
    /// Another process answers at the address.
    case otherInstance(expected: InstanceID, actual: InstanceID)
    case otherVersion(expected: UInt32, actual: UInt32)
    /// `Hello` and certificate name different processes.
    case helloDiffers(certificate: String, hello: String)
    /// The first message was not `Hello`.
    case helloMissing(MessageKind)
    /// The caller's check of the peer's `Hello` said no.
    case notAccepted(Refusal)
    /// The peer's role may not send this, or not on this kind of connection.
    case messageNotAllowed(MessageKind, Role)
    /// The bytes are no frames.
    case malformed(WireError)

    // Ends of a connection; callers connect again.

    /// The peer refused us and said why.
    case refused(Refusal)
    /// More bytes wait for the peer than a session may hold.
    case slowPeer(waitingBytes: Int)
    /// No frame came for so long.
    case idle(Duration)
    /// The peer closed the connection between two frames.
    case closedByPeer
    /// The connection ended inside a frame.
    case truncated(receivedBytes: Int, expectedBytes: Int)
    /// What came is not what the peer sealed; nothing of it was handed out.
    case recordRejected(RecordFault)
    /// The connection broke.
    case connectionLost(String)
    /// The caller's message can't be written; a defect of the caller.
    case unsendable(WireError)
    /// This side has shut the connection down.
    case shutDown
    /// A bulk operation did not end in the time given; the connection is of no more use.
    case deadline
}

/// What is wrong with a sealed record.
package enum RecordFault: Sendable, Hashable {
    /// Changed, repeated, left out, out of order, from elsewhere or under another key.
    case notAuthentic
    /// A length or flag that no sender writes.
    case malformedHeader
    /// Bytes inside TLS, after the frame that should have been the last one there.
    case afterTLS
}

/// What is wrong in a TLS handshake.
package enum TLSFailure: Sendable, Hashable {
    case certificateExpired
    case certificateRevoked
    case certificateNotYetValid
    case unknownAuthority
    case certificateMissing
    case certificateUnsuitable
    case otherVersion
    case notTLS
    case closed
    case other
}

extension TransportError {
    /// What the peer is told; nil if it can't or need not be told.
    package var refusal: Refusal? {
        let code: FailureCode
        switch self {
        case .noIdentity, .roleNotAllowed, .otherInstance, .helloDiffers, .messageNotAllowed:
            code = .role
        case .otherCluster: code = .cluster
        case .otherVersion: code = .version
        case .malformed(let error): code = error.failureCode
        case .helloMissing: code = .protocol
        case .tooManyConnections, .tooManyHandshakes: code = .busy
        case .notAccepted(let refusal): return refusal
        default: return nil
        }
        return Refusal(code: code, reason: description)
    }

    /// Whether trying again at once is of no use: an operator has to act first.
    package var isPermanent: Bool {
        switch self {
        case .refused(let refusal), .notAccepted(let refusal):
            [.version, .cluster, .role, .model].contains(refusal.code)
        case .otherVersion, .otherCluster, .roleNotAllowed, .otherInstance, .helloDiffers,
            .noIdentity, .ownIdentity, .malformed(.unsupportedVersion):
            true
        default: false
        }
    }
}

extension TransportError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .file(let path, let problem): "\(path): \(problem)"
        case .certificateName(let name, let problem): "name “\(name)”: \(problem)"
        case .ownIdentity(let certificate, let hello):
            "the certificate belongs to \(certificate) but this process is set up as \(hello)"
        case .revocationsMissing:
            "the file with revocations is gone; an empty list takes them back, no list does not"
        case .library(let details): "OpenSSL failed: \(details)"
        case .connectFailed(let address, let problem): "cannot connect to \(address): \(problem)"
        case .listenFailed(let address, let problem): "cannot listen on \(address): \(problem)"
        case .handshakeDeadline:
            "the handshake did not end in time"
        case .tls(let failure, let isReportedByPeer, let details):
            failure.sentence(isReportedByPeer: isReportedByPeer)
                + (details.isEmpty ? "" : " (\(details))")
        case .tooManyConnections(let limit): "all \(limit) connections are taken"
        case .tooManyHandshakes(let limit): "\(limit) connections wait for their handshake already"
        case .noIdentity:
            "the certificate has no single name of the form pdserve://cluster/role/name"
        case .otherCluster(let expected, let actual):
            "the peer belongs to cluster “\(actual)”, not to “\(expected)”"
        case .roleNotAllowed(let role): "a \(role.name) is not served on this connection"
        case .otherInstance(let expected, let actual): "expected \(expected) but met \(actual)"
        case .otherVersion(let expected, let actual):
            "the peer speaks protocol version \(actual), this side \(expected); upgrade the older"
        case .helloDiffers(let certificate, let hello):
            "Hello says \(hello) but the certificate says \(certificate)"
        case .helloMissing(let kind): "the first message was \(kind), not Hello"
        case .notAccepted(let refusal): "not accepted: \(refusal.reason)"
        case .messageNotAllowed(let kind, let role):
            "a \(role.name) may not send \(kind) on this connection"
        case .malformed(let problem): "the bytes are not frames: \(problem)"
        case .refused(let refusal): "refused by the peer (\(refusal.code)): \(refusal.reason)"
        case .slowPeer(let bytes): "the peer does not read; \(bytes) bytes wait for it"
        case .idle(let duration): "no frame came for \(duration)"
        case .closedByPeer: "the peer closed the connection"
        case .truncated(let received, let expected):
            "the connection ended after \(received) of \(expected) bytes"
        case .recordRejected(let fault): "the connection was tampered with: \(fault)"
        case .connectionLost(let problem): "the connection broke: \(problem)"
        case .unsendable(let error): "the message can't be written: \(error)"
        case .shutDown: "the connection was shut down by this side"
        case .deadline: "the deadline has passed"
        }
    }
}

extension TLSFailure {
    fileprivate func sentence(isReportedByPeer: Bool) -> String {
        let owner =
            isReportedByPeer ? "the peer says that our certificate" : "the peer's certificate"
        return switch self {
        case .certificateExpired:
            "\(owner) has expired; issue it again with `pdserve certificates`"
        case .certificateRevoked:
            "\(owner) was revoked; if it should serve, issue it again with `pdserve certificates`"
        case .certificateNotYetValid: "\(owner) is not valid yet; compare the hosts' clocks"
        case .unknownAuthority:
            "\(owner) was issued by another authority; both sides need the same CA file"
        case .certificateMissing:
            isReportedByPeer
                ? "the peer wants a certificate from us" : "the peer showed no certificate"
        case .certificateUnsuitable: "\(owner) cannot be used for this"
        case .otherVersion: "the peers have no TLS version in common; TLS 1.3 is required"
        case .notTLS: "the peer does not speak TLS on this port"
        case .closed: "the peer closed the connection during the TLS handshake"
        case .other: "the TLS handshake failed"
        }
    }
}
