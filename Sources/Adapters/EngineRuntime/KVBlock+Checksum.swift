package import InferenceEngine
import WireProtocol

extension KVBlock {
    /// A block with the checksum of its bytes as they are now.
    package init(tokenStart: Int, tokenCount: Int, checksumming bytes: KVBuffer) {
        self.init(
            tokenStart: tokenStart, tokenCount: tokenCount, bytes: bytes,
            checksum: Self.checksum(of: bytes))
    }

    /// Throws `blockRefused` unless the bytes are those that were exported.
    package func checkBytes() throws(EngineError) {
        guard Self.checksum(of: bytes) == checksum else {
            throw .blockRefused(reason: "the checksum doesn't fit")
        }
    }

    private static func checksum(of bytes: KVBuffer) -> UInt32 {
        unsafe bytes.withBytes { unsafe CRC32C.checksum($0) }
    }
}
