internal import COpenSSL

/// AES-128-GCM over the records of one direction, in their order.
///
/// Both ends count records and plaintext alike; the counts are nonce, epoch and offset, and none
/// of them travels. For one owner at a time.
@safe final class RecordCipher {
    enum Purpose: Int32 {
        case open = 0
        case seal = 1
    }

    private let context: OpaquePointer
    private let keys: any RecordKeys
    private let direction: StreamDirection
    private let purpose: Purpose
    private let recordsPerKey: UInt64
    /// Nonce, then associated data of the current record.
    private let work: UnsafeMutableRawBufferPointer
    private var initialNonce: (head: UInt32, tail: UInt64) = (0, 0)
    private(set) var epoch: UInt32 = 0
    private var recordsUnderKey: UInt64 = 0
    /// Plaintext before the current record.
    private var offset: UInt64 = 0

    private static let associatedOffset = 16
    private static let associatedBytes = 20

    init(
        _ purpose: Purpose, _ direction: StreamDirection, keys: any RecordKeys,
        recordsPerKey: UInt64 = TransportLimits.sealedRecordsPerKey
    ) throws(TransportError) {
        precondition(recordsPerKey > 0)
        unsafe context = try unsafe made(EVP_CIPHER_CTX_new(), "EVP_CIPHER_CTX_new")
        unsafe work = .allocate(
            byteCount: Self.associatedOffset + Self.associatedBytes, alignment: 16)
        self.keys = keys
        self.direction = direction
        self.purpose = purpose
        self.recordsPerKey = recordsPerKey
        try setKey()
    }

    deinit {
        unsafe EVP_CIPHER_CTX_free(context)
        unsafe work.deallocate()
    }

    /// Writes ciphertext and tag; `sealed` has room for both.
    ///
    /// - Parameter onPart: called with the ciphertext so far, several times in a long record.
    func seal(
        _ header: RecordHeader, _ plaintext: UnsafeRawBufferPointer,
        into sealed: UnsafeMutableRawBufferPointer,
        onPart: (Int) throws(TransportError) -> Void = { _ throws(TransportError) in }
    ) throws(TransportError) {
        precondition(
            purpose == .seal && plaintext.count == header.plainBytes
                && sealed.count >= plaintext.count + RecordHeader.tagBytes)
        try begin(header)
        var start = 0
        while start < plaintext.count {
            let end = min(start + TransportLimits.sealedPartBytes, plaintext.count)
            unsafe try update(
                UnsafeRawBufferPointer(rebasing: plaintext[start..<end]),
                to: sealed.baseAddress?.advanced(by: start))
            if end < plaintext.count { try onPart(end) }
            start = end
        }
        var count: Int32 = 0
        let tag = unsafe sealed.baseAddress?.advanced(by: plaintext.count)
        try check(
            unsafe EVP_CipherFinal_ex(context, bound(tag), &count) == 1
                && EVP_CIPHER_CTX_ctrl(
                    context, EVP_CTRL_AEAD_GET_TAG, Int32(RecordHeader.tagBytes), tag) == 1,
            "sealing a record")
    }

    /// Turns ciphertext into plaintext in its place; leaves zeros where it is not authentic.
    func open(
        _ header: RecordHeader, _ bytes: UnsafeMutableRawBufferPointer,
        tag: UnsafeMutableRawBufferPointer
    ) throws(TransportError) {
        precondition(
            purpose == .open && bytes.count == header.plainBytes
                && tag.count == RecordHeader.tagBytes)
        try beginOpening(header)
        unsafe try open(part: bytes, of: bytes)
        unsafe try finishOpening(bytes, tag: tag)
    }

    /// Begins a record whose ciphertext comes part by part.
    func beginOpening(_ header: RecordHeader) throws(TransportError) { try begin(header) }

    /// Opens the next part of a record in its place; it must not be used before the record is
    /// finished.
    func open(
        part: UnsafeMutableRawBufferPointer, of bytes: UnsafeMutableRawBufferPointer
    ) throws(TransportError) {
        do throws(TransportError) {
            unsafe try update(UnsafeRawBufferPointer(part), to: part.baseAddress)
        } catch {
            LibraryErrors.clear()
            unsafe OPENSSL_cleanse(bytes.baseAddress, bytes.count)
            throw error
        }
    }

