internal import COpenSSL

/// One X.509 certificate; owns OpenSSL's object.
@safe final class Certificate: Sendable {
    /// Address of OpenSSL's `X509`, which any thread may read once it is signed.
    private let address: UInt

    init(owning pointer: OpaquePointer) { address = UInt(bitPattern: pointer) }

    var pointer: OpaquePointer {
        guard let pointer = unsafe OpaquePointer(bitPattern: address) else {
            preconditionFailure("a certificate has an address")
        }
        return unsafe pointer
    }

    deinit { unsafe X509_free(pointer) }

    /// All certificates of a PEM text, in order; empty if there is none.
    static func all(inPEM text: [UInt8]) throws(TransportError) -> [Certificate] {
        LibraryErrors.clear()
        let source = try MemoryBIO(text)
        var certificates: [Certificate] = []
        while let pointer = unsafe PEM_read_bio_X509(source.pointer, nil, refusePassphrase, nil) {
            certificates.append(unsafe Certificate(owning: pointer))
        }
        LibraryErrors.clear()  // The end of the text is reported as an error.
        return certificates
    }

    func pem() throws(TransportError) -> [UInt8] {
        let target = try MemoryBIO()
        try check(unsafe PEM_write_bio_X509(target.pointer, pointer) == 1, "writing a certificate")
        return target.contents()
    }
}

/// One private key; owns OpenSSL's object.
@safe final class PrivateKey {
    let pointer: OpaquePointer

    init(owning pointer: OpaquePointer) { unsafe self.pointer = unsafe pointer }

    /// A new ECDSA key on P-256.
    init() throws(TransportError) {
        unsafe pointer = try unsafe made(shim_EVP_EC_gen_P256(), "making a key")
    }

    deinit { unsafe EVP_PKEY_free(pointer) }

    /// The first key of a PEM text; nil if there is none or it wants a pass phrase.
    convenience init?(pem text: [UInt8]) throws(TransportError) {
        let source = try MemoryBIO(text)
        guard
            let pointer = unsafe PEM_read_bio_PrivateKey(
                source.pointer, nil, refusePassphrase, nil)
        else {
            LibraryErrors.clear()
            return nil
        }
        unsafe self.init(owning: pointer)
    }

    func pem() throws(TransportError) -> [UInt8] {
        let target = try MemoryBIO()
        let code = unsafe PEM_write_bio_PKCS8PrivateKey(
            target.pointer, pointer, nil, nil, 0, nil, nil)
        try check(code == 1, "writing a key")
        return target.contents()
    }

    func belongs(to certificate: Certificate) -> Bool {
        defer { LibraryErrors.clear() }
        return unsafe X509_check_private_key(certificate.pointer, pointer) == 1
    }
}

/// Keeps OpenSSL from asking for a pass phrase on the terminal.
func refusePassphrase(
    buffer: UnsafeMutablePointer<CChar>?, size: Int32, isWriting: Int32,
    context: UnsafeMutableRawPointer?
) -> Int32 { -1 }

/// OpenSSL's growing byte buffer.
@safe final class MemoryBIO {
    let pointer: OpaquePointer
    private var isOwned = true

    init() throws(TransportError) {
        unsafe pointer = try unsafe made(BIO_new(BIO_s_mem()), "making a buffer")
    }

    convenience init(_ bytes: [UInt8]) throws(TransportError) {
        try self.init()
        let written = unsafe BIO_write(pointer, bytes, Int32(clamping: bytes.count))
        try check(Int(written) == bytes.count || bytes.isEmpty, "filling a buffer")
    }

    deinit { if isOwned { unsafe BIO_free(pointer) } }

    /// Hands the C object over to the caller.
    func release() -> OpaquePointer {
        isOwned = false
        return unsafe pointer
    }

    func contents() -> [UInt8] {
        let waiting = unsafe Int(shim_BIO_pending(pointer))
        return unsafe [UInt8](unsafeUninitializedCapacity: waiting) { buffer, count in
            let read = unsafe BIO_read(pointer, buffer.baseAddress, Int32(clamping: waiting))
            count = max(0, Int(read))
        }
    }
}
