internal import COpenSSL
package import ServingTypes

/// Certificate, key and trusted authority of this process, read and checked.
package struct TLSIdentity: Sendable {
    /// The PEM files a process is started with.
    package struct Paths: Sendable, Hashable {
        package var authority: String
        package var certificate: String
        package var key: String
        /// Certificates that hold no more; nil: none.
        package var revocations: String?
        /// Whether there may be no such file, as long as nothing was revoked.
        package var mayLackRevocations: Bool

        package init(
            authority: String, certificate: String, key: String, revocations: String? = nil,
            mayLackRevocations: Bool = false
        ) {
            self.authority = authority
            self.certificate = certificate
            self.key = key
            self.revocations = revocations
            self.mayLackRevocations = mayLackRevocations
        }
    }

    package let peer: PeerIdentity
    package let contents: CertificateContents
    let authorityPEM: [UInt8]
    let certificatePEM: [UInt8]
    let keyPEM: [UInt8]
    let certificate: Certificate
    let authorities: [Certificate]
    /// The latest list of each authority that has one.
    let revocations: [RevocationList]

    /// Reads the files; the error names the file at fault and what to do.
    package init(_ paths: Paths) throws(TransportError) {
        try self.init(paths, allowsExpired: false)
    }

    /// - Parameter allowsExpired: for tests of what peers say to an expired certificate.
    init(_ paths: Paths, allowsExpired: Bool) throws(TransportError) {
        authorityPEM = try Files.read(paths.authority)
        certificatePEM = try Files.read(paths.certificate)
        keyPEM = try Files.read(paths.key)
        authorities = try Certificate.all(inPEM: authorityPEM)
        guard !authorities.isEmpty else {
            throw .file(
                path: paths.authority, problem: "holds no PEM certificate; put the CA's here")
        }
        certificate = try leaf(of: certificatePEM, keyPEM: keyPEM, paths: paths)
        guard let peer = certificate.identity else {
            throw .file(path: paths.certificate, problem: TransportError.noIdentity.description)
        }
        self.peer = peer
        contents = CertificateContents(certificate)
        guard allowsExpired || contents.daysLeft >= 0 else {
            throw .file(
                path: paths.certificate,
                problem: "has expired; issue it again with `pdserve certificates`")
        }
        revocations = try Self.revocations(paths, by: authorities)
        for authority in authorities where certificate.isIssued(by: authority) {
            guard !revocations.contains(where: { $0.revokes(certificate) }) else {
                throw .file(
                    path: paths.certificate,
                    problem: "was revoked; issue it again with `pdserve certificates`")
            }
            return
        }
        throw .file(
            path: paths.certificate,
            problem: "was not issued by the authority in \(paths.authority)")
    }

    private static func revocations(
        _ paths: Paths, by authorities: [Certificate]
    ) throws(TransportError) -> [RevocationList] {
        guard let path = paths.revocations else { return [] }
        if paths.mayLackRevocations, !Files.exists(path) { return [] }
        return try RevocationList.inForce(
            inPEM: Files.read(path), by: authorities, path: path,
            authorityPath: paths.authority)
    }
}

/// The first certificate of a PEM text, checked against its key.
func leaf(
    of certificatePEM: [UInt8], keyPEM: [UInt8], paths: TLSIdentity.Paths
) throws(TransportError) -> Certificate {
    guard let certificate = try Certificate.all(inPEM: certificatePEM).first else {
        throw .file(path: paths.certificate, problem: "holds no PEM certificate")
    }
    guard let key = try PrivateKey(pem: keyPEM) else {
        throw .file(
            path: paths.key, problem: "holds no PEM key, or one with a pass phrase; remove it")
    }
    guard key.belongs(to: certificate) else {
        throw .file(path: paths.key, problem: "is not the key of \(paths.certificate)")
    }
    return certificate
}

extension Certificate {
    func isIssued(by authority: Certificate) -> Bool {
        defer { LibraryErrors.clear() }
        return unsafe X509_verify(pointer, X509_get0_pubkey(authority.pointer)) == 1
    }
}
