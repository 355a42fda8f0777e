/// The KV of a run of tokens of one sequence, as the engine exports it.
package struct KVBlock: Sendable {
    /// Position of the first token.
    package var tokenStart: Int
    package var tokenCount: Int
    /// The engine's own encoding; only an engine with the same model fingerprint can read it.
    package var bytes: KVBuffer

    package init(tokenStart: Int, tokenCount: Int, bytes: KVBuffer) {
        self.tokenStart = tokenStart
        self.tokenCount = tokenCount
        self.bytes = bytes
    }
}
