/// Prefill-worker to decode-worker: announces a sequence's KV and shows the reservation's secret.
package struct KVOffer: Hashable, Sendable {
    package var attempt: AttemptID
    package var secret: ReservationSecret
    package var fingerprint: ModelFingerprint
    /// Tokens whose KV the sequence will have.
    package var tokens: Int

    package init(
        attempt: AttemptID, secret: ReservationSecret, fingerprint: ModelFingerprint, tokens: Int
    ) {
        self.attempt = attempt
        self.secret = secret
        self.fingerprint = fingerprint
        self.tokens = tokens
    }
}

/// Answer to `KVOffer`: chunks may come.
package struct KVGrant: Hashable, Sendable {
    package var attempt: AttemptID
    /// Leading tokens whose KV the receiver already holds; they are not sent.
    package var heldTokens: Int
    /// Largest payload the receiver has a buffer for.
    package var maximumChunkBytes: Int

    package init(attempt: AttemptID, heldTokens: Int, maximumChunkBytes: Int) {
        self.attempt = attempt
        self.heldTokens = heldTokens
        self.maximumChunkBytes = maximumChunkBytes
    }
}

/// The KV of a run of tokens; the bytes are the frame's payload.
package struct KVChunk: Hashable, Sendable {
    package var attempt: AttemptID
    package var tokenStart: Int
    package var tokenCount: Int

    package init(attempt: AttemptID, tokenStart: Int, tokenCount: Int) {
        self.attempt = attempt
        self.tokenStart = tokenStart
        self.tokenCount = tokenCount
    }
}

/// All chunks are sent; decoding starts with this token.
package struct KVEnd: Hashable, Sendable {
    package var attempt: AttemptID
    /// Tokens whose KV the sequence has now.
    package var tokens: Int
    package var firstToken: TokenOutput

    package init(attempt: AttemptID, tokens: Int, firstToken: TokenOutput) {
        self.attempt = attempt
        self.tokens = tokens
        self.firstToken = firstToken
    }
}

/// The receiver's last word: the KV is whole (`code` nil), or why it is not taken.
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
