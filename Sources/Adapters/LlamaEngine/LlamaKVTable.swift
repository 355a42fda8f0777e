/// One cache in libllama's state of a sequence: a table of cells, then rows of keys and of values.
///
///     0 streams (1) · 4 cells · cells × { position · 1 · [12 bytes] · sequence }
///     transposed (0) · layers · layers × { type · 8 bytes row size · rows } · values as keys
///
/// Numbers without a size are 4 bytes, little-endian. A plain model has one such cache. Models with
/// sliding windows have a second one, for the layers that attend to a window.
struct LlamaKVTable: Sendable, Hashable {
    /// Which tokens the layers attend to; a state leaves out those that no later token needs.
    enum Window: Sendable, Hashable {
        case whole
        /// The last tokens, the attending one included.
        case sliding(tokens: Int)
        /// The tokens since the last multiple of `tokens`.
        case chunks(tokens: Int)

        /// The first token that the one at a position attends to; nil if all.
        func firstAttended(from position: Int) -> Int? {
            switch self {
            case .whole: nil
            case .sliding(let tokens): max(0, position - tokens + 1)
            case .chunks(let tokens): position / tokens * tokens
            }
        }

        /// The first token of a range that a state of this range holds.
        func first(of range: Range<Int>) -> Int {
            switch self {
            case .whole: range.lowerBound
            case .sliding(let tokens): max(range.lowerBound, range.upperBound - tokens)
            case .chunks(let tokens):
                max(range.lowerBound, (range.upperBound - 1) / tokens * tokens)
            }
        }
    }

    /// What one layer keeps per token.
    struct Row: Sendable, Hashable {
        /// ggml's number of the number type.
        var type: Int32
        var bytes: Int
    }

    /// 12, or 24 in models with positions in several dimensions.
    var cellBytes: Int
    var keys: [Row]
    /// Empty if the keys contain the values (multi-head latent attention).
    var values: [Row]
    var window = Window.whole

    /// KV bytes of one token.
    var rowBytes: Int { (keys + values).reduce(0) { $0 + $1.bytes } }
    /// Bytes besides cells and rows.
    var fixedBytes: Int { 16 + 12 * (keys.count + values.count) }

    /// Bytes of a cache with so many cells.
    func bytes(cells: Int) -> Int {
        cells == 0 ? Self.emptyBytes : fixedBytes + cells * (cellBytes + rowBytes)
    }

    /// Bytes in the state of a range of tokens.
    func bytes(of range: Range<Int>) -> Int {
        bytes(cells: range.upperBound - window.first(of: range))
    }

    /// Of a cache without cells libllama writes the two counts only.
    private static let emptyBytes = 8
}

/// Reads numbers of a state; nil beyond its end.
@safe private struct StateReader {
    private let state: UnsafeRawBufferPointer
    private(set) var offset: Int

    init(_ state: UnsafeRawBufferPointer, at offset: Int) {
        unsafe self.state = unsafe state
        self.offset = offset
    }

    var remainingBytes: Int { unsafe state.count - offset }

    mutating func word() -> Int? { number(Int32.self) }

    mutating func number<Number: FixedWidthInteger>(_ type: Number.Type) -> Int? {
        guard remainingBytes >= MemoryLayout<Number>.size else { return nil }
        let value = unsafe state.loadUnaligned(fromByteOffset: offset, as: type)
        offset += MemoryLayout<Number>.size
        return Int(exactly: Number(littleEndian: value))
    }

    mutating func skip(_ bytes: Int) -> Bool {
        guard 0...remainingBytes ~= bytes else { return false }
        offset += bytes
        return true
    }
}

extension LlamaKVTable {
    /// A cache as a state shows it.
    struct Reading: Sendable, Hashable {
        var table: LlamaKVTable
        /// Of the cells, in the order of memory, which needs not be the order of positions.
        var positions: [Int]
    }

    /// All ways to read the caches from an offset to a state's end.
    ///
    /// libllama doesn't write whether it keeps values and how large a cell is; one way should fit.
    static func readings(
        of state: UnsafeRawBufferPointer, from offset: Int, atMost caches: Int = Limits.caches
    ) -> Set<[Reading]> {
        if offset == state.count { return [[]] }
        guard caches > 0 else { return [] }
        var found: Set<[Reading]> = []
        for cellBytes in [12, 24] {
            for hasValues in [true, false] {
                var reader = unsafe StateReader(state, at: offset)
                guard let first = reader.reading(cellBytes: cellBytes, hasValues: hasValues)
                else { continue }
                let rest = unsafe readings(of: state, from: reader.offset, atMost: caches - 1)
                for rest in rest { found.insert([first] + rest) }
            }
        }
        return found
    }

    /// Positions of the cells that begin at an offset, if they are those of a range of tokens.
    ///
    /// A window may have moved on since: then some of its cells are missing, or all.
    func positions(
        of range: Range<Int>, in state: UnsafeRawBufferPointer, at offset: Int
    ) -> Set<Int>? {
        var reader = unsafe StateReader(state, at: offset)
        if window != .whole, reader.isEmptyTable { return [] }
        guard let positions = reader.positions(cellBytes: cellBytes) else { return nil }
        let unique = Set(positions)
        guard unique.count == positions.count, unique.allSatisfy(range.contains),
            window != .whole || unique.count == range.count
        else { return nil }
        return unique
    }
}

extension LlamaKVTable {
    /// Adds to the positions of so many cells, in a state that has them at an offset.
    func shiftPositions(
        by shift: Int32, of cells: Int, in state: UnsafeMutableRawBufferPointer, at offset: Int
    ) {
        for cell in 0..<cells {
            let place = offset + Self.emptyBytes + cell * cellBytes
            let position = Int32(
                littleEndian: unsafe state.loadUnaligned(fromByteOffset: place, as: Int32.self))
            unsafe state.storeBytes(
                of: (position + shift).littleEndian, toByteOffset: place, as: Int32.self)
        }
    }
}

extension StateReader {
    /// Whether a table without cells comes next.
    var isEmptyTable: Bool {
        var reader = self
        return reader.word() == 1 && reader.word() == 0
    }

    /// The positions in a table of cells; nil if it isn't one, or is empty.
    mutating func positions(cellBytes: Int) -> [Int]? {
        guard word() == 1, let cells = word(), cells > 0,
            cells <= remainingBytes / cellBytes
        else { return nil }
        var positions: [Int] = []
        positions.reserveCapacity(cells)
        for _ in 0..<cells {
            guard let position = word(), word() == 1, skip(cellBytes - 8) else { return nil }
            positions.append(position)
        }
        return positions
    }

    mutating func reading(cellBytes: Int, hasValues: Bool) -> LlamaKVTable.Reading? {
        guard let positions = positions(cellBytes: cellBytes), word() == 0,
            let layers = word(), 0...Limits.layers ~= layers,
            let keys = rows(layers: layers, cells: positions.count),
            let values = rows(layers: hasValues ? layers : 0, cells: positions.count)
        else { return nil }
        let table = LlamaKVTable(cellBytes: cellBytes, keys: keys, values: values)
        return LlamaKVTable.Reading(table: table, positions: positions)
    }

    private mutating func rows(layers: Int, cells: Int) -> [LlamaKVTable.Row]? {
        var rows: [LlamaKVTable.Row] = []
        for _ in 0..<layers {
            guard let type = number(Int32.self), let bytes = number(UInt64.self),
                case let (size, overflows) = bytes.multipliedReportingOverflow(by: cells),
                !overflows, skip(size)
            else { return nil }
            rows.append(LlamaKVTable.Row(type: Int32(type), bytes: bytes))
        }
        return rows
    }
}
