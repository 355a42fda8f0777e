import CBytePlanes
import Foundation
import KVTransfer
import ServingTypes
import Testing
import WireProtocol

@Suite struct PieceTests {
    @Test(arguments: PieceCodec.allCases)
    func `a piece of any size survives every codec`(_ codec: PieceCodec) throws {
        let pieces = try Pieces()
        let whole = KVTransferLimits.pieceBytes
        let counts = [1, 2, 3, 63, 64, 65, 1000, 4096, 16_383, 16_385, 16_386, 65_537, 262_144]
        for count in counts + [whole - 2, whole - 1, whole] {
            let raw = sampleKV(bytes: count, seed: 7).prefix(count)
            let (bytes, _) = try pieces.encode(Array(raw), codec)
            #expect(try pieces.decode(bytes, count) == Array(raw), "\(count) bytes")
        }
    }

    @Test func `a whole piece is 1 MiB and compresses into less`() throws {
        let pieces = try Pieces()
        let raw = [UInt8](repeating: 0x3c, count: KVTransferLimits.pieceBytes)
        for codec in [PieceCodec.zstd, .bytePlanes] {
            let (bytes, tried) = try pieces.encode(raw, codec)
            #expect(bytes.count < raw.count * 51 / 100)
            #expect(tried == bytes.count - PieceHeader.byteCount)
            #expect(try pieces.decode(bytes, raw.count) == raw)
        }
    }

    @Test func `KV of fp16 shrinks by more than 5 % as byte planes, and hardly as it is`() throws {
        let pieces = try Pieces()
        let raw = sampleKV(bytes: 262_144, seed: 1)
        let (planes, _) = try pieces.encode(raw, .bytePlanes)
        let (whole, _) = try pieces.encode(raw, .zstd)
        let ratio = Double(raw.count) / Double(planes.count)
        print("fp16 KV: byte planes \(ratio), whole \(Double(raw.count) / Double(whole.count))")
        #expect(ratio > 1.05)
        #expect(planes[8] == PieceCodec.bytePlanes.rawValue)
        #expect(planes.count < whole.count)
    }

    @Test func `what does not shrink goes raw, and says what was tried`() throws {
        let pieces = try Pieces()
        let raw = noise(bytes: 10_000, seed: 3)
        for codec in [PieceCodec.zstd, .bytePlanes] {
            let (bytes, tried) = try pieces.encode(raw, codec)
            #expect(bytes[8] == PieceCodec.raw.rawValue)
            #expect(bytes.count == raw.count + PieceHeader.byteCount)
            #expect(try #require(tried) > raw.count * 97 / 100)
            #expect(try pieces.decode(bytes, raw.count) == raw)
        }
        let (odd, tried) = try pieces.encode([UInt8](repeating: 1, count: 1001), .bytePlanes)
        #expect(odd[8] == PieceCodec.raw.rawValue)
        #expect(tried == nil)
    }

