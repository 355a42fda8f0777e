internal import COpenSSL
package import ServingTypes

/// OpenSSL's settings and keys shared by all connections of one purpose.
///
/// TLS 1.3 only, AES-GCM only, no tickets and no session cache: connections live long.
@safe package final class TLSContext: Sendable {
    /// Who this process is; nil unless both sides show certificates.
    package let identity: PeerIdentity?
    /// Address of OpenSSL's `SSL_CTX`, which any thread may use once it is set up.
    private let address: UInt

    /// Connections inside the cluster: both sides show a certificate of the same authority.
    package convenience init(_ identity: TLSIdentity) throws(TransportError) {
        unsafe try self.init(identity: identity.peer, method: TLS_method())
        try trust(authorityPEM: identity.authorityPEM)
        try use(certificatePEM: identity.certificatePEM, keyPEM: identity.keyPEM)
        unsafe SSL_CTX_set_verify(
            pointer, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
        unsafe SSL_CTX_set_alpn_select_cb(pointer, ApplicationProtocol.selectRecords, nil)
    }

    /// An HTTPS server that asks clients for no certificate and speaks HTTP/1.1.
    ///
    /// - Parameters:
    ///   - certificatePath: PEM; intermediate certificates follow the server's own.
    package static func httpsServer(
        certificatePath: String, keyPath: String
    ) throws(TransportError) -> TLSContext {
        let context = unsafe try TLSContext(identity: nil, method: TLS_server_method())
        let certificatePEM = try Files.read(certificatePath)
        let keyPEM = try Files.read(keyPath)
        _ = try leaf(
            of: certificatePEM, keyPEM: keyPEM,
            paths: .init(authority: "", certificate: certificatePath, key: keyPath))
        try context.use(certificatePEM: certificatePEM, keyPEM: keyPEM)
        unsafe SSL_CTX_set_alpn_select_cb(
            context.pointer, ApplicationProtocol.selectHTTP, nil)
        return context
    }

    /// An HTTPS client: shows no certificate, trusts one authority and offers HTTP/1.1.
    package static func client(authorityPath: String) throws(TransportError) -> TLSContext {
        let context = unsafe try TLSContext(identity: nil, method: TLS_client_method())
        try context.trust(authorityPEM: Files.read(authorityPath))
        unsafe SSL_CTX_set_verify(context.pointer, SSL_VERIFY_PEER, nil)
        let offer = ApplicationProtocol.list([.http1])
        // Unlike its siblings it gives 0 for success.
        let code = unsafe SSL_CTX_set_alpn_protos(context.pointer, offer, UInt32(offer.count))
        try check(code == 0, "offering HTTP/1.1")
        return context
    }

    private init(identity: PeerIdentity?, method: OpaquePointer?) throws(TransportError) {
        let pointer = try unsafe made(SSL_CTX_new(method), "SSL_CTX_new")
        address = UInt(bitPattern: pointer)
        self.identity = identity
        unsafe SSL_CTX_set_options(pointer, shim_SSL_options())
        try check(
            unsafe shim_SSL_CTX_set_min_proto_version(pointer, TLS1_3_VERSION) == 1
                && shim_SSL_CTX_set_max_proto_version(pointer, TLS1_3_VERSION) == 1
                && SSL_CTX_set_ciphersuites(
                    pointer, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384") == 1
                && SSL_CTX_set_num_tickets(pointer, 0) == 1,
            "setting up TLS")
        // Read-ahead halves the system calls of bulk reads; freed buffers save 34 KB an idle
        // connection.
        unsafe shim_SSL_CTX_set_read_ahead(pointer, 1)
        unsafe shim_SSL_CTX_set_session_cache_mode(pointer, Int(SSL_SESS_CACHE_OFF))
        let modes =
            SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE
            | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        unsafe shim_SSL_CTX_set_mode(pointer, Int(modes))
    }

    deinit { unsafe SSL_CTX_free(pointer) }

    private var pointer: OpaquePointer {
        guard let pointer = unsafe OpaquePointer(bitPattern: address) else {
            preconditionFailure("a context has an address")
        }
        return unsafe pointer
    }

    /// A new connection's state; the caller owns it.
    func makeConnection(_ side: TLSSide) throws(TransportError) -> OpaquePointer {
        LibraryErrors.clear()
        let ssl = try unsafe made(SSL_new(pointer), "SSL_new")
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

    private func trust(authorityPEM: [UInt8]) throws(TransportError) {
        let store = unsafe SSL_CTX_get_cert_store(pointer)
        for authority in try Certificate.all(inPEM: authorityPEM) {
            try check(
                unsafe X509_STORE_add_cert(store, authority.pointer) == 1
                    && SSL_CTX_add_client_CA(pointer, authority.pointer) == 1,
                "trusting the authority")
        }
    }

    private func use(certificatePEM: [UInt8], keyPEM: [UInt8]) throws(TransportError) {
        var certificates = try Certificate.all(inPEM: certificatePEM)[...]
        guard let own = certificates.popFirst(), let key = try PrivateKey(pem: keyPEM) else {
            throw .library("certificate or key is missing")
        }
        try check(
            unsafe SSL_CTX_use_certificate(pointer, own.pointer) == 1
                && SSL_CTX_use_PrivateKey(pointer, key.pointer) == 1,
            "using the certificate")
        for certificate in certificates {
            try check(
                unsafe shim_SSL_CTX_add1_chain_cert(pointer, certificate.pointer) == 1,
                "using the certificate chain")
        }
    }
}

/// Which end of a TLS connection this is.
package enum TLSSide: Sendable, Hashable {
    /// - `serverName`: sent to the server and checked against its certificate; nil inside the
    ///   cluster, where the URI name is checked instead.
    case client(serverName: String?)
    case server
}
