internal import COpenSSL
package import ServingTypes

/// One TLS connection in memory: ciphertext in and out on one side, plaintext on the other.
///
/// Knows no socket. For one owner at a time; after an error it is of no more use, but alerts for
/// the peer may still wait in `takeCiphertext`.
@safe package final class TLSSession {
    /// What reading gave.
    package enum Reading: Equatable {
        case bytes(Int)
        /// More ciphertext is needed.
        case needsMore
        /// The peer has said that nothing follows.
        case closed
    }

    private let connection: OpaquePointer
    private let incoming: OpaquePointer
    private let outgoing: OpaquePointer
    package private(set) var isEstablished = false
    private var recordsUnderKey = 0
    private let recordsPerKey: Int

    package convenience init(
        context: TLSContext, side: TLSSide
    ) throws(TransportError) {
        try self.init(context: context, side: side, recordsPerKey: TransportLimits.recordsPerKey)
    }

    init(
        context: TLSContext, side: TLSSide, recordsPerKey: Int
    ) throws(TransportError) {
        let incoming = try MemoryBIO()
        let outgoing = try MemoryBIO()
        unsafe connection = try unsafe context.makeConnection(side)
        self.recordsPerKey = recordsPerKey
        // The connection frees both with itself.
        unsafe self.incoming = unsafe incoming.release()
        unsafe self.outgoing = unsafe outgoing.release()
        // An empty buffer means "not yet", not "ended".
        unsafe shim_BIO_set_mem_eof_return(self.incoming, -1)
        unsafe shim_BIO_set_mem_eof_return(self.outgoing, -1)
        unsafe SSL_set_bio(connection, self.incoming, self.outgoing)
    }

    deinit { unsafe SSL_free(connection) }

    /// Takes what came from the network.
    package func receive(_ ciphertext: UnsafeRawBufferPointer) throws(TransportError) {
        guard ciphertext.count > 0 else { return }
        let count = unsafe BIO_write(
            incoming, ciphertext.baseAddress, Int32(clamping: ciphertext.count))
        try check(Int(count) == ciphertext.count, "taking ciphertext")
    }

    /// Bytes that wait to be sent.
    package var waitingBytes: Int { unsafe shim_BIO_pending(outgoing) }

    /// Copies ciphertext for the network into the buffer and says how much.
    package func takeCiphertext(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        guard buffer.count > 0 else { return 0 }
        let count = unsafe BIO_read(outgoing, buffer.baseAddress, Int32(clamping: buffer.count))
        return max(0, Int(count))
    }

    /// Goes as far as the ciphertext allows; `isEstablished` says whether that was to the end.
    package func handshake() throws(TransportError) {
        guard !isEstablished else { return }
        LibraryErrors.clear()
        let code = unsafe SSL_do_handshake(connection)
        if code == 1 {
            isEstablished = true
            return
        }
        guard unsafe SSL_get_error(connection, code) != SSL_ERROR_WANT_READ else { return }
        throw failure()
    }

    /// Decrypts into a buffer that is not empty.
    package func read(
        into buffer: UnsafeMutableRawBufferPointer
    ) throws(TransportError) -> Reading {
        LibraryErrors.clear()
        var count = 0
        let code = unsafe SSL_read_ex(connection, buffer.baseAddress, buffer.count, &count)
        if code == 1 { return .bytes(count) }
        switch unsafe SSL_get_error(connection, code) {
        case SSL_ERROR_WANT_READ: return .needsMore
        case SSL_ERROR_ZERO_RETURN: return .closed
        default: throw failure()
        }
    }

    /// Encrypts all of the bytes; only after the handshake.
    package func write(_ plaintext: UnsafeRawBufferPointer) throws(TransportError) {
        precondition(isEstablished, "written before the handshake ended")
        var rest = unsafe plaintext[...]
        while unsafe !rest.isEmpty {
            LibraryErrors.clear()
            try renewKeyIfDue()
            let piece = unsafe UnsafeRawBufferPointer(rebasing: rest)
            var count = 0
            let code = unsafe SSL_write_ex(connection, piece.baseAddress, piece.count, &count)
            guard code == 1 else { throw failure() }
            recordsUnderKey += 1
            unsafe rest = rest.dropFirst(count)
        }
    }

    private func renewKeyIfDue() throws(TransportError) {
        guard recordsUnderKey >= recordsPerKey else { return }
        recordsUnderKey = 0
        let code = unsafe SSL_key_update(connection, SSL_KEY_UPDATE_NOT_REQUESTED)
        try check(code == 1, "renewing the key")
    }

    /// Tells the peer that nothing follows.
    package func close() {
        guard isEstablished else { return }
        LibraryErrors.clear()
        _ = unsafe SSL_shutdown(connection)
        LibraryErrors.clear()
    }

    /// What the peer's verified certificate says; nil without a certificate or a single URI name.
    package var peerIdentity: PeerIdentity? { peerCertificate?.identity }

    /// The peer's verified certificate; nil without one.
    var peerCertificate: Certificate? { unsafe verifiedCertificate(of: connection) }

    /// The protocol agreed on above TLS, such as `http/1.1`; nil if none was.
    package var applicationProtocol: String? {
        unsafe ApplicationProtocol.agreed(on: connection)
    }

    private func failure() -> TransportError {
        unsafe LibraryErrors.take().handshakeError(on: connection)
    }
}

/// The peer's certificate; nil unless it was verified.
func verifiedCertificate(of connection: OpaquePointer) -> Certificate? {
    guard let pointer = unsafe SSL_get1_peer_certificate(connection) else { return nil }
    let certificate = unsafe Certificate(owning: pointer)
    return unsafe SSL_get_verify_result(connection) == Int(X509_V_OK) ? certificate : nil
}

/// What a certificate that was refused says of itself, which proves nothing.
func shownName(on connection: OpaquePointer) -> String? {
    let chain = unsafe SSL_get0_verified_chain(connection)
    guard let first = unsafe shim_first_certificate(chain), unsafe X509_up_ref(first) == 1 else {
        return nil
    }
    return unsafe Certificate(owning: first).name
}

extension TLSSession {
    /// `receive` for bytes that lie in an array.
    package func receive(_ ciphertext: [UInt8]) throws(TransportError) {
        try unsafe ciphertext.span.bytes.withUnsafeBytes { bytes throws(TransportError) in
            try unsafe receive(bytes)
        }
    }

    /// `write` for bytes that lie in an array.
    package func write(_ plaintext: [UInt8]) throws(TransportError) {
        try unsafe plaintext.span.bytes.withUnsafeBytes { bytes throws(TransportError) in
            try unsafe write(bytes)
        }
    }

    /// All ciphertext that waits.
    package func takeCiphertext() -> [UInt8] {
        let waiting = waitingBytes
        return unsafe [UInt8](unsafeUninitializedCapacity: waiting) { buffer, count in
            count = unsafe takeCiphertext(into: UnsafeMutableRawBufferPointer(buffer))
        }
    }
}