    @Test func `a flipped byte is found wherever it lies`() throws {
        let pieces = try Pieces()
        let raw = sampleKV(bytes: 20_000, seed: 5)
        for codec in PieceCodec.allCases {
            let (bytes, _) = try pieces.encode(raw, codec)
            for index in stride(from: PieceHeader.byteCount, to: bytes.count, by: 97) {
                var damaged = bytes
                damaged[index] ^= 0x10
                #expect(throws: KVTransferError.pieceDamaged, "\(codec), byte \(index)") {
                    try pieces.decode(damaged, raw.count)
                }
            }
        }
    }

    @Test func `a raw piece without checksums is taken as it is`() throws {
        let pieces = try Pieces(checksumsRaw: false)
        let raw = noise(bytes: 100, seed: 4)
        let (bytes, _) = try pieces.encode(raw, .raw)
        #expect(Array(bytes[12..<16]) == [0, 0, 0, 0])
        #expect(try pieces.decode(bytes, raw.count) == raw)
    }

    @Test func `headers have one picture`() throws {
        let (bytes, _) = try Pieces().encode([1, 2, 3], .raw)
        let checksum = CRC32C.checksum([1, 2, 3])
        let littleEndian = (0..<4).map { UInt8(truncatingIfNeeded: checksum >> ($0 * 8)) }
        #expect(bytes == [3, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0] + littleEndian + [1, 2, 3])
    }

    @Test func `the end of a broken-off payload has one picture`() throws {
        var bytes = [UInt8](repeating: 0xff, count: PieceHeader.byteCount)
        unsafe bytes.withUnsafeMutableBytes { unsafe PieceHeader.writeBreakOff(into: $0) }
        #expect(bytes == [0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0])
        let header = try unsafe bytes.withUnsafeBytes {
            try unsafe PieceHeader(bytes: $0, remainingBytes: 1)
        }
        #expect(header == nil)
    }

    @Test func `lengths that don't fit are refused before a byte is stored`() {
        let whole = UInt32(KVTransferLimits.pieceBytes)
        expect(.unknownCodec(4), raw: 10, wire: 10, codec: 4, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 1, wire: 0, codec: 3, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 0, wire: 1, codec: 3, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 0, wire: 0, codec: 0x103, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 0, wire: 0, codec: 3, checksum: 1, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 0, wire: 0, codec: 0, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 11, wire: 11, codec: 0, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 9, wire: 9, codec: 0, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 10, wire: 9, codec: 0, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 10, wire: 10, codec: 1, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 10, wire: 0, codec: 1, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 10, wire: 5, codec: 2, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 11, wire: 7, codec: 2, remaining: 11)
        expect(.pieceHeaderInvalid, raw: .max, wire: .max, codec: 0, remaining: .max)
        expect(.pieceHeaderInvalid, raw: whole + 1, wire: 5, codec: 1, remaining: 5 << 20)
        expect(.pieceHeaderInvalid, raw: whole - 1, wire: 5, codec: 1, remaining: 5 << 20)
        expect(.pieceHeaderInvalid, raw: 10, wire: 10, codec: 0x100, remaining: 10)
        expect(.pieceHeaderInvalid, raw: 10, wire: 10, codec: 0x0100_0000, remaining: 10)
    }

    @Test func `the vector instructions are found where the kernel names them`() throws {
        guard let text = try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8) else {
            return
        }
        let words = Set(text.split { $0 == " " || $0 == "\n" })
        let hasVectors = words.contains("avx2") || words.contains("asimd")
        #expect(byte_planes_has_vectors() == hasVectors)
    }

    @Test func `vector and plain byte planes agree`() {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededGenerator(seed: seed)
        let some = (0..<50).map { _ in random.below(9000) }
        for pairs in [0, 1, 15, 16, 31, 32, 33, 63, 64, 100, 1000, 4097] + some {
            let bytes = noise(bytes: 2 * pairs, seed: UInt64(pairs))
            var planes = [UInt8](repeating: 0, count: 4 * pairs)
            var back = [UInt8](repeating: 0, count: 4 * pairs)
            unsafe bytes.withUnsafeBufferPointer { bytes in
                unsafe planes.withUnsafeMutableBufferPointer { planes in
                    unsafe back.withUnsafeMutableBufferPointer { back in
                        guard let from = bytes.baseAddress, let to = planes.baseAddress,
                            let again = back.baseAddress
                        else { return }
                        unsafe byte_planes_split(from, pairs, to, to + pairs)
                        unsafe byte_planes_split_plain(
                            from, pairs, to + 2 * pairs, to + 3 * pairs)
                        unsafe byte_planes_merge(to, to + pairs, pairs, again)
                        unsafe byte_planes_merge_plain(to, to + pairs, pairs, again + 2 * pairs)
                    }
                }
            }
            #expect(
                planes[..<(2 * pairs)].elementsEqual(planes[(2 * pairs)...]),
                "\(pairs) pairs, seed \(seed)")
            #expect(back[..<(2 * pairs)].elementsEqual(bytes))
            #expect(back[(2 * pairs)...].elementsEqual(bytes))
        }
    }

    private func expect(
        _ error: KVTransferError, raw: UInt32, wire: UInt32, codec: UInt32,
        checksum: UInt32 = 0, remaining: Int,
        location: SourceLocation = #_sourceLocation
    ) {
        let bytes = [raw, wire, codec, checksum].flatMap { number in
            (0..<4).map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) }
        }
        #expect(throws: error, sourceLocation: location) {
            _ = try unsafe bytes.withUnsafeBytes {
                unsafe try PieceHeader(bytes: $0, remainingBytes: remaining)
            }
        }
    }
}

/// Encoder and decoder over arrays.
struct Pieces {
    private let encoder: PieceEncoder
    private let decoder: PieceDecoder
    private let checksumsRaw: Bool

    init(checksumsRaw: Bool = true) throws {
        encoder = try PieceEncoder()
        decoder = try PieceDecoder()
        self.checksumsRaw = checksumsRaw
    }

    /// Header and wire bytes of one piece, and what compression made of it.
    func encode(_ raw: [UInt8], _ codec: PieceCodec) throws -> ([UInt8], Int?) {
        try unsafe raw.withUnsafeBytes { raw in
            let piece = try unsafe encoder.encode(raw, codec: codec, checksumsRaw: checksumsRaw)
            var bytes = [UInt8](repeating: 0, count: PieceHeader.byteCount)
            unsafe bytes.withUnsafeMutableBytes { unsafe piece.header.write(into: $0) }
            unsafe bytes.append(contentsOf: piece.wire)
            return unsafe (bytes, piece.triedWireBytes)
        }
    }

    func decode(_ bytes: [UInt8], _ remainingBytes: Int) throws -> [UInt8] {
        try unsafe bytes.withUnsafeBytes { bytes in
            let header = try #require(
                try unsafe PieceHeader(bytes: bytes, remainingBytes: remainingBytes))
            var raw = [UInt8](repeating: 0, count: header.rawBytes)
            try unsafe raw.withUnsafeMutableBytes { place in
                try unsafe decoder.decode(
                    header,
                    wire: UnsafeRawBufferPointer(rebasing: bytes[PieceHeader.byteCount...]),
                    into: place, checksRaw: checksumsRaw)
            }
            return raw
        }
    }
}
