/// Prefill-worker to decode-worker: announces a sequence's KV and shows the reservation's secret.
///
/// Comes again, on another connection, when the first one was lost.
package struct KVOffer: Hashable, Sendable {
    package var attempt: AttemptID
    package var secret: ReservationSecret
    package var fingerprint: ModelFingerprint
    /// Tokens whose KV the sequence will have.
    package var tokens: Int
    /// First token whose KV the sender has to give; the receiver holds those before it.
    package var startToken: Int
    /// Most tokens in one chunk; at least 1.
    package var chunkTokens: Int

    package init(
        attempt: AttemptID, secret: ReservationSecret, fingerprint: ModelFingerprint, tokens: Int,
        startToken: Int = 0, chunkTokens: Int
    ) {
        self.attempt = attempt
        self.secret = secret
        self.fingerprint = fingerprint
        self.tokens = tokens
        self.startToken = startToken
        self.chunkTokens = chunkTokens
    }
}

/// Answer to `KVOffer`: chunks may come.
package struct KVGrant: Hashable, Sendable {
    package var attempt: AttemptID
    /// Leading tokens whose KV the receiver already holds; they are not sent.
    package var heldTokens: Int
    /// Largest payload the receiver has a buffer for.
    package var maximumChunkBytes: Int
    /// Raw bytes that may be sent until a `KVCredit` gives more.
    package var creditBytes: Int
    /// Counts grants and resends of the transfer, from 1 on; chunks bear it.
    package var round: UInt32
    /// Where a sender on the same host may hand memory over; nil if the receiver takes none.
    package var local: LocalCarrier?

    package init(
        attempt: AttemptID, heldTokens: Int, maximumChunkBytes: Int, creditBytes: Int,
        round: UInt32 = 0, local: LocalCarrier? = nil
    ) {
        self.attempt = attempt
        self.heldTokens = heldTokens
        self.maximumChunkBytes = maximumChunkBytes
        self.creditBytes = creditBytes
        self.round = round
        self.local = local
    }
}

/// A Unix socket of the receiver's host, and what to show there.
package struct LocalCarrier: Hashable, Sendable {
    package static let tokenBytes = 32

    package var path: String
    /// Exactly `tokenBytes` random bytes.
    package var token: [UInt8]

    package init(path: String, token: [UInt8]) {
        self.path = path
        self.token = token
    }
}

/// The KV of a run of tokens; the bytes are the frame's payload.
package struct KVChunk: Hashable, Sendable {
    package var attempt: AttemptID
    package var tokenStart: Int
    package var tokenCount: Int
    /// CRC-32C of the raw bytes, made where they were exported and checked where they are imported.
    package var checksum: UInt32
    /// Of the grant, or resend, whose credit it uses; the receiver wants no other round's chunks.
    package var round: UInt32

    package init(
        attempt: AttemptID, tokenStart: Int, tokenCount: Int, checksum: UInt32,
        round: UInt32 = 0
    ) {
        self.attempt = attempt
        self.tokenStart = tokenStart
        self.tokenCount = tokenCount
        self.checksum = checksum
        self.round = round
    }
}

/// A chunk whose bytes lie in memory passed on the local socket.
package struct KVMemoryChunk: Hashable, Sendable {
    package var chunk: KVChunk
    /// Counts what was passed on this connection's local socket.
    package var number: UInt64
    package var bytes: Int

    package init(chunk: KVChunk, number: UInt64, bytes: Int) {
        self.chunk = chunk
        self.number = number
        self.bytes = bytes
    }
}

/// All chunks are sent; decoding starts with this token.
package struct KVEnd: Hashable, Sendable {
    package var attempt: AttemptID
    /// Tokens whose KV the sequence has now.
    package var tokens: Int
    package var firstToken: TokenOutput
    /// Over place, size and checksum of every chunk, in order of tokens.
    package var digest: UInt64

    package init(attempt: AttemptID, tokens: Int, firstToken: TokenOutput, digest: UInt64 = 0) {
        self.attempt = attempt
        self.tokens = tokens
        self.firstToken = firstToken
        self.digest = digest
    }
}

/// The receiver's last word: the KV is imported whole (`code` nil), or why it is not taken.
package struct KVDone: Hashable, Sendable {
    package var attempt: AttemptID
    package var code: FailureCode?
    package var reason: String

    package init(attempt: AttemptID, code: FailureCode? = nil, reason: String = "") {
        self.attempt = attempt
        self.code = code
        self.reason = reason
    }
}

/// The sender's last word when it gives up.
package struct KVAbort: Hashable, Sendable {
    package var attempt: AttemptID
    package var reason: String

    package init(attempt: AttemptID, reason: String) {
        self.attempt = attempt
        self.reason = reason
    }
}

/// Decode-worker to prefill-worker: raw bytes that may be sent besides those granted before.
package struct KVCredit: Hashable, Sendable {
    package var attempt: AttemptID
    package var bytes: Int

    package init(attempt: AttemptID, bytes: Int) {
        self.attempt = attempt
        self.bytes = bytes
    }
}

/// Decode-worker to prefill-worker: the KV from a token on was damaged, send it once more.
package struct KVResend: Hashable, Sendable {
    package var attempt: AttemptID
    package var fromToken: Int
    /// As in `KVGrant`; what was granted before is void.
    package var creditBytes: Int
    /// As in `KVGrant`.
    package var round: UInt32
    package var reason: String

    package init(
        attempt: AttemptID, fromToken: Int, creditBytes: Int, round: UInt32 = 0, reason: String
    ) {
        self.attempt = attempt
        self.fromToken = fromToken
        self.creditBytes = creditBytes
        self.round = round
        self.reason = reason
    }
}
