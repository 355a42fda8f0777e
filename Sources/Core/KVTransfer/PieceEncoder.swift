import CBytePlanes
import CZstd
import WireProtocol

/// A piece ready for the wire.
@unsafe package struct EncodedPiece {
    package let header: PieceHeader
    /// `header.wireBytes` bytes: the raw bytes themselves, or the encoder's scratch, which the
    /// next piece overwrites.
    package let wire: UnsafeRawBufferPointer
    /// What the codec asked for made of the piece, even if it then went raw; nil if none was.
    package let triedWireBytes: Int?
}

/// Writes KV pieces, for one owner at a time.
@safe package final class PieceEncoder {
    private let context: OpaquePointer
    private let wire: UnsafeMutableRawBufferPointer
    private let highPlane: UnsafeMutableRawBufferPointer

    /// Throws if there is no memory for zstd's state (about 1 MiB).
    package init() throws(KVTransferError) {
        guard let context = unsafe ZSTD_createCCtx() else {
            throw .compressionFailed(name: "no memory for a context")
        }
        unsafe self.context = context
        let plane = KVTransferLimits.pieceBytes / 2
        let whole = max(
            ZSTD_compressBound(KVTransferLimits.pieceBytes), plane + ZSTD_compressBound(plane))
        unsafe wire = .allocate(byteCount: whole, alignment: 64)
        unsafe highPlane = .allocate(byteCount: plane, alignment: 64)
        _ = try check(unsafe ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 1))
    }

    deinit {
        unsafe ZSTD_freeCCtx(context)
        unsafe wire.deallocate()
        unsafe highPlane.deallocate()
    }

    /// Encodes one piece; one that hardly shrinks stays raw.
    ///
    /// - Parameters:
    ///   - raw: 1…`pieceBytes` bytes; must stay unchanged until the piece is sent.
    ///   - checksumsRaw: gives raw pieces a checksum too; compressed ones always have one.
    package func encode(
        _ raw: UnsafeRawBufferPointer, codec: PieceCodec, checksumsRaw: Bool
    ) throws(KVTransferError) -> EncodedPiece {
        precondition(
            (1...KVTransferLimits.pieceBytes).contains(raw.count), "a piece has 1 byte to 1 MiB")
        var tried: (wireBytes: Int, checksum: UInt32)?
        if let compressed = try unsafe compress(raw, codec) {
            if Self.isWorthwhile(compressed.wireBytes, rawBytes: raw.count) {
                return unsafe EncodedPiece(
                    header: PieceHeader(
                        rawBytes: raw.count, wireBytes: compressed.wireBytes, codec: codec,
                        checksum: compressed.checksum),
                    wire: UnsafeRawBufferPointer(rebasing: wire[..<compressed.wireBytes]),
                    triedWireBytes: compressed.wireBytes)
            }
            tried = compressed
        }
        let checksum = unsafe checksumsRaw ? tried?.checksum ?? CRC32C.checksum(raw) : 0
        return unsafe EncodedPiece(
            header: PieceHeader(
                rawBytes: raw.count, wireBytes: raw.count, codec: .raw, checksum: checksum),
            wire: raw, triedWireBytes: tried?.wireBytes)
    }

    private static func isWorthwhile(_ wireBytes: Int, rawBytes: Int) -> Bool {
        wireBytes <= rawBytes - max(1, rawBytes / KVTransferLimits.smallestSavingPart)
    }

    /// Compresses into `wire`, gives the raw bytes' checksum too; nil if the codec does not
    /// compress this piece.
    private func compress(
        _ raw: UnsafeRawBufferPointer, _ codec: PieceCodec
    ) throws(KVTransferError) -> (wireBytes: Int, checksum: UInt32)? {
        switch codec {
        case .raw:
            return nil
        case .zstd:
            let checksum = unsafe CRC32C.checksum(raw)
            let count = try check(
                unsafe ZSTD_compress2(
                    context, wire.baseAddress, wire.count, raw.baseAddress, raw.count))
            return (count, checksum)
        case .bytePlanes:
            guard raw.count.isMultiple(of: 2), let start = unsafe wire.baseAddress else {
                return nil
            }
            let pairs = raw.count / 2
            let checksum = unsafe split(raw)
            let count = try check(
                unsafe ZSTD_compress2(
                    context, start + pairs, wire.count - pairs, highPlane.baseAddress, pairs))
            return (pairs + count, checksum)
        }
    }

    /// Puts the low plane at the start of `wire` and fills `highPlane`; gives the checksum.
    private func split(_ raw: UnsafeRawBufferPointer) -> UInt32 {
        var checksum: UInt32 = 0
        guard let low = unsafe wire.baseAddress?.assumingMemoryBound(to: UInt8.self),
            let high = unsafe highPlane.baseAddress?.assumingMemoryBound(to: UInt8.self)
        else { return checksum }
        for start in stride(from: 0, to: raw.count, by: KVTransferLimits.hotBytes) {
            let end = min(start + KVTransferLimits.hotBytes, raw.count)
            let part = unsafe UnsafeRawBufferPointer(rebasing: raw[start..<end])
            guard let bytes = unsafe part.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
                break
            }
            checksum = unsafe CRC32C.checksum(part, seed: checksum)
            unsafe byte_planes_split(bytes, part.count / 2, low + start / 2, high + start / 2)
        }
        return checksum
    }

    private func check(_ code: Int) throws(KVTransferError) -> Int {
        guard ZSTD_isError(code) == 0 else {
            throw .compressionFailed(name: unsafe String(cString: ZSTD_getErrorName(code)))
        }
        return code
    }
}
