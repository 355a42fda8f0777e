internal import COpenSSL
internal import ServingTypes

/// OpenSSL's settings, certificates and trust for new connections; never changed once made.
///
/// TLS 1.3 only, AES-GCM only, no tickets and no session cache: connections live long. A connection
/// keeps those it was made with.
@safe final class TLSSettings: Sendable {
    /// When something ends, in seconds since 1970.
    struct Expiry: Sendable {
        enum Subject: String, Sendable { case certificate, authority, revocations }

        var subject: Subject
        var time: Int64
        var start: Int64
    }

    /// Address of OpenSSL's `SSL_CTX`, which any thread may use once it is set up.
    private let address: UInt
    /// Who this process is; nil unless both sides show certificates.
    let identity: PeerIdentity?
    let revocations: [RevocationList]
    /// Of what this process has itself.
    let expiries: [Expiry]

    /// Connections inside the cluster: both sides show a certificate of the same authority.
    convenience init(_ identity: TLSIdentity) throws(TransportError) {
        unsafe try self.init(
            identity: identity.peer, method: TLS_method(), revocations: identity.revocations,
            expiries: identity.expiries)
        try trust(authorityPEM: identity.authorityPEM)
        try use(certificatePEM: identity.certificatePEM, keyPEM: identity.keyPEM)
        unsafe SSL_CTX_set_verify(
            pointer, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, Self.verify)
        unsafe SSL_CTX_set_alpn_select_cb(pointer, ApplicationProtocol.selectRecords, nil)
    }

    /// See `TLSContext.httpsServer`.
    static func httpsServer(
        certificatePath: String, keyPath: String
    ) throws(TransportError) -> TLSSettings {
        let certificatePEM = try Files.read(certificatePath)
        let keyPEM = try Files.read(keyPath)
        let certificate = try leaf(
            of: certificatePEM, keyPEM: keyPEM,
            paths: .init(authority: "", certificate: certificatePath, key: keyPath))
        let settings = unsafe try TLSSettings(
            identity: nil, method: TLS_server_method(), expiries: [certificate.expiry])
        try settings.use(certificatePEM: certificatePEM, keyPEM: keyPEM)
        unsafe SSL_CTX_set_alpn_select_cb(
            settings.pointer, ApplicationProtocol.selectHTTP, nil)
        return settings
    }

    /// See `TLSContext.client`.
    static func client(authorityPath: String) throws(TransportError) -> TLSSettings {
        let settings = unsafe try TLSSettings(identity: nil, method: TLS_client_method())
        try settings.trust(authorityPEM: Files.read(authorityPath))
        unsafe SSL_CTX_set_verify(settings.pointer, SSL_VERIFY_PEER, nil)
        let offer = ApplicationProtocol.list([.http1])
        // Unlike its siblings it gives 0 for success.
        let code = unsafe SSL_CTX_set_alpn_protos(settings.pointer, offer, UInt32(offer.count))
        try check(code == 0, "offering HTTP/1.1")
        return settings
    }

    private init(
        identity: PeerIdentity?, method: OpaquePointer?, revocations: [RevocationList] = [],
        expiries: [Expiry] = []
    ) throws(TransportError) {
        let pointer = try unsafe made(SSL_CTX_new(method), "SSL_CTX_new")
        address = UInt(bitPattern: pointer)
        self.identity = identity
        self.revocations = revocations
        self.expiries = expiries
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
            preconditionFailure("settings have an address")
        }
        return unsafe pointer
    }

    /// OpenSSL's `SSL`, which the caller owns; it keeps these settings by itself.
    func makeConnection() throws(TransportError) -> OpaquePointer {
        LibraryErrors.clear()
        return try unsafe made(SSL_new(pointer), "SSL_new")
    }

    private func trust(authorityPEM: [UInt8]) throws(TransportError) {
        let store = unsafe SSL_CTX_get_cert_store(pointer)
        for authority in try Certificate.all(inPEM: authorityPEM) {
            try check(
                unsafe X509_STORE_add_cert(store, authority.pointer) == 1
                    && SSL_CTX_add_client_CA(pointer, authority.pointer) == 1,
                "trusting the authority")
        }
        guard !revocations.isEmpty else { return }
        for list in revocations {
            try check(unsafe X509_STORE_add_crl(store, list.pointer) == 1, "revoking")
        }
        let flags = UInt(X509_V_FLAG_CRL_CHECK)
        try check(unsafe X509_STORE_set_flags(store, flags) == 1, "revoking")
    }

    /// OpenSSL's callback for each fault in a peer's certificate.
    ///
    /// A list of revocations holds beyond its time, and not each authority has one.
    private static let verify: @convention(c) (Int32, OpaquePointer?) -> Int32 = { isFine, check in
        let harmless = [
            X509_V_ERR_UNABLE_TO_GET_CRL, X509_V_ERR_CRL_HAS_EXPIRED,
            X509_V_ERR_CRL_NOT_YET_VALID,
        ]
        guard isFine == 0, harmless.contains(unsafe X509_STORE_CTX_get_error(check)) else {
            return isFine
        }
        unsafe X509_STORE_CTX_set_error(check, X509_V_OK)
        return 1
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

extension Certificate {
    /// When it ends, as a process's own certificate.
    var expiry: TLSSettings.Expiry {
        TLSSettings.Expiry(
            subject: .certificate, time: notAfter,
            start: unsafe seconds(X509_get0_notBefore(pointer)))
    }
}

extension TLSIdentity {
    /// Of several authorities and lists those that end first.
    var expiries: [TLSSettings.Expiry] {
        let authority = authorities.map(\.expiry).min { $0.time < $1.time }
        let lists = revocations.compactMap { list in
            list.nextUpdate.map {
                TLSSettings.Expiry(subject: .revocations, time: $0, start: list.lastUpdate)
            }
        }
        var all = [certificate.expiry]
        if var authority {
            authority.subject = .authority
            all.append(authority)
        }
        if let list = lists.min(by: { $0.time < $1.time }) { all.append(list) }
        return all
    }
}
