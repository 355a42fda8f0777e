internal import COpenSSL
package import ServingTypes
internal import Synchronization

/// Certificates and settings shared by all connections of one purpose, and those connections.
///
/// `renew` changes what new connections use; open ones keep what they were made with.
@safe package final class TLSContext: Sendable {
    /// Who this process is; nil unless both sides show certificates.
    package let identity: PeerIdentity?
    private let current: Mutex<TLSSettings>
    let peers = OpenPeers()

    init(_ settings: TLSSettings) {
        identity = settings.identity
        current = Mutex(settings)
    }

    /// Connections inside the cluster: both sides show a certificate of the same authority.
    package convenience init(_ identity: TLSIdentity) throws(TransportError) {
        try self.init(TLSSettings(identity))
    }

    /// An HTTPS server that asks clients for no certificate and speaks HTTP/1.1.
    ///
    /// - Parameters:
    ///   - certificatePath: PEM; intermediate certificates follow the server's own.
    package static func httpsServer(
        certificatePath: String, keyPath: String
    ) throws(TransportError) -> TLSContext {
        TLSContext(try .httpsServer(certificatePath: certificatePath, keyPath: keyPath))
    }

    /// An HTTPS client: shows no certificate, trusts one authority and offers HTTP/1.1.
    package static func client(authorityPath: String) throws(TransportError) -> TLSContext {
        TLSContext(try .client(authorityPath: authorityPath))
    }

    var settings: TLSSettings { current.withLock { $0 } }

    /// Makes new connections use other certificates of the same process.
    ///
    /// - Throws: if they belong to another one, or if revocations would be lost; nothing is changed
    ///   then.
    func renew(_ settings: TLSSettings) throws(TransportError) {
        guard settings.identity == identity else {
            throw .ownIdentity(
                certificate: settings.identity?.description ?? "nobody",
                hello: identity?.description ?? "nobody")
        }
        try current.withLock { current throws(TransportError) in
            guard current.revocations.isEmpty || !settings.revocations.isEmpty else {
                throw .revocationsMissing
            }
            current = settings
        }
    }

    /// Ends the connections whose peers' certificates have expired or were revoked since.
    ///
    /// - Parameter now: seconds since 1970.
    /// - Returns: what was ended.
    func endUnfit(now: Int64) -> [OpenPeers.Ended] {
        peers.endUnfit(now: now, revocations: settings.revocations)
    }

    /// A new connection's state; the caller owns it.
    func makeConnection(_ side: TLSSide) throws(TransportError) -> OpaquePointer {
        let ssl = try unsafe settings.makeConnection()
        switch side {
        case .server: unsafe SSL_set_accept_state(ssl)
        case .client(let serverName):
            unsafe SSL_set_connect_state(ssl)
            guard let serverName else { break }
            guard
                unsafe SSL_set1_host(ssl, serverName) == 1
                    && shim_SSL_set_tlsext_host_name(ssl, serverName) == 1
            else {
                unsafe SSL_free(ssl)
                throw .certificateName(serverName, problem: "is no host name")
            }
        }
        return unsafe ssl
    }

    /// A new bulk connection's state; the caller owns it.
    ///
    /// Where sealed records may follow, OpenSSL reads no byte beyond a record of its own.
    func makeConnection(
        _ side: TLSSide, records: BulkRecords
    ) throws(TransportError) -> OpaquePointer {
        let ssl = try unsafe makeConnection(side)
        if records == .sealed { unsafe SSL_set_read_ahead(ssl, 0) }
        let isSet: Bool
        switch side {
        case .server: isSet = unsafe ApplicationProtocol.accept(records, on: ssl)
        case .client:
            let offer = ApplicationProtocol.list(records.offer)
            // Unlike its siblings it gives 0 for success.
            isSet = unsafe SSL_set_alpn_protos(ssl, offer, UInt32(offer.count)) == 0
        }
        guard isSet else {
            unsafe SSL_free(ssl)
            throw .library("offering records: \(LibraryErrors.take().text)")
        }
        return unsafe ssl
    }
}

/// Which end of a TLS connection this is.
package enum TLSSide: Sendable, Hashable {
    /// - `serverName`: sent to the server and checked against its certificate; nil inside the
    ///   cluster, where the URI name is checked instead.
    case client(serverName: String?)
    case server
}
