import CChecksums
import ServingTypes
import Testing
import WireProtocol

@Suite struct CRC32CTests {
    /// RFC 3720, appendix B.4, and the check value of the CRC catalogue.
    @Test func `the checksums of the standard come out`() {
        #expect(CRC32C.checksum([UInt8](repeating: 0, count: 32)) == 0x8a91_36aa)
        #expect(CRC32C.checksum([UInt8](repeating: 0xff, count: 32)) == 0x62a8_ab43)
        #expect(CRC32C.checksum(Array(0..<32)) == 0x46dd_794e)
        #expect(CRC32C.checksum((0..<32).reversed()) == 0x113f_db5c)
        #expect(CRC32C.checksum(Array("123456789".utf8)) == 0xe306_9283)
        #expect(CRC32C.checksum([]) == 0)
    }

    /// Lengths around the lane size, unaligned starts, and several lanes.
    @Test func `instruction and tables agree`() {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededGenerator(seed: seed)
        let bytes = (0..<100_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        for count in [0, 1, 7, 8, 9, 4095, 4096, 12_287, 12_288, 12_289, 50_000, 99_000] {
            let start = random.below(1000)
            let before = UInt32(truncatingIfNeeded: random.next())
            let part = Array(bytes[start..<(start + count)])
            let byTables = unsafe checksums_crc32c_tables(before, part, count)
            #expect(CRC32C.checksum(part, seed: before) == byTables, "\(count), seed \(seed)")
        }
        #if arch(x86_64)
            #expect(checksums_crc32c_has_instruction())
        #endif
    }

    @Test func `a checksum goes on where another ended`() {
        let bytes = [UInt8](0..<200)
        for cut in [0, 1, 63, 199, 200] {
            let first = CRC32C.checksum(Array(bytes[..<cut]))
            #expect(
                CRC32C.checksum(Array(bytes[cut...]), seed: first) == CRC32C.checksum(bytes))
        }
    }
}
