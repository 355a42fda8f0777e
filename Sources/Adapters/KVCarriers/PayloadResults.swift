import ServingTypes

/// What the sending of one payload came to.
package struct SentPayload: Hashable, Sendable {
    /// Bytes of KV that were sent, all of the payload unless it broke off.
    package var rawBytes = 0
    /// Bytes they took on the wire, with the pieces' headers.
    package var wireBytes = 0
    package var pieces = 0
    package var compressedPieces = 0
    /// Time in the codec: compression and checksums.
    package var codecTime = Duration.zero
    /// Time in calls of the connection: encryption, copies and waiting.
    package var sendTime = Duration.zero
    /// Part of `sendTime` in which the socket took nothing.
    package var waitTime = Duration.zero
    /// The caller wanted no more of it; the receiver knows.
    package var isBrokenOff = false

    package init() {}
}

/// What the receiving of one payload came to.
package struct ReceivedPayload: Hashable, Sendable {
    package enum Outcome: Hashable, Sendable {
        /// All bytes are in their place and as they were sent.
        case whole
        /// The sender wanted no more of it; the buffer's contents have no meaning.
        case brokenOff
        /// A piece was not as it was sent; the rest was read away, the buffer's contents have no
        /// meaning. The connection stays usable.
        case damaged(pieceIndex: Int)
    }

    package var outcome = Outcome.whole
    /// Bytes of KV whose pieces arrived.
    package var rawBytes = 0
    /// Bytes they took on the wire, with the pieces' headers.
    package var wireBytes = 0
    package var pieces = 0
    package var compressedPieces = 0
    /// Time in the codec; checksums of raw pieces are not in it.
    package var codecTime = Duration.zero

    package init() {}
}
