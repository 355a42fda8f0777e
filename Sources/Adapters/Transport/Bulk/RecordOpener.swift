#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// Receives sealed records and opens them: long ones where the caller wants them, the others on a
/// stage of bounded size.
///
/// For one owner at a time. A deadline that passes before the first byte of a call leaves it
/// usable, unless a record was on its way into the caller's memory; any other error is final.
@safe final class RecordOpener {
    private let socket: StreamSocket
    private let cipher: RecordCipher
    /// Holds first opened plaintext, then bytes as they came; either may be empty.
    private let stage: UnsafeMutableRawBufferPointer
    /// Part of the stage that is opened and not handed out.
    private var opened = 0..<0
    /// Part of the stage that is received and not opened.
    private var received = 0..<0
    private var failure: TransportError?

    init(socket: StreamSocket, cipher: RecordCipher) {
        self.socket = socket
        self.cipher = cipher
        let longest = RecordHeader(plainBytes: TransportLimits.sealedRecordBytes).wireBytes
        unsafe stage = .allocate(
            byteCount: longest + TransportLimits.sealedReadAheadBytes, alignment: 64)
    }

    deinit { unsafe stage.deallocate() }

    /// Waits for plaintext and puts it into the buffer, which is not empty.
    ///
    /// - Returns: its bytes, at least one.
    /// - Throws: `closedByPeer` after the peer's last record; `connectionLost` if the connection
    ///   ends without one; `recordRejected` for what is not authentic, which ends the connection.
    func read(
        into buffer: UnsafeMutableRawBufferPointer, _ deadline: Deadline
    ) throws(TransportError) -> Int {
        if let failure { throw failure }
        do throws(TransportError) {
            if opened.isEmpty {
                let header = try nextHeader(deadline)
                if header.plainBytes >= TransportLimits.directBytes,
                    header.plainBytes <= buffer.count
                {
                    let place = unsafe UnsafeMutableRawBufferPointer(
                        rebasing: buffer[..<header.plainBytes])
                    unsafe try receive(header, into: place, deadline)
                    return header.plainBytes
                }
                try receiveOnStage(header, deadline)
            }
        } catch {
            if error != .deadline { failure = error }
            if case .recordRejected = error { socket.shutdown() }
            throw error
        }
        let count = min(opened.count, buffer.count)
        let source = unsafe stage[opened.prefix(count)]
        unsafe buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: source))
        opened = opened.dropFirst(count)
        return count
    }

    /// The next record's header, which stays on the stage.
    private func nextHeader(_ deadline: Deadline) throws(TransportError) -> RecordHeader {
        try receive(RecordHeader.byteCount, deadline)
        let word = unsafe stage.loadUnaligned(
            fromByteOffset: received.lowerBound, as: UInt32.self)
        return try RecordHeader(word: UInt32(littleEndian: word))
    }

    private func receiveOnStage(
        _ header: RecordHeader, _ deadline: Deadline
    ) throws(TransportError) {
        try receive(header.wireBytes, deadline)
        let body = received.dropFirst(RecordHeader.byteCount).prefix(header.plainBytes)
        let tag = body.upperBound..<body.upperBound + RecordHeader.tagBytes
        received = tag.upperBound..<received.upperBound
        unsafe try cipher.open(
            header, UnsafeMutableRawBufferPointer(rebasing: stage[body]),
            tag: UnsafeMutableRawBufferPointer(rebasing: stage[tag]))
        if header.isEnd { throw .closedByPeer }
        opened = body
    }

    /// Receives a record into the caller's memory; what follows it lands on the stage.
    private func receive(
        _ header: RecordHeader, into place: UnsafeMutableRawBufferPointer, _ deadline: Deadline
    ) throws(TransportError) {
        do throws(TransportError) {
            received = received.dropFirst(RecordHeader.byteCount)
            let head = received.prefix(place.count)
            unsafe place.copyMemory(from: UnsafeRawBufferPointer(rebasing: stage[head]))
            received = received.dropFirst(head.count)
            var filled = head.count
            var openedBytes = 0
            try cipher.beginOpening(header)
            while filled < place.count {
                let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: place[filled...])
                let room = unsafe UnsafeMutableRawBufferPointer(
                    rebasing: stage[..<TransportLimits.sealedReadAheadBytes])
                let count = unsafe try socket.read(into: rest, then: room, deadline)
                guard count > 0 else { throw Self.cutOff }
                received = 0..<max(0, count - rest.count)
                filled += min(count, rest.count)
                // What is here is opened while the rest is on its way.
                let ready = filled - filled % TransportLimits.sealedPartBytes
                if ready > openedBytes, filled < place.count {
                    unsafe try cipher.open(
                        part: UnsafeMutableRawBufferPointer(rebasing: place[openedBytes..<ready]),
                        of: place)
                    openedBytes = ready
                }
            }
            unsafe try cipher.open(
                part: UnsafeMutableRawBufferPointer(rebasing: place[openedBytes...]), of: place)
            try receive(RecordHeader.tagBytes, deadline)
            let tag = received.prefix(RecordHeader.tagBytes)
            received = received.dropFirst(tag.count)
            unsafe try cipher.finishOpening(
                place, tag: UnsafeMutableRawBufferPointer(rebasing: stage[tag]))
        } catch {
            unsafe place.initializeMemory(as: UInt8.self, repeating: 0)
            failure = error
            throw error
        }
    }

    /// Waits until this many unopened bytes are on the stage, which may take a few more.
    private func receive(_ count: Int, _ deadline: Deadline) throws(TransportError) {
        if received.isEmpty { received = 0..<0 }
        if unsafe received.lowerBound + count > stage.count {
            let bytes = unsafe UnsafeRawBufferPointer(rebasing: stage[received])
            unsafe stage.copyMemory(from: bytes)
            received = 0..<received.count
        }
        while received.count < count {
            let most = received.lowerBound + count + TransportLimits.sealedReadAheadBytes
            let room = unsafe UnsafeMutableRawBufferPointer(
                rebasing: stage[received.upperBound..<min(most, stage.count)])
            let added = unsafe try socket.read(
                into: room, then: UnsafeMutableRawBufferPointer(start: nil, count: 0), deadline)
            guard added > 0 else { throw Self.cutOff }
            received = received.lowerBound..<received.upperBound + added
        }
    }

    /// An attacker can make a connection end, but not make the end look like the peer's.
    static let cutOff = TransportError.connectionLost("it ended without the peer's word")
}
