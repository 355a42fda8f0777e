internal import COpenSSL
package import ServingTypes

#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// The files of one cluster's certificate authority and of the processes it vouches for.
///
/// In one folder: `ca.pem`, `ca.key`, and `<instance>.pem`, `<instance>.key` for each process;
/// `issued.pem`, all certificates ever issued, and `revoked.pem`, those that hold no more. Keys can
/// be read by their owner alone. Only `ca.pem`, `revoked.pem` and a process's own two files go to
/// its host.
package struct CertificateAuthority: Sendable {
    package let folder: String

    package init(folder: String) { self.folder = folder }

    package var certificatePath: String { folder + "/ca.pem" }
    package var keyPath: String { folder + "/ca.key" }
    /// All certificates issued so far.
    package var issuedPath: String { folder + "/issued.pem" }
    package var revocationsPath: String { folder + "/revoked.pem" }
    package var exists: Bool { Files.exists(certificatePath) || Files.exists(keyPath) }

    /// The files a process is started with.
    package func paths(of instance: InstanceID) -> TLSIdentity.Paths {
        TLSIdentity.Paths(
            authority: certificatePath, certificate: "\(folder)/\(instance).pem",
            key: "\(folder)/\(instance).key", revocations: revocationsPath,
            mayLackRevocations: true)
    }

    /// Makes key and certificate of the authority; an existing one is never overwritten.
    package func create(
        cluster: String, validity: CertificateValidity = .authority
    ) throws(TransportError) {
        try requireName(cluster)
        try Files.makeFolder(folder)
        for path in [certificatePath, keyPath] where Files.exists(path) {
            throw .file(path: path, problem: "exists already; a new authority needs a new folder")
        }
        let key = try PrivateKey()
        let draft = try CertificateDraft(
            commonName: "pdserve CA of \(cluster)", key: key, validity: validity)
        try draft.add(NID_basic_constraints, "critical,CA:TRUE,pathlen:0", issuer: nil)
        try draft.add(NID_key_usage, "critical,keyCertSign,cRLSign", issuer: nil)
        try draft.add(NID_subject_key_identifier, "hash", issuer: nil)
        let certificate = try draft.signed(issuer: nil, key: key)
        try Files.write(key.pem(), to: keyPath, for: .owner)
        try Files.write(certificate.pem(), to: certificatePath, for: .everybody)
    }

    /// Makes a new key and certificate for one process; those it had before are replaced.
    ///
    /// - Parameters:
    ///   - identity: with `PeerIdentity.anyInstance`, good for every process of its role.
    ///   - file: name of the files without ending; by default that of the instance.
    ///   - hosts: further host names and numeric addresses under which the process is reached.
    /// - Returns: what was written.
    @discardableResult
    package func issue(
        _ identity: PeerIdentity, file: String? = nil, hosts: [String] = [],
        validity: CertificateValidity = .process
    ) throws(TransportError) -> CertificateContents {
        try requireName(identity.cluster)
        let file = file ?? identity.instance.name
        try requireName(file)
        if identity.instance != PeerIdentity.anyInstance { try requireName(identity.instance.name) }
        guard !["ca", "issued", "revoked"].contains(file) else {
            throw .certificateName(file, problem: "is the name of an authority's own file")
        }
        let (authority, authorityKey) = try load()
        let key = try PrivateKey()
        let draft = try CertificateDraft(
            commonName: identity.instance.name, key: key, validity: validity)
        try draft.add(NID_basic_constraints, "critical,CA:FALSE", issuer: authority)
        try draft.add(NID_key_usage, "critical,digitalSignature", issuer: authority)
        try draft.add(NID_ext_key_usage, "serverAuth,clientAuth", issuer: authority)
        try draft.add(NID_subject_key_identifier, "hash", issuer: authority)
        try draft.add(NID_authority_key_identifier, "keyid:always", issuer: authority)
        var names = ["URI:\(identity)"]
        for host in hosts { names.append(try alternativeName(host: host)) }
        try draft.add(NID_subject_alt_name, names.joined(separator: ","), issuer: authority)
        let certificate = try draft.signed(issuer: authority, key: authorityKey)
        let paths = paths(of: InstanceID(file))
        // First, so that there is none that can't be revoked.
        try Files.append(certificate.pem(), to: issuedPath)
        try Files.write(key.pem(), to: paths.key, for: .owner)
        try Files.write(certificate.pem(), to: paths.certificate, for: .everybody)
        return CertificateContents(certificate)
    }

    func load() throws(TransportError) -> (Certificate, PrivateKey) {
        guard exists else {
            throw .file(
                path: certificatePath,
                problem: "does not exist; make the authority first with `pdserve certificates`")
        }
        guard let certificate = try Certificate.all(inPEM: Files.read(certificatePath)).first else {
            throw .file(path: certificatePath, problem: "holds no PEM certificate")
        }
        guard let key = try PrivateKey(pem: Files.read(keyPath)) else {
            throw .file(path: keyPath, problem: "holds no readable PEM key")
        }
        guard key.belongs(to: certificate) else {
            throw .file(path: keyPath, problem: "is not the key of \(certificatePath)")
        }
        return (certificate, key)
    }
}

