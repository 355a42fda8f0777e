import CLlama
import EngineRuntime
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
    static let version: UInt32 = 3
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
    /// tokens or has moved on.
    var fixedBytes: Int { tables.reduce(Self.stateHeaderBytes) { $0 + $1.fixedBytes } }

    var hasWindow: Bool { tables.contains { $0.window != .whole } }

    /// Bytes of the state of a range of tokens, if windows are whole.
    func stateBytes(of range: Range<Int>) -> Int {
        tables.reduce(Self.stateHeaderBytes) { $0 + $1.bytes(of: range) }
    }

    /// Tokens that the one at a position attends to in layers with a window; empty without such.
    ///
    /// libllama gives cells of earlier ones to others.
    func window(before position: Int) -> Range<Int> {
        let starts = tables.compactMap { $0.window.firstAttended(from: position) }
        return min(starts.min() ?? position, position)..<position
    }

    /// Positions in the cache that libllama asks for the first and the last one of a sequence.
    ///
    /// That is the one with a window, if there is one. Nil if a table of cells is not that of the
    /// range.
    func positions(
        in state: UnsafeRawBufferPointer, of range: Range<Int>
    ) -> Set<Int>? {
        var offset = Self.stateHeaderBytes
        var asked: Set<Int>?
        for table in tables {
            guard let positions = unsafe table.positions(of: range, in: state, at: offset)
            else { return nil }
            if asked == nil || table.window != .whole { asked = positions }
            offset += table.bytes(cells: positions.count)
        }
        return offset == state.count ? asked : nil
    }

    /// Writes the header; the state follows it.
    func writeHeader(
        into bytes: UnsafeMutableRawBufferPointer, tokenStart: Int, tokenCount: Int,
        stateBytes: Int
    ) {
        func store(_ value: some FixedWidthInteger, at offset: Int) {
            unsafe bytes.storeBytes(
                of: value.littleEndian, toByteOffset: offset, as: type(of: value))
        }
        store(Self.magic, at: 0)
        store(Self.version, at: 4)
        store(UInt32(tokenStart), at: 8)
        store(UInt32(tokenCount), at: 12)
        store(UInt64(stateBytes), at: 16)
    }

    /// Why a block's header doesn't fit, or nil.
    func defect(
        of bytes: UnsafeRawBufferPointer, tokenStart: Int, tokenCount: Int
    ) -> String? {
        let whole = stateBytes(of: tokenStart..<tokenStart + tokenCount)
        let stateBytes = bytes.count - Self.headerBytes
        // Cells of a window may be missing; their number is checked with their positions.
        guard hasWindow ? stateBytes > 0 : stateBytes == whole else {
            return "\(bytes.count) bytes, \(Self.headerBytes + whole) expected"
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
        return nil
    }
}

extension LlamaKVLayout {
    /// A copy of a block with other positions; nil if layers have windows, or it isn't a block.
    func shifted(_ block: KVBlock, to tokenStart: Int) -> KVBlock? {
        guard !hasWindow, tokenStart >= 0, tokenStart <= Int(Int32.max) - block.tokenCount
        else { return nil }
        let used = block.bytes.usedBytes
        guard used == Self.headerBytes + stateBytes(of: 0..<block.tokenCount) else { return nil }
        let copy = KVBuffer(capacityBytes: used)
        unsafe block.bytes.withBytes { source in
            unsafe copy.withWritableBytes { unsafe $0.copyMemory(from: source) }
        }
        copy.setUsedBytes(used)
        let shift = Int32(tokenStart - block.tokenStart)
        unsafe copy.withWritableBytes { bytes in
            unsafe writeHeader(
                into: bytes, tokenStart: tokenStart, tokenCount: block.tokenCount,
                stateBytes: used - Self.headerBytes)
            var offset = Self.headerBytes + Self.stateHeaderBytes
            for table in tables {
                unsafe table.shiftPositions(by: shift, of: block.tokenCount, in: bytes, at: offset)
                offset += table.bytes(cells: block.tokenCount)
            }
        }
        return KVBlock(
            tokenStart: tokenStart, tokenCount: block.tokenCount, checksumming: copy)
    }
}
