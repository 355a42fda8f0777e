/// What is wrong with a piece of KV.
///
/// After `unknownCodec` and `pieceHeaderInvalid` the bulk connection is closed, because the place
/// of the next frame is unknown; after `pieceDamaged` it goes on, and the chunk is asked for again.
package enum KVTransferError: Error, Hashable, Sendable {
    /// A piece's codec has no meaning in this version.
    case unknownCodec(UInt8)
    /// A piece's lengths don't fit its codec, its place in the payload, or its reserved bytes.
    case pieceHeaderInvalid
    /// The bytes of a piece are not the ones that were sent.
    case pieceDamaged
    /// zstd refuses, for example for want of memory; the sender sends the piece raw or not at all.
    case compressionFailed(name: String)
}
