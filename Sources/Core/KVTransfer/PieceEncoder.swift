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
        var triedWireBytes: Int?
        if let compressed = try unsafe compress(raw, codec) {
            if compressed <= raw.count - max(1, raw.count / KVTransferLimits.smallestSavingPart) {
                return unsafe EncodedPiece(
                    header: PieceHeader(
                        rawBytes: raw.count, wireBytes: compressed, codec: codec,
                        checksum: CRC32C.checksum(raw)),
                    wire: UnsafeRawBufferPointer(rebasing: wire[..<compressed]),
                    triedWireBytes: compressed)
            }
            triedWireBytes = compressed
        }
        return unsafe EncodedPiece(
            header: PieceHeader(
                rawBytes: raw.count, wireBytes: raw.count, codec: .raw,
                checksum: checksumsRaw ? CRC32C.checksum(raw) : 0),
            wire: raw, triedWireBytes: triedWireBytes)
    }

    /// Compresses into `wire`; nil if the codec does not compress this piece.
    private func compress(
        _ raw: UnsafeRawBufferPointer, _ codec: PieceCodec
    ) throws(KVTransferError) -> Int? {
        switch codec {
        case .raw:
            return nil
        case .zstd:
            return try check(
                unsafe ZSTD_compress2(
                    context, wire.baseAddress, wire.count, raw.baseAddress, raw.count))
        case .bytePlanes:
            guard raw.count.isMultiple(of: 2),
                let start = unsafe raw.baseAddress?.assumingMemoryBound(to: UInt8.self),
                let low = unsafe wire.baseAddress?.assumingMemoryBound(to: UInt8.self),
                let high = unsafe highPlane.baseAddress?.assumingMemoryBound(to: UInt8.self)
            else { return nil }
            let pairs = raw.count / 2
            unsafe byte_planes_split(start, pairs, low, high)
            let compressed = try check(
                unsafe ZSTD_compress2(context, low + pairs, wire.count - pairs, high, pairs))
            return pairs + compressed
        }
    }

    private func check(_ code: Int) throws(KVTransferError) -> Int {
        guard ZSTD_isError(code) == 0 else {
            throw .compressionFailed(name: unsafe String(cString: ZSTD_getErrorName(code)))
        }
        return code
    }
}
