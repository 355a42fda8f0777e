import CBytePlanes
import CZstd
import WireProtocol

/// Reads KV pieces into their final place, for one owner at a time.
///
/// For each piece: read its header, let the wire bytes land where `landing` says, then `finish`. A
/// raw piece lands in its place at once; a compressed one in a scratch of one piece.
@safe package final class PieceDecoder {
    private let context: OpaquePointer
    private let wire: UnsafeMutableRawBufferPointer
    private let highPlane: UnsafeMutableRawBufferPointer

    /// Throws if there is no memory for zstd's state (about 100 KiB).
    package init() throws(KVTransferError) {
        guard let context = unsafe ZSTD_createDCtx() else {
            throw .compressionFailed(name: "no memory for a context")
        }
        unsafe self.context = context
        unsafe wire = .allocate(byteCount: KVTransferLimits.pieceBytes, alignment: 64)
        unsafe highPlane = .allocate(byteCount: KVTransferLimits.pieceBytes / 2, alignment: 64)
    }

    deinit {
        unsafe ZSTD_freeDCtx(context)
        unsafe wire.deallocate()
        unsafe highPlane.deallocate()
    }

    /// Where the piece's wire bytes are to be read into: exactly `header.wireBytes` bytes.
    ///
    /// - Parameter place: the final place of the raw bytes, exactly `header.rawBytes` bytes.
    package func landing(
        for header: PieceHeader, in place: UnsafeMutableRawBufferPointer
    ) -> UnsafeMutableRawBufferPointer {
        precondition(place.count == header.rawBytes, "the place has another size than the piece")
        if header.codec == .raw { return unsafe place }
        return unsafe UnsafeMutableRawBufferPointer(rebasing: wire[..<header.wireBytes])
    }

    /// Makes the raw bytes from the wire bytes that have landed, and checks them.
    ///
    /// After an error the contents of `place` have no meaning; nothing outside it was written.
    ///
    /// - Parameter checksRaw: the payload's raw pieces have checksums.
    package func finish(
        _ header: PieceHeader, in place: UnsafeMutableRawBufferPointer, checksRaw: Bool
    ) throws(KVTransferError) {
        precondition(place.count == header.rawBytes, "the place has another size than the piece")
        switch header.codec {
        case .raw:
            guard checksRaw else { return }
        case .zstd:
            try unsafe decompress(
                UnsafeRawBufferPointer(rebasing: wire[..<header.wireBytes]), into: place)
        case .bytePlanes:
            let pairs = header.rawBytes / 2
            try unsafe decompress(
                UnsafeRawBufferPointer(rebasing: wire[pairs..<header.wireBytes]),
                into: UnsafeMutableRawBufferPointer(rebasing: highPlane[..<pairs]))
            guard let start = unsafe place.baseAddress?.assumingMemoryBound(to: UInt8.self),
                let low = unsafe wire.baseAddress?.assumingMemoryBound(to: UInt8.self),
                let high = unsafe highPlane.baseAddress?.assumingMemoryBound(to: UInt8.self)
            else { throw .pieceDamaged }
            unsafe byte_planes_merge(low, high, pairs, start)
        }
        guard unsafe CRC32C.checksum(UnsafeRawBufferPointer(place)) == header.checksum else {
            throw .pieceDamaged
        }
    }

    /// Decodes wire bytes that lie elsewhere.
    package func decode(
        _ header: PieceHeader, wire bytes: UnsafeRawBufferPointer,
        into place: UnsafeMutableRawBufferPointer, checksRaw: Bool
    ) throws(KVTransferError) {
        guard bytes.count == header.wireBytes else { throw .pieceHeaderInvalid }
        unsafe landing(for: header, in: place).copyMemory(from: bytes)
        try unsafe finish(header, in: place, checksRaw: checksRaw)
    }

    /// The whole destination must come out.
    private func decompress(
        _ bytes: UnsafeRawBufferPointer, into place: UnsafeMutableRawBufferPointer
    ) throws(KVTransferError) {
        let count = unsafe ZSTD_decompressDCtx(
            context, place.baseAddress, place.count, bytes.baseAddress, bytes.count)
        guard ZSTD_isError(count) == 0, count == place.count else { throw .pieceDamaged }
    }
}
