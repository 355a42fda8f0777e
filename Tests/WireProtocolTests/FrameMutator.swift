import ServingTypes
import WireProtocol

/// Damages valid frames in place, at the end of guarded memory.
///
/// Most damage is hidden behind corrected checksums, so that it reaches the protobuf reader.
@safe struct FrameMutator {
    private static let longestBytes = 64 << 10
    private static let headerBytes = FrameHeader.byteCount

    private let corpus: [[UInt8]]
    private let memory = GuardedMemory(byteCount: FrameMutator.longestBytes)
    private(set) var random: SeededGenerator

    init(seed: UInt64) throws {
        random = SeededGenerator(seed: seed)
        var samples = SampleMessages(seed: seed ^ 0x5eed)
        corpus = try (0..<16).flatMap { _ in
            try MessageKind.allCases.map { kind in
                try encodeFrame(samples.message(kind), payloadBytes: kind.carriesPayload ? 8 : 0)
            }
        }
    }

    /// The next damaged frame; valid until the next call.
    mutating func next() -> UnsafeRawBufferPointer {
        let base = corpus[random.below(corpus.count)]
        switch random.below(8) {
        case 0: return unsafe flipped(base, from: 0, repairs: false)
        case 1: return unsafe flipped(base, from: 4, repairs: true)
        case 2, 3: return unsafe flipped(base, from: Self.headerBytes, repairs: true)
        case 4: return unsafe truncated(base)
        case 5: return unsafe spliced(base, corpus[random.below(corpus.count)])
        case 6: return unsafe overwritten(base)
        default: return unsafe repeated(base)
        }
    }

    /// Up to three bits of the bytes from `start` on change.
    private mutating func flipped(
        _ base: [UInt8], from start: Int, repairs: Bool
    ) -> UnsafeRawBufferPointer {
        let frame = unsafe place(base)
        guard frame.count > start else { return UnsafeRawBufferPointer(frame) }
        for _ in 0...random.below(3) {
            unsafe frame[start + random.below(frame.count - start)] ^= 1 << UInt8(random.below(8))
        }
        // Lengths stay changed: lies about them belong to the damage.
        if repairs { unsafe repair(frame, setsLength: start > 12) }
        return UnsafeRawBufferPointer(frame)
    }

    private mutating func truncated(_ base: [UInt8]) -> UnsafeRawBufferPointer {
        let kept = Self.headerBytes + random.below(base.count - Self.headerBytes + 1)
        let frame = unsafe memory.last(kept)
        unsafe base.withUnsafeBytes {
            unsafe frame.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<kept]))
        }
        unsafe repair(frame, setsLength: true)
        return UnsafeRawBufferPointer(frame)
    }

    /// The start of one message and the end of another, under the first one's header.
    private mutating func spliced(_ base: [UInt8], _ other: [UInt8]) -> UnsafeRawBufferPointer {
        let head = Self.headerBytes + random.below(base.count - Self.headerBytes + 1)
        let tail = random.below(other.count - Self.headerBytes + 1)
        let frame = unsafe memory.last(head + tail)
        unsafe base.withUnsafeBytes {
            unsafe frame.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<head]))
        }
        unsafe other.withUnsafeBytes {
            unsafe UnsafeMutableRawBufferPointer(rebasing: frame[head...])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[(other.count - tail)...]))
        }
        unsafe repair(frame, setsLength: true)
        return UnsafeRawBufferPointer(frame)
    }

    /// A run of bytes becomes what varints, lengths and texts don't like.
    private mutating func overwritten(_ base: [UInt8]) -> UnsafeRawBufferPointer {
        let frame = unsafe place(base)
        let controlBytes = frame.count - Self.headerBytes
        guard controlBytes > 0 else { return UnsafeRawBufferPointer(frame) }
        let start = Self.headerBytes + random.below(controlBytes)
        let count = min(1 + random.below(11), frame.count - start)
        let fillers: [UInt8] = [0, 0xff, 0x80, 0x7f, 1, 0xc0]
        let filler = fillers[random.below(fillers.count)]
        for index in start..<(start + count) { unsafe frame[index] = filler }
        unsafe repair(frame, setsLength: true)
        return UnsafeRawBufferPointer(frame)
    }

    /// A run of bytes comes many times: repeated fields, submessages to be merged.
    private mutating func repeated(_ base: [UInt8]) -> UnsafeRawBufferPointer {
        let controlBytes = base.count - Self.headerBytes
        guard controlBytes > 0 else { return unsafe UnsafeRawBufferPointer(place(base)) }
        let start = Self.headerBytes + random.below(controlBytes)
        let count = 1 + random.below(min(base.count - start, 200))
        let times = min(1 + random.below(40), (4096 - base.count % 4096) / count + 1)
        let frame = unsafe memory.last(base.count + count * times)
        unsafe base.withUnsafeBytes { base in
            unsafe frame.copyMemory(from: UnsafeRawBufferPointer(rebasing: base[..<start]))
            let run = unsafe UnsafeRawBufferPointer(rebasing: base[start..<(start + count)])
            for time in 0..<times {
                unsafe UnsafeMutableRawBufferPointer(rebasing: frame[(start + time * count)...])
                    .copyMemory(from: run)
            }
            unsafe UnsafeMutableRawBufferPointer(rebasing: frame[(start + times * count)...])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: base[start...]))
        }
        unsafe repair(frame, setsLength: true)
        return UnsafeRawBufferPointer(frame)
    }

    private func place(_ base: [UInt8]) -> UnsafeMutableRawBufferPointer {
        let frame = unsafe memory.last(base.count)
        unsafe base.withUnsafeBytes { unsafe frame.copyMemory(from: $0) }
        return unsafe frame
    }

    /// Corrects the checksums, and the control length if asked.
    private func repair(_ frame: UnsafeMutableRawBufferPointer, setsLength: Bool) {
        let control = unsafe UnsafeRawBufferPointer(rebasing: frame[Self.headerBytes...])
        if setsLength {
            unsafe frame.storeBytes(of: UInt32(control.count), toByteOffset: 12, as: UInt32.self)
        }
        unsafe frame.storeBytes(
            of: CRC32C.checksum(control), toByteOffset: 24, as: UInt32.self)
        unsafe frame.storeBytes(
            of: CRC32C.checksum(UnsafeRawBufferPointer(rebasing: frame[..<28])),
            toByteOffset: 28, as: UInt32.self)
    }
}
