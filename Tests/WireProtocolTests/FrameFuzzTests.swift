import Foundation
import ServingTypes
import Testing
import WireProtocol

/// Damaged frames give a message or a typed error, in bounded memory.
///
///     FUZZ_FRAMES=100000000 FUZZ_SEED=7 swift test -c release --filter FrameFuzzTests
@Suite struct FrameFuzzTests {
    /// When it runs alone.
    private static let memoryGrowthLimitBytes = 96 << 20
    /// In the suite: the tests beside it use memory of the same process.
    private static let sharedGrowthLimitBytes = 1 << 30

    @Test func `a million damaged frames give messages or typed errors`() throws {
        let environment = ProcessInfo.processInfo.environment
        let frames = environment["FUZZ_FRAMES"].flatMap { Int($0) } ?? 1_000_000
        let seed =
            environment["FUZZ_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: .min ... .max)
        print("frame fuzzing: FUZZ_SEED=\(seed) FUZZ_FRAMES=\(frames)")

        var mutator = try FrameMutator(seed: seed)
        var outcome = Outcome()
        let started = ContinuousClock.now
        var before = 0
        for index in 0..<frames {
            // The first frames fill the allocator's caches.
            if index == frames / 10 { before = peakResidentBytes() }
            let frame = unsafe mutator.next()
            if index % 16 == 0 {
                unsafe parseInParts(frame, index, &outcome)
            } else {
                unsafe readWhole(frame, index, &outcome)
            }
        }
        let growth = peakResidentBytes() - before
        print(
            "frame fuzzing: \(ContinuousClock.now - started), peak memory +\(growth >> 10) KiB,",
            "\(outcome.messages) messages, errors \(outcome.errors)")
        let isAlone = environment["FUZZ_FRAMES"] != nil
        #expect(
            growth < (isAlone ? Self.memoryGrowthLimitBytes : Self.sharedGrowthLimitBytes))
        #expect(outcome.messages + outcome.errors.values.reduce(0, +) >= frames * 9 / 10)
        // The damage reached the header, the protobuf reader and the field checks.
        if frames >= 100_000 {
            for name in [
                "notAFrame", "headerDamaged", "unknownKind", "unknownFlags", "controlDamaged",
                "controlTooLong", "payloadDisagrees", "malformed", "missing", "outOfRange",
                "unknownValue", "invalidText", "wrongLength",
            ] {
                #expect(outcome.errors[name, default: 0] > 0, "no \(name)")
            }
            #expect(outcome.messages > frames / 100)
        }
    }

    private struct Outcome {
        var messages = 0
        var errors: [String: Int] = [:]

        mutating func count(_ error: WireError) { errors[name(of: error), default: 0] += 1 }
    }

    /// As on a bulk connection: the header, then the control bytes.
    private func readWhole(
        _ frame: UnsafeRawBufferPointer, _ index: Int, _ outcome: inout Outcome
    ) {
        do throws(WireError) {
            let header = try unsafe FrameHeader(bytes: frame)
            let control = unsafe UnsafeRawBufferPointer(
                rebasing: frame[FrameHeader.byteCount...])
            let message = try unsafe header.message(control: control)
            outcome.messages += 1
            // What was accepted can be sent on, and means the same.
            if index % 8 == 1 {
                let bytes = try MessageCodec.encode(message)
                #expect(try decode(header.kind, bytes) == message)
            }
        } catch {
            outcome.count(error)
        }
    }

    /// As on a control connection: bytes in parts of any size, perhaps cut off.
    private func parseInParts(
        _ frame: UnsafeRawBufferPointer, _ index: Int, _ outcome: inout Outcome
    ) {
        var parser = FrameParser()
        let part = 1 + index % 61
        var start = 0
        do throws(WireError) {
            while start < frame.count {
                let end = min(start + part, frame.count)
                unsafe parser.append(UnsafeRawBufferPointer(rebasing: frame[start..<end]))
                start = end
                while try parser.next() != nil { outcome.messages += 1 }
                if parser.bufferedBytes > frame.count { Issue.record("more bytes than came") }
            }
        } catch {
            outcome.count(error)
        }
    }
}

/// The name of the error's case.
func name(of error: WireError) -> String {
    switch error {
    case .notAFrame: "notAFrame"
    case .headerDamaged: "headerDamaged"
    case .unsupportedVersion: "unsupportedVersion"
    case .unknownKind: "unknownKind"
    case .unknownFlags: "unknownFlags"
    case .kindNotAllowed: "kindNotAllowed"
    case .controlTooLong: "controlTooLong"
    case .controlDamaged: "controlDamaged"
    case .payloadDisagrees: "payloadDisagrees"
    case .payloadTooLong: "payloadTooLong"
    case .malformed: "malformed"
    case .needsTooMuchMemory: "needsTooMuchMemory"
    case .missing: "missing"
    case .outOfRange: "outOfRange"
    case .unknownValue: "unknownValue"
    case .invalidText: "invalidText"
    case .wrongLength: "wrongLength"
    case .tooMany: "tooMany"
    }
}
