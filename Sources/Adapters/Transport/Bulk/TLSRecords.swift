internal import COpenSSL
internal import ServingTypes
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// TLS on a non-blocking socket, read by one thread while another writes; gives the keys of sealed
/// records, too.
///
/// An `SSL` object bears one thread at a time, so a lock is held during each call into OpenSSL and
/// none while waiting for the socket.
@safe final class TLSRecords: RecordKeys {
    /// What one call into OpenSSL gave.
    private enum Outcome: Sendable {
        case done(Int)
        case waitsToRead, waitsToWrite
        /// The peer's last byte has been read.
        case ended
        case failed(TransportError)
    }

    private struct Connection {
        /// Address of OpenSSL's `SSL`.
        let address: UInt
        var recordsUnderKey = 0
        /// After a fault OpenSSL must not be called again.
        var failure: TransportError?

        var pointer: OpaquePointer {
            guard let pointer = unsafe OpaquePointer(bitPattern: address) else {
                preconditionFailure("a connection has an address")
            }
            return unsafe pointer
        }
    }

    private let socket: StreamSocket
    private let connection: Mutex<Connection>
    private let recordsPerKey: Int

    init(
        _ socket: StreamSocket, context: TLSContext, side: TLSSide, records: BulkRecords,
        recordsPerKey: Int
    ) throws(TransportError) {
        self.socket = socket
        self.recordsPerKey = recordsPerKey
        let ssl = try unsafe context.makeConnection(side, records: records)
        connection = Mutex(Connection(address: UInt(bitPattern: ssl)))
        guard unsafe SSL_set_fd(ssl, socket.file) == 1 else {
            throw .library("SSL_set_fd: \(LibraryErrors.take().text)")
        }
    }

    deinit { connection.withLock { unsafe SSL_free($0.pointer) } }

    func handshake(_ deadline: Deadline) throws(TransportError) {
        do throws(TransportError) {
            _ = try perform(deadline) { unsafe SSL_do_handshake($0.pointer) == 1 ? 1 : nil }
        } catch {
            switch error {
            case .closedByPeer: throw .tls(.closed, isReportedByPeer: false, details: "")
            case .deadline: throw .handshakeDeadline
            default: throw error
            }
        }
        // What stays with TLS is faster with OpenSSL reading ahead.
        guard agreedRecords == .tls else { return }
        connection.withLock { unsafe SSL_set_read_ahead($0.pointer, 1) }
    }

    /// The kind of records agreed on in the handshake; a peer that knows no choice means TLS.
    var agreedRecords: BulkRecords {
        connection.withLock { connection in
            let name = unsafe ApplicationProtocol.agreed(on: connection.pointer)
            return name == ApplicationProtocol.sealedRecords.rawValue ? .sealed : .tls
        }
    }

    /// The peer's verified certificate; nil without one.
    var peerCertificate: Certificate? {
        connection.withLock { unsafe verifiedCertificate(of: $0.pointer) }
    }

    /// Sends all of the bytes; one thread at a time.
    func write(_ bytes: UnsafeRawBufferPointer, _ deadline: Deadline) throws(TransportError) {
        var rest = unsafe bytes[...]
        while unsafe !rest.isEmpty {
            let piece = unsafe UnsafeRawBufferPointer(rebasing: rest)
            let count = try perform(deadline) { connection in
                unsafe self.write(piece, &connection)
            }
            unsafe rest = rest.dropFirst(count)
        }
    }

    private func write(_ piece: UnsafeRawBufferPointer, _ connection: inout Connection) -> Int? {
        // A record begun must be finished under its key; the count rises when one is.
        if connection.recordsUnderKey >= recordsPerKey {
            guard unsafe SSL_key_update(connection.pointer, SSL_KEY_UPDATE_NOT_REQUESTED) == 1
            else { return nil }
            connection.recordsUnderKey = 0
        }
        var count = 0
        let code = unsafe SSL_write_ex(
            connection.pointer, piece.baseAddress, piece.count, &count)
        guard code == 1 else { return nil }
        connection.recordsUnderKey += 1
        return count
    }

    /// Puts what comes next into the buffer; one thread at a time.
    ///
    /// - Returns: its bytes, at least one.
    func read(
        into buffer: UnsafeMutableRawBufferPointer, _ deadline: Deadline
    ) throws(TransportError) -> Int {
        try perform(deadline) { connection in
            var count = 0
            let code = unsafe SSL_read_ex(
                connection.pointer, buffer.baseAddress, buffer.count, &count)
            return code == 1 ? count : nil
        }
    }

    /// Keys that only the two ends of this connection can derive (RFC 8446, 7.5).
    func export(
        _ direction: StreamDirection, epoch: UInt32, into material: UnsafeMutableRawBufferPointer
    ) throws(TransportError) {
        precondition(material.count == RecordKey.byteCount)
        let context = RecordKey.context(direction, epoch: epoch)
        try connection.withLock { connection throws(TransportError) in
            let code = unsafe SSL_export_keying_material(
                connection.pointer, material.baseAddress?.assumingMemoryBound(to: UInt8.self),
                material.count, RecordKey.label, RecordKey.label.utf8.count, context,
                context.count, 1)
            try check(code == 1, "exporting a record key")
        }
    }

    /// Whether OpenSSL has taken bytes from the socket that nobody has read.
    var holdsBytes: Bool { connection.withLock { unsafe SSL_has_pending($0.pointer) == 1 } }

    /// Tells the peer that nothing follows.
    func end() {
        connection.withLock { connection in
            LibraryErrors.clear()
            if connection.failure == nil { _ = unsafe SSL_shutdown(connection.pointer) }
            LibraryErrors.clear()
        }
    }

    /// Calls OpenSSL until it has done something, the peer has ended or the deadline has passed.
    ///
    /// - Parameter call: gives nil if OpenSSL's answer was not success.
    private func perform(
        _ deadline: Deadline, _ call: (inout Connection) -> Int?
    ) throws(TransportError) -> Int {
        while true {
            let outcome = connection.withLock { Self.attempt(&$0, call) }
            try socket.checkOpen()
            switch outcome {
            case .done(let count): return count
            case .waitsToRead: try socket.wait(POLLIN, deadline)
            case .waitsToWrite: try socket.wait(POLLOUT, deadline)
            case .ended: throw .closedByPeer
            case .failed(let error): throw error
            }
        }
    }

    private static func attempt(
        _ connection: inout Connection, _ call: (inout Connection) -> Int?
    ) -> Outcome {
        if let failure = connection.failure { return .failed(failure) }
        LibraryErrors.clear()
        if let count = call(&connection) { return .done(count) }
        switch unsafe SSL_get_error(connection.pointer, 0) {
        case SSL_ERROR_WANT_READ: return .waitsToRead
        case SSL_ERROR_WANT_WRITE: return .waitsToWrite
        case SSL_ERROR_ZERO_RETURN: return .ended
        case SSL_ERROR_SYSCALL:
            let code = errno
            return fail(
                &connection,
                code == 0 ? .closedByPeer : .connectionLost(Platform.errorText(code)))
        default:
            let errors = LibraryErrors.take()
            if errors.tlsReasons.contains(SSL_R_UNEXPECTED_EOF_WHILE_READING) {
                return fail(&connection, .closedByPeer)
            }
            return fail(
                &connection,
                unsafe errors.handshakeError(on: connection.pointer))
        }
    }

    private static func fail(_ connection: inout Connection, _ error: TransportError) -> Outcome {
        connection.failure = error
        return .failed(error)
    }
}
