package import ServingTypes

/// Takes in the KV of one sequence on the decode side.
///
///     receiving ──all chunks with the engine──▶ whole ──all imported──▶ imported
///         ▲                                       │
///         └────────── a chunk was refused ────────┘   (once; the second time it has failed)
///
/// Chunks may come out of order over several connections; they go to the engine in order. The bytes
/// lie beside it, in the shell. Each grant and each resend begins a round, in which the sender goes
/// on where the KV ends that is here; what is on its way of earlier rounds is not wanted.
package struct KVAssembly: Hashable, Sendable {
    /// What to do with a chunk whose payload is about to come.
    package enum Reception: Hashable, Sendable {
        case land
        /// Read it and throw it away: it is here already.
        case discard
        /// The sender breaks the protocol.
        case refuse(reason: String)
    }

    /// What follows from an event.
    package enum Outcome: Hashable, Sendable {
        case none
        /// Throw the payload away; it came too late.
        case drop
        /// Give the landed chunks that begin at these tokens to the engine, in this order.
        case importChunks([Int])
        /// Throw away what has landed and ask the sender for everything from this token on.
        case resend(fromToken: Int, reason: String)
        case fail(reason: String)
    }

    private struct Pending: Hashable {
        let chunk: ChunkFacts
        let refusals: Int
    }

    /// Tokens whose KV the sequence will have.
    package let tokens: Int
    /// Leading tokens that are not sent.
    package let heldTokens: Int
    /// Leading tokens whose KV the engine has, or has been given.
    package private(set) var submittedTokens: Int
    /// Leading tokens whose KV the engine says it has.
    package private(set) var importedTokens = 0
    package private(set) var end: KVEnd?
    package private(set) var resends = 0
    /// Counts grants and resends.
    package private(set) var round: UInt32 = 0
    private let allowedResends: Int
    /// Payloads of this round that are being read: one a connection.
    private var arriving: [KVLinkID: ChunkFacts] = [:]
    /// Here, and not given to the engine for want of an earlier one; by first token.
    private var landed: [Int: ChunkFacts] = [:]
    /// With the engine, which has not answered.
    private var pending: [Pending] = []
    /// Given to the engine, in order.
    private var accepted: [ChunkFacts] = []
    /// Chunks given to the engine before the last refusal are refused with it.
    private var refusals = 0
    /// The engine has not said whether it can begin with the held tokens.
    private var awaitsHeldTokens: Bool

    package init(tokens: Int, heldTokens: Int, allowedResends: Int) {
        precondition((0...tokens).contains(heldTokens), "holds more than the sequence")
        self.tokens = tokens
        self.heldTokens = heldTokens
        self.allowedResends = allowedResends
        submittedTokens = heldTokens
        awaitsHeldTokens = heldTokens > 0
    }

    /// The engine has been given everything, and this is what was exported.
    package var isWhole: Bool { end != nil && submittedTokens == tokens }
    /// Whole, and the engine has taken everything in.
    package var isImported: Bool { isWhole && importedTokens == tokens }
    /// A payload is being read.
    package var isArriving: Bool { !arriving.isEmpty }
    /// The engine has some of the KV, or may still open the sequence with what it was given.
    package var isWithEngine: Bool {
        importedTokens > 0 || !pending.isEmpty || awaitsHeldTokens
    }
    /// Bytes here that the engine has not been given.
    package var landedBytes: Int { landed.values.reduce(0) { $0 + $1.bytes } }
    /// Bytes with the engine, which has not answered.
    package var pendingBytes: Int { pending.reduce(0) { $0 + $1.chunk.bytes } }

    /// The sender is about to begin where `submittedTokens` ends; what else has come is void.
    package mutating func beginRound() {
        round += 1
        arriving = [:]
        landed = [:]
    }

    /// The frame of a chunk of this round has come, its payload has not.
    package mutating func begins(_ chunk: ChunkFacts, on link: KVLinkID) -> Reception {
        guard chunk.tokenCount > 0, chunk.bytes > 0, chunk.tokenStart >= heldTokens,
            chunk.tokenStart < tokens, chunk.tokenCount <= tokens - chunk.tokenStart
        else {
            return .refuse(
                reason: "tokens \(chunk.tokenStart)+\(chunk.tokenCount) are not among "
                    + "\(heldTokens)..<\(tokens)")
        }
        guard arriving[link] == nil else {
            return .refuse(reason: "a chunk begins inside another")
        }
        let others = Array(landed.values) + Array(arriving.values)
        if chunk.tokenEnd <= submittedTokens
            || others.contains(where: { $0.tokenStart == chunk.tokenStart })
        {
            return .discard
        }
        let range = chunk.tokenStart..<chunk.tokenEnd
        guard chunk.tokenStart >= submittedTokens,
            others.allSatisfy({ !($0.tokenStart..<$0.tokenEnd).overlaps(range) })
        else { return .refuse(reason: "tokens \(range) overlap with others that came") }
        arriving[link] = chunk
        return .land
    }

    /// The payload of a chunk is here.
    package mutating func landed(at tokenStart: Int, on link: KVLinkID) -> Outcome {
        guard let arrival = takeArrival(at: tokenStart, on: link) else { return .drop }
        landed[tokenStart] = arrival
        var starts: [Int] = []
        while let next = landed.removeValue(forKey: submittedTokens) {
            starts.append(next.tokenStart)
            pending.append(Pending(chunk: next, refusals: refusals))
            accepted.append(next)
            submittedTokens = next.tokenEnd
        }
        if let mismatch = defectAtEnd { return .fail(reason: mismatch) }
        return starts.isEmpty ? .none : .importChunks(starts)
    }

    /// The payload of a chunk did not come: damaged, broken off, or its connection is lost.
    ///
    /// - Parameter isDamaged: the sender believes that it has been delivered.
    package mutating func missed(
        at tokenStart: Int, on link: KVLinkID, isDamaged: Bool, reason: String
    ) -> Outcome {
        guard takeArrival(at: tokenStart, on: link) != nil else { return .drop }
        return isDamaged ? askAgain(reason: reason) : .none
    }

    /// Nothing more comes on this connection; gives the bytes of the payload that was being read.
    package mutating func forget(_ link: KVLinkID) -> Int {
        arriving.removeValue(forKey: link)?.bytes ?? 0
    }

    private mutating func takeArrival(at tokenStart: Int, on link: KVLinkID) -> ChunkFacts? {
        guard arriving[link]?.tokenStart == tokenStart else { return nil }
        return arriving.removeValue(forKey: link)
    }

    /// The sender has sent everything.
    package mutating func ended(_ end: KVEnd) -> Outcome {
        guard end.tokens == tokens else {
            return .fail(reason: "the sender ends after \(end.tokens) of \(tokens) tokens")
        }
        self.end = end
        return defectAtEnd.map { .fail(reason: $0) } ?? .none
    }

    /// The engine has taken in a chunk that ends before token `tokens`, or begun with the held
    /// tokens; gives the chunk, if it was one of these.
    package mutating func imported(tokens: Int) -> ChunkFacts? {
        if awaitsHeldTokens {
            awaitsHeldTokens = false
            importedTokens = heldTokens
            return nil
        }
        guard let first = pending.first, first.chunk.tokenEnd == tokens else { return nil }
        importedTokens = tokens
        return pending.removeFirst().chunk
    }

    /// The engine refuses the oldest pending chunk, or the held tokens; gives the chunk and what
    /// to do.
    package mutating func refused(reason: String) -> (chunk: ChunkFacts?, Outcome) {
        if awaitsHeldTokens {
            awaitsHeldTokens = false
            return (nil, .fail(reason: "the held KV can't be used: \(reason)"))
        }
        guard !pending.isEmpty else { return (nil, .none) }
        let refused = pending.removeFirst()
        guard refused.refusals == refusals else { return (refused.chunk, .none) }
        refusals += 1
        accepted.removeAll { $0.tokenStart >= refused.chunk.tokenStart }
        submittedTokens = refused.chunk.tokenStart
        return (refused.chunk, askAgain(reason: reason))
    }

    private mutating func askAgain(reason: String) -> Outcome {
        guard resends < allowedResends else {
            return .fail(reason: "damaged again: \(reason)")
        }
        resends += 1
        end = nil
        beginRound()
        return .resend(fromToken: submittedTokens, reason: reason)
    }

    private var defectAtEnd: String? {
        guard let end, submittedTokens == tokens,
            PayloadDigest(accepted).value != end.digest
        else { return nil }
        return "the chunks are not the ones that were exported"
    }
}
