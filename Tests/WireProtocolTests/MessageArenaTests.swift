import Testing
import WireProtocol

@Suite struct MessageArenaTests {
    @Test func `an arena never takes more than its limit`() {
        let arena = MessageArena(limitBytes: 1000, firstChunkBytes: 100)
        var allocated = 0
        while unsafe arena.allocate(24) != nil { allocated += 32 }
        #expect((600...1000).contains(allocated), "\(allocated)")
        #expect(arena.isExhausted)
        #expect(arena.reservedBytes <= 1000)
        #expect(unsafe arena.allocate(-1) == nil)
        #expect(unsafe arena.allocate(.max) == nil)
        #expect(arena.reservedBytes <= 1000)
    }

    @Test func `pieces are aligned and do not overlap`() {
        let arena = MessageArena(limitBytes: 1 << 20, firstChunkBytes: 64)
        var ranges: [Range<UInt>] = []
        for count in [0, 1, 15, 16, 17, 100, 5000, 3] {
            guard let start = unsafe arena.allocate(count) else {
                Issue.record("no memory for \(count)")
                return
            }
            let address = UInt(bitPattern: start)
            #expect(address.isMultiple(of: 16))
            unsafe start.initializeMemory(as: UInt8.self, repeating: 0xee, count: count)
            ranges.append(address..<(address + UInt(max(count, 1))))
        }
        ranges.sort { $0.lowerBound < $1.lowerBound }
        for (lower, upper) in zip(ranges, ranges.dropFirst()) {
            #expect(lower.upperBound <= upper.lowerBound)
        }
    }
}
