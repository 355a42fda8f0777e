internal import COpenSSL

/// One of the two streams of a connection; the number is bound into its keys and records.
enum StreamDirection: UInt8, Sendable {
    case clientToServer = 0
    case serverToClient = 1
}

/// Where a connection's record keys come from.
protocol RecordKeys: Sendable {
    /// Fills `RecordKey.byteCount` bytes with the key of a direction's epoch.
    func export(
        _ direction: StreamDirection, epoch: UInt32, into material: UnsafeMutableRawBufferPointer
    ) throws(TransportError)
}

/// Key and initial nonce of one epoch of one direction.
enum RecordKey {
    /// A key of AES-128 and a nonce of GCM behind it.
    static let byteCount = 16 + nonceBytes
    static let nonceBytes = 12
    static let label = "EXPORTER-pdserve-kv-1"

    /// What the exporter is told beside the label: direction, then epoch, big-endian.
    static func context(_ direction: StreamDirection, epoch: UInt32) -> [UInt8] {
        let epochBytes = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: epoch >> $0) }
        return [direction.rawValue] + epochBytes
    }
}

/// The first bytes of a sealed record: length in 24 bits, flags in 8, little-endian.
struct RecordHeader: Hashable {
    static let byteCount = 4
    static let tagBytes = 16
    private static let endFlag: UInt32 = 1 << 24

    let plainBytes: Int
    /// The stream ends here; such a record is empty, all others are not.
    let isEnd: Bool

    static let end = RecordHeader(plainBytes: 0, isEnd: true)

    private init(plainBytes: Int, isEnd: Bool) {
        self.plainBytes = plainBytes
        self.isEnd = isEnd
    }

    init(plainBytes: Int) {
        precondition((1...TransportLimits.sealedRecordBytes).contains(plainBytes))
        self.init(plainBytes: plainBytes, isEnd: false)
    }

    init(word: UInt32) throws(TransportError) {
        if word == Self.endFlag {
            self = .end
            return
        }
        guard (1...UInt32(TransportLimits.sealedRecordBytes)).contains(word) else {
            throw .recordRejected(.malformedHeader)
        }
        self.init(plainBytes: Int(word), isEnd: false)
    }

    var word: UInt32 { isEnd ? Self.endFlag : UInt32(plainBytes) }
    /// Header, ciphertext and tag.
    var wireBytes: Int { Self.byteCount + plainBytes + Self.tagBytes }
}