    /// Checks the tag of a record all of whose parts were opened; leaves zeros if it is not
    /// authentic.
    func finishOpening(
        _ bytes: UnsafeMutableRawBufferPointer, tag: UnsafeMutableRawBufferPointer
    ) throws(TransportError) {
        do throws(TransportError) {
            var count: Int32 = 0
            var nothing: UInt8 = 0
            let isAuthentic =
                unsafe EVP_CIPHER_CTX_ctrl(
                    context, EVP_CTRL_AEAD_SET_TAG, Int32(tag.count), tag.baseAddress) == 1
                && EVP_CipherFinal_ex(context, &nothing, &count) == 1
            guard isAuthentic else { throw .recordRejected(.notAuthentic) }
        } catch {
            LibraryErrors.clear()
            unsafe OPENSSL_cleanse(bytes.baseAddress, bytes.count)
            throw error
        }
    }

    /// Sets nonce and associated data; no nonce is used twice, whatever fails later.
    private func begin(_ header: RecordHeader) throws(TransportError) {
        if recordsUnderKey == recordsPerKey {
            guard epoch < .max else { throw .library("all keys of a stream are used up") }
            epoch += 1
            recordsUnderKey = 0
            try setKey()
        }
        // As in TLS 1.3 (RFC 8446, 5.3).
        let tail = initialNonce.tail ^ recordsUnderKey
        unsafe work.storeBytes(of: initialNonce.head.bigEndian, toByteOffset: 0, as: UInt32.self)
        unsafe work.storeBytes(of: tail.bigEndian, toByteOffset: 4, as: UInt64.self)
        let start = Self.associatedOffset
        unsafe work.storeBytes(of: header.word.littleEndian, toByteOffset: start, as: UInt32.self)
        unsafe work.storeBytes(
            of: UInt32(direction.rawValue).littleEndian, toByteOffset: start + 4, as: UInt32.self)
        unsafe work.storeBytes(of: epoch.littleEndian, toByteOffset: start + 8, as: UInt32.self)
        unsafe work.storeBytes(of: offset.littleEndian, toByteOffset: start + 12, as: UInt64.self)
        recordsUnderKey += 1
        offset += UInt64(header.plainBytes)
        var count: Int32 = 0
        try check(
            unsafe EVP_CipherInit_ex(context, nil, nil, nil, bound(work.baseAddress), -1) == 1
                && EVP_CipherUpdate(
                    context, nil, &count, bound(work.baseAddress?.advanced(by: start)),
                    Int32(Self.associatedBytes)) == 1,
            "beginning a record")
    }

    private func update(
        _ input: UnsafeRawBufferPointer, to output: UnsafeMutableRawPointer?
    ) throws(TransportError) {
        guard input.count > 0 else { return }
        var count: Int32 = 0
        let source = unsafe input.baseAddress?.assumingMemoryBound(to: UInt8.self)
        try check(
            unsafe EVP_CipherUpdate(context, bound(output), &count, source, Int32(input.count))
                == 1 && count == input.count,
            "AES-GCM")
    }

    private func setKey() throws(TransportError) {
        try unsafe withUnsafeTemporaryAllocation(
            byteCount: RecordKey.byteCount, alignment: 16
        ) { material throws(TransportError) in
            defer { unsafe OPENSSL_cleanse(material.baseAddress, material.count) }
            try unsafe keys.export(direction, epoch: epoch, into: material)
            let nonce = RecordKey.byteCount - RecordKey.nonceBytes
            initialNonce = unsafe (
                UInt32(bigEndian: material.load(fromByteOffset: nonce, as: UInt32.self)),
                UInt64(
                    bigEndian: material.loadUnaligned(fromByteOffset: nonce + 4, as: UInt64.self))
            )
            try check(
                unsafe EVP_CipherInit_ex(
                    context, EVP_aes_128_gcm(), nil, bound(material.baseAddress), nil,
                    purpose.rawValue) == 1,
                "setting a record key")
        }
    }

    private func bound(_ pointer: UnsafeMutableRawPointer?) -> UnsafeMutablePointer<UInt8>? {
        unsafe pointer?.assumingMemoryBound(to: UInt8.self)
    }
}
