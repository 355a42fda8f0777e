import KVHandOver
import ServingTypes

let model = ModelFingerprint([UInt8](repeating: 7, count: ModelFingerprint.byteCount))

func attempt(_ number: UInt64) -> AttemptID {
    AttemptID(request: RequestID(high: 0, low: number), number: 1)
}

func seconds(_ seconds: Double) -> MonotonicTime {
    .start + .milliseconds(Int64(seconds * 1000))
}

/// A chunk whose tokens take 10 bytes each.
func chunk(_ start: Int, _ count: Int, checksum: UInt32 = 1, round: UInt32 = 1) -> ChunkFacts {
    ChunkFacts(
        tokenStart: start, tokenCount: count, bytes: 10 * count, checksum: checksum, round: round)
}

func end(_ number: UInt64 = 1, tokens: Int, of chunks: [ChunkFacts]) -> KVEnd {
    KVEnd(
        attempt: attempt(number), tokens: tokens, firstToken: TokenOutput(token: 42),
        digest: PayloadDigest(chunks).value)
}
