import Reports
import ServingTypes

extension ShiftResults {
    func report(_ facts: [(name: String, value: String)]) -> Report {
        func name(_ phase: ShiftPhase) -> String {
            "prompts of \(phase.promptTokens) tokens, answers of \(phase.newTokens), for "
                + "\(Int(phase.duration.seconds)) s"
        }
        var report = Report(
            name: "shift",
            facts: [
                ("processor", ProcessReadings.processorName),
                ("load average", ProcessReadings.loadAverage),
                (
                    "workers",
                    "\(settings.prefillWorkers) prefill and \(settings.decodeWorkers) decode at "
                        + "first, simulated at speed \(settings.speed)"
                ),
                ("first phase", name(settings.first)), ("second phase", name(settings.second)),
                ("users", "\(settings.users), one request at a time each"),
                (
                    "good",
                    "TTFT up to \(settings.ttftLimit.seconds) s, TPOT up to "
                        + "\(settings.tpotLimit.seconds) s"
                ),
            ] + facts)
        report.tables = [parts, ratios, flips, decisions, engines, seconds]
        report.findings = findings
        report.isComplete = isComplete
        return report
    }

    private var parts: ReportTable {
        var table = ReportTable(
            "parts", "Before, during and after the change of traffic",
            columns: [
                "run", "part", "good_per_s", "completed_per_s", "ttft_p50_s", "ttft_p90_s",
                "tpot_p90_ms", "failed",
            ])
        table.note =
            "Before: the first phase's second half. During and after: halves of the second phase."
        for run in runs {
            for part in settings.parts {
                let span = span(run, from: part.from, to: part.to)
                table.add([
                    .text(run.mode.rawValue), .text(part.name), .number(span.goodPerSecond, 2),
                    .number(span.completedPerSecond, 2), .number(span.ttft.median, 2),
                    .number(span.ttft.quantile(0.9), 2), .milliseconds(span.tpot.quantile(0.9), 1),
                    .whole(span.failed),
                ])
            }
        }
        return table
    }

    private var ratios: ReportTable {
        var table = ReportTable(
            "ratios", "Automatic ratio to the started one",
            columns: ["part", "good", "completed"])
        guard let started = self[.asStarted], let automatic = self[.automatic] else { return table }
        let whole = ("whole run", 0.0, settings.duration.seconds)
        for (name, from, to) in settings.parts.map({ ($0.name, $0.from, $0.to) }) + [whole] {
            let left = span(automatic, from: from, to: to)
            let right = span(started, from: from, to: to)
            table.add([
                .text(name), .ratio(left.goodPerSecond, to: right.goodPerSecond),
                .ratio(left.completedPerSecond, to: right.completedPerSecond),
            ])
        }
        return table
    }

    private var flips: ReportTable {
        var table = ReportTable(
            "flips", "Changes of role",
            columns: ["run", "worker", "new_role", "decided_at_s", "until_in_use_s"])
        table.note =
            "Until it is in use: with the end of all work of the old role; seen every "
            + "\(ShiftSettings.watchInterval.seconds) s."
        for run in runs {
            for flip in run.flips {
                table.add([
                    .text(run.mode.rawValue), .text("\(flip.instance)"), .text(flip.role.name),
                    .number(flip.time, 1), .number(flip.duration, 2),
                ])
            }
        }
        return table
    }

    private var decisions: ReportTable {
        var table = ReportTable(
            "decisions", "Decisions of the scheduler",
            columns: ["run", "decision", "at_s", "reason"])
        for run in runs {
            for decision in run.decisions {
                table.add([
                    .text(run.mode.rawValue), .text(decision.action),
                    .text(ReportTable.Cell.number(run.time(of: decision), 1).text),
                    .text(decision.reason),
                ])
            }
        }
        return table
    }

    private var engines: ReportTable {
        var table = ReportTable(
            "engines", "Simulated engines: measured to modelled times",
            columns: ["run", "prefill", "decode_step", "processor_s_of_workers"])
        for run in runs {
            let deviation = deviation(of: run)
            table.add([
                .text(run.mode.rawValue), .number(deviation.prefill, 3),
                .number(deviation.decode, 3), .number(run.workerProcessorSeconds, 1),
            ])
        }
        return table
    }

    private var seconds: ReportTable {
        var table = ReportTable(
            "seconds", "Each second",
            columns: [
                "run", "second", "good_per_s", "completed_per_s", "ttft_p90_s", "tpot_p90_ms",
                "prefill_workers", "decode_workers", "mixed_workers", "changing_workers", "failed",
            ])
        table.isShown = false
        for run in runs {
            for second in 0..<Int(settings.duration.seconds) {
                let span = span(run, from: Double(second), to: Double(second + 1))
                let sample = run.sample(at: Double(second + 1))
                table.add(
                    [
                        .text(run.mode.rawValue), .whole(second), .number(span.goodPerSecond, 1),
                        .number(span.completedPerSecond, 1), .number(span.ttft.quantile(0.9), 2),
                        .milliseconds(span.tpot.quantile(0.9), 1),
                    ]
                        + [ServingRole.prefill, .decode, .mixed, .spare].map {
                            .whole(sample?.count($0) ?? 0)
                        } + [.whole(span.failed)])
            }
        }
        return table
    }

    private var findings: [String] {
        var findings: [String] = []
        for run in runs {
            let failures = run.requests.compactMap(\.failure)
            let first = failures.first.map { "; the first: \($0)" } ?? ""
            findings.append(
                "\(run.mode.rawValue): \(run.requests.count) requests, "
                    + "\(failures.count) failed\(first)")
            if let last = run.samples.last {
                findings.append(
                    "\(run.mode.rawValue): \(last.count(.prefill)) prefill- and "
                        + "\(last.count(.decode)) decode-workers at the end, "
                        + "\(run.flips.count) changes of role")
            }
        }
        return findings
    }
}
