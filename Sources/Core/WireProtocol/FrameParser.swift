package import ServingTypes

/// One frame of a control connection.
package struct Frame: Hashable, Sendable {
    package var header: FrameHeader
    package var message: ControlMessage
    /// Empty for kinds without payload.
    package var payload: [UInt8]

    package init(header: FrameHeader, message: ControlMessage, payload: [UInt8] = []) {
        self.header = header
        self.message = message
        self.payload = payload
    }
}

/// A frame's header and control message; the caller appends the payload.
///
/// - Parameters:
///   - payloadBytes: raw bytes of the payload; sets the payload flag if there are any. Kinds that
///     carry a payload must have one.
package func encodeFrame(
    _ message: ControlMessage, stream: UInt32 = 0, payloadBytes: Int = 0, flags: FrameFlags = []
) throws(WireError) -> [UInt8] {
    var header = FrameHeader(
        kind: message.kind, flags: flags, stream: stream, controlBytes: 0,
        payloadBytes: payloadBytes, controlChecksum: 0)
    if payloadBytes > 0 { header.flags.insert(.payload) }
    try header.check()
    var frame = try MessageCodec.encode(message, precededBy: FrameHeader.byteCount)
    header.controlBytes = frame.count - FrameHeader.byteCount
    unsafe frame.withUnsafeMutableBytes { frame in
        let control = unsafe UnsafeRawBufferPointer(rebasing: frame[FrameHeader.byteCount...])
        header.controlChecksum = unsafe CRC32C.checksum(control)
        unsafe header.write(into: frame)
    }
    return frame
}

/// Cuts the bytes of a control connection into frames.
///
/// Append what arrived, then take frames with `next()` until it gives nil, then append again. At
/// most one frame that passed its limits waits for its rest; space grows with the bytes that came,
/// never with a length that was announced. After an error the parser gives that error for ever.
package struct FrameParser: Sendable {
    /// All kinds whose payload is plain bytes; KV chunks have their own reader.
    package static let controlKinds = Set(MessageKind.allCases.filter { !$0.isBulk })
    /// Tokens of the longest sequence.
    package static let maximumPayloadBytes = 4 * WireLimits.tokens

    private let allowedKinds: Set<MessageKind>
    private let maximumPayloadBytes: Int
    private var bytes: [UInt8] = []
    /// Bytes before it are taken.
    private var start = 0
    /// Header of the frame whose rest is awaited.
    private var header: FrameHeader?
    private var failure: WireError?

    package init(
        allowedKinds: Set<MessageKind> = FrameParser.controlKinds,
        maximumPayloadBytes: Int = FrameParser.maximumPayloadBytes
    ) {
        precondition(!allowedKinds.contains(.kvChunk), "KV chunks are not for this parser")
        self.allowedKinds = allowedKinds
        self.maximumPayloadBytes = maximumPayloadBytes
    }

    /// Bytes that wait for the rest of their frame.
    package var bufferedBytes: Int { bytes.count - start }

    /// Whether the connection may end here: no part of a frame waits.
    package var isAtFrameBoundary: Bool { bufferedBytes == 0 && failure == nil }

    package mutating func append(_ new: UnsafeRawBufferPointer) {
        guard failure == nil else { return }
        bytes.removeSubrange(..<start)
        start = 0
        unsafe bytes.append(contentsOf: new)
    }

    package mutating func append(_ new: [UInt8]) {
        unsafe new.withUnsafeBytes { unsafe append($0) }
    }

    /// The next whole frame; nil if its rest has not come.
    package mutating func next() throws(WireError) -> Frame? {
        if let failure { throw failure }
        do throws(WireError) {
            return try parse()
        } catch {
            failure = error
            bytes = []
            start = 0
            throw error
        }
    }

    private mutating func parse() throws(WireError) -> Frame? {
        guard let header = try parseHeader() else { return nil }
        let control = start + FrameHeader.byteCount
        let payload = control + header.controlBytes
        let end = payload + header.payloadBytes
        guard bytes.count >= end else { return nil }
        let message = try unsafe bytes.withUnsafeBufferPointer { (bytes) throws(WireError) in
            try unsafe header.message(
                control: UnsafeRawBufferPointer(
                    UnsafeBufferPointer(rebasing: bytes[control..<payload])))
        }
        let frame = Frame(header: header, message: message, payload: Array(bytes[payload..<end]))
        self.header = nil
        start = end
        if start == bytes.count {
            // Room of an unusually long frame is given back.
            bytes.removeAll(keepingCapacity: bytes.capacity <= 64 << 10)
            start = 0
        }
        return frame
    }

    private mutating func parseHeader() throws(WireError) -> FrameHeader? {
        if let header { return header }
        guard bufferedBytes >= FrameHeader.byteCount else { return nil }
        let new = try unsafe bytes.withUnsafeBufferPointer { (bytes) throws(WireError) in
            try unsafe FrameHeader(
                bytes: UnsafeRawBufferPointer(UnsafeBufferPointer(rebasing: bytes[start...])))
        }
        guard allowedKinds.contains(new.kind) else { throw .kindNotAllowed(new.kind) }
        guard new.payloadBytes <= maximumPayloadBytes else {
            throw .payloadTooLong(
                new.kind, bytes: UInt64(new.payloadBytes), limitBytes: maximumPayloadBytes)
        }
        header = new
        return new
    }
}
