package import ServingTypes

/// Why KV did not arrive whole.
///
/// In every case the receiver drops what it has, frees the reservation and answers `KVDone` with
/// `FailureCode.transfer` (`deadline` for `timedOut`); the gateway starts another attempt. After a
/// piece error the bulk connection is closed, because the place of the next frame is unknown.
package enum KVTransferError: Error, Hashable, Sendable {
    /// A piece's codec has no meaning in this version.
    case unknownCodec(UInt8)
    /// A piece's lengths don't fit its codec, its place in the payload, or its reserved bytes.
    case pieceHeaderInvalid
    /// The bytes of a piece are not the ones that were sent.
    case pieceDamaged
    /// zstd refuses while writing, for example for want of memory; the piece's sender aborts.
    case compressionFailed(name: String)

    /// The offer is for more or fewer tokens than were reserved.
    case offerDisagrees(reservedTokens: Int, offeredTokens: Int)
    /// Tokens between the last chunk and this one are missing.
    case gap(expectedToken: Int, receivedToken: Int)
    /// Tokens of this chunk have come before.
    case overlap(expectedToken: Int, receivedToken: Int)
    /// A chunk goes beyond the offered tokens.
    case tooManyTokens(offeredTokens: Int, receivedTokens: Int)
    /// A chunk is longer than was granted, or all together are longer than was reserved.
    case tooManyBytes(limitBytes: Int, receivedBytes: Int)
    /// The end came before the last token.
    case endedEarly(offeredTokens: Int, receivedTokens: Int)
    /// A message for another attempt, or in the middle of a payload; a defect of the sender.
    case unexpectedMessage
    /// The sender gave up.
    case aborted(reason: String)
    /// The connection ended before the transfer.
    case connectionLost
    /// The transfer took longer than the request has left.
    case timedOut

    /// The code of the `KVDone` that the receiver answers with.
    package var failureCode: FailureCode { self == .timedOut ? .deadline : .transfer }
}
