import Synchronization

/// A contiguous region of memory for KV bytes that threads hand to each other.
///
/// The lock makes hand-over between threads sound; it is not for sharing: one owner at a time
/// reads or writes. With the last reference the region goes back to its pool, or is freed.
@safe package final class KVBuffer: Sendable {
    package let capacityBytes: Int
    private let region: Mutex<KVRegion>
    private let pool: KVBufferPool?

    fileprivate init(region: consuming sending KVRegion, pool: KVBufferPool?) {
        capacityBytes = region.capacityBytes
        self.region = Mutex(region)
        self.pool = pool
    }

    /// A region of its own, outside any pool.
    package convenience init(capacityBytes: Int) {
        self.init(region: KVRegion(capacityBytes: capacityBytes), pool: nil)
    }

    deinit {
        region.withLock { region in
            if let pool, pool.takeBack(region) { return }
            region.free()
        }
    }

    /// Bytes that hold KV, from the start of the region on.
    package var usedBytes: Int { region.withLock { $0.usedBytes } }

    /// Says how many bytes hold KV.
    package func setUsedBytes(_ count: Int) {
        precondition((0...capacityBytes).contains(count), "more KV bytes than the buffer holds")
        region.withLock { $0.usedBytes = count }
    }

    /// Gives the whole region for writing; the pointer must not leave `body`.
    package func withWritableBytes<Result: Sendable, Failure: Error>(
        _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try region.withLock { (region) throws(Failure) in try unsafe body(region.memory) }
    }

    /// Gives the used bytes for reading; the pointer must not leave `body`.
    package func withBytes<Result: Sendable, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try region.withLock { (region) throws(Failure) in
            try unsafe body(UnsafeRawBufferPointer(rebasing: region.memory[..<region.usedBytes]))
        }
    }
}

/// Keeps freed KV regions for reuse: touching fresh pages costs as much as encrypting them.
package final class KVBufferPool: Sendable {
    /// Bytes kept for reuse at most; more is freed.
    package let maximumKeptBytes: Int
    private let kept = Mutex<[KVRegion]>([])

    package init(maximumKeptBytes: Int) { self.maximumKeptBytes = maximumKeptBytes }

    deinit { kept.withLock { for region in $0 { region.free() } } }

    /// Bytes waiting for reuse.
    package var keptBytes: Int {
        kept.withLock { $0.reduce(0) { $0 + $1.capacityBytes } }
    }

    /// A buffer of at least `capacityBytes`; the smallest kept one that fits, or a new one.
    package func buffer(capacityBytes: Int) -> KVBuffer {
        let rounded = max(64 << 10, capacityBytes.roundedUpToPowerOfTwo)
        let reused = kept.withLock { kept -> KVRegion? in
            guard let index = kept.firstIndex(where: { $0.capacityBytes == rounded }) else {
                return nil
            }
            return kept.remove(at: index)
        }
        return KVBuffer(region: reused ?? KVRegion(capacityBytes: rounded), pool: self)
    }

    /// Keeps the region unless the pool is full; says whether it did.
    fileprivate func takeBack(_ region: KVRegion) -> Bool {
        kept.withLock { kept in
            let bytes = kept.reduce(region.capacityBytes) { $0 + $1.capacityBytes }
            guard bytes <= maximumKeptBytes else { return false }
            kept.append(region)
            kept[kept.count - 1].usedBytes = 0
            return true
        }
    }
}

/// The memory behind a buffer; moves between a buffer and its pool, owned by exactly one of them.
@safe private struct KVRegion {
    private let start: UInt
    let capacityBytes: Int
    var usedBytes = 0

    init(capacityBytes: Int) {
        self.capacityBytes = max(capacityBytes, 1)
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: self.capacityBytes, alignment: 4096)
        start = UInt(bitPattern: memory.baseAddress)
    }

    var memory: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            start: UnsafeMutableRawPointer(bitPattern: start), count: capacityBytes)
    }

    func free() { unsafe memory.deallocate() }
}

extension Int {
    /// The smallest power of two that is not smaller.
    fileprivate var roundedUpToPowerOfTwo: Int {
        self <= 1 ? 1 : 1 << (Int.bitWidth - (self - 1).leadingZeroBitCount)
    }
}
