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
        let checksum: UInt32
        switch header.codec {
        case .raw:
            guard checksRaw else { return }
            checksum = unsafe CRC32C.checksum(UnsafeRawBufferPointer(place))
        case .zstd:
            try unsafe decompress(
                UnsafeRawBufferPointer(rebasing: wire[..<header.wireBytes]), into: place)
            checksum = unsafe CRC32C.checksum(UnsafeRawBufferPointer(place))
        case .bytePlanes:
            let pairs = header.rawBytes / 2
            try unsafe decompress(
                UnsafeRawBufferPointer(rebasing: wire[pairs..<header.wireBytes]),
                into: UnsafeMutableRawBufferPointer(rebasing: highPlane[..<pairs]))
            checksum = unsafe merge(into: place)
        }
        guard checksum == header.checksum else { throw .pieceDamaged }
    }

    /// Where the wire bytes of a piece that nobody wants are to be read into.
    package func scrap(for header: PieceHeader) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(rebasing: wire[..<header.wireBytes])
    }

    /// Joins the low plane at the start of `wire` with `highPlane`; gives the checksum.
    private func merge(into place: UnsafeMutableRawBufferPointer) -> UInt32 {
        var checksum: UInt32 = 0
        guard let low = unsafe wire.baseAddress?.assumingMemoryBound(to: UInt8.self),
            let high = unsafe highPlane.baseAddress?.assumingMemoryBound(to: UInt8.self)
        else { return checksum }
        for start in stride(from: 0, to: place.count, by: KVTransferLimits.hotBytes) {
            let end = min(start + KVTransferLimits.hotBytes, place.count)
            let part = unsafe UnsafeMutableRawBufferPointer(rebasing: place[start..<end])
            guard let bytes = unsafe part.baseAddress?.assumingMemoryBound(to: UInt8.self) else {
                break
            }
            unsafe byte_planes_merge(low + start / 2, high + start / 2, part.count / 2, bytes)
            checksum = unsafe CRC32C.checksum(UnsafeRawBufferPointer(part), seed: checksum)
        }
        return checksum
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
