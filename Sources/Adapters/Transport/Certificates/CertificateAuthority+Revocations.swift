internal import COpenSSL
package import ServingTypes

extension CertificateAuthority {
    /// What revoking did.
    package struct Revocation: Sendable, Hashable {
        /// Certificates that hold no more from now on.
        package var revoked: Int
        /// Certificates on the list.
        package var listed: Int
    }

    /// Puts all certificates that were issued to a process onto the list of revocations.
    ///
    /// Also those that were replaced since. A name of a role means the certificates that are good
    /// for any process of it.
    ///
    /// - Throws: `certificateName` if there is none that has not expired.
    @discardableResult
    package func revoke(
        _ name: String, validity: CertificateValidity = .revocations
    ) throws(TransportError) -> Revocation {
        let certificates = try issued().filter { $0.belongs(toInstance: name) && !$0.hasExpired }
        guard !certificates.isEmpty else {
            throw .certificateName(
                name, problem: "has no certificate of this authority that has not expired")
        }
        return try writeRevocations(adding: certificates, validity)
    }

    /// Writes the list of revocations anew, with a later end.
    @discardableResult
    package func renewRevocations(
        validity: CertificateValidity = .revocations
    ) throws(TransportError) -> Revocation {
        try writeRevocations(adding: [], validity)
    }

    /// Whether a process's present certificate is on the list.
    package func isRevoked(_ instance: InstanceID) throws(TransportError) -> Bool {
        let path = paths(of: instance).certificate
        guard Files.exists(path), let list = try presentList(),
            let certificate = try Certificate.all(inPEM: Files.read(path)).first
        else { return false }
        return list.revokes(certificate)
    }

    /// Those of the record and those in the folder, which may be older than it.
    private func issued() throws(TransportError) -> [Certificate] {
        var all: [Certificate] = []
        if Files.exists(issuedPath) {
            all = try Certificate.all(
                inPEM: Files.read(issuedPath, limit: TransportLimits.issuedFileBytes))
        }
        let (authority, _) = try load()
        for path in Files.list(folder) where path.hasSuffix(".pem") && path != issuedPath {
            all += try Certificate.all(inPEM: Files.read(path))
                .filter { $0.isIssued(by: authority) }
        }
        return all
    }

    private func presentList() throws(TransportError) -> RevocationList? {
        guard Files.exists(revocationsPath) else { return nil }
        let (authority, _) = try load()
        return try RevocationList.inForce(
            inPEM: Files.read(revocationsPath), by: [authority], path: revocationsPath,
            authorityPath: certificatePath
        ).first
    }

    private func writeRevocations(
        adding certificates: [Certificate], _ validity: CertificateValidity
    ) throws(TransportError) -> Revocation {
        let (authority, key) = try load()
        let before = try presentList()
        let draft = try RevocationDraft(by: authority, after: before, validity: validity)
        var revoked: [Certificate] = []
        for certificate in certificates {
            let isKnown =
                before?.revokes(certificate) == true
                || revoked.contains { $0.hasSerialNumber(of: certificate) }
            guard !isKnown else { continue }
            try draft.add(certificate)
            revoked.append(certificate)
        }
        let list = try draft.signed(key: key)
        try Files.write(list.pem(), to: revocationsPath, for: .everybody)
        return Revocation(revoked: revoked.count, listed: list.count)
    }
}

extension Certificate {
    fileprivate func belongs(toInstance name: String) -> Bool {
        guard let identity else { return false }
        if identity.instance == PeerIdentity.anyInstance { return identity.role.name == name }
        return identity.instance.name == name
    }

    fileprivate var hasExpired: Bool {
        unsafe X509_cmp_current_time(X509_get0_notAfter(pointer)) < 0
    }

    fileprivate func hasSerialNumber(of other: Certificate) -> Bool {
        unsafe ASN1_INTEGER_cmp(
            X509_get0_serialNumber(pointer), X509_get0_serialNumber(other.pointer)) == 0
    }
}

/// A list of revocations that is not signed yet.
private struct RevocationDraft {
    private let list: RevocationList

