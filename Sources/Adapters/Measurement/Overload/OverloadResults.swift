import Foundation
import Reports
import ServingTypes

/// Everything `benchmark overload` has measured.
struct OverloadResults: Sendable {
    let settings: OverloadSettings
    let loadBefore = ProcessReadings.loadAverage
    var isComplete = false
    var phases: [OverloadPhase] = []
    var before: [String: OverloadMeasurement.Usage] = [:]
    /// The most since the process's start, at the end of each kind of load.
    var loaded: [String: OverloadMeasurement.Usage] = [:]
    var after: [String: OverloadMeasurement.Usage] = [:]
    var bytesPerConnection = 0
    var bytesPerWaiting = 0
    var waiting = 0
    /// The last error of a connection.
    var problem: String?

    init(settings: OverloadSettings) { self.settings = settings }

    mutating func add(_ phase: OverloadPhase, _ usage: [String: OverloadMeasurement.Usage]) {
        phases.append(phase)
        loaded = usage
    }

    /// What must not be, however slow the host is.
    var complaints: [String] {
        var complaints: [String] = []
        for phase in phases {
            if phase.broken > 0 {
                complaints.append("\(phase.name): \(phase.broken) broken, \(problem ?? "")")
            }
            if phase.mute > 0 { complaints.append("\(phase.name): no Retry-After") }
        }
        for (name, usage) in after {
            guard let before = before[name] else { continue }
            if usage.files > before.files + 8 {
                complaints.append("\(name): \(usage.files) files, before \(before.files)")
            }
        }
        return complaints
    }

    var report: Report {
        var report = Report(
            name: "overload",
            facts: [
                ("processor", ProcessReadings.processorName),
                ("cores", "\(ProcessInfo.processInfo.activeProcessorCount)"),
                ("load average before", loadBefore),
                ("load average after", ProcessReadings.loadAverage),
                ("sequences at once", "\(settings.sequences)"),
                ("load", "\(settings.factor) times what the cluster can do"),
                ("limit for the first token", "\(settings.ttftLimit)"),
            ])
        report.isComplete = isComplete
        report.tables = [phaseTable, memoryTable]
        if isComplete {
            report.findings.append(
                "A resting connection costs the gateway \(bytesPerConnection >> 10) KiB, one of "
                    + "\(waiting) waiting requests with \(OverloadSettings.patientPromptBytes) "
                    + "prompt tokens \(bytesPerWaiting >> 10) KiB, its connection included.")
        }
        report.findings += complaints
        return report
    }

    private var phaseTable: ReportTable {
        var table = ReportTable(
            "phases", "Requests by kind of load",
            columns: [
                "load", "requests", "sent_per_s", "served_per_s", "served", "429", "503",
                "broken", "mute", "ttft_p50_ms", "ttft_p99_ms", "late", "refused_p50_ms",
                "refused_p99_ms",
            ])
        table.note =
            "broken: failed after they began, or without an answer; mute: refused without "
            + "Retry-After; late: first token after the limit, as the client sees it."
        for phase in phases {
            func milliseconds(_ samples: Samples, _ share: Double) -> ReportTable.Cell {
                .number(samples.quantile(share).map { $0 * 1000 }, 0)
            }
            table.add([
                .text(phase.name), .whole(phase.answers.count),
                .number(Double(phase.answers.count) / max(phase.time.seconds, 1e-9), 0),
                .number(phase.servedPerSecond, 1), .whole(phase.served.count),
                .whole(phase.count(429)), .whole(phase.count(503)), .whole(phase.broken),
                .whole(phase.mute), milliseconds(phase.firstTokens, 0.5),
                milliseconds(phase.firstTokens, 0.99), .whole(phase.late(settings.ttftLimit)),
                milliseconds(phase.refusals, 0.5), milliseconds(phase.refusals, 0.99),
            ])
        }
        return table
    }

    private var memoryTable: ReportTable {
        var table = ReportTable(
            "memory", "Memory and files of each process",
            columns: [
                "process", "before_MiB", "most_MiB", "after_MiB", "files_before", "files_after",
            ])
        for name in before.keys.sorted() {
            guard let first = before[name], let most = loaded[name] else { continue }
            let last = after[name]
            table.add([
                .text(name), .number(Double(first.resident) / 1_048_576, 1),
                .number(Double(most.peak) / 1_048_576, 1),
                .number(last.map { Double($0.resident) / 1_048_576 }, 1), .whole(first.files),
                .whole(last?.files ?? 0),
            ])
        }
        return table
    }
}
