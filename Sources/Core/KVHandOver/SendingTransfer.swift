package import ServingTypes

/// A transfer that the sending side has to make.
package struct SendingPlan: Sendable, Hashable {
    package var attempt: AttemptID
    package var secret: ReservationSecret
    package var fingerprint: ModelFingerprint
    /// Tokens whose KV the sequence will have.
    package var tokens: Int
    /// First token whose KV is sent.
    package var startToken: Int
    /// Most tokens in one chunk.
    package var chunkTokens: Int
    /// When the request must have ended.
    package var expires: MonotonicTime

    package init(
        attempt: AttemptID, secret: ReservationSecret, fingerprint: ModelFingerprint, tokens: Int,
        startToken: Int, chunkTokens: Int, expires: MonotonicTime
    ) {
        self.attempt = attempt
        self.secret = secret
        self.fingerprint = fingerprint
        self.tokens = tokens
        self.startToken = startToken
        self.chunkTokens = chunkTokens
        self.expires = expires
    }
}

/// How a transfer went.
package struct TransferSummary: Sendable, Hashable {
    package var opened: MonotonicTime
    /// When the last chunk was exported and the first token sampled.
    package var exported: MonotonicTime?
    package var ended: MonotonicTime
    package var chunks: Int
    /// Raw bytes of all chunks.
    package var bytes: Int
    package var resends: Int
    package var reconnects: Int

    /// From the first token until the receiver had imported everything: what the transfer costs
    /// the request, because the rest of it went on while the prompt was computed.
    package var exposed: Duration? { exported.map { ended - $0 } }
}

/// One transfer on its way out.
struct SendingTransfer: Sendable {
    enum Stage: Sendable, Hashable {
        /// Waits for a connection.
        case connecting
        /// The receiver has not answered the offer.
        case offered
        /// Chunks may go as far as the credit reaches.
        case granted
        /// Everything is sent; the receiver has the last word.
        case ended
    }

    enum Progress: Sendable, Hashable {
        case waiting
        case sending(connection: Int)
        case sent
    }

    let plan: SendingPlan
    let number: UInt64
    let opened: MonotonicTime
    var stage = Stage.connecting
    /// The connection on which the transfer was offered; frames without payload go there.
    var home: Int?
    /// Connections that carried some of it since the last grant.
    var used: Set<Int> = []
    /// Of the last grant or resend, and the token from which on it wants chunks.
    var round: UInt32 = 0
    var roundStart = 0
    var chunks: [(facts: ChunkFacts, progress: Progress)] = []
    var credit = 0
    var end: KVEnd?
    var exported: MonotonicTime?
    var lastProgress: MonotonicTime
    var resends = 0
    var reconnects = 0

    init(plan: SendingPlan, number: UInt64, now: MonotonicTime) {
        self.plan = plan
        self.number = number
        opened = now
        lastProgress = now
    }

    var bytes: Int { chunks.reduce(0) { $0 + $1.facts.bytes } }

    /// The first chunk that waits, if the credit reaches.
    ///
    /// Chunks leave in order, so that the receiver never holds one for want of another that has no
    /// credit.
    var nextChunk: Int? {
        guard stage == .granted,
            let index = chunks.firstIndex(where: { $0.progress == .waiting || isLate($0) }),
            chunks[index].progress == .waiting, chunks[index].facts.bytes <= credit
        else { return nil }
        return index
    }

    var isAllSent: Bool { chunks.allSatisfy { $0.progress == .sent } }

    /// The peer, or the link to it, owes the next step; not while other transfers have the links.
    var isWaitingForPeer: Bool {
        switch stage {
        case .connecting, .offered, .ended: true
        case .granted: !isAllSent && (isSending || nextChunk == nil)
        }
    }

    var isSending: Bool {
        chunks.contains { if case .sending = $0.progress { true } else { false } }
    }

    /// On its way since an earlier round, and not wanted any more.
    private func isLate(_ chunk: (facts: ChunkFacts, progress: Progress)) -> Bool {
        guard case .sending = chunk.progress else { return false }
        return chunk.facts.round != round && chunk.facts.tokenEnd > roundStart
    }

    /// Counts everything from a token on as not sent; false if that is inside a chunk, or before
    /// the first.
    ///
    /// What is on its way from before is sent again when it has left.
    mutating func begin(round: UInt32, from token: Int, credit: Int) -> Bool {
        guard token >= plan.startToken, token <= plan.tokens,
            !chunks.contains(where: { $0.facts.tokenStart < token && token < $0.facts.tokenEnd })
        else { return false }
        for index in chunks.indices {
            if case .sending = chunks[index].progress { continue }
            chunks[index].progress = chunks[index].facts.tokenEnd <= token ? .sent : .waiting
        }
        self.round = round
        roundStart = token
        self.credit = credit
        used = []
        stage = .granted
        return true
    }

    /// A chunk has left a connection.
    mutating func left(_ tokenStart: Int, connection: Int, isWhole: Bool) {
        for index in chunks.indices
        where chunks[index].facts.tokenStart == tokenStart
            && chunks[index].progress == .sending(connection: connection)
        {
            chunks[index].progress = isWhole && !isLate(chunks[index]) ? .sent : .waiting
        }
    }

    /// A connection is lost; says whether the receiver may miss something.
    mutating func lost(connection: Int) -> Bool {
        for index in chunks.indices
        where chunks[index].progress == .sending(connection: connection) {
            chunks[index].progress = .waiting
        }
        return home == connection || used.contains(connection)
    }

    func summary(now: MonotonicTime) -> TransferSummary {
        TransferSummary(
            opened: opened, exported: exported, ended: now, chunks: chunks.count, bytes: bytes,
            resends: resends, reconnects: reconnects)
    }
}
