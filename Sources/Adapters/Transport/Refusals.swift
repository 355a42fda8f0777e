internal import Logging
internal import Metrics
internal import ServingTypes
internal import Synchronization
internal import WireProtocol

/// Counts the peers that this side refuses.
enum Refusals {
    /// Counts one; errors that refuse nobody don't count.
    static func count(_ error: TransportError) {
        guard let reason = error.refusalReason else { return }
        Counter(label: "connections_refused_total", dimensions: [("reason", reason)]).increment()
    }
}

/// Says in the log who is refused: a few times per reason, then the number of those left out.
final class RefusalReporter: Sendable {
    private struct Window {
        var start = ContinuousClock.now
        var lines = 0
        var leftOut = 0
    }

    private let logger: Logger
    private let windows = Mutex<[String: Window]>([:])

    init(logger: Logger) { self.logger = logger }

    /// - Parameters:
    ///   - certificate: what the peer's verified certificate says, if it has shown one.
    func refused(
        _ message: Logger.Message, _ error: TransportError, certificate: PeerIdentity?,
        remote: String
    ) {
        var metadata: Logger.Metadata = ["error": "\(error)", "remote": "\(remote)"]
        if let certificate { metadata["certificate"] = "\(certificate)" }
        let (isShown, leftOut) = enter(error.refusalReason ?? "other")
        if leftOut > 0 { metadata["left_out"] = "\(leftOut)" }
        logger.log(level: isShown ? .warning : .debug, message, metadata: metadata)
    }

    /// Whether a line may be written, and how many of its reason were not since the last one.
    private func enter(_ reason: String) -> (isShown: Bool, leftOut: Int) {
        windows.withLock { windows in
            var window = windows[reason] ?? Window()
            defer { windows[reason] = window }
            let now = ContinuousClock.now
            var leftOut = 0
            if now - window.start >= TransportLimits.refusalWindow {
                leftOut = window.leftOut
                window = Window()
            }
            window.lines += 1
            guard window.lines > TransportLimits.refusalLines else { return (true, leftOut) }
            window.leftOut += 1
            return (false, 0)
        }
    }
}

extension TransportError {
    /// Why this side refuses a peer, as a metric's label; nil if it does not.
    var refusalReason: String? {
        switch self {
        case .noIdentity: "no-identity"
        case .otherCluster: "other-cluster"
        case .roleNotAllowed: "role"
        case .otherInstance: "other-instance"
        case .helloDiffers: "hello-differs"
        case .helloMissing: "hello-missing"
        case .otherVersion, .malformed(.unsupportedVersion): "version"
        case .notAccepted: "not-accepted"
        case .messageNotAllowed: "message"
        case .malformed: "malformed"
        case .recordRejected: "tampered"
        case .tooManyConnections, .tooManyHandshakes: "busy"
        case .handshakeDeadline: "deadline"
        case .tls(let failure, isReportedByPeer: false, _): failure.refusalReason
        default: nil
        }
    }
}

extension TLSFailure {
    fileprivate var refusalReason: String? {
        switch self {
        case .certificateExpired: "expired"
        case .certificateRevoked: "revoked"
        case .certificateNotYetValid: "not-yet-valid"
        case .unknownAuthority: "unknown-authority"
        case .certificateMissing: "no-certificate"
        case .certificateUnsuitable: "unsuitable"
        case .otherVersion: "tls-version"
        case .notTLS: "no-tls"
        case .closed, .other: nil
        }
    }
}
