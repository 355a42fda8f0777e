import KVTransfer
import Metrics
import ServingTypes

/// What one sending connection exports; ratios and rates have a label `peer`, the receiver's name.
///
/// | Name | |
/// |---|---|
/// | `prefill_kv_raw_pieces_total` | pieces that went raw |
/// | `prefill_kv_compressed_pieces_total` | pieces that went compressed |
/// | `prefill_kv_probe_pieces_total` | pieces compressed for their ratio alone |
/// | `prefill_kv_codec_failures_total` | pieces that the codec refused; they went raw |
/// | `prefill_kv_payloads_broken_off_total` | payloads that were cancelled while they were sent |
/// | `prefill_kv_codec_changes_total` | times the rule changed its mind |
/// | `prefill_kv_compressing` | 1 while pieces are compressed, else 0 |
/// | `prefill_kv_compression_ratio` | raw bytes over wire bytes of pieces that were compressed |
/// | `prefill_kv_link_bytes_per_second` | wire bytes while the socket was the limit |
/// | `prefill_kv_encrypt_bytes_per_second` | wire bytes that one core puts into a connection |
/// | `prefill_kv_compress_bytes_per_second` | raw bytes that one core compresses |
/// | `prefill_kv_decompress_bytes_per_second` | raw bytes that one core decompresses |
/// | `prefill_kv_codec_seconds` | time in the codec, by payload |
/// | `prefill_kv_send_seconds` | time in the connection, by payload |
/// | `prefill_kv_send_wait_seconds` | part of it waiting for the socket, by payload |
struct KVWriterMetrics: Sendable {
    private let rawPieces: Counter
    private let compressedPieces: Counter
    private let probes: Counter
    private let codecFailures: Counter
    private let brokenOff: Counter
    private let changes: Counter
    private let compressing: Gauge
    private let ratio: Gauge
    private let link: Gauge
    private let encrypt: Gauge
    private let compress: Gauge
    private let decompress: Gauge
    private let codecTime: Timer
    private let sendTime: Timer
    private let waitTime: Timer

    init(peer: InstanceID, factory: any MetricsFactory) {
        func counter(_ name: String) -> Counter {
            Counter(label: "prefill_kv_" + name, factory: factory)
        }
        func gauge(_ name: String) -> Gauge {
            Gauge(
                label: "prefill_kv_" + name, dimensions: [("peer", "\(peer)")], factory: factory)
        }
        func timer(_ name: String) -> Timer { Timer(label: "prefill_kv_" + name, factory: factory) }
        rawPieces = counter("raw_pieces_total")
        compressedPieces = counter("compressed_pieces_total")
        probes = counter("probe_pieces_total")
        codecFailures = counter("codec_failures_total")
        brokenOff = counter("payloads_broken_off_total")
        changes = counter("codec_changes_total")
        compressing = gauge("compressing")
        ratio = gauge("compression_ratio")
        link = gauge("link_bytes_per_second")
        encrypt = gauge("encrypt_bytes_per_second")
        compress = gauge("compress_bytes_per_second")
        decompress = gauge("decompress_bytes_per_second")
        codecTime = timer("codec_seconds")
        sendTime = timer("send_seconds")
        waitTime = timer("send_wait_seconds")
    }

    func record(_ sent: SentPayload, _ rule: CompressionRule, before: CompressionRule) {
        rawPieces.increment(by: sent.pieces - sent.compressedPieces)
        compressedPieces.increment(by: sent.compressedPieces)
        probes.increment(by: rule.probes - before.probes)
        if sent.isBrokenOff { brokenOff.increment() }
        codecTime.recordNanoseconds(sent.codecTime.nanoseconds)
        sendTime.recordNanoseconds(sent.sendTime.nanoseconds)
        waitTime.recordNanoseconds(sent.waitTime.nanoseconds)
        compressing.record(rule.isCompressing ? 1 : 0)
        if let measured = rule.ratio { ratio.record(measured) }
        if let measured = rule.linkBytesPerSecond { link.record(measured) }
        guard rule.mode != .off else { return }
        encrypt.record(rule.rates.encryptBytesPerSecond)
        compress.record(rule.rates.compressBytesPerSecond)
        decompress.record(rule.rates.decompressBytesPerSecond)
    }

    func changed() { changes.increment() }
    func codecFailed() { codecFailures.increment() }
}

/// What receivers of KV export.
///
/// | Name | |
/// |---|---|
/// | `decode_kv_wire_bytes_total` | bytes on the wire, with the pieces' headers |
/// | `decode_kv_raw_pieces_total` | pieces that came raw |
/// | `decode_kv_compressed_pieces_total` | pieces that came compressed |
/// | `decode_kv_payloads_broken_off_total` | payloads that the sender wanted no more of |
/// | `decode_kv_payloads_damaged_total` | payloads with a piece that was not as it was sent |
/// | `decode_kv_codec_seconds` | time in the codec, by payload |
struct KVReaderMetrics: Sendable {
    private let wireBytes: Counter
    private let rawPieces: Counter
    private let compressedPieces: Counter
    private let brokenOff: Counter
    private let damaged: Counter
    private let codecTime: Timer

    init(factory: any MetricsFactory) {
        func counter(_ name: String) -> Counter {
            Counter(label: "decode_kv_" + name, factory: factory)
        }
        wireBytes = counter("wire_bytes_total")
        rawPieces = counter("raw_pieces_total")
        compressedPieces = counter("compressed_pieces_total")
        brokenOff = counter("payloads_broken_off_total")
        damaged = counter("payloads_damaged_total")
        codecTime = Timer(label: "decode_kv_codec_seconds", factory: factory)
    }

    func record(_ received: ReceivedPayload) {
        wireBytes.increment(by: received.wireBytes)
        rawPieces.increment(by: received.pieces - received.compressedPieces)
        compressedPieces.increment(by: received.compressedPieces)
        codecTime.recordNanoseconds(received.codecTime.nanoseconds)
        switch received.outcome {
        case .whole: break
        case .brokenOff: brokenOff.increment()
        case .damaged: damaged.increment()
        }
    }
}
