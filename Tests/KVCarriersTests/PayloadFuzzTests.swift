import Foundation
import InferenceEngine
import KVCarriers
import KVTransfer
import ServingTypes
import Testing
import Transport

/// Damaged payloads over real connections end in one of five ways, and bytes that come as whole are
/// right.
@Suite(.timeLimit(.minutes(3))) struct PayloadFuzzTests {
    @Test func `damaged payloads have an orderly end`() async throws {
        let environment = ProcessInfo.processInfo.environment
        let count = environment["FUZZ_PAYLOADS"].flatMap { Int($0) } ?? 400
        let seed =
            environment["FUZZ_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: .min ... .max)
        print("payload fuzzing: FUZZ_SEED=\(seed) FUZZ_PAYLOADS=\(count)")
        let outcomes = try await onThread { try Self.fuzz(count, seed: seed) }
        print("payload fuzzing: \(outcomes)")
        let known = ["whole", "damaged", "broken off", "bad header"]
        for outcome in known {
            #expect(outcomes[outcome, default: 0] > 0, "\(outcome), seed \(seed)")
        }
        let others = outcomes.keys.filter { !known.contains($0) && $0 != "cut short" }
        #expect(others.isEmpty, "seed \(seed)")
        #expect(outcomes.values.reduce(0, +) == count, "seed \(seed)")
    }

    private static func fuzz(_ count: Int, seed: UInt64) throws -> [String: Int] {
        var random = SeededGenerator(seed: seed)
        var outcomes: [String: Int] = [:]
        var pair = try BulkPair()
        defer { pair.close() }
        for _ in 0..<count {
            // Fits into the kernel's buffers, so one thread can send and then receive.
            let payload = sampleBytes(1 + random.below(20_000), seed: random.next())
            let codec = PieceCodec.allCases[random.below(3)]
            var pieces = try EncodedPayload(payload, codec, checksumsRaw: true)
            let touchesHeader = damage(&pieces.pieces[0], &random)
            try pieces.send(on: pair.sender)
            let outcome = Self.outcome(pair, payload)
            outcomes[outcome, default: 0] += 1
            // Other lengths than the bytes have; what is too much would be taken for a frame.
            if touchesHeader {
                pair.close()
                pair = try BulkPair()
            }
        }
        return outcomes
    }

    /// Leaves the number of bytes as it is; says whether the header may be another now.
    private static func damage(
        _ piece: inout [UInt8], _ random: inout SeededGenerator
    ) -> Bool {
        let header = PieceHeader.byteCount
        switch random.below(7) {
        case 0: return false
        case 1: piece[random.below(header)] ^= 1 << UInt8(random.below(8))
        case 2: piece[8] = UInt8(random.below(6))
        case 3:
            unsafe piece.withUnsafeMutableBytes { unsafe PieceHeader.writeBreakOff(into: $0) }
        default:
            piece[header + random.below(piece.count - header)] ^= 1
            return false
        }
        return true
    }

    private static func outcome(_ pair: BulkPair, _ payload: [UInt8]) -> String {
        do {
            let (received, bytes) = try KVPieceReader().next(
                from: pair.receiver, deadline: .milliseconds(500))
            switch received.outcome {
            case .whole: return bytes == payload ? "whole" : "wrong bytes"
            case .brokenOff: return "broken off"
            case .damaged: return "damaged"
            }
        } catch {
            switch error {
            case KVTransferError.unknownCodec, KVTransferError.pieceHeaderInvalid:
                return "bad header"
            case TransportError.deadline: return "cut short"
            default: return "\(error)"
            }
        }
    }
}
