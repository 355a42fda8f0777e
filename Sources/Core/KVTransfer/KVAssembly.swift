package import ServingTypes

/// Collects the KV chunks of one sequence on the decode side.
///
///     waiting ──chunk──▶ receiving ──payload whole──▶ waiting ──end──▶ closed (complete)
///        └──────────────────┴──gap, too much, abort, deadline, loss──▶ closed (abandon)
///
/// The bytes lie beside it: the shell reads a chunk's payload into a buffer after `receivePayload`
/// and gives it to the engine after `importBlock`.
package struct KVAssembly: Hashable, Sendable {
    package enum Action: Hashable, Sendable {
        /// Nothing to do until the next event.
        case await
        /// Read the payload of `bytes` raw bytes into a buffer; nothing of it is stored before.
        case receivePayload(bytes: Int)
        /// Give the received payload to the engine.
        case importBlock(tokenStart: Int, tokenCount: Int)
        /// All KV is with the engine; start decoding with this token.
        case complete(firstToken: TokenOutput)
        /// Drop the sequence's KV, free its reservation, tell both peers.
        case abandon(KVTransferError)
        /// The transfer is over; the event comes too late.
        case ignore
    }

    private enum State: Hashable {
        case waiting
        case receiving(tokenCount: Int, bytes: Int)
        case closed
    }

    package let attempt: AttemptID
    /// Tokens whose KV the sequence will have.
    package let tokens: Int
    /// Leading tokens whose KV is here now.
    package private(set) var receivedTokens: Int
    package private(set) var receivedBytes = 0
    private let reservedBytes: Int
    private let maximumChunkBytes: Int
    private let deadline: MonotonicTime
    private var state = State.waiting

    /// Begins when a prefill-worker offers the KV of a reserved sequence.
    ///
    /// - Parameters:
    ///   - reservedTokens: tokens the gateway reserved room for: prompt and earlier output.
    ///   - reservedBytes: most raw bytes that all chunks together may have.
    ///   - heldTokens: leading tokens that are not to be sent, as in the grant.
    ///   - maximumChunkBytes: as in the grant.
    package init(
        offer: KVOffer, reservedTokens: Int, reservedBytes: Int, heldTokens: Int,
        maximumChunkBytes: Int, deadline: MonotonicTime
    ) throws(KVTransferError) {
        guard offer.tokens == reservedTokens else {
            throw .offerDisagrees(reservedTokens: reservedTokens, offeredTokens: offer.tokens)
        }
        precondition((0...reservedTokens).contains(heldTokens), "holds more than the sequence")
        attempt = offer.attempt
        tokens = offer.tokens
        receivedTokens = heldTokens
        self.reservedBytes = reservedBytes
        self.maximumChunkBytes = maximumChunkBytes
        self.deadline = deadline
    }

    package var isClosed: Bool { state == .closed }

    /// The frame of a chunk has come, its payload has not.
    package mutating func chunkBegins(_ chunk: KVChunk, payloadBytes: Int) -> Action {
        guard state != .closed else { return .ignore }
        guard state == .waiting, chunk.attempt == attempt, chunk.tokenCount > 0,
            payloadBytes > 0
        else { return abandon(.unexpectedMessage) }
        guard chunk.tokenStart <= receivedTokens else {
            return abandon(
                .gap(expectedToken: receivedTokens, receivedToken: chunk.tokenStart))
        }
        guard chunk.tokenStart == receivedTokens else {
            return abandon(
                .overlap(expectedToken: receivedTokens, receivedToken: chunk.tokenStart))
        }
        guard chunk.tokenCount <= tokens - receivedTokens else {
            let (sum, overflows) = receivedTokens.addingReportingOverflow(chunk.tokenCount)
            return abandon(
                .tooManyTokens(
                    offeredTokens: tokens, receivedTokens: overflows ? .max : sum))
        }
        let limit = min(maximumChunkBytes, reservedBytes - receivedBytes)
        guard payloadBytes <= limit else {
            return abandon(.tooManyBytes(limitBytes: limit, receivedBytes: payloadBytes))
        }
        state = .receiving(tokenCount: chunk.tokenCount, bytes: payloadBytes)
        return .receivePayload(bytes: payloadBytes)
    }

    /// The payload of the chunk is whole and its pieces were good.
    package mutating func chunkEnds() -> Action {
        switch state {
        case .closed:
            return .ignore
        case .waiting:
            return abandon(.unexpectedMessage)
        case .receiving(let tokenCount, let bytes):
            let start = receivedTokens
            receivedTokens += tokenCount
            receivedBytes += bytes
            state = .waiting
            return .importBlock(tokenStart: start, tokenCount: tokenCount)
        }
    }

    /// The sender says that all is sent.
    package mutating func ended(_ end: KVEnd) -> Action {
        guard state != .closed else { return .ignore }
        guard state == .waiting, end.attempt == attempt, end.firstToken.token >= 0 else {
            return abandon(.unexpectedMessage)
        }
        guard end.tokens == tokens, receivedTokens == tokens else {
            return abandon(
                .endedEarly(
                    offeredTokens: tokens, receivedTokens: min(end.tokens, receivedTokens)))
        }
        state = .closed
        return .complete(firstToken: end.firstToken)
    }

    /// The sender gave up, a piece was bad, the connection broke, or the gateway cancelled.
    package mutating func failed(_ error: KVTransferError) -> Action {
        state == .closed ? .ignore : abandon(error)
    }

    package mutating func tick(now: MonotonicTime) -> Action {
        guard state != .closed else { return .ignore }
        return now < deadline ? .await : abandon(.timedOut)
    }

    private mutating func abandon(_ error: KVTransferError) -> Action {
        state = .closed
        return .abandon(error)
    }
}
