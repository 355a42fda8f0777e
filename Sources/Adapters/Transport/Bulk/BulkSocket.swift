internal import COpenSSL
internal import ServingTypes
internal import Synchronization

#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// A TLS connection on a non-blocking socket, read by one thread while another writes.
///
/// An `SSL` object bears one thread at a time, so a lock is held during each call into OpenSSL and
/// none while waiting for the socket.
@safe final class BulkSocket: Sendable {
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

    private let file: Int32
    private let connection: Mutex<Connection>
    private let isShutDown = Atomic(false)
    private let recordsPerKey: Int
    let remoteAddress: NetworkAddress?

    /// Takes over an open socket.
    init(
        file: Int32, context: TLSContext, side: TLSSide,
        recordsPerKey: Int = TransportLimits.recordsPerKey
    ) throws(TransportError) {
        _ = Sockets.ignoresBrokenPipes
        self.file = file
        self.recordsPerKey = recordsPerKey
        remoteAddress = Sockets.address(of: file, isPeer: true)
        let ssl: OpaquePointer
        do throws(TransportError) {
            unsafe ssl = try unsafe context.makeConnection(side)
        } catch {
            close(file)
            throw error
        }
        connection = Mutex(Connection(address: UInt(bitPattern: ssl)))
        guard unsafe SSL_set_fd(ssl, file) == 1 else {
            throw .library("SSL_set_fd: \(LibraryErrors.take().text)")
        }
    }

    deinit {
        connection.withLock { unsafe SSL_free($0.pointer) }
        close(file)
    }

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
    }

    var peerIdentity: PeerIdentity? {
        connection.withLock { unsafe verifiedIdentity(of: $0.pointer) }
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

    /// Fills the whole buffer; one thread at a time.
    ///
    /// - Throws: `closedByPeer` if the connection ends before the first byte, `truncated` if later.
    func read(
        into buffer: UnsafeMutableRawBufferPointer, _ deadline: Deadline
    ) throws(TransportError) {
        var received = 0
        while received < buffer.count {
            let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[received...])
            do throws(TransportError) {
                received += try perform(deadline) { connection in
                    var count = 0
                    let code = unsafe SSL_read_ex(
                        connection.pointer, rest.baseAddress, rest.count, &count)
                    return code == 1 ? count : nil
                }
            } catch {
                guard received > 0, error == .closedByPeer else { throw error }
                throw .truncated(receivedBytes: received, expectedBytes: buffer.count)
            }
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
            if isShutDown.load(ordering: .acquiring) { throw .shutDown }
            let isReady: Bool
            switch outcome {
            case .done(let count): return count
            case .waitsToRead: isReady = Sockets.wait(file, Int16(POLLIN), deadline)
            case .waitsToWrite: isReady = Sockets.wait(file, Int16(POLLOUT), deadline)
            case .ended: throw .closedByPeer
            case .failed(let error): throw error
            }
            if isShutDown.load(ordering: .acquiring) { throw .shutDown }
            guard isReady else { throw .deadline }
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
                errors.handshakeError(
                    verifyResult: unsafe SSL_get_verify_result(connection.pointer)))
        }
    }

    private static func fail(_ connection: inout Connection, _ error: TransportError) -> Outcome {
        connection.failure = error
        return .failed(error)
    }

    /// Ends the connection at once; threads that wait on it throw `shutDown` within milliseconds.
    func shutdown() {
        isShutDown.store(true, ordering: .releasing)
        Platform.shutdown(file, .both)
    }

    /// Says that nothing follows and waits until the peer has closed, too.
    ///
    /// Closing with bytes unread would make the kernel throw away what the peer has not read yet.
    func finish(linger: Duration = TransportLimits.closeLinger) {
        guard !isShutDown.load(ordering: .acquiring) else { return }
        connection.withLock { connection in
            LibraryErrors.clear()
            if connection.failure == nil { _ = unsafe SSL_shutdown(connection.pointer) }
            LibraryErrors.clear()
        }
        Platform.shutdown(file, .sending)
        let deadline = Deadline(after: linger)
        unsafe withUnsafeTemporaryAllocation(byteCount: 16 << 10, alignment: 16) { scrap in
            while !deadline.hasPassed, Sockets.wait(file, Int16(POLLIN), deadline) {
                let count = unsafe Platform.read(file, scrap)
                if count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR) { return }
            }
        }
    }
}
