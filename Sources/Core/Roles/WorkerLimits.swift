package import KVHandOver

/// What one worker can take and every bound of its decisions.
package struct WorkerLimits: Sendable, Hashable {
    /// Prompts held at once: being computed, or computed with KV that has not left yet.
    package var prefillSlots: Int
    /// Sequences that may decode or be reserved at once.
    package var decodeSequences: Int
    /// Tokens of KV that all sequences share.
    package var kvCapacityTokens: Int
    /// Longest sequence in tokens.
    package var contextTokens: Int
    package var kvBytesPerToken: Int
    /// What a chunk of KV takes besides `kvBytesPerToken`: per token, and once.
    package var chunkOverheadBytesPerToken = 0
    package var chunkOverheadBytes = 0
    /// KV that has landed and is not imported, of all transfers together.
    package var landingBytes = 512 << 20
    /// The same of one transfer, if its chunks are not larger.
    package var landingWindowBytes = 64 << 20
    /// Ended sequences whose KV is kept for prompts that begin alike.
    package var keptSequences = 0
    /// Tokens of KV that they hold together at most; every step of those that run looks at them.
    package var keptTokens = Int.max
    /// Prompts begin with kept KV of a multiple of so many tokens.
    package var prefixBlockTokens = 16
    /// Prompts computed at once by the worker that will decode them.
    package var localPrefills = 2
    /// Between two questions for another place for the same sequence.
    package var moveInterval = Duration.milliseconds(500)
    /// A sequence that is handed on has so much time for it before its worker leaves.
    package var moveReserve = Duration.seconds(3)
    /// Sequences that end so soon are not handed on when the worker's role changes.
    package var roleChangePatience = Duration.seconds(1)
    package var handOver = KVHandOverLimits()

    package init(
        prefillSlots: Int, decodeSequences: Int, kvCapacityTokens: Int, contextTokens: Int,
        kvBytesPerToken: Int
    ) {
        self.prefillSlots = prefillSlots
        self.decodeSequences = decodeSequences
        self.kvCapacityTokens = kvCapacityTokens
        self.contextTokens = contextTokens
        self.kvBytesPerToken = kvBytesPerToken
    }

    /// Most raw bytes of a chunk of so many tokens.
    package func chunkBytes(tokens: Int) -> Int {
        tokens * (kvBytesPerToken + chunkOverheadBytesPerToken) + chunkOverheadBytes
    }
}

/// One connection of a peer, numbered by the shell; a reconnection has another number.
package struct LinkID: Hashable, Sendable {
    package var value: UInt64
    package init(_ value: UInt64) { self.value = value }
}
