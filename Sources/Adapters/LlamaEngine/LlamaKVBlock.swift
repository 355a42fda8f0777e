import CLlama
import InferenceEngine
import ServingTypes

/// How this engine writes KV blocks: a header of its own, then libllama's state of one sequence.
///
///     0 magic "PDKB" · 4 version · 8 token start · 12 token count · 16 state bytes
///
/// Little-endian. libllama checks neither positions nor numbers: damage would reach the attention
/// of all sequences, because masked positions still are computed. So a block's checksum is checked
/// before anything reads it.
struct LlamaKVLayout: Sendable, Hashable {
    static let version: UInt32 = 2
    static let headerBytes = 24
    private static let magic: UInt32 = 0x424b_4450
    /// libllama's magic and the number of the sequence; then the caches.
    static let stateHeaderBytes = 8

    /// One per cache; a model with windows has two.
    var tables: [LlamaKVTable]

    /// Bytes one token takes at most, of which `cellBytes` are not KV.
    var tokenBytes: Int { tables.reduce(cellBytes) { $0 + $1.rowBytes } }
    var cellBytes: Int { tables.reduce(0) { $0 + $1.cellBytes } }
    /// State bytes are at most `fixedBytes + tokens * tokenBytes`, less where a window leaves out
    /// tokens.
    var fixedBytes: Int { tables.reduce(Self.stateHeaderBytes) { $0 + $1.fixedBytes } }

    /// Bytes of the state of a range of tokens.
    func stateBytes(of range: Range<Int>) -> Int {
        tables.reduce(Self.stateHeaderBytes) { $0 + $1.bytes(of: range) }
    }

    /// Whether the tables of cells in a state are those of a range of tokens.
    private func cellsAreSound(
        in state: UnsafeRawBufferPointer, of range: Range<Int>
    ) -> Bool {
        var offset = Self.stateHeaderBytes
        for table in tables {
            guard unsafe table.holds(range, in: state, at: offset) else { return false }
            offset += table.bytes(of: range)
        }
        return true
    }

    /// Writes the header; the state follows it.
    func writeHeader(
        into bytes: UnsafeMutableRawBufferPointer, tokenStart: Int, tokenCount: Int
    ) {
        func store(_ value: some FixedWidthInteger, at offset: Int) {
            unsafe bytes.storeBytes(
                of: value.littleEndian, toByteOffset: offset, as: type(of: value))
        }
        store(Self.magic, at: 0)
        store(Self.version, at: 4)
        store(UInt32(tokenStart), at: 8)
        store(UInt32(tokenCount), at: 12)
        store(UInt64(stateBytes(of: tokenStart..<tokenStart + tokenCount)), at: 16)
    }

    /// Why a block can't be imported, or nil.
    func defect(
        of bytes: UnsafeRawBufferPointer, tokenStart: Int, tokenCount: Int
    ) -> String? {
        let range = tokenStart..<tokenStart + tokenCount
        let stateBytes = stateBytes(of: range)
        guard bytes.count == Self.headerBytes + stateBytes else {
            return "\(bytes.count) bytes, \(Self.headerBytes + stateBytes) expected"
        }
        func load<Value: FixedWidthInteger>(_ offset: Int, as: Value.Type) -> Value {
            Value(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
        }
        guard load(0, as: UInt32.self) == Self.magic else { return "not a KV block" }
        guard load(4, as: UInt32.self) == Self.version else {
            return "KV layout \(load(4, as: UInt32.self)), this engine has \(Self.version)"
        }
        guard load(8, as: UInt32.self) == UInt32(clamping: tokenStart),
            load(12, as: UInt32.self) == UInt32(clamping: tokenCount),
            load(16, as: UInt64.self) == UInt64(stateBytes)
        else { return "header and message name different tokens" }
        let state = unsafe UnsafeRawBufferPointer(rebasing: bytes[Self.headerBytes...])
        guard unsafe cellsAreSound(in: state, of: range) else {
            return "the table of positions is damaged"
        }
        return nil
    }
}