    /// - Parameter before: its entries are on this list, too.
    init(
        by authority: Certificate, after before: RevocationList?, validity: CertificateValidity
    ) throws(TransportError) {
        list = unsafe RevocationList(owning: try unsafe made(X509_CRL_new(), "X509_CRL_new"))
        let pointer = unsafe list.pointer
        let name = unsafe X509_get_subject_name(authority.pointer)
        try check(
            unsafe X509_CRL_set_version(pointer, Int(X509_CRL_VERSION_2)) == 1
                && X509_CRL_set_issuer_name(pointer, name) == 1, "issuer")
        let start = Int(validity.start.components.seconds)
        let end = start + Int(validity.length.components.seconds)
        try unsafe set(start) { unsafe X509_CRL_set1_lastUpdate(pointer, $0) }
        try unsafe set(end) { unsafe X509_CRL_set1_nextUpdate(pointer, $0) }
        try add(
            NID_authority_key_identifier, "keyid:always", by: authority)
        try setNumber(after: before)
        for index in 0..<Int32(before?.count ?? 0) {
            let entry = unsafe before.flatMap { unsafe shim_revoked_at($0.pointer, index) }
            let copy = try unsafe made(X509_REVOKED_dup(entry), "copying an entry")
            try check(unsafe X509_CRL_add0_revoked(pointer, copy) == 1, "copying an entry")
        }
    }

    private func set(
        _ seconds: Int, _ body: (UnsafePointer<ASN1_TIME>) -> Int32
    ) throws(TransportError) {
        guard let time = unsafe X509_gmtime_adj(nil, seconds) else {
            throw .library("time: \(LibraryErrors.take().text)")
        }
        defer { unsafe ASN1_TIME_free(time) }
        try check(unsafe body(time) == 1, "time")
    }

    private func add(
        _ kind: Int32, _ value: String, by authority: Certificate
    ) throws(TransportError) {
        var context = unsafe X509V3_CTX()
        unsafe X509V3_set_ctx(&context, authority.pointer, nil, nil, list.pointer, 0)
        let made = try unsafe made(
            X509V3_EXT_conf_nid(nil, &context, kind, value), "list extension \(value)")
        defer { unsafe X509_EXTENSION_free(made) }
        try check(unsafe X509_CRL_add_ext(list.pointer, made, -1) == 1, "extension")
    }

    /// RFC 5280, 5.2.3: rises with each list of an authority.
    private func setNumber(after before: RevocationList?) throws(TransportError) {
        let earlier = unsafe before.flatMap {
            unsafe X509_CRL_get_ext_d2i($0.pointer, NID_crl_number, nil, nil)
        }
        let old = unsafe earlier?.assumingMemoryBound(to: ASN1_INTEGER.self)
        defer { unsafe ASN1_INTEGER_free(old) }
        guard let number = unsafe ASN1_INTEGER_new() else { throw .library("number") }
        defer { unsafe ASN1_INTEGER_free(number) }
        let next = unsafe old.map { unsafe ASN1_INTEGER_get($0) + 1 } ?? 1
        try check(
            unsafe ASN1_INTEGER_set(number, next) == 1
                && X509_CRL_add1_ext_i2d(list.pointer, NID_crl_number, number, 0, 0) == 1,
            "number")
    }

    func add(_ certificate: Certificate) throws(TransportError) {
        let entry = try unsafe made(X509_REVOKED_new(), "X509_REVOKED_new")
        guard let now = unsafe X509_gmtime_adj(nil, 0) else { throw .library("time") }
        defer { unsafe ASN1_TIME_free(now) }
        let serial = unsafe X509_get_serialNumber(certificate.pointer)
        let isSet =
            unsafe X509_REVOKED_set_serialNumber(entry, serial) == 1
            && X509_REVOKED_set_revocationDate(entry, now) == 1
            && X509_CRL_add0_revoked(list.pointer, entry) == 1
        guard isSet else {
            unsafe X509_REVOKED_free(entry)
            throw .library("revoking: \(LibraryErrors.take().text)")
        }
    }

    func signed(key: PrivateKey) throws(TransportError) -> RevocationList {
        try check(
            unsafe X509_CRL_sort(list.pointer) == 1
                && X509_CRL_sign(list.pointer, key.pointer, EVP_sha256()) > 0, "signature")
        return list
    }
}
