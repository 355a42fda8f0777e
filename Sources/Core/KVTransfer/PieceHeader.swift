/// How the bytes of a piece are written on the wire.
package enum PieceCodec: UInt8, Sendable, CaseIterable {
    case raw = 0
    /// One zstd frame.
    case zstd = 1
    /// The bytes of even index as they are, then one zstd frame of those of odd index.
    ///
    /// Made for 16-bit floats: sign and exponent are in the odd bytes, the even ones are noise.
    case bytePlanes = 2
}

/// Every bound of KV payloads.
package enum KVTransferLimits {
    /// Raw bytes of every piece but a payload's last.
    package static let pieceBytes = 1 << 20
    /// A compressed piece that saves less than one part in this many goes raw (3 %).
    package static let smallestSavingPart = 33
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

    /// Reads and checks the header of the next piece.
    ///
    /// - Parameters:
    ///   - bytes: at least 16 bytes; the first 16 are read.
    ///   - remainingBytes: raw bytes of the payload that have not come; at least 1.
    package init(
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
        precondition(bytes.count >= Self.byteCount, "a piece header is 16 bytes")
        unsafe bytes.storeBytes(of: UInt32(rawBytes).littleEndian, as: UInt32.self)
        unsafe bytes.storeBytes(
            of: UInt32(wireBytes).littleEndian, toByteOffset: 4, as: UInt32.self)
        unsafe bytes.storeBytes(
            of: UInt32(codec.rawValue).littleEndian, toByteOffset: 8, as: UInt32.self)
        unsafe bytes.storeBytes(of: checksum.littleEndian, toByteOffset: 12, as: UInt32.self)
    }
}
