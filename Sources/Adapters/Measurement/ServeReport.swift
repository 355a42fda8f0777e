import Foundation
import Reports
import ServingTypes

extension ServeResults {
    /// The tables of what was measured so far.
    var report: Report {
        var report = Report(
            name: "serve",
            facts: [
                ("model", settings.modelPath), ("parameters", "\(parameterCount)"),
                ("device", device), ("processor", ProcessReadings.processorName),
                ("cores", "\(ProcessInfo.processInfo.activeProcessorCount)"),
                ("load average before", loadBefore),
                ("load average after", ProcessReadings.loadAverage),
                ("rounds", "\(settings.rounds)"),
            ])
        report.isComplete = isComplete
        report.tables = [
            comparison(
                "first_token", "Time to first token, streamed", direct: { $0.direct.first },
                served: { $0.streamed.first }),
            comparison(
                "whole", "Whole time, not streamed", direct: { $0.direct.total },
                served: { $0.complete }),
            comparison(
                "inter_token", "Inter-token latency from the second token on",
                direct: { $0.direct.step }, served: { $0.streamed.step }),
            handOver, overheadParts, rates, streamsTable, memory,
        ]
        return report
    }

    private func comparison(
        _ key: String, _ title: String, direct: (ServeObservation) -> Duration?,
        served: (ServeObservation) -> Duration?
    ) -> ReportTable {
        var table = ReportTable(
            key, title,
            columns: [
                "prompt_tokens", "new_tokens", "direct_ms", "gateway_ms", "overhead_ms",
                "overhead_p90_ms", "ratio",
            ])
        for one in cases {
            let own = samples(one, direct)
            let other = samples(one, served)
            guard own.count > 0, other.count > 0 else { continue }
            // Differences within one round, so that a slow moment of the host is in both.
            let overhead = samples(one) { observation in
                guard let direct = direct(observation), let served = served(observation) else {
                    return nil
                }
                return served - direct
            }
            table.add([
                .whole(one.promptTokens), .whole(one.newTokens), .milliseconds(own.median, 3),
                .milliseconds(other.median, 3), .milliseconds(overhead.median, 3),
                .milliseconds(overhead.quantile(0.9), 3), .ratio(other.median, to: own.median),
            ])
        }
        return table
    }

    /// The gap between first and second token beyond one decode step, and the KV that moved.
    private var handOver: ReportTable {
        var table = ReportTable(
            "hand_over", "Hand-over of the KV",
            columns: [
                "prompt_tokens", "exposed_ms", "exposed_p90_ms", "direct_gap_ms",
                "raw_bytes", "wire_bytes", "wire_to_raw", "transfer_ms",
                "overlapped_ms", "raw_megabytes_per_s", "rounds",
            ])
        table.note = """
            exposed: time from the first token (prefill) to the second (decode) less one decode \
            step; direct gap: the same in the direct run. transfer: offer to last word, most of it \
            while the prompt computes; rate: raw bytes by exposed time.
            """
        func gap(_ times: TokenTimes) -> Duration? {
            guard let second = times.second, let step = times.step else { return nil }
            return second - times.first - step
        }
        for one in cases where one.newTokens > 2 {
            let exposed = samples(one) { gap($0.streamed) }
            let raw = readings(one) { $0.rawBytes }.median
            let wire = readings(one) { $0.wireBytes }.median
            let transfer = readings(one) { $0.seconds }.median
            let time = exposed.median
            let rate = raw.flatMap { raw in time.map { raw / max($0, 1e-9) / 1e6 } }
            table.add([
                .whole(one.promptTokens), .milliseconds(time, 3),
                .milliseconds(exposed.quantile(0.9), 3),
                .milliseconds(samples(one) { gap($0.direct) }.median, 3), .number(raw, 0),
                .number(wire, 0), .ratio(wire, to: raw), .milliseconds(transfer, 3),
                .difference(transfer, time), .number(rate, 1), .whole(exposed.count),
            ])
        }
        return table
    }

