/// The KV of a run of tokens of one sequence, as the engine exports it.
package struct KVBlock: Sendable {
    /// Position of the first token.
    package var tokenStart: Int
    package var tokenCount: Int
    /// The engine's own encoding; only an engine with the same model fingerprint can read it.
    package var bytes: KVBuffer
    /// CRC-32C of the used bytes, made by the engine that exports and checked by the one that
    /// imports; who carries the block between them keeps it as it is.
    package var checksum: UInt32

    package init(tokenStart: Int, tokenCount: Int, bytes: KVBuffer, checksum: UInt32) {
        self.tokenStart = tokenStart
        self.tokenCount = tokenCount
        self.bytes = bytes
        self.checksum = checksum
    }
}
