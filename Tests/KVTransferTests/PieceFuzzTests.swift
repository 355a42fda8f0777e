import Foundation
import KVTransfer
import ServingTypes
import Testing

/// Damaged pieces give an error or the right bytes, and touch nothing else.
///
///     FUZZ_PIECES=10000000 FUZZ_SEED=7 swift test -c release --filter PieceFuzzTests
@Suite struct PieceFuzzTests {
    private static let guardByte: UInt8 = 0xa5
    private static let guardBytes = 64

    @Test func `damaged pieces give an error or the right bytes`() throws {
        let environment = ProcessInfo.processInfo.environment
        let count = environment["FUZZ_PIECES"].flatMap { Int($0) } ?? 200_000
        let seed =
            environment["FUZZ_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: .min ... .max)
        print("piece fuzzing: FUZZ_SEED=\(seed) FUZZ_PIECES=\(count)")
        var random = SeededGenerator(seed: seed)
        let corpus = try corpus(seed: seed)
        let decoder = try PieceDecoder()
        let source = GuardedMemory(byteCount: 64 << 10)
        let target = GuardedMemory(byteCount: 64 << 10)
        var outcomes: [String: Int] = [:]
        let started = ContinuousClock.now
        for _ in 0..<count {
            let sample = corpus[random.below(corpus.count)]
            let other = corpus[random.below(corpus.count)]
            let piece = unsafe damaged(sample.piece, other.piece, in: source, &random)
            // The destination ends at a page that can't be touched; guard bytes lie before it.
            let place = unsafe target.last(sample.raw.count + Self.guardBytes)
            unsafe place.initializeMemory(as: UInt8.self, repeating: Self.guardByte)
            let outcome = unsafe decode(piece, sample, decoder, place)
            outcomes[outcome, default: 0] += 1
            for index in 0..<Self.guardBytes where unsafe place[index] != Self.guardByte {
                Issue.record("byte \(index - Self.guardBytes) was written, seed \(seed)")
            }
        }
        print("piece fuzzing: \(ContinuousClock.now - started), \(outcomes)")
        #expect(outcomes["wrong bytes"] == nil, "seed \(seed)")
        let expected = [
            "right bytes", "pieceDamaged", "pieceHeaderInvalid", "unknownCodec", "broken off",
        ]
        for outcome in expected {
            #expect(outcomes[outcome, default: 0] > count / 2000, "\(outcome)")
        }
    }

    private struct Sample {
        var raw: [UInt8]
        var piece: [UInt8]
    }

    private func corpus(seed: UInt64) throws -> [Sample] {
        let pieces = try Pieces()
        return try [16, 100, 1000, 4096, 9998].flatMap { count in
            try PieceCodec.allCases.flatMap { codec in
                let kinds = [
                    sampleKV(bytes: count, seed: seed), [UInt8](repeating: 7, count: count),
                    (0..<count).map { UInt8(truncatingIfNeeded: $0 / 3) },
                ]
                return try kinds.map { try Sample(raw: $0, piece: pieces.encode($0, codec).0) }
            }
        }
    }

    /// Header and wire bytes with damage, right before a page that can't be read.
    private func damaged(
        _ piece: [UInt8], _ other: [UInt8], in memory: GuardedMemory,
        _ random: inout SeededGenerator
    ) -> UnsafeRawBufferPointer {
        let header = PieceHeader.byteCount
        let kept = random.below(8) == 0 ? header + random.below(piece.count - header) : piece.count
        let bytes = unsafe memory.last(kept)
        unsafe piece.withUnsafeBytes {
            unsafe bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<kept]))
        }
        switch random.below(6) {
        case 0: unsafe bytes[random.below(header)] ^= 1 << UInt8(random.below(8))
        case 1:
            // Another codec over the same bytes.
            unsafe bytes[8] = UInt8(random.below(5))
            // Nothing but this may be taken for the end of a broken-off payload.
            if random.below(2) == 0 {
                unsafe PieceHeader.writeBreakOff(into: bytes)
                if random.below(2) == 0 {
                    unsafe bytes[random.below(header)] ^= 1 << UInt8(random.below(8))
                }
                return UnsafeRawBufferPointer(bytes)
            }
        case 2:
            let count = min(kept, other.count)
            let start = header + random.below(count - header + 1)
            for index in start..<min(count, start + 40) { unsafe bytes[index] = other[index] }
        case 3, 4:
            guard kept > header else { break }
            for _ in 0...random.below(4) {
                unsafe bytes[header + random.below(kept - header)] ^= 1 << UInt8(random.below(8))
            }
        default: break
        }
        // The wire length follows the bytes, so that the damage reaches the codec.
        if random.below(4) != 0 {
            unsafe bytes.storeBytes(
                of: UInt32(kept - header), toByteOffset: 4, as: UInt32.self)
        }
        return UnsafeRawBufferPointer(bytes)
    }

    private func isBreakOff(_ bytes: UnsafeRawBufferPointer) -> Bool {
        (0..<PieceHeader.byteCount).allSatisfy { unsafe bytes[$0] == ($0 == 8 ? 3 : 0) }
    }

    private func decode(
        _ piece: UnsafeRawBufferPointer, _ sample: Sample, _ decoder: PieceDecoder,
        _ place: UnsafeMutableRawBufferPointer
    ) -> String {
        do throws(KVTransferError) {
            guard
                let header = try unsafe PieceHeader(
                    bytes: piece, remainingBytes: sample.raw.count)
            else { return unsafe isBreakOff(piece) ? "broken off" : "wrong bytes" }
            let raw = unsafe UnsafeMutableRawBufferPointer(rebasing: place[Self.guardBytes...])
            try unsafe decoder.decode(
                header, wire: UnsafeRawBufferPointer(rebasing: piece[PieceHeader.byteCount...]),
                into: raw, checksRaw: true)
            let isRight = unsafe sample.raw.withUnsafeBytes { expected in
                guard let left = expected.baseAddress, let right = raw.baseAddress else {
                    return false
                }
                return unsafe memcmp(left, right, raw.count) == 0
            }
            return isRight ? "right bytes" : "wrong bytes"
        } catch {
            switch error {
            case .unknownCodec: return "unknownCodec"
            case .pieceHeaderInvalid: return "pieceHeaderInvalid"
            case .pieceDamaged: return "pieceDamaged"
            default: return "another error: \(error)"
            }
        }
    }
}
