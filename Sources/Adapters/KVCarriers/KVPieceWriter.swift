package import InferenceEngine
package import KVTransfer
package import Logging
package import Metrics
import ServiceRuntime
package import ServingTypes
package import Transport
import WireProtocol

/// Writes KV payloads to one bulk connection, piece by piece, for one thread at a time.
///
/// The thread that sends also compresses: a second connection uses a second core.
package struct KVPieceWriter {
    package struct Settings: Sendable {
        package var compression: CompressionMode
        /// The codec that fits the engine's KV.
        package var codec: PieceCodec
        /// Rates to begin with; not used when nothing is ever compressed.
        package var rates: TransferRates?
        /// Gives raw pieces checksums too; compressed ones always have them.
        package var checksumsRaw: Bool
        /// Compresses on the same host where it would between hosts; for tests alone.
        package var ignoresSameHost = false

        package init(
            compression: CompressionMode, codec: PieceCodec, rates: TransferRates? = nil,
            checksumsRaw: Bool = false
        ) {
            self.compression = compression
            self.codec = codec
            self.rates = rates
            self.checksumsRaw = checksumsRaw
        }
    }

    private let encoder: PieceEncoder
    private let settings: Settings
    private let logger: Logger
    private let factory: any MetricsFactory
    private var metrics: KVWriterMetrics?
    private var meter = LinkMeter()
    /// The choice of codecs and what it knows.
    package private(set) var rule: CompressionRule

    /// Throws if there is no memory for the codec.
    package init(
        settings: Settings, logger: Logger, metrics: any MetricsFactory = MetricsSystem.factory
    ) throws(KVTransferError) {
        encoder = try PieceEncoder()
        self.settings = settings
        self.logger = logger
        factory = metrics
        let unknown = TransferRates(
            encryptBytesPerSecond: 1, compressBytesPerSecond: 1, decompressBytesPerSecond: 1)
        rule = CompressionRule(
            mode: settings.rates == nil && settings.compression == .auto
                ? .off : settings.compression,
            codec: settings.codec, rates: settings.rates ?? unknown, isSameHost: false)
    }

    /// Sends a message and its payload.
    ///
    /// - Parameters:
    ///   - buffer: at least one used byte; nobody writes into it meanwhile.
    ///   - deadline: for all of it.
    ///   - isCancelled: asked before each piece. When it says yes, the payload breaks off there;
    ///     the connection stays usable.
    /// - Throws: `TransportError` if the connection ends.
    package mutating func send(
        _ message: ControlMessage, _ buffer: KVBuffer, on connection: BulkConnection,
        deadline: Duration, isCancelled: () -> Bool = { false }
    ) throws(TransportError) -> SentPayload {
        rule.isSameHost = connection.isSameHost && !settings.ignoresSameHost
        let metrics =
            metrics
            ?? KVWriterMetrics(peer: connection.peer.instance, factory: factory)
        self.metrics = metrics
        let before = rule
        var sent = SentPayload()
        try unsafe buffer.withBytes { bytes throws(TransportError) in
            try unsafe connection.send(
                message, flags: settings.checksumsRaw ? .payloadChecksums : [],
                payloadBytes: bytes.count, deadline: deadline
            ) { write throws(TransportError) in
                var start = 0
                while start < bytes.count {
                    if isCancelled() {
                        sent.isBrokenOff = true
                        return try unsafe writeBreakOff(write)
                    }
                    let end = min(start + KVTransferLimits.pieceBytes, bytes.count)
                    try unsafe send(
                        UnsafeRawBufferPointer(rebasing: bytes[start..<end]), on: connection,
                        write, &sent)
                    start = end
                }
            }
        }
        metrics.record(sent, rule, before: before)
        return sent
    }

    private typealias Write = (UnsafeRawBufferPointer) throws(TransportError) -> Void

    private mutating func send(
        _ raw: UnsafeRawBufferPointer, on connection: BulkConnection, _ write: Write,
        _ sent: inout SentPayload
    ) throws(TransportError) {
        let start = ProcessClock.now()
        let choice = rule.isCompressing
        let piece = unsafe try encode(raw, rule.nextCodec(rawBytes: raw.count))
        let encoded = ProcessClock.now()
        if let tried = unsafe piece.triedWireBytes {
            rule.compressed(rawBytes: raw.count, wireBytes: tried, in: encoded - start)
        }
        let waited = connection.timeWaitingToWrite
        try unsafe withUnsafeTemporaryAllocation(
            byteCount: PieceHeader.byteCount, alignment: 4
        ) { header throws(TransportError) in
            unsafe piece.header.write(into: header)
            try unsafe write(UnsafeRawBufferPointer(header))
        }
        try unsafe write(piece.wire)
        let end = ProcessClock.now()
        let measured = SentPiece(
            rawBytes: raw.count,
            wireBytes: unsafe PieceHeader.byteCount + piece.wire.count,
            start: start, end: end, sending: end - encoded,
            waiting: connection.timeWaitingToWrite - waited)
        sent.add(measured, isCompressed: unsafe piece.header.codec != .raw)
        if let span = meter.sent(measured) { rule.sent(span) }
        if rule.isCompressing != choice { changed() }
    }

    private func writeBreakOff(_ write: Write) throws(TransportError) {
        try unsafe withUnsafeTemporaryAllocation(
            byteCount: PieceHeader.byteCount, alignment: 4
        ) { header throws(TransportError) in
            unsafe PieceHeader.writeBreakOff(into: header)
            try unsafe write(UnsafeRawBufferPointer(header))
        }
    }

    /// A piece that the codec refuses goes raw.
    private func encode(
        _ raw: UnsafeRawBufferPointer, _ codec: PieceCodec
    ) throws(TransportError) -> EncodedPiece {
        do throws(KVTransferError) {
            return unsafe try encoder.encode(
                raw, codec: codec, checksumsRaw: settings.checksumsRaw)
        } catch {
            metrics?.codecFailed()
            logger.warning("the codec refuses a piece", metadata: ["reason": "\(error)"])
        }
        do throws(KVTransferError) {
            return unsafe try encoder.encode(
                raw, codec: .raw, checksumsRaw: settings.checksumsRaw)
        } catch { throw .library("a raw piece can't be made: \(error)") }
    }

    /// The rule has changed its mind; what was measured before is the other choice's.
    private mutating func changed() {
        meter.reset()
        metrics?.changed()
        logger.info(
            "KV is \(rule.isCompressing ? "compressed" : "sent raw") from here on",
            metadata: [
                "ratio": "\(text(rule.ratio))",
                "link_bytes_per_second": "\(text(rule.linkBytesPerSecond))",
                "encrypt_bytes_per_second": "\(text(rule.rates.encryptBytesPerSecond))",
                "compress_bytes_per_second": "\(text(rule.rates.compressBytesPerSecond))",
                "decompress_bytes_per_second": "\(text(rule.rates.decompressBytesPerSecond))",
                "raw_would_carry": "\(text(rule.rawBytesPerSecond))",
                "compressed_would_carry": "\(text(rule.compressedBytesPerSecond))",
            ])
    }

    private func text(_ number: Double?) -> String {
        number.map { $0 < 100 ? "\(($0 * 1000).rounded() / 1000)" : "\(Int($0))" } ?? "unknown"
    }
}

extension SentPayload {
    fileprivate mutating func add(_ piece: SentPiece, isCompressed: Bool) {
        rawBytes += piece.rawBytes
        wireBytes += piece.wireBytes
        pieces += 1
        if isCompressed { compressedPieces += 1 }
        codecTime += piece.end - piece.start - piece.sending
        sendTime += piece.sending
        waitTime += piece.waiting
    }
}
