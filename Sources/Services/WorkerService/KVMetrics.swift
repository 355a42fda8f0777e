import KVCarriers
import KVHandOver
import Metrics
import ServingTypes

/// Counters and histograms of KV transfers; those of pieces are in `KVCarriers`.
///
/// | Name | |
/// |---|---|
/// | `prefill_kv_chunks_total` | chunks sent, by `carrier`: `stream` or `memory` |
/// | `prefill_kv_raw_bytes_total`, `prefill_kv_wire_bytes_total` | of chunks through a stream |
/// | `prefill_kv_memory_bytes_total` | of chunks passed as memory |
/// | `prefill_kv_transfer_seconds` | from opening a transfer to its end, by transfer |
/// | `prefill_kv_exposed_seconds` | part of it after the first token, by transfer |
/// | `prefill_kv_failures_total` | transfers given up, by `cause` |
/// | `prefill_kv_resends_total` | times damaged KV was sent again |
/// | `prefill_kv_reconnects_total` | times a transfer outlived its connection |
/// | `prefill_kv_held_bytes` | kept until their receivers have imported them |
/// | `decode_kv_raw_bytes_total`, `decode_kv_memory_bytes_total` | received, by way |
/// | `decode_kv_receive_seconds` | time to receive a chunk from a stream |
/// | `decode_kv_damaged_total` | chunks damaged on the way, or refused by the engine |
/// | `decode_kv_landed_bytes` | received and not imported |
/// | `*_kv_kept_sequences`, `*_kv_kept_tokens` | KV of ended sequences |
/// | `prefill_cached_tokens_total` | tokens of prompts whose KV was there already |
/// | `*_kv_stranded_transfers`, `_bytes`, `_oldest_seconds` | KV held without progress |
enum KVMetrics {
    /// A prompt was taken.
    static func accepted(_ accepted: PrefillAccepted) {
        Counter(label: "prefill_cached_tokens_total").increment(by: accepted.cachedTokens)
    }

    // MARK: Sending

    static func sent(_ payload: SentPayload) {
        Counter(label: "prefill_kv_chunks_total", dimensions: [("carrier", "stream")]).increment()
        Counter(label: "prefill_kv_raw_bytes_total").increment(by: payload.rawBytes)
        Counter(label: "prefill_kv_wire_bytes_total").increment(by: payload.wireBytes)
    }

    /// Memory was handed over.
    static func passed(bytes: Int) {
        Counter(label: "prefill_kv_chunks_total", dimensions: [("carrier", "memory")]).increment()
        Counter(label: "prefill_kv_memory_bytes_total").increment(by: bytes)
    }

    static func transferEnded(failure: KVDone?, _ summary: TransferSummary) {
        Counter(label: "prefill_kv_resends_total").increment(by: summary.resends)
        Counter(label: "prefill_kv_reconnects_total").increment(by: summary.reconnects)
        if let failure {
            let cause = failure.code.map { "\($0)" } ?? "none"
            Counter(label: "prefill_kv_failures_total", dimensions: [("cause", cause)])
                .increment()
        } else if let exposed = summary.exposed {
            Timer(label: "prefill_kv_transfer_seconds").record(summary.ended - summary.opened)
            Timer(label: "prefill_kv_exposed_seconds").record(exposed)
        }
    }

    static func held(bytes: Int, stranded: [StrandedKV]) {
        Gauge(label: "prefill_kv_held_bytes").record(bytes)
        record(stranded, role: "prefill")
    }

    // MARK: Receiving

    static func received(bytes: Int, in duration: Duration) {
        Counter(label: "decode_kv_raw_bytes_total").increment(by: bytes)
        Timer(label: "decode_kv_receive_seconds").record(duration)
    }

    static func tookMemory(bytes: Int) {
        Counter(label: "decode_kv_memory_bytes_total").increment(by: bytes)
    }

    /// A payload came damaged, or the engine refused a block.
    static func damaged() { Counter(label: "decode_kv_damaged_total").increment() }

    static func landed(bytes: Int, stranded: StrandedKV) {
        Gauge(label: "decode_kv_landed_bytes").record(bytes)
        record([stranded], role: "decode")
    }

    private static func record(_ stranded: [StrandedKV], role: String) {
        let oldest = stranded.map(\.oldest).max() ?? .zero
        Gauge(label: "\(role)_kv_stranded_transfers")
            .record(stranded.reduce(0) { $0 + $1.transfers })
        Gauge(label: "\(role)_kv_stranded_bytes").record(stranded.reduce(0) { $0 + $1.bytes })
        Gauge(label: "\(role)_kv_stranded_oldest_seconds").record(oldest.seconds)
    }
}

extension Timer {
    fileprivate func record(_ duration: Duration) { recordNanoseconds(duration.nanoseconds) }
}
