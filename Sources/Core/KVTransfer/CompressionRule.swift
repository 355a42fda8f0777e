import ServingTypes

/// How fast one core encrypts, compresses and decompresses KV, from a short test at start.
package struct TransferRates: Hashable, Sendable {
    /// TLS on the slower of the two sides.
    package var encryptBytesPerSecond: Double
    package var compressBytesPerSecond: Double
    package var decompressBytesPerSecond: Double

    package init(
        encryptBytesPerSecond: Double, compressBytesPerSecond: Double,
        decompressBytesPerSecond: Double
    ) {
        self.encryptBytesPerSecond = encryptBytesPerSecond
        self.compressBytesPerSecond = compressBytesPerSecond
        self.decompressBytesPerSecond = decompressBytesPerSecond
    }
}

/// Chooses the codec of each piece to one peer, from what was measured.
///
/// Compression pays while the link is slower than a core compresses. The first piece and every 64th
/// is compressed to learn the ratio; every 32 pieces the choice is made anew.
package struct CompressionRule: Hashable, Sendable {
    /// How often the ratio is measured when nothing else measures it.
    package static let probePieces = 64
    /// How long a choice holds.
    package static let choicePieces = 32
    /// Compression must win by this factor, in bytes and in rate.
    package static let smallestGain = 1.05
    /// Weight of a new measurement in the moving averages.
    private static let newWeight = 0.25

    /// The codec that fits the KV's number type.
    private let codec: PieceCodec
    private let rates: TransferRates
    /// Cores for compression besides the sending one; 0 compresses on the sending one.
    private let spareCores: Int
    /// Same-host transfers never leave memory.
    private let isSameHost: Bool

    private var pieces = 0
    /// Raw bytes over wire bytes of compressed pieces; nil before the first.
    package private(set) var ratio: Double?
    /// Wire bytes a second when the link was the limit; nil before the first measurement.
    package private(set) var linkBytesPerSecond: Double?
    package private(set) var isCompressing = false

    package init(codec: PieceCodec, rates: TransferRates, spareCores: Int, isSameHost: Bool) {
        self.codec = codec
        self.rates = rates
        self.spareCores = spareCores
        self.isSameHost = isSameHost
    }

    /// Raw bytes a second without compression.
    package var rawBytesPerSecond: Double {
        min(linkBytesPerSecond ?? .infinity, rates.encryptBytesPerSecond)
    }

    /// Raw bytes a second with compression at the present ratio.
    package var compressedBytesPerSecond: Double {
        let ratio = ratio ?? 1
        let link = linkBytesPerSecond ?? .infinity
        guard spareCores == 0 else {
            let cores = Double(spareCores)
            return min(
                cores * rates.compressBytesPerSecond,
                cores * rates.decompressBytesPerSecond, ratio * rawBytesPerSecond)
        }
        // One core compresses, then encrypts the smaller rest.
        let sender =
            1
            / (1 / rates.compressBytesPerSecond + 1 / (ratio * rates.encryptBytesPerSecond))
        return min(ratio * link, sender, rates.decompressBytesPerSecond)
    }

    /// The codec of the next piece.
    package mutating func nextCodec() -> PieceCodec {
        if isSameHost || codec == .raw { return .raw }
        defer { pieces += 1 }
        if pieces.isMultiple(of: Self.choicePieces) { choose() }
        return isCompressing || pieces.isMultiple(of: Self.probePieces) ? codec : .raw
    }

    /// Takes in what the codec made of a piece, even of one that then went raw.
    package mutating func compressed(rawBytes: Int, wireBytes: Int) {
        guard rawBytes > 0, wireBytes > 0 else { return }
        let isFirst = ratio == nil
        ratio = averaged(ratio, Double(rawBytes) / Double(wireBytes))
        // The first piece of all decides at once.
        if isFirst { choose() }
    }

    /// Takes in the speed of a transfer that waited for the link, not for a core.
    package mutating func sent(wireBytes: Int, in duration: Duration) {
        guard wireBytes > 0, duration > .zero else { return }
        linkBytesPerSecond = averaged(linkBytesPerSecond, Double(wireBytes) / duration.seconds)
    }

    private mutating func choose() {
        isCompressing =
            (ratio ?? 1) > Self.smallestGain
            && compressedBytesPerSecond > Self.smallestGain * rawBytesPerSecond
    }

    private func averaged(_ old: Double?, _ new: Double) -> Double {
        guard let old else { return new }
        return old + Self.newWeight * (new - old)
    }
}
