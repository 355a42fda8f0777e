import ServingTypes
import Transport

/// What this host can do at best, measured in each round.
struct KVFloors: Sendable, Equatable {
    /// AES-128-GCM for each length of block, in bytes.
    var ciphers: [Int: CipherSpeed] = [:]
    /// Seconds per byte of copies from warm memory to warm memory, for each length in bytes.
    ///
    /// Long ones may be faster, since they leave the cache out.
    var copies: [Int: Double] = [:]

    static let cipherBlocks = [16 << 10, 256 << 10]
    private static let cipherDuration = Duration.milliseconds(20)
    static let copyLengths = [1 << 20, 16 << 20, 128 << 20]
    /// Bytes copied in all, per length.
    private static let copiedBytes = 128 << 20

    /// - Parameter scratch: from `makeScratch`.
    static func measure(_ region: TransferRegion, scratch: TransferRegion) throws -> KVFloors {
        var floors = KVFloors()
        for block in cipherBlocks {
            floors.ciphers[block] = try CipherSpeed.measure(
                for: cipherDuration, blockBytes: block, clock: .processor)
        }
        for length in copyLengths where length <= scratch.byteCount {
            floors.copies[length] = copySecondsPerByte(length, region, scratch)
        }
        return floors
    }

    private static func copySecondsPerByte(
        _ length: Int, _ region: TransferRegion, _ scratch: TransferRegion
    ) -> Double {
        let count = copiedBytes / length
        let start = ProcessorClock.thread.seconds
        for number in 0..<count {
            unsafe region.withBytes(region.range(ofTransfer: number, bytes: length)) { source in
                let place = scratch.range(ofTransfer: number, bytes: length)
                unsafe scratch.withBytes(place) { target in
                    unsafe target.copyMemory(from: UnsafeRawBufferPointer(source))
                }
            }
        }
        return (ProcessorClock.thread.seconds - start) / Double(count * length)
    }

    /// Memory to copy into.
    static func makeScratch(for region: TransferRegion) -> TransferRegion {
        TransferRegion(byteCount: min(copyLengths.max() ?? 0, region.byteCount))
    }

    /// What one core on each side could carry at best.
    ///
    /// - Parameter plain: plain TCP in the same round.
    func gigabytesPerSecond(_ kind: KVFloorKind, plain: KVObservation) -> Double? {
        switch kind {
        case .encryptedStream:
            guard let cipher = ciphers[Self.cipherBlocks.max() ?? 0] else { return nil }
            var floor = plain
            floor.senderSecondsPerGigabyte += 1e9 / cipher.sealBytesPerSecond
            floor.receiverSecondsPerGigabyte += 1e9 / cipher.openBytesPerSecond
            return floor.bottleneckGigabytesPerSecond
        case .copy:
            guard let best = copies.values.min(), best > 0 else { return nil }
            return 1e-9 / best
        }
    }
}
