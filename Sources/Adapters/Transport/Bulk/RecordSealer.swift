/// Seals what is written and sends it; short records wait for the next long one or a flush.
///
/// For one owner at a time; after an error it is of no more use.
@safe final class RecordSealer {
    private let socket: StreamSocket
    private let cipher: RecordCipher
    /// Sealed records that have not been sent yet, from its start.
    private let scratch: UnsafeMutableRawBufferPointer
    private var waitingBytes = 0
    /// Bytes of the scratch that were sent ahead of a record's end.
    private var sentBytes = 0
    private var failure: TransportError?

    init(socket: StreamSocket, cipher: RecordCipher) {
        self.socket = socket
        self.cipher = cipher
        let longest = RecordHeader(plainBytes: TransportLimits.sealedRecordBytes).wireBytes
        unsafe scratch = .allocate(
            byteCount: TransportLimits.gatheredBytes + longest, alignment: 64)
    }

    deinit { unsafe scratch.deallocate() }

    func write(_ bytes: UnsafeRawBufferPointer, _ deadline: Deadline) throws(TransportError) {
        try orFail { () throws(TransportError) in
            var start = 0
            while start < bytes.count {
                let end = min(start + TransportLimits.sealedRecordBytes, bytes.count)
                let piece = unsafe UnsafeRawBufferPointer(rebasing: bytes[start..<end])
                unsafe try append(RecordHeader(plainBytes: piece.count), piece, deadline)
                if waitingBytes >= TransportLimits.gatheredBytes { try send(deadline) }
                start = end
            }
        }
    }

    /// Sends what waits.
    func flush(_ deadline: Deadline) throws(TransportError) {
        try orFail { () throws(TransportError) in try send(deadline) }
    }

    /// Tells the peer that nothing follows; nothing can be written after it.
    func end(_ deadline: Deadline) throws(TransportError) {
        try orFail { () throws(TransportError) in
            unsafe try append(.end, UnsafeRawBufferPointer(start: nil, count: 0), deadline)
            try send(deadline)
        }
        failure = .shutDown
    }

    private func orFail(_ body: () throws(TransportError) -> Void) throws(TransportError) {
        try socket.checkOpen()
        if let failure { throw failure }
        do throws(TransportError) {
            try body()
        } catch {
            failure = error
            throw error
        }
    }

    private func append(
        _ header: RecordHeader, _ plaintext: UnsafeRawBufferPointer, _ deadline: Deadline
    ) throws(TransportError) {
        let end = waitingBytes + header.wireBytes
        unsafe scratch.storeBytes(
            of: header.word.littleEndian, toByteOffset: waitingBytes, as: UInt32.self)
        let body = waitingBytes + RecordHeader.byteCount
        unsafe try cipher.seal(
            header, plaintext,
            into: UnsafeMutableRawBufferPointer(rebasing: scratch[body..<end])
        ) { sealed throws(TransportError) in
            // The peer opens one part while the next is sealed.
            try send(upTo: body + sealed, deadline)
        }
        waitingBytes = end
    }

    private func send(_ deadline: Deadline) throws(TransportError) {
        guard waitingBytes > 0 else { return }
        try send(upTo: waitingBytes, deadline)
        waitingBytes = 0
        sentBytes = 0
    }

    private func send(upTo end: Int, _ deadline: Deadline) throws(TransportError) {
        unsafe try socket.write(
            UnsafeRawBufferPointer(rebasing: scratch[sentBytes..<end]), deadline)
        sentBytes = end
    }
}
