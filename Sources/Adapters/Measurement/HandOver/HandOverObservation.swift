import ServingTypes

/// One request, and what both workers counted for it; times in seconds.
struct HandOverObservation: Sendable {
    // What the client saw.
    let firstToken: Double
    /// From the first token to the second.
    let gap: Double
    /// From one token to the next, after the second.
    let step: Double
    // What the prefill-worker counted.
    let computing: Double
    let exporting: Double
    /// Both workers' time in the codec.
    let codec: Double
    let sending: Double
    /// Part of `sending` that waited for the socket.
    let sendWait: Double
    /// From opening the transfer to the receiver's last word.
    let transfer: Double
    /// From the first token to the receiver's last word.
    let exposed: Double
    let chunks: Double
    let payloadBytes: Double
    /// Bytes on the network.
    let wireBytes: Double
    let memoryBytes: Double
    // What the decode-worker counted.
    let receiving: Double
    let importing: Double

    /// How much later the second token came than it would have without a hand-over.
    var seen: Double { gap - step }

    /// - Throws: `notOneTransfer` if the readings show anything but one whole transfer.
    init(
        tokens: [Duration], prefill: MetricsRise, decode: MetricsRise
    ) throws(MeasurementError) {
        let transfers = prefill["prefill_kv_transfer_seconds_count"]
        let failures = prefill.sum("prefill_kv_failures_total")
        let resends = prefill["prefill_kv_resends_total"]
        payloadBytes = prefill["prefill_engine_export_bytes_total"]
        let importedBytes = decode["decode_engine_import_bytes_total"]
        guard transfers == 1, failures == 0, resends == 0, payloadBytes > 0,
            payloadBytes == importedBytes
        else {
            throw .notOneTransfer(
                "\(Int(transfers)) transfers, \(Int(failures)) failures, \(Int(resends)) resends, "
                    + "\(Int(payloadBytes)) bytes exported, \(Int(importedBytes)) imported; "
                    + "is there another worker, or are there other requests?")
        }
        guard tokens.count > 2 else {
            throw .notOneTransfer("\(tokens.count) tokens are too few to see their pace")
        }
        firstToken = tokens[0].seconds
        gap = (tokens[1] - tokens[0]).seconds
        let steps = zip(tokens.dropFirst(), tokens.dropFirst(2)).map { ($1 - $0).seconds }
        step = Samples(steps).median ?? 0
        computing = prefill["prefill_engine_compute_seconds_total"]
        exporting = prefill["prefill_engine_export_seconds_total"]
        codec =
            prefill["prefill_kv_codec_seconds_sum"] + decode["decode_kv_codec_seconds_sum"]
        sending = prefill["prefill_kv_send_seconds_sum"]
        sendWait = prefill["prefill_kv_send_wait_seconds_sum"]
        transfer = prefill["prefill_kv_transfer_seconds_sum"]
        exposed = prefill["prefill_kv_exposed_seconds_sum"]
        chunks = prefill.sum("prefill_kv_chunks_total")
        wireBytes = prefill["prefill_kv_wire_bytes_total"]
        memoryBytes = prefill["prefill_kv_memory_bytes_total"]
        receiving = decode["decode_kv_receive_seconds_sum"]
        importing = decode["decode_engine_import_seconds_total"]
    }
}

/// Resident memory of one worker around one request.
struct HandOverMemory: Sendable {
    var before: Int
    var peak: Int
}