/// From when and how long a certificate, or a list of revocations, is good.
package struct CertificateValidity: Sendable, Hashable {
    /// Counted from now; negative so that hosts with a slow clock accept it.
    package var start: Duration
    /// Counted from the start.
    package var length: Duration

    package init(start: Duration = .seconds(-86_400), length: Duration) {
        self.start = start
        self.length = length
    }

    /// Ten years.
    package static let authority = CertificateValidity(length: .seconds(3650 * 86_400))
    /// A year.
    package static let process = CertificateValidity(length: .seconds(365 * 86_400))
    /// Thirty days.
    package static let revocations = CertificateValidity(
        start: .zero, length: .seconds(30 * 86_400))
}

/// A certificate that is not signed yet.
private struct CertificateDraft {
    private let certificate: Certificate

    init(
        commonName: String, key: PrivateKey, validity: CertificateValidity
    ) throws(TransportError) {
        certificate = unsafe Certificate(owning: try unsafe made(X509_new(), "X509_new"))
        let pointer = unsafe certificate.pointer
        try check(unsafe X509_set_version(pointer, Int(X509_VERSION_3)) == 1, "version")
        try setRandomSerialNumber()
        let start = Int(validity.start.components.seconds)
        let end = start + Int(validity.length.components.seconds)
        try check(
            unsafe X509_gmtime_adj(X509_getm_notBefore(pointer), start) != nil, "start")
        try check(unsafe X509_gmtime_adj(X509_getm_notAfter(pointer), end) != nil, "end")
        // The name is for people only, X.520 allows 64 characters.
        let code = unsafe X509_NAME_add_entry_by_txt(
            X509_get_subject_name(pointer), "CN", MBSTRING_ASC, String(commonName.prefix(64)),
            -1, -1, 0)
        try check(code == 1, "subject")
        try check(unsafe X509_set_pubkey(pointer, key.pointer) == 1, "public key")
    }

    private func setRandomSerialNumber() throws(TransportError) {
        let number = unsafe try made(BN_new(), "BN_new")
        defer { unsafe BN_free(number) }
        // 127 random bits: positive and within the 20 octets of RFC 5280, 4.1.2.2.
        try check(unsafe BN_rand(number, 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1, "serial")
        let target = unsafe X509_get_serialNumber(certificate.pointer)
        try check(unsafe BN_to_ASN1_INTEGER(number, target) != nil, "serial")
    }

    /// - Parameters:
    ///   - value: in the syntax of OpenSSL's configuration files; holds checked names only.
    ///   - issuer: nil for a self-signed certificate.
    func add(_ kind: Int32, _ value: String, issuer: Certificate?) throws(TransportError) {
        var context = unsafe X509V3_CTX()
        unsafe X509V3_set_ctx(
            &context, (issuer ?? certificate).pointer, certificate.pointer, nil, nil, 0)
        let made = try unsafe made(
            X509V3_EXT_conf_nid(nil, &context, kind, value), "certificate extension \(value)")
        defer { unsafe X509_EXTENSION_free(made) }
        try check(unsafe X509_add_ext(certificate.pointer, made, -1) == 1, "extension")
    }

    func signed(issuer: Certificate?, key: PrivateKey) throws(TransportError) -> Certificate {
        let pointer = unsafe certificate.pointer
        let name = unsafe X509_get_subject_name((issuer ?? certificate).pointer)
        try check(unsafe X509_set_issuer_name(pointer, name) == 1, "issuer")
        try check(unsafe X509_sign(pointer, key.pointer, EVP_sha256()) > 0, "signature")
        return certificate
    }
}

/// Keeps names to what is safe in a URI, in a file name and in OpenSSL's configuration syntax.
private func requireName(_ name: String) throws(TransportError) {
    guard (1...InstanceID.maximumBytes).contains(name.utf8.count), !name.hasPrefix(".") else {
        throw .certificateName(
            name, problem: "must have 1 to \(InstanceID.maximumBytes) letters, the first no dot")
    }
    try requireLetters(name, and: "-_.")
}

private func alternativeName(host: String) throws(TransportError) -> String {
    var address = in6_addr()
    for family in [AF_INET, AF_INET6] where unsafe inet_pton(family, host, &address) == 1 {
        return "IP:\(host)"
    }
    guard (1...253).contains(host.utf8.count) else {
        throw .certificateName(host, problem: "is no host name")
    }
    try requireLetters(host, and: "-_.*")
    return "DNS:\(host)"
}

private func requireLetters(_ name: String, and others: String) throws(TransportError) {
    let isAllowed = name.allSatisfy { letter in
        letter.isASCII && (letter.isLetter || letter.isNumber || others.contains(letter))
    }
    guard isAllowed else {
        throw .certificateName(
            name, problem: "may have ASCII letters, digits and \(others) only")
    }
}
