import CProtobufC

/// Memory for the C form of one message: handed out in order, freed all at once, with a limit.
///
/// protobuf-c asks it for every string, array and submessage it reads, so that nothing a peer
/// sends can take more than the limit.
@safe package final class MessageArena {
    private static let alignment = 16
    private static let largestChunkBytes = 256 << 10

    package let limitBytes: Int
    /// Bytes taken from the system.
    package private(set) var reservedBytes = 0
    /// Set when the limit refused a request.
    package private(set) var isExhausted = false
    private var chunks: [UnsafeMutableRawPointer] = unsafe []
    private var next: UnsafeMutableRawPointer?
    private var remainingBytes = 0
    private var chunkBytes: Int

    package init(limitBytes: Int, firstChunkBytes: Int) {
        self.limitBytes = limitBytes
        chunkBytes = firstChunkBytes
    }

    deinit {
        unsafe chunks.forEach { unsafe $0.deallocate() }
    }

    /// Memory of at least `byteCount` bytes; nil beyond the limit.
    package func allocate(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        guard byteCount >= 0, byteCount <= limitBytes else {
            isExhausted = true
            return nil
        }
        let rounded = max(Self.alignment, (byteCount + Self.alignment - 1) & -Self.alignment)
        if rounded > remainingBytes, !reserve(rounded) { return nil }
        guard let result = unsafe next else { return nil }
        unsafe next = result + rounded
        remainingBytes -= rounded
        return unsafe result
    }

    private func reserve(_ byteCount: Int) -> Bool {
        let size = min(max(byteCount, chunkBytes), limitBytes - reservedBytes)
        guard size >= byteCount else {
            isExhausted = true
            return false
        }
        let chunk = UnsafeMutableRawPointer.allocate(
            byteCount: size, alignment: Self.alignment)
        unsafe chunks.append(chunk)
        unsafe next = chunk
        remainingBytes = size
        reservedBytes += size
        chunkBytes = min(2 * chunkBytes, Self.largestChunkBytes)
        return true
    }

    /// Gives protobuf-c an allocator over this arena; neither may leave `body`.
    func withAllocator<Result, Failure: Error>(
        _ body: (UnsafeMutablePointer<ProtobufCAllocator>) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        var allocator = unsafe ProtobufCAllocator(
            alloc: allocateFromArena, free: keepUntilTheEnd,
            allocator_data: Unmanaged.passUnretained(self).toOpaque())
        return try unsafe body(&allocator)
    }
}

private func allocateFromArena(
    arena: UnsafeMutableRawPointer?, byteCount: Int
) -> UnsafeMutableRawPointer? {
    guard let arena = unsafe arena else { return nil }
    return unsafe Unmanaged<MessageArena>.fromOpaque(arena).takeUnretainedValue()
        .allocate(byteCount)
}

/// The arena frees everything at once.
private func keepUntilTheEnd(arena: UnsafeMutableRawPointer?, memory: UnsafeMutableRawPointer?) {}
