import CLlama
import InferenceEngine
import ServingTypes

/// How this engine writes KV blocks: a header of its own, then libllama's state of one sequence.
///
///     0 magic "PDKB" · 4 version · 8 token start · 12 token count · 16 state bytes · 24 checksum
///
/// Little-endian. libllama's own state has neither checksum nor checked positions: damage would
/// reach the attention of all sequences, because masked positions still are computed.
struct LlamaKVLayout: Sendable, Hashable {
    static let version: UInt32 = 1
    static let headerBytes = 32
    private static let magic: UInt32 = 0x424b_4450
    /// Offsets in libllama's state: magic, sequence, streams, cells; then the table of cells.
    private static let cellCountOffset = 12
    private static let cellTableOffset = 16

    /// State bytes are `fixedBytes + tokens * tokenBytes`.
    var fixedBytes: Int
    var tokenBytes: Int
    /// Bytes one token takes in the table of cells, part of `tokenBytes`.
    var cellBytes: Int

    func stateBytes(tokens: Int) -> Int { fixedBytes + tokens * tokenBytes }

    /// Learns the layout from the states of token 0 alone and of tokens 0 and 1.
    ///
    /// Nil if the states don't look as this version of libllama writes them.
    init?(one: UnsafeRawBufferPointer, two: UnsafeRawBufferPointer) {
        tokenBytes = two.count - one.count
        fixedBytes = one.count - tokenBytes
        // Models with positions in several dimensions keep 12 more bytes per cell.
        let fitting = [12, 24].first { cellBytes in
            unsafe Self.positions(in: two, tokens: 2, cellBytes: cellBytes) == 0...1
        }
        guard let fitting, fixedBytes > 0, tokenBytes > fitting else { return nil }
        cellBytes = fitting
    }

    /// The positions in a state's table of cells, if they are a gapless range.
    private static func positions(
        in state: UnsafeRawBufferPointer, tokens: Int, cellBytes: Int
    ) -> ClosedRange<Int>? {
        func word(at offset: Int) -> Int {
            let word = unsafe state.loadUnaligned(fromByteOffset: offset, as: Int32.self)
            return Int(Int32(littleEndian: word))
        }
        let tableEnd = cellTableOffset + tokens * cellBytes
        guard tokens > 0, state.count >= tableEnd, word(at: cellCountOffset) == tokens
        else { return nil }
        // Cells come in the order of memory, which needs not be the order of positions.
        var seen = Set<Int>(minimumCapacity: tokens)
        for cell in 0..<tokens {
            let offset = cellTableOffset + cell * cellBytes
            guard word(at: offset + 4) == 1, seen.insert(word(at: offset)).inserted else {
                return nil
            }
        }
        guard let first = seen.min(), let last = seen.max(), last - first == tokens - 1 else {
            return nil
        }
        return first...last
    }

    /// Writes the header before a state that is there already.
    func writeHeader(
        into bytes: UnsafeMutableRawBufferPointer, tokenStart: Int, tokenCount: Int
    ) {
        let state = unsafe UnsafeRawBufferPointer(
            rebasing: bytes[Self.headerBytes...].prefix(stateBytes(tokens: tokenCount)))
        func store(_ value: some FixedWidthInteger, at offset: Int) {
            unsafe bytes.storeBytes(
                of: value.littleEndian, toByteOffset: offset, as: type(of: value))
        }
        store(Self.magic, at: 0)
        store(Self.version, at: 4)
        store(UInt32(tokenStart), at: 8)
        store(UInt32(tokenCount), at: 12)
        store(UInt64(state.count), at: 16)
        store(unsafe Self.checksum(of: state), at: 24)
    }

    /// Why a block can't be imported, or nil.
    func defect(
        of bytes: UnsafeRawBufferPointer, tokenStart: Int, tokenCount: Int
    ) -> String? {
        let stateBytes = stateBytes(tokens: tokenCount)
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
        guard load(24, as: UInt64.self) == (unsafe Self.checksum(of: state)) else {
            return "the checksum doesn't fit"
        }
        let positions = unsafe Self.positions(in: state, tokens: tokenCount, cellBytes: cellBytes)
        guard positions == tokenStart...(tokenStart + tokenCount - 1) else {
            return "the table of positions is damaged"
        }
        return nil
    }

    /// A 64-bit checksum near the speed of memory; each change of a single word changes it.
    static func checksum(of bytes: UnsafeRawBufferPointer) -> UInt64 {
        func word(_ offset: Int) -> UInt64 {
            unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        }
        // Four sums, so that a multiplication need not wait for the one before.
        var (a, b, c, d): (UInt64, UInt64, UInt64, UInt64) = (1, 2, 3, 4)
        let whole = bytes.count / 32 * 32
        for offset in stride(from: 0, to: whole, by: 32) {
            a = mixed(a, word(offset))
            b = mixed(b, word(offset + 8))
            c = mixed(c, word(offset + 16))
            d = mixed(d, word(offset + 24))
        }
        var sum = UInt64(bytes.count)
        for lane in [a, b, c, d] { sum = mixed(sum, lane) }
        for offset in whole..<bytes.count { sum = mixed(sum, UInt64(unsafe bytes[offset])) }
        return sum ^ (sum &>> 32)
    }

    private static func mixed(_ sum: UInt64, _ word: UInt64) -> UInt64 {
        let mixed = sum ^ word
        return (mixed &<< 29 | mixed &>> 35) &* 0x9E37_79B1_85EB_CA87
    }
}
