package import ServingTypes

/// A chunk of one sequence's KV, without the bytes.
package struct ChunkFacts: Hashable, Sendable {
    package var tokenStart: Int
    package var tokenCount: Int
    /// Raw bytes.
    package var bytes: Int
    /// CRC-32C of the raw bytes.
    package var checksum: UInt32
    /// Of the grant, or resend, whose credit it uses; no part of what was exported.
    package var round: UInt32

    package init(
        tokenStart: Int, tokenCount: Int, bytes: Int, checksum: UInt32, round: UInt32 = 0
    ) {
        self.tokenStart = tokenStart
        self.tokenCount = tokenCount
        self.bytes = bytes
        self.checksum = checksum
        self.round = round
    }

    package init(_ chunk: KVChunk, bytes: Int) {
        self.init(
            tokenStart: chunk.tokenStart, tokenCount: chunk.tokenCount, bytes: bytes,
            checksum: chunk.checksum, round: chunk.round)
    }

    package var tokenEnd: Int { tokenStart + tokenCount }

    package func chunk(of attempt: AttemptID) -> KVChunk {
        KVChunk(
            attempt: attempt, tokenStart: tokenStart, tokenCount: tokenCount, checksum: checksum,
            round: round)
    }
}

/// One number over place, size and checksum of every chunk of a payload.
///
/// Each chunk's own checksum guards its bytes; the digest guards that these are the chunks that
/// were exported, all of them and in order. FNV-1a over the chunks' numbers, 64 bits each.
package struct PayloadDigest: Hashable, Sendable {
    package private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

    package init() {}

    /// The digest of chunks in order of tokens.
    package init(_ chunks: some Sequence<ChunkFacts>) {
        for chunk in chunks { add(chunk) }
    }

    package mutating func add(_ chunk: ChunkFacts) {
        add(UInt64(chunk.tokenStart))
        add(UInt64(chunk.tokenCount))
        add(UInt64(chunk.bytes))
        add(UInt64(chunk.checksum))
    }

    private mutating func add(_ number: UInt64) {
        for shift in stride(from: 0, to: 64, by: 8) {
            value ^= (number >> UInt64(shift)) & 0xff
            value = value &* 0x100_0000_01b3
        }
    }
}
