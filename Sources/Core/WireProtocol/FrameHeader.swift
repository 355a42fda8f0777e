package import ServingTypes

/// What a frame's header says besides lengths.
package struct FrameFlags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// A payload follows the control message.
    package static let payload = FrameFlags(rawValue: 1)
    /// The payload's pieces have checksums, raw ones too.
    package static let payloadChecksums = FrameFlags(rawValue: 2)
    /// No frame of this stream follows from this side.
    package static let last = FrameFlags(rawValue: 4)
    /// The stream ended in an error.
    package static let error = FrameFlags(rawValue: 8)

    package static let known: FrameFlags = [.payload, .payloadChecksums, .last, .error]
}

/// The first 32 bytes of a frame, little-endian.
///
///      0 magic "PDKV"   4 version  5 kind  6 flags   8 stream   12 control bytes
///     16 payload bytes (8), raw    24 CRC-32C of the control bytes   28 CRC-32C of bytes 0…27
package struct FrameHeader: Hashable, Sendable {
    package static let byteCount = 32
    package static let version: UInt8 = 1
    /// `PDKV` read as a little-endian number.
    private static let magic: UInt32 = 0x564B_4450

    package var kind: MessageKind
    package var flags: FrameFlags
    package var stream: UInt32
    package var controlBytes: Int
    /// Raw bytes, as they land at the receiver; compressed ones take fewer on the wire.
    package var payloadBytes: Int
    package var controlChecksum: UInt32

    package init(
        kind: MessageKind, flags: FrameFlags = [], stream: UInt32 = 0, controlBytes: Int,
        payloadBytes: Int = 0, controlChecksum: UInt32
    ) {
        self.kind = kind
        self.flags = flags
        self.stream = stream
        self.controlBytes = controlBytes
        self.payloadBytes = payloadBytes
        self.controlChecksum = controlChecksum
    }

    /// Reads and checks a header; what it announces is within the limits of its kind.
    ///
    /// - Parameter bytes: at least 32 bytes; the first 32 are read.
    package init(bytes: UnsafeRawBufferPointer) throws(WireError) {
        precondition(bytes.count >= Self.byteCount, "a frame header is 32 bytes")
        guard unsafe bytes.number(at: 0, as: UInt32.self) == Self.magic else { throw .notAFrame }
        let checksum = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[..<28]))
        guard unsafe bytes.number(at: 28, as: UInt32.self) == checksum else {
            throw .headerDamaged
        }
        let version = unsafe bytes[4]
        guard version == Self.version else { throw .unsupportedVersion(version) }
        let kindNumber = unsafe bytes[5]
        guard let kind = MessageKind(rawValue: kindNumber) else { throw .unknownKind(kindNumber) }
        let flags = unsafe FrameFlags(rawValue: bytes.number(at: 6, as: UInt16.self))
        guard flags.isSubset(of: .known) else {
            throw .unknownFlags(flags.subtracting(.known).rawValue)
        }
        let payload = unsafe bytes.number(at: 16, as: UInt64.self)
        guard payload <= UInt64(kind.maximumPayloadBytes) || !kind.carriesPayload else {
            throw .payloadTooLong(kind, bytes: payload, limitBytes: kind.maximumPayloadBytes)
        }
        guard let payloadBytes = Int(exactly: payload) else { throw .payloadDisagrees(kind) }
        unsafe self.init(
            kind: kind, flags: flags, stream: bytes.number(at: 8, as: UInt32.self),
            controlBytes: Int(bytes.number(at: 12, as: UInt32.self)), payloadBytes: payloadBytes,
            controlChecksum: bytes.number(at: 24, as: UInt32.self))
        try check()
    }

    /// Lengths and flags fit the kind and each other.
    func check() throws(WireError) {
        guard controlBytes <= kind.maximumControlBytes else {
            throw .controlTooLong(
                kind, bytes: controlBytes, limitBytes: kind.maximumControlBytes)
        }
        guard flags.contains(.payload) == (payloadBytes > 0),
            kind.carriesPayload == (payloadBytes > 0), payloadBytes >= 0,
            flags.contains(.payload) || !flags.contains(.payloadChecksums)
        else { throw .payloadDisagrees(kind) }
        guard payloadBytes <= kind.maximumPayloadBytes else {
            throw .payloadTooLong(
                kind, bytes: UInt64(payloadBytes), limitBytes: kind.maximumPayloadBytes)
        }
    }

    /// Writes the header with its checksum into the first 32 bytes.
    package func write(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count >= Self.byteCount, "a frame header is 32 bytes")
        unsafe bytes.set(Self.magic, at: 0)
        unsafe bytes.set(Self.version, at: 4)
        unsafe bytes.set(kind.rawValue, at: 5)
        unsafe bytes.set(flags.rawValue, at: 6)
        unsafe bytes.set(stream, at: 8)
        unsafe bytes.set(UInt32(controlBytes), at: 12)
        unsafe bytes.set(UInt64(payloadBytes), at: 16)
        unsafe bytes.set(controlChecksum, at: 24)
        let covered = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<28])
        unsafe bytes.set(CRC32C.checksum(covered), at: 28)
    }

    /// Reads the control message that follows the header.
    ///
    /// - Parameter control: exactly `controlBytes` bytes.
    package func message(control: UnsafeRawBufferPointer) throws(WireError) -> ControlMessage {
        guard control.count == controlBytes,
            unsafe CRC32C.checksum(control) == controlChecksum
        else { throw .controlDamaged(kind) }
        return try unsafe MessageCodec.decode(kind, control)
    }
}

extension UnsafeRawBufferPointer {
    fileprivate func number<Number: FixedWidthInteger & BitwiseCopyable>(
        at offset: Int, as type: Number.Type
    ) -> Number {
        unsafe Number(littleEndian: loadUnaligned(fromByteOffset: offset, as: type))
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func set<Number: FixedWidthInteger & BitwiseCopyable>(
        _ number: Number, at offset: Int
    ) {
        unsafe storeBytes(of: number.littleEndian, toByteOffset: offset, as: Number.self)
    }
}
