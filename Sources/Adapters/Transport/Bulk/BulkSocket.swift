internal import ServingTypes
internal import Synchronization

/// A bulk connection's bytes: first in TLS, then in the records that the handshake agreed on.
///
/// One thread may read while another writes. Each direction changes to sealed records at a moment
/// of its own, named by the caller; the two share no lock.
final class BulkSocket: Sendable {
    private let socket: StreamSocket
    private let tls: TLSRecords
    private let context: TLSContext
    /// From the end of the handshake.
    private let openPeer = Mutex<OpenPeers.Entry?>(nil)
    private let isClient: Bool
    private let recordsPerSealedKey: UInt64
    /// Nil while this direction is in TLS.
    private let sealer = Mutex<RecordSealer?>(nil)
    private let opener = Mutex<RecordOpener?>(nil)

    var remoteAddress: NetworkAddress? { socket.remoteAddress }
    var isSameHost: Bool { socket.isSameHost }
    var timeWaitingToWrite: Duration { socket.timeWaitingToWrite }
    /// Known after the handshake.
    var records: BulkRecords { tls.agreedRecords }
    var peerIdentity: PeerIdentity? { tls.peerCertificate?.identity }

    /// Takes over an open socket.
    ///
    /// - Parameters:
    ///   - recordsPerKey: the bound of TLS records.
    ///   - recordsPerSealedKey: the bound of sealed records; the same on both sides.
    init(
        file: Int32, context: TLSContext, side: TLSSide, records: BulkRecords = .sealed,
        recordsPerKey: Int = TransportLimits.recordsPerKey,
        recordsPerSealedKey: UInt64 = TransportLimits.sealedRecordsPerKey
    ) throws(TransportError) {
        self.context = context
        socket = StreamSocket(file: file)
        tls = try TLSRecords(
            socket, context: context, side: side, records: records, recordsPerKey: recordsPerKey)
        isClient = side != .server
        self.recordsPerSealedKey = recordsPerSealedKey
    }

    func handshake(_ deadline: Deadline) throws(TransportError) {
        try tls.handshake(deadline)
        guard let certificate = tls.peerCertificate else { return }
        let remote = remoteAddress?.description ?? "unknown"
        let entry = context.peers.add(certificate, remote: remote) { [weak self] error in
            self?.socket.shutdown(error)
        }
        openPeer.withLock { $0 = entry }
    }

    /// What is written from here on is sealed, if that was agreed on.
    func sealWriting() throws(TransportError) {
        guard records == .sealed else { return }
        try sealer.withLock { sealer throws(TransportError) in
            sealer = RecordSealer(socket: socket, cipher: try cipher(.seal))
        }
    }

    /// What is read from here on was sealed by the peer, if that was agreed on.
    func sealReading() throws(TransportError) {
        guard records == .sealed else { return }
        guard !tls.holdsBytes else { throw .recordRejected(.afterTLS) }
        try opener.withLock { opener throws(TransportError) in
            opener = RecordOpener(socket: socket, cipher: try cipher(.open))
        }
    }

    private func cipher(_ purpose: RecordCipher.Purpose) throws(TransportError) -> RecordCipher {
        let isToServer = isClient == (purpose == .seal)
        return try RecordCipher(
            purpose, isToServer ? .clientToServer : .serverToClient, keys: tls,
            recordsPerKey: recordsPerSealedKey)
    }

    /// Sends all of the bytes; one thread at a time.
    ///
    /// - Parameter isMore: others follow at once, or `flush`; short ones may wait for them.
    func write(
        _ bytes: UnsafeRawBufferPointer, _ deadline: Deadline, isMore: Bool = false
    ) throws(TransportError) {
        let region = unsafe Region(bytes)
        let isDone = try sealer.withLock { sealer throws(TransportError) in
            guard let sealer else { return false }
            unsafe try sealer.write(region.bytes, deadline)
            if !isMore { try sealer.flush(deadline) }
            return true
        }
        if !isDone { unsafe try tls.write(bytes, deadline) }
    }

    /// Sends what waits for more.
    func flush(_ deadline: Deadline) throws(TransportError) {
        try sealer.withLock { sealer throws(TransportError) in try sealer?.flush(deadline) }
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
                unsafe received += try readSome(into: rest, deadline)
            } catch {
                let isEnd = error == .closedByPeer || error == RecordOpener.cutOff
                guard received > 0, isEnd else { throw error }
                throw .truncated(receivedBytes: received, expectedBytes: buffer.count)
            }
        }
    }

    private func readSome(
        into buffer: UnsafeMutableRawBufferPointer, _ deadline: Deadline
    ) throws(TransportError) -> Int {
        // What was opened before a shutdown is not handed out after it.
        try socket.checkOpen()
        let region = unsafe Region(UnsafeRawBufferPointer(buffer))
        let count = try opener.withLock { opener throws(TransportError) in
            unsafe try opener?.read(
                into: UnsafeMutableRawBufferPointer(mutating: region.bytes), deadline)
        }
        if let count { return count }
        return unsafe try tls.read(into: buffer, deadline)
    }

    /// Ends the connection at once; threads that wait on it throw `shutDown` within milliseconds.
    func shutdown() { socket.shutdown() }

    /// Says that nothing follows and waits until the peer has closed, too.
    func finish(linger: Duration = TransportLimits.closeLinger) {
        guard !socket.isShutDown else { return }
        let deadline = Deadline(after: linger)
        // Whoever still writes keeps the lock; then the peer learns from the broken frame.
        let isSealed = sealer.withLockIfAvailable { sealer in
            guard let sealer else { return false }
            try? sealer.end(deadline)
            return true
        }
        if isSealed == false { tls.end() }
        socket.finish(deadline)
    }
}

/// The caller's memory on its way into a lock's closure.
private struct Region: Sendable {
    private let address: UInt
    private let count: Int

    init(_ bytes: UnsafeRawBufferPointer) {
        address = UInt(bitPattern: bytes.baseAddress)
        count = bytes.count
    }

    var bytes: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(
            start: UnsafeRawPointer(bitPattern: address), count: count)
    }
}
