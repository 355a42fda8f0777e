import CMemoryPages

/// A region of memory for KV; whoever made it frees it.
@safe package struct KVMemory: Sendable {
    private let start: UInt
    package let capacityBytes: Int
    /// A descriptor through which other processes map the same memory; nil for ordinary memory.
    package let file: Int32?
    package let isWritable: Bool

    /// Memory for reading and writing.
    ///
    /// - Parameter file: stays open until the memory is freed.
    package init(_ memory: UnsafeMutableRawBufferPointer, file: Int32? = nil) {
        start = UInt(bitPattern: memory.baseAddress)
        capacityBytes = memory.count
        self.file = file
        isWritable = true
    }

    /// Memory that ends the process if it is written to.
    package init(readOnly memory: UnsafeRawBufferPointer) {
        start = UInt(bitPattern: memory.baseAddress)
        capacityBytes = memory.count
        file = nil
        isWritable = false
    }

    package var bytes: UnsafeRawBufferPointer {
        unsafe UnsafeRawBufferPointer(
            start: UnsafeRawPointer(bitPattern: start), count: capacityBytes)
    }

    /// The memory for writing, which read-only memory doesn't give.
    package var writableBytes: UnsafeMutableRawBufferPointer {
        precondition(isWritable, "this KV memory is for reading only")
        return unsafe UnsafeMutableRawBufferPointer(mutating: bytes)
    }
}

/// Takes memory back.
package protocol KVMemoryOwner: Sendable {
    /// Frees memory of this owner, once, when nobody reads or writes it any more.
    func free(_ memory: KVMemory)
}

/// Where KV regions come from.
package protocol KVMemorySource: KVMemoryOwner {
    /// Writable memory of `capacityBytes`, at least one, all of it touched already.
    func allocate(capacityBytes: Int) -> KVMemory
}

/// Memory of this process alone.
package struct OrdinaryKVMemory: KVMemorySource {
    package init() {}

    package func allocate(capacityBytes: Int) -> KVMemory {
        let bytes = max(capacityBytes, 1)
        let isLarge = bytes >= KVMemoryLimits.hugePageBytes
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: bytes,
            alignment: isLarge ? KVMemoryLimits.hugePageBytes : KVMemoryLimits.pageBytes)
        if let start = memory.baseAddress { _ = unsafe memory_pages_fill(start, bytes) }
        return unsafe KVMemory(memory)
    }

    package func free(_ memory: KVMemory) { unsafe memory.writableBytes.deallocate() }
}

/// Sizes of KV memory.
package enum KVMemoryLimits {
    /// Smallest region of a pool.
    package static let smallestRegionBytes = 64 << 10
    static let pageBytes = 4096
    /// Large regions begin at a multiple of it, so that the system can give huge pages.
    static let hugePageBytes = 2 << 20
}
