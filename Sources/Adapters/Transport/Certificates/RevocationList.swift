internal import COpenSSL

/// One list of revoked certificates (CRL); owns OpenSSL's object.
@safe final class RevocationList: Sendable {
    /// Address of OpenSSL's `X509_CRL`, which any thread may read once it is signed.
    private let address: UInt

    init(owning pointer: OpaquePointer) { address = UInt(bitPattern: pointer) }

    deinit { unsafe X509_CRL_free(pointer) }

    var pointer: OpaquePointer {
        guard let pointer = unsafe OpaquePointer(bitPattern: address) else {
            preconditionFailure("a list has an address")
        }
        return unsafe pointer
    }

    /// All lists of a PEM text, in order; empty if there is none.
    static func all(inPEM text: [UInt8]) throws(TransportError) -> [RevocationList] {
        LibraryErrors.clear()
        let source = try MemoryBIO(text)
        var lists: [RevocationList] = []
        while let list = unsafe PEM_read_bio_X509_CRL(source.pointer, nil, refusePassphrase, nil) {
            lists.append(unsafe RevocationList(owning: list))
        }
        LibraryErrors.clear()  // The end of the text is reported as an error.
        return lists
    }

    func pem() throws(TransportError) -> [UInt8] {
        let target = try MemoryBIO()
        try check(unsafe PEM_write_bio_X509_CRL(target.pointer, pointer) == 1, "writing a list")
        return target.contents()
    }

    /// Seconds since 1970.
    var lastUpdate: Int64 { unsafe seconds(X509_CRL_get0_lastUpdate(pointer)) }

    /// When the next list should be there, in seconds since 1970; nil if it does not say.
    var nextUpdate: Int64? {
        guard let time = unsafe X509_CRL_get0_nextUpdate(pointer) else { return nil }
        return unsafe seconds(time)
    }

    var count: Int { max(0, Int(unsafe shim_revoked_count(pointer))) }

    func isSigned(by authority: Certificate) -> Bool {
        defer { LibraryErrors.clear() }
        return unsafe X509_CRL_verify(pointer, X509_get0_pubkey(authority.pointer)) == 1
    }

    /// Whether it names the certificate; only for certificates of the same authority.
    func revokes(_ certificate: Certificate) -> Bool {
        var entry: OpaquePointer?
        // 2 is an entry that takes an earlier one back.
        return unsafe X509_CRL_get0_by_cert(pointer, &entry, certificate.pointer) == 1
    }

    /// The latest list of each authority that has one.
    ///
    /// - Throws: `file` if the text has no list, or none of an authority.
    static func inForce(
        inPEM text: [UInt8], by authorities: [Certificate], path: String, authorityPath: String
    ) throws(TransportError) -> [RevocationList] {
        let lists = try all(inPEM: text)
        guard !lists.isEmpty else {
            throw .file(path: path, problem: "holds no PEM revocation list")
        }
        let latest = authorities.compactMap { authority in
            lists.filter { $0.isSigned(by: authority) }.max { $0.lastUpdate < $1.lastUpdate }
        }
        guard !latest.isEmpty else {
            throw .file(
                path: path, problem: "holds no list signed by an authority in \(authorityPath)")
        }
        return latest
    }
}
