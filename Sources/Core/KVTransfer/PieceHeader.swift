/// How the bytes of a piece are written on the wire.
package enum PieceCodec: UInt8, Sendable, CaseIterable {
    case raw = 0
    /// One zstd frame.
    case zstd = 1
    /// The bytes of even index as they are, then one zstd frame of those of odd index.
    ///
    /// Made for 16-bit floats: sign and exponent are in the odd bytes, the even ones are noise.
    case bytePlanes = 2

    /// In the place of a codec: the payload breaks off here, no piece follows.
    static let breakOff: UInt8 = 3
}

/// Every bound of KV payloads.
package enum KVTransferLimits {
    /// Raw bytes of every piece but a payload's last.
    package static let pieceBytes = 1 << 20
    /// A compressed piece that saves less than one part in this many goes raw (3 %).
    package static let smallestSavingPart = 33
    /// What is split, merged and summed at once: the bytes are still in the first cache when the
    /// next of these steps wants them.
    static let hotBytes = 16 << 10
}

/// The 16 bytes in front of a piece, little-endian.
///
///     0 raw bytes   4 wire bytes   8 codec   9 three zero bytes   12 CRC-32C of the raw bytes
package struct PieceHeader: Hashable, Sendable {
    package static let byteCount = 16

    package let rawBytes: Int
    package let wireBytes: Int
    package let codec: PieceCodec
    /// Not checked for raw pieces of payloads without checksums.
    package let checksum: UInt32

    init(rawBytes: Int, wireBytes: Int, codec: PieceCodec, checksum: UInt32) {
        self.rawBytes = rawBytes
        self.wireBytes = wireBytes
        self.codec = codec
        self.checksum = checksum
    }

    /// Reads and checks the header of the next piece; nil if the payload breaks off here.
    ///
    /// - Parameters:
    ///   - bytes: at least 16 bytes; the first 16 are read.
    ///   - remainingBytes: raw bytes of the payload that have not come; at least 1.
    package init?(
        bytes: UnsafeRawBufferPointer, remainingBytes: Int
    ) throws(KVTransferError) {
        precondition(bytes.count >= Self.byteCount, "a piece header is 16 bytes")
        let raw = unsafe bytes.loadUnaligned(as: UInt32.self).littleEndian
        let wire = unsafe bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self).littleEndian
        let codecAndReserved = unsafe bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
            .littleEndian
        let checksum = unsafe bytes.loadUnaligned(fromByteOffset: 12, as: UInt32.self)
            .littleEndian
        let codecNumber = UInt8(truncatingIfNeeded: codecAndReserved)
        if codecNumber == PieceCodec.breakOff {
            guard raw == 0, wire == 0, codecAndReserved < 256, checksum == 0 else {
                throw .pieceHeaderInvalid
            }
            return nil
        }
        guard let codec = PieceCodec(rawValue: codecNumber) else {
            throw .unknownCodec(codecNumber)
        }
        self.init(
            rawBytes: Int(raw), wireBytes: Int(wire), codec: codec, checksum: checksum)
        guard codecAndReserved < 256,
            rawBytes == min(remainingBytes, KVTransferLimits.pieceBytes), rawBytes > 0
        else { throw .pieceHeaderInvalid }
        let wireFits =
            switch codec {
            case .raw: wireBytes == rawBytes
            case .zstd: wireBytes > 0 && wireBytes < rawBytes
            case .bytePlanes:
                rawBytes.isMultiple(of: 2) && wireBytes > rawBytes / 2 && wireBytes < rawBytes
            }
        guard wireFits else { throw .pieceHeaderInvalid }
    }

    /// Writes the header into the first 16 bytes.
    package func write(into bytes: UnsafeMutableRawBufferPointer) {
        unsafe Self.write(
            [UInt32(rawBytes), UInt32(wireBytes), UInt32(codec.rawValue), checksum], into: bytes)
    }

    /// Writes, in the place of a header, that the payload breaks off here.
    package static func writeBreakOff(into bytes: UnsafeMutableRawBufferPointer) {
        unsafe write([0, 0, UInt32(PieceCodec.breakOff), 0], into: bytes)
    }

    private static func write(_ words: [UInt32], into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count >= byteCount, "a piece header is 16 bytes")
        for index in words.indices {
            unsafe bytes.storeBytes(
                of: words[index].littleEndian, toByteOffset: 4 * index, as: UInt32.self)
        }
    }
}
