import InferenceEngine

/// Memory that transfers leave from or land in; several threads may use parts of it at once.
@safe final class TransferRegion: Sendable {
    let byteCount: Int
    private let address: UInt

    /// Zeroed, so that every page of it is there.
    init(byteCount: Int) {
        self.byteCount = byteCount
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: byteCount, alignment: 4096)
        unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
        address = UInt(bitPattern: memory.baseAddress)
    }

    deinit { unsafe whole.deallocate() }

    private var whole: UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(
            start: UnsafeMutableRawPointer(bitPattern: address), count: byteCount)
    }

    /// Gives a part; parts that are used at once must not overlap if one is written.
    func withBytes<Result, Failure: Error>(
        _ range: Range<Int>,
        _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        precondition(contains(range), "the range is outside the memory")
        return try unsafe body(UnsafeMutableRawBufferPointer(rebasing: whole[range]))
    }

    func contains(_ range: Range<Int>) -> Bool {
        range.lowerBound >= 0 && range.upperBound <= byteCount
    }

    /// Copies the bytes into it, again and again until it is full.
    func fill(repeating bytes: [UInt8]) {
        precondition(!bytes.isEmpty, "there are bytes")
        var start = 0
        while start < byteCount {
            let end = min(start + bytes.count, byteCount)
            unsafe withBytes(start..<end) { target in
                unsafe bytes.withUnsafeBytes { source in
                    unsafe target.copyMemory(
                        from: UnsafeRawBufferPointer(rebasing: source[..<(end - start)]))
                }
            }
            start = end
        }
    }

    func clear() {
        unsafe withBytes(0..<byteCount) { bytes in
            _ = unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0)
        }
    }

    /// Where the n-th transfer of a size in a row begins and ends.
    func range(ofTransfer number: Int, bytes: Int) -> Range<Int> {
        let places = max(1, byteCount / bytes)
        let start = number % places * bytes
        return start..<start + bytes
    }
}

extension TransferRegion: KVMemoryOwner {
    /// A part of it as a buffer, full of KV; bounds and overlaps as of `withBytes`.
    func buffer(_ range: Range<Int>) -> KVBuffer {
        unsafe withBytes(range) { bytes in
            KVBuffer(memory: unsafe KVMemory(bytes), usedBytes: bytes.count, owner: self)
        }
    }

    /// Nothing: the buffer was only lent the memory.
    func free(_ memory: KVMemory) {}
}
