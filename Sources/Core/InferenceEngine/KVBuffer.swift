import Synchronization

/// A contiguous region of memory for KV bytes that threads hand to each other.
///
/// The lock makes hand-over between threads sound; it is not for sharing: one owner at a time
/// reads or writes. With the last reference the region goes back to its pool, or is freed.
@safe package final class KVBuffer: Sendable {
    package let capacityBytes: Int
    /// Descriptor through which another process maps the region, valid as long as the buffer; nil
    /// for ordinary memory.
    package let sharedFile: Int32?
    private let region: Mutex<KVRegion>
    private let owner: any KVMemoryOwner
    private let pool: KVBufferPool?

    private init(region: KVRegion, owner: any KVMemoryOwner, pool: KVBufferPool?) {
        capacityBytes = region.memory.capacityBytes
        sharedFile = region.memory.file
        self.region = Mutex(region)
        self.owner = owner
        self.pool = pool
    }

    /// A region of its own, outside any pool.
    package convenience init(capacityBytes: Int) {
        let source = OrdinaryKVMemory()
        self.init(
            memory: source.allocate(capacityBytes: capacityBytes), usedBytes: 0, owner: source)
    }

    /// Takes memory over, and gives it back to `owner` with the last reference.
    package convenience init(memory: KVMemory, usedBytes: Int, owner: any KVMemoryOwner) {
        precondition((0...memory.capacityBytes).contains(usedBytes), "more bytes than memory")
        self.init(
            region: KVRegion(memory: memory, usedBytes: usedBytes), owner: owner, pool: nil)
    }

    fileprivate convenience init(memory: KVMemory, pool: KVBufferPool) {
        self.init(region: KVRegion(memory: memory), owner: pool.source, pool: pool)
    }

    deinit {
        let memory = region.withLock(\.memory)
        if let pool, pool.takeBack(memory) { return }
        owner.free(memory)
    }

    /// Bytes that hold KV, from the start of the region on.
    package var usedBytes: Int { region.withLock { $0.usedBytes } }

    /// Says how many bytes hold KV.
    package func setUsedBytes(_ count: Int) {
        precondition((0...capacityBytes).contains(count), "more KV bytes than the buffer holds")
        region.withLock { $0.usedBytes = count }
    }

    /// Gives the whole region for writing; the pointer must not leave `body`.
    ///
    /// The region must not be one for reading only.
    package func withWritableBytes<Result: Sendable, Failure: Error>(
        _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try region.withLock { (region) throws(Failure) in
            try unsafe body(region.memory.writableBytes)
        }
    }

    /// Gives the used bytes for reading; the pointer must not leave `body`.
    package func withBytes<Result: Sendable, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try region.withLock { (region) throws(Failure) in
            try unsafe body(
                UnsafeRawBufferPointer(rebasing: region.memory.bytes[..<region.usedBytes]))
        }
    }
}

/// The memory of a buffer and how much of it is used.
private struct KVRegion {
    let memory: KVMemory
    var usedBytes = 0
}

/// Keeps freed KV memory for reuse: touching fresh pages costs as much as encrypting them.
package final class KVBufferPool: Sendable {
    private struct Kept {
        /// Latest last, by capacity.
        var memories: [Int: [KVMemory]] = [:]
        var bytes = 0
    }

    /// Bytes kept for reuse at most; more is freed.
    package let maximumKeptBytes: Int
    fileprivate let source: any KVMemorySource
    private let kept = Mutex(Kept())

    package init(
        maximumKeptBytes: Int, source: any KVMemorySource = OrdinaryKVMemory()
    ) {
        self.maximumKeptBytes = maximumKeptBytes
        self.source = source
    }

    deinit {
        let kept = kept.withLock(\.memories)
        for memory in kept.values.joined() { source.free(memory) }
    }

    /// Bytes waiting for reuse.
    package var keptBytes: Int { kept.withLock(\.bytes) }

    /// A buffer of at least `capacityBytes`: a kept one of up to twice the size, or a new one.
    package func buffer(capacityBytes: Int) -> KVBuffer {
        let smallest = Self.regionBytes(capacityBytes)
        let reused = kept.withLock { kept -> KVMemory? in
            var size = smallest
            while size <= 2 * smallest {
                if let memory = kept.memories[size]?.popLast() {
                    kept.bytes -= size
                    return memory
                }
                size = Self.regionBytes(size + 1)
            }
            return nil
        }
        return KVBuffer(memory: reused ?? source.allocate(capacityBytes: smallest), pool: self)
    }

    /// The size of region for so many bytes: eight sizes from one power of two to the next, so that
    /// few regions fit many and little of them stays empty.
    private static func regionBytes(_ bytes: Int) -> Int {
        let least = KVMemoryLimits.smallestRegionBytes
        guard bytes > least else { return least }
        let step = 1 << (Int.bitWidth - 1 - (bytes - 1).leadingZeroBitCount - 3)
        return (bytes + step - 1) / step * step
    }

    /// Keeps the memory unless the pool is full; says whether it did.
    fileprivate func takeBack(_ memory: KVMemory) -> Bool {
        let size = memory.capacityBytes
        return kept.withLock { kept in
            guard size <= maximumKeptBytes - kept.bytes else { return false }
            kept.memories[size, default: []].append(memory)
            kept.bytes += size
            return true
        }
    }
}
