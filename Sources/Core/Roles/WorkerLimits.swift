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
    /// Time a transfer may stand still before it is given up.
    package var transferStallDeadline: Duration = .seconds(30)

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
}

/// One connection of a peer, numbered by the shell; a reconnection has another number.
package struct LinkID: Hashable, Sendable {
    package var value: UInt64
    package init(_ value: UInt64) { self.value = value }
}
