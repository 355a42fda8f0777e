internal import ServingTypes
internal import Synchronization

/// The peers' certificates of open connections, which may come to their end before these.
final class OpenPeers: Sendable {
    /// A connection that was ended.
    struct Ended: Sendable {
        var peer: String
        var remote: String
        var error: TransportError
    }

    private struct Peer: Sendable {
        var certificate: Certificate
        var notAfter: Int64
        var remote: String
        var end: @Sendable (TransportError) -> Void
    }

    private struct State {
        var peers: [UInt64: Peer] = [:]
        var next: UInt64 = 0
    }

    /// Keeps a connection among those that are looked after, as long as it is there itself.
    final class Entry: Sendable {
        private let peers: OpenPeers
        private let number: UInt64

        fileprivate init(_ peers: OpenPeers, _ number: UInt64) {
            self.peers = peers
            self.number = number
        }

        deinit {
            // Freed outside of the lock: it may hold the last reference to a connection.
            _ = peers.state.withLock { $0.peers.removeValue(forKey: number) }
        }
    }

    private let state = Mutex(State())

    var count: Int { state.withLock { $0.peers.count } }

    /// - Parameter end: ends the connection; called from another thread, at most once.
    func add(
        _ certificate: Certificate, remote: String,
        end: @escaping @Sendable (TransportError) -> Void
    ) -> Entry {
        let peer = Peer(
            certificate: certificate, notAfter: certificate.notAfter, remote: remote, end: end)
        let number = state.withLock { state in
            state.next += 1
            state.peers[state.next] = peer
            return state.next
        }
        return Entry(self, number)
    }

    func endUnfit(now: Int64, revocations: [RevocationList]) -> [Ended] {
        let all = state.withLock { $0.peers }
        var ended: [Ended] = []
        for (number, peer) in all {
            let failure: TLSFailure
            if peer.notAfter < now {
                failure = .certificateExpired
            } else if revocations.contains(where: { $0.revokes(peer.certificate) }) {
                failure = .certificateRevoked
            } else {
                continue
            }
            let isFirst = state.withLock { $0.peers.removeValue(forKey: number) } != nil
            guard isFirst else { continue }
            let error = TransportError.tls(failure, isReportedByPeer: false, details: "")
            peer.end(error)
            ended.append(Ended(peer: peer.certificate.name, remote: peer.remote, error: error))
        }
        return ended
    }
}
