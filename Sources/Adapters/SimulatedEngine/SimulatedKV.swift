import InferenceEngine
import ServingTypes

/// The history of a sequence as one number: depends on each token and on their order.
struct TokenHistory: Hashable {
    static let start = TokenHistory(value: 0x5851_F42D_4C95_7F2D)
    var value: UInt64

    func adding(_ token: TokenID) -> TokenHistory {
        TokenHistory(value: mixed(value &+ UInt64(UInt32(bitPattern: token)) &+ 1))
    }
}

/// SplitMix64's finaliser.
func mixed(_ value: UInt64) -> UInt64 {
    var x = value &+ 0x9E37_79B9_7F4A_7C15
    x = (x ^ (x >> 30)) &* 0xBF58_476D_1CE4_E5B9
    x = (x ^ (x >> 27)) &* 0x94D0_49BB_1331_11EB
    return x ^ (x >> 31)
}

/// The bytes of simulated KV, and the check that they are whole.
///
/// Header of 32 bytes: magic, version, token start, token count, history before the first token,
/// reserved. Then per token: its history (8 bytes), the token (4), and words derived from the
/// history. All little-endian.
@safe struct SimulatedKV {
    static let headerBytes = 32
    static let minimumBytesPerToken = 16
    private static let magic: UInt32 = 0x564b_5350
    private static let version: UInt32 = 1

    let bytesPerToken: Int

    func blockBytes(tokens: Int) -> Int { Self.headerBytes + tokens * bytesPerToken }

    func write(
        _ tokens: ArraySlice<TokenID>, from tokenStart: Int, after history: TokenHistory,
        into bytes: UnsafeMutableRawBufferPointer
    ) {
        func store(_ value: some FixedWidthInteger, at offset: Int) {
            unsafe bytes.storeBytes(
                of: value.littleEndian, toByteOffset: offset, as: type(of: value))
        }
        unsafe bytes.prefix(blockBytes(tokens: tokens.count)).initializeMemory(
            as: UInt8.self, repeating: 0)
        store(Self.magic, at: 0)
        store(Self.version, at: 4)
        store(UInt32(tokenStart), at: 8)
        store(UInt32(tokens.count), at: 12)
        store(history.value, at: 16)
        var history = history
        var offset = Self.headerBytes
        for token in tokens {
            history = history.adding(token)
            store(history.value, at: offset)
            store(token, at: offset + 8)
            for word in patternWords { store(pattern(history, word), at: offset + 12 + 4 * word) }
            offset += bytesPerToken
        }
    }

    /// The block's tokens and the history after each; nil if the block is not what `write` writes.
    func contents(
        _ bytes: UnsafeRawBufferPointer, tokenStart: Int, tokenCount: Int,
        following history: TokenHistory
    ) -> (tokens: [TokenID], histories: [TokenHistory])? {
        func load<Value: FixedWidthInteger>(_ offset: Int, as: Value.Type) -> Value {
            Value(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
        }
        guard bytes.count == blockBytes(tokens: tokenCount),
            load(0, as: UInt32.self) == Self.magic, load(4, as: UInt32.self) == Self.version,
            load(8, as: UInt32.self) == UInt32(clamping: tokenStart),
            load(12, as: UInt32.self) == UInt32(clamping: tokenCount),
            load(16, as: UInt64.self) == history.value, load(24, as: UInt64.self) == 0
        else { return nil }
        var history = history
        var tokens: [TokenID] = []
        var histories: [TokenHistory] = []
        var offset = Self.headerBytes
        for _ in 0..<tokenCount {
            let token = load(offset + 8, as: Int32.self)
            history = history.adding(token)
            guard load(offset, as: UInt64.self) == history.value else { return nil }
            for word in patternWords
            where load(offset + 12 + 4 * word, as: UInt32.self) != pattern(history, word) {
                return nil
            }
            for index in (offset + 12 + 4 * patternWords.count)..<(offset + bytesPerToken)
            where load(index, as: UInt8.self) != 0 {
                return nil
            }
            tokens.append(token)
            histories.append(history)
            offset += bytesPerToken
        }
        return (tokens, histories)
    }

    private var patternWords: Range<Int> { 0..<((bytesPerToken - 12) / 4) }

    private func pattern(_ history: TokenHistory, _ word: Int) -> UInt32 {
        UInt32(truncatingIfNeeded: (history.value &+ UInt64(word)) &* 0x9E37_79B9_7F4A_7C15 >> 32)
    }
}
