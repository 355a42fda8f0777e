import CChecksums

/// CRC-32C (Castagnoli), by the processor's instruction where it has one.
package enum CRC32C {
    /// - Parameter seed: checksum of the bytes before these; 0 at the start.
    package static func checksum(_ bytes: UnsafeRawBufferPointer, seed: UInt32 = 0) -> UInt32 {
        unsafe checksums_crc32c(seed, bytes.baseAddress, bytes.count)
    }

    package static func checksum(_ bytes: [UInt8], seed: UInt32 = 0) -> UInt32 {
        unsafe bytes.withUnsafeBytes { unsafe checksum($0, seed: seed) }
    }
}
