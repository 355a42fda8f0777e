internal import COpenSSL

#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// How fast one core of this host encrypts and decrypts, by a short test.
///
/// The cipher is that of all connections between services, AES-128-GCM. A connection takes more
/// time than this for each byte: it copies, and the kernel does too.
package struct CipherSpeed: Hashable, Sendable {
    /// What counts as time.
    package enum Clock: Sendable {
        case wall
        /// Only what the thread computed, as on an idle host.
        case processor
    }

    private static let ivBytes = 12
    private static let tagBytes = 16

    package let sealBytesPerSecond: Double
    package let openBytesPerSecond: Double

    /// Encrypts and decrypts for `duration` in all.
    ///
    /// - Parameter blockBytes: plaintext between two tags; 1…2^31 - 1.
    /// - Throws: `library` if OpenSSL has no memory or not this cipher.
    package static func measure(
        for duration: Duration = .milliseconds(20), blockBytes: Int = 256 << 10,
        clock: Clock = .wall
    ) throws(TransportError) -> CipherSpeed {
        guard let cipher = unsafe EVP_CIPHER_CTX_new() else { throw failure("EVP_CIPHER_CTX_new") }
        defer { unsafe EVP_CIPHER_CTX_free(cipher) }
        var plain = [UInt8](repeating: 1, count: blockBytes)
        var sealed = [UInt8](repeating: 2, count: blockBytes)
        var tag = [UInt8](repeating: 0, count: tagBytes)
        // The first block sets the key and makes the tag that the second half checks.
        try unsafe seal(cipher, &plain, &sealed, &tag)
        let half = duration / 2
        let sealRate = try rate(of: blockBytes, for: half, clock) { () throws(TransportError) in
            try unsafe seal(cipher, &plain, &sealed, &tag)
        }
        let openRate = try rate(of: blockBytes, for: half, clock) { () throws(TransportError) in
            try unsafe open(cipher, &sealed, &plain, &tag)
        }
        return CipherSpeed(sealBytesPerSecond: sealRate, openBytesPerSecond: openRate)
    }

    /// Bytes a second of blocks; at least one is done.
    private static func rate(
        of blockBytes: Int, for duration: Duration, _ clock: Clock,
        _ block: () throws(TransportError) -> Void
    ) throws(TransportError) -> Double {
        let start = seconds(clock)
        let end = ContinuousClock.now + duration
        var bytes = 0
        repeat {
            try block()
            bytes += blockBytes
        } while ContinuousClock.now < end
        return Double(bytes) / max(seconds(clock) - start, 1e-9)
    }

    private static func seconds(_ clock: Clock) -> Double {
        var time = timespec()
        unsafe clock_gettime(clock == .wall ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    private static func seal(
        _ cipher: OpaquePointer, _ plain: inout [UInt8], _ sealed: inout [UInt8],
        _ tag: inout [UInt8]
    ) throws(TransportError) {
        // Fixed and public: nothing but this test is ever encrypted with it.
        let key = [UInt8](repeating: 0, count: 16)
        let iv = [UInt8](repeating: 0, count: ivBytes)
        var count: Int32 = 0
        let isDone =
            unsafe EVP_EncryptInit_ex(cipher, EVP_aes_128_gcm(), nil, key, iv) == 1
            && EVP_EncryptUpdate(cipher, &sealed, &count, plain, Int32(plain.count)) == 1
            && EVP_EncryptFinal_ex(cipher, &sealed, &count) == 1
            && EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, Int32(tagBytes), &tag) == 1
        guard isDone else { throw failure("AES-128-GCM") }
    }

    private static func open(
        _ cipher: OpaquePointer, _ sealed: inout [UInt8], _ plain: inout [UInt8],
        _ tag: inout [UInt8]
    ) throws(TransportError) {
        let key = [UInt8](repeating: 0, count: 16)
        let iv = [UInt8](repeating: 0, count: ivBytes)
        var count: Int32 = 0
        let isDone =
            unsafe EVP_DecryptInit_ex(cipher, EVP_aes_128_gcm(), nil, key, iv) == 1
            && EVP_DecryptUpdate(cipher, &plain, &count, sealed, Int32(sealed.count)) == 1
            && EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_SET_TAG, Int32(tagBytes), &tag) == 1
            && EVP_DecryptFinal_ex(cipher, &plain, &count) == 1
        guard isDone else { throw failure("AES-128-GCM") }
    }

    private static func failure(_ call: String) -> TransportError {
        .library("\(call): \(LibraryErrors.take().text)")
    }
}
