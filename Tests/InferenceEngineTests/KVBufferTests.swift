import InferenceEngine
import Synchronization
import Testing

/// KV memory on its way between buffers and their pool.
struct KVBufferTests {
    /// Ordinary memory that is counted.
    private final class CountingSource: KVMemorySource {
        private let ordinary = OrdinaryKVMemory()
        private let sizes = Mutex<[Int]>([])
        private let freed = Mutex(0)

        var allocatedBytes: [Int] { sizes.withLock(\.self) }
        var freedBytes: Int { freed.withLock(\.self) }

        func allocate(capacityBytes: Int) -> KVMemory {
            sizes.withLock { $0.append(capacityBytes) }
            return ordinary.allocate(capacityBytes: capacityBytes)
        }

        func free(_ memory: KVMemory) {
            freed.withLock { $0 += memory.capacityBytes }
            ordinary.free(memory)
        }
    }

    private let source = CountingSource()

    @Test func `a kept region serves again, and only an owner's bytes count as used`() {
        let pool = KVBufferPool(maximumKeptBytes: 8 << 20, source: source)
        for _ in 0..<5 {
            let buffer = pool.buffer(capacityBytes: 1 << 20)
            #expect(pool.keptBytes == 0)
            #expect(buffer.usedBytes == 0)
            #expect(buffer.sharedFile == nil)
            buffer.setUsedBytes(1000)
            unsafe buffer.withWritableBytes { unsafe $0[999] = 1 }
            #expect(unsafe buffer.withBytes { $0.count } == 1000)
        }
        #expect(source.allocatedBytes == [1 << 20])
        #expect(pool.keptBytes == 1 << 20)
    }

    @Test func `regions are at most an eighth larger than asked for`() {
        let pool = KVBufferPool(maximumKeptBytes: 0, source: source)
        for bytes in [1, 65_536, 65_537, 100_000, 1 << 20, (1 << 20) + 1, 33_000_000] {
            let capacity = pool.buffer(capacityBytes: bytes).capacityBytes
            #expect(capacity >= bytes)
            #expect(capacity <= max(65_536, bytes + bytes / 8 + 1))
        }
        #expect(pool.keptBytes == 0)
        #expect(source.freedBytes == source.allocatedBytes.reduce(0, +))
    }

    @Test func `a kept region serves less than its size, down to half of it`() {
        let pool = KVBufferPool(maximumKeptBytes: 8 << 20, source: source)
        for bytes in [2 << 20, 3 << 19, 1 << 20] { _ = pool.buffer(capacityBytes: bytes) }
        #expect(source.allocatedBytes == [2 << 20])
        _ = pool.buffer(capacityBytes: (1 << 20) - (1 << 17))
        #expect(source.allocatedBytes.count == 2)
    }

    @Test func `a pool keeps so many bytes and frees the rest`() {
        let pool = KVBufferPool(maximumKeptBytes: 3 << 20, source: source)
        var buffers = (0..<4).map { _ in pool.buffer(capacityBytes: 1 << 20) }
        #expect(Set(buffers.map(ObjectIdentifier.init)).count == 4)
        buffers = []
        #expect(pool.keptBytes == 3 << 20)
        #expect(source.freedBytes == 1 << 20)
        _ = pool.buffer(capacityBytes: 1 << 20)
        #expect(source.allocatedBytes.count == 4)
    }

    @Test func `the end of a pool frees what it kept; buffers outlive it`() {
        var pool: KVBufferPool? = KVBufferPool(maximumKeptBytes: 8 << 20, source: source)
        var last = pool?.buffer(capacityBytes: 1 << 20)
        _ = pool?.buffer(capacityBytes: 1 << 18)
        pool = nil
        unsafe last?.withWritableBytes { unsafe $0[0] = 1 }
        last = nil
        #expect(source.freedBytes == source.allocatedBytes.reduce(0, +))
    }

    @Test func `memory goes back to its owner with the last reference`() {
        let memory = source.allocate(capacityBytes: 5000)
        unsafe memory.writableBytes[4999] = 7
        let reading = unsafe KVMemory(readOnly: memory.bytes)
        var buffer: KVBuffer? = KVBuffer(memory: reading, usedBytes: 5000, owner: NoOwner())
        #expect(unsafe buffer?.withBytes { unsafe $0[4999] } == 7)
        buffer = KVBuffer(memory: memory, usedBytes: 0, owner: source)
        #expect(source.freedBytes == 0)
        buffer = nil
        #expect(source.freedBytes == 5000)
    }

    private struct NoOwner: KVMemoryOwner {
        func free(_ memory: KVMemory) {}
    }
}
