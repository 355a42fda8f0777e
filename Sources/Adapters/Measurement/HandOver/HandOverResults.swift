import Foundation
import Reports
import ServingTypes

/// Everything `benchmark handoff` has measured, by length of the prompt.
struct HandOverResults: Sendable {
    /// Most of a transfer that may be left when the first token is there, as a part of it.
    static let goal = 0.05

    let settings: HandOverSettings
    let loadBefore = ProcessReadings.loadAverage
    var isComplete = false
    var observations: [Int: [HandOverObservation]] = [:]
    /// Resident memory after the first request, the shortest one.
    var idleBytes: [Role: Int] = [:]
    /// Of one request per length, from the shortest to the longest.
    var memory: [Int: [Role: HandOverMemory]] = [:]

    init(settings: HandOverSettings) { self.settings = settings }

    /// Numbers of all rounds.
    func samples(_ length: Int, _ value: (HandOverObservation) -> Double?) -> Samples {
        Samples((observations[length] ?? []).compactMap(value))
    }

    /// Time the link alone needs for what went over it; nil if its rate is not known, or nothing
    /// went over it.
    func floor(_ observation: HandOverObservation) -> Double? {
        guard let rate = settings.linkBitsPerSecond, observation.wireBytes > 0 else { return nil }
        return observation.wireBytes * 8 / rate
    }
}

extension HandOverResults {
    /// The tables of what was measured so far.
    var report: Report {
        var facts: [(name: String, value: String)] = [("model", settings.modelPath)]
        facts += settings.facts
        facts += [
            ("processor", ProcessReadings.processorName),
            ("cores", "\(ProcessInfo.processInfo.activeProcessorCount)"),
            ("load average before", loadBefore),
            ("load average after", ProcessReadings.loadAverage),
            ("rounds", "\(settings.rounds)"),
        ]
        if let rate = settings.linkBitsPerSecond {
            facts.append(("link Gbit/s", String(format: "%.3f", rate / 1e9)))
        }
        var report = Report(name: "handoff", facts: facts)
        report.isComplete = isComplete
        report.tables = [times, shares, memoryTable]
        report.findings = findings
        return report
    }

    private var lengths: [Int] { observations.keys.sorted() }

    private var times: ReportTable {
        var table = ReportTable(
            "times", "Where the time of a hand-over goes, medians",
            columns: [
                "prompt_tokens", "first_token_ms", "compute_ms", "export_ms", "codec_ms",
                "send_ms", "send_wait_ms", "receive_ms", "import_ms", "transfer_ms", "exposed_ms",
                "exposed_p90_ms", "gap_ms", "step_ms", "seen_ms",
            ])
        table.note = """
            compute: the prefill engine's iterations; codec: both sides; send wait: part of send \
            in which the socket was full; transfer: from opening it to the receiver's last word; \
            exposed: part of it after the first token was sampled; gap: from the client's first \
            token to the second; step: median time between the following ones; seen: gap less step.
            """
        for length in lengths {
            func median(_ value: (HandOverObservation) -> Double) -> ReportTable.Cell {
                .milliseconds(samples(length, value).median)
            }
            table.add([
                .whole(length), median { $0.firstToken }, median { $0.computing },
                median { $0.exporting }, median { $0.codec }, median { $0.sending },
                median { $0.sendWait }, median { $0.receiving }, median { $0.importing },
                median { $0.transfer }, median { $0.exposed },
                .milliseconds(samples(length) { $0.exposed }.quantile(0.9)),
                median { $0.gap }, median { $0.step }, median { $0.seen },
            ])
        }
        return table
    }

    private var shares: ReportTable {
        var table = ReportTable(
            "shares", "What is left of a transfer when the first token is there",
            columns: [
                "prompt_tokens", "payload_mb", "wire_mb", "memory_mb", "chunks", "floor_ms",
                "exposed_to_transfer", "exposed_to_transfer_p90", "exposed_to_floor",
                "exposed_to_floor_p90", "seen_to_transfer", "rounds",
            ])
        table.note = """
            MB: 10^6 bytes; wire and memory: how the payload went; floor: wire bytes by the link's \
            rate. Ratios are medians of those of each request.
            """
        for length in lengths {
            func megabytes(_ value: (HandOverObservation) -> Double) -> ReportTable.Cell {
                .number(samples(length, value).median.map { $0 / 1e6 }, 2)
            }
            let toTransfer = samples(length) { $0.exposed / $0.transfer }
            let toFloor = samples(length) { one in floor(one).map { one.exposed / $0 } }
            table.add([
                .whole(length), megabytes { $0.payloadBytes }, megabytes { $0.wireBytes },
                megabytes { $0.memoryBytes }, .number(samples(length) { $0.chunks }.median, 0),
                .milliseconds(samples(length) { floor($0) }.median),
                .number(toTransfer.median, 4), .number(toTransfer.quantile(0.9), 4),
                .number(toFloor.median, 4), .number(toFloor.quantile(0.9), 4),
                .number(samples(length) { $0.seen / $0.transfer }.median, 4),
                .whole(toTransfer.count),
            ])
        }
        return table
    }

    private var memoryTable: ReportTable {
        var table = ReportTable(
            "memory", "Resident memory of the workers, prompts from short to long",
            columns: [
                "worker", "prompt_tokens", "payload_mib", "idle_mib", "before_mib", "peak_mib",
                "extra_mib", "extra_to_payload",
            ])
        table.note = """
            idle: after a first request of the shortest length; extra: peak less idle. Memory \
            that was passed from one worker to the other counts for both.
            """
        func mebibytes(_ bytes: Double?) -> ReportTable.Cell {
            .number(bytes.map { $0 / Double(1 << 20) }, 1)
        }
        for role in [Role.prefillWorker, .decodeWorker] {
            for length in memory.keys.sorted() {
                guard let reading = memory[length]?[role], let idle = idleBytes[role] else {
                    continue
                }
                let payload = samples(length) { $0.payloadBytes }.median
                let extra = Double(reading.peak - idle)
                table.add([
                    .text(role.name), .whole(length), mebibytes(payload), mebibytes(Double(idle)),
                    mebibytes(Double(reading.before)), mebibytes(Double(reading.peak)),
                    mebibytes(extra), .ratio(extra, to: payload),
                ])
            }
        }
        return table
    }

    private var findings: [String] {
        lengths.flatMap { length -> [String] in
            let toTransfer = samples(length) { $0.exposed / $0.transfer }.median
            let toFloor = samples(length) { one in floor(one).map { one.exposed / $0 } }.median
            return [
                finding(length, toTransfer, of: "the time from opening to done"),
                finding(length, toFloor, of: "the link's time for its bytes"),
            ].compactMap { $0 }
        }
    }

    private func finding(_ length: Int, _ share: Double?, of whole: String) -> String? {
        guard let share else { return nil }
        let verdict = share <= Self.goal ? "at most" : "more than"
        return String(
            format: "%d tokens: exposed is %.1f %% of %@, %@ %.0f %%", length, share * 100, whole,
            verdict, Self.goal * 100)
    }
}
