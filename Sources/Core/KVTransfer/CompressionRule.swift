import ServingTypes

/// When KV is compressed.
package enum CompressionMode: String, Sendable, CaseIterable {
    /// Where measured rates say that it pays, never on the same host.
    case auto
    case off
    /// Always, on the same host too; for tests and comparisons.
    case on
}

/// How fast one core encrypts, compresses and decompresses KV.
///
/// They begin with a short test at start; those of the sender then follow its own transfers.
package struct TransferRates: Hashable, Sendable {
    /// Wire bytes a second that one core puts into a connection.
    package var encryptBytesPerSecond: Double
    /// Raw bytes a second into the codec.
    package var compressBytesPerSecond: Double
    /// Raw bytes a second out of the codec, on this host: taken for the receiver's too.
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

/// Chooses the codec of each piece on one connection, from what was measured.
///
/// Compression pays while the link is slower than a core compresses and encrypts. A connection has
/// one thread on each side, which does all of it; who has cores to spare opens more connections,
/// each with its own rule and its own share of the link. The first piece and every 64th is
/// compressed to learn the ratio; every 32 pieces the choice is made anew.
///
/// A slow receiver looks like a slow link. So a choice that made transfers slower than they were
/// without it is taken back, whatever the rates say.
package struct CompressionRule: Hashable, Sendable {
    /// How often the ratio is measured when nothing else measures it.
    package static let probePieces = 64
    /// How long a choice holds.
    package static let choicePieces = 32
    /// How long a measurement counts that the present choice can't repeat.
    package static let memoryPieces = 1024
    /// Compression must win by this factor, in bytes and in rate.
    package static let smallestGain = 1.05
    /// Smaller pieces go raw: their ratio says nothing of others.
    package static let smallestPieceBytes = 16 << 10
    /// Weight of a new measurement in the moving averages.
    private static let newWeight = 0.25

    package let mode: CompressionMode
    /// The codec that fits the KV's number type.
    package let codec: PieceCodec
    /// Where transfers never leave the host compression only costs.
    package var isSameHost: Bool {
        didSet { if isSameHost, mode == .auto { isCompressing = false } }
    }
    package private(set) var rates: TransferRates

    private var pieces = 0
    private var piecesSinceChange = 0
    /// The last span under the present choice did not wait for the link.
    private var isLinkHidden = false
    /// Raw bytes a second that transfers reached, by choice.
    private var rawGoodput: Double?
    private var compressedGoodput: Double?

    /// Raw bytes over wire bytes of compressed pieces; nil before the first.
    package private(set) var ratio: Double?
    /// Wire bytes a second when the link was the limit; nil while that is unknown.
    package private(set) var linkBytesPerSecond: Double?
    package private(set) var isCompressing: Bool
    /// Pieces that were compressed for their ratio alone.
    package private(set) var probes = 0

    package init(
        mode: CompressionMode, codec: PieceCodec, rates: TransferRates, isSameHost: Bool
    ) {
        self.mode = mode
        self.codec = codec
        self.rates = rates
        self.isSameHost = isSameHost
        isCompressing = mode == .on && codec != .raw
    }

    /// Raw bytes a second without compression.
    package var rawBytesPerSecond: Double {
        min(linkBytesPerSecond ?? .infinity, rates.encryptBytesPerSecond)
    }

    /// Raw bytes a second with compression at the present ratio.
    package var compressedBytesPerSecond: Double {
        let ratio = ratio ?? 1
        let encryption = 1 / (ratio * rates.encryptBytesPerSecond)
        // One core compresses, then encrypts the smaller rest; the receiver's does the reverse.
        let sender = 1 / (1 / rates.compressBytesPerSecond + encryption)
        let receiver = 1 / (1 / rates.decompressBytesPerSecond + encryption)
        return min(ratio * (linkBytesPerSecond ?? .infinity), sender, receiver)
    }

    /// The codec of the next piece.
    package mutating func nextCodec(rawBytes: Int) -> PieceCodec {
        switch mode {
        case .off: return .raw
        case .on: return codec
        case .auto: break
        }
        if isSameHost || codec == .raw || rawBytes < Self.smallestPieceBytes { return .raw }
        defer {
            pieces += 1
            piecesSinceChange += 1
        }
        if pieces.isMultiple(of: Self.choicePieces) { choose() }
        if isCompressing { return codec }
        guard pieces.isMultiple(of: Self.probePieces) else { return .raw }
        probes += 1
        return codec
    }

    /// Takes in what the codec made of a piece, even of one that then went raw.
    package mutating func compressed(rawBytes: Int, wireBytes: Int, in duration: Duration) {
        guard rawBytes >= Self.smallestPieceBytes, wireBytes > 0, duration > .zero else { return }
        let isFirst = ratio == nil
        ratio = Self.averaged(ratio, Double(rawBytes) / Double(wireBytes))
        rates.compressBytesPerSecond = Self.averaged(
            rates.compressBytesPerSecond, Double(rawBytes) / duration.seconds)
        // The first piece of all decides at once.
        if isFirst, mode == .auto, !isSameHost { choose() }
    }

    /// Takes in a stretch of sending, all of it under the present choice.
    package mutating func sent(_ span: LinkSpan) {
        guard span.wireBytes > 0, span.elapsed > .zero else { return }
        let rate = Double(span.wireBytes) / span.elapsed.seconds
        isLinkHidden = !span.isSocketLimited
        if span.isSocketLimited {
            linkBytesPerSecond = Self.averaged(linkBytesPerSecond, rate)
        } else {
            // The link carries at least this much.
            linkBytesPerSecond = linkBytesPerSecond.map { max($0, rate) }
        }
        let busy = span.sending - span.waiting
        if busy > .zero {
            rates.encryptBytesPerSecond = Self.averaged(
                rates.encryptBytesPerSecond, Double(span.wireBytes) / busy.seconds)
        }
        let goodput = Double(span.rawBytes) / span.elapsed.seconds
        if isCompressing {
            compressedGoodput = Self.averaged(compressedGoodput, goodput)
        } else {
            rawGoodput = Self.averaged(rawGoodput, goodput)
        }
    }

    private mutating func choose() {
        if piecesSinceChange >= Self.memoryPieces { forget() }
        let pays =
            (ratio ?? 1) > Self.smallestGain
            && compressedBytesPerSecond > Self.smallestGain * rawBytesPerSecond
        let choice = pays && !isDisproved
        guard choice != isCompressing else { return }
        isCompressing = choice
        piecesSinceChange = 0
        // What the new choice reaches is measured anew.
        if choice { compressedGoodput = nil } else { rawGoodput = nil }
    }

    /// Transfers were clearly faster without compression.
    private var isDisproved: Bool {
        guard let rawGoodput, let compressedGoodput else { return false }
        return Self.smallestGain * compressedGoodput < rawGoodput
    }

    /// Makes room for another try of the choice that was not made.
    private mutating func forget() {
        piecesSinceChange = 0
        if !isCompressing {
            compressedGoodput = nil
        } else if isLinkHidden {
            // While the codec is the limit nobody sees how fast the link has become.
            linkBytesPerSecond = nil
        }
    }

    private static func averaged(_ old: Double?, _ new: Double) -> Double {
        guard let old else { return new }
        return old + newWeight * (new - old)
    }
}