    /// Where the overhead of the shortest answers goes.
    private var overheadParts: ReportTable {
        var table = ReportTable(
            "overhead", "Overhead of a request with the shortest output, not streamed",
            columns: [
                "prompt_tokens", "overhead_ms", "overhead_error_ms", "http_ms", "control_ms",
                "kv_export_ms", "kv_export_error_ms", "json_ms", "frames_ms", "unexplained_ms",
                "unexplained_of_overhead",
            ])
        table.note = """
            http: round trip of GET /health; control: two round trips of a ping to a worker (TLS); \
            kv export: direct run that exports less one that doesn't; json and frames: done alone \
            in this process. error: standard error of the median; no unexplained part is given \
            where it is not above twice the errors.
            """
        for one in cases where one.newTokens == settings.newTokens.min() {
            guard let costs = costs[one.promptTokens] else { continue }
            let overhead = samples(one) { $0.complete - $0.direct.total }
            let export = samples(one) { $0.exporting - $0.direct.first }
            let http = health.median
            let control = echo.median.map { $0 * 2 }
            let json = [costs.parse.median, costs.response.median].compactMap { $0 }.reduce(0, +)
            let frames = [costs.frames.median, costs.tokenFrame.median].compactMap { $0 }
                .reduce(0, +)
            var rest: Double?
            if let all = overhead.median, let own = export.median, let http, let control,
                let errors = overhead.medianError, let ownErrors = export.medianError
            {
                let unexplained = all - http - control - own - json - frames
                rest = unexplained > 2 * (errors + ownErrors) ? unexplained : nil
            }
            table.add([
                .whole(one.promptTokens), .milliseconds(overhead.median, 3),
                .milliseconds(overhead.medianError, 3), .milliseconds(http, 3),
                .milliseconds(control, 3), .milliseconds(export.median, 3),
                .milliseconds(export.medianError, 3), .milliseconds(json, 3),
                .milliseconds(frames, 3), .milliseconds(rest, 3),
                .ratio(rest, to: overhead.median),
            ])
        }
        return table
    }

    /// What the direct run reaches of the floors.
    private var rates: ReportTable {
        var table = ReportTable(
            "rates", "Rates of the direct run, \(ServeSettings.threads) thread(s)",
            columns: ["prompt_tokens", "prefill_gflop_per_s", "decode_weights_gb_per_s"])
        table.note = """
            prefill: 2 · parameters · tokens by the time to first token; decode: size of the GGUF \
            file by the time between tokens.
            """
        let attributes = try? FileManager.default.attributesOfItem(atPath: settings.modelPath)
        let modelBytes = (attributes?[.size] as? NSNumber).map(\.doubleValue)
        for promptTokens in settings.promptTokens.sorted() {
            let own = cases.filter { $0.promptTokens == promptTokens }
            let first = Samples(own.flatMap { samples($0) { $0.direct.first }.values }).median
            let step = Samples(own.flatMap { samples($0) { $0.direct.step }.values }).median
            guard let first else { continue }
            let operations = 2 * Double(parameterCount) * Double(promptTokens)
            let weights = step.flatMap { step in modelBytes.map { $0 / step / 1e9 } }
            table.add([
                .whole(promptTokens), .number(operations / first / 1e9, 1), .number(weights, 2),
            ])
        }
        return table
    }

    private var streamsTable: ReportTable {
        var table = ReportTable(
            "streams",
            "Streams at once, \(ServeSettings.streamPromptTokens) prompt tokens, "
                + "\(ServeSettings.streamNewTokens) new tokens each",
            columns: [
                "streams", "tokens_per_s", "direct_tokens_per_s", "ratio", "ttft_p50_ms",
                "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms", "direct_ttft_p50_ms",
                "direct_tpot_p50_ms",
            ])
        table.note = """
            direct: all prompts in one engine with \(ServeSettings.threads) thread(s); the cluster \
            has as many for each phase.
            """
        for (count, entry) in streams.sorted(by: { $0.key < $1.key }) {
            table.add([
                .whole(count), .number(entry.servedRate.median, 0),
                .number(entry.directRate.median, 0),
                .ratio(entry.servedRate.median, to: entry.directRate.median),
                .milliseconds(entry.first.median), .milliseconds(entry.first.quantile(0.99)),
                .milliseconds(entry.perToken.median),
                .milliseconds(entry.perToken.quantile(0.99)),
                .milliseconds(entry.directFirst.median),
                .milliseconds(entry.directPerToken.median),
            ])
        }
        return table
    }

    private var memory: ReportTable {
        var table = ReportTable(
            "memory", "Resident memory",
            columns: ["process", "before_mib", "after_mib", "peak_mib"])
        func mebibytes(_ bytes: Int?) -> ReportTable.Cell {
            .number(bytes.map { Double($0) / Double(1 << 20) }, 1)
        }
        for name in memoryBefore.keys.sorted() {
            table.add([
                .text(name), mebibytes(memoryBefore[name]), mebibytes(memoryAfter[name]),
                mebibytes(memoryPeak[name]),
            ])
        }
        return table
    }
}
