import ClusterRules
import Foundation
import Reports
import ServingSimulation
import ServingTypes

/// What a simulated run showed.
struct SimulationResults: Sendable {
    let plan: ServingPlan
    let outcomes: [RequestOutcome]
    let timeline: Timeline
    let prefillBusy: Double
    let decodeBusy: Double
    /// Simulated and real time.
    let simulatedSeconds: Double
    let seconds: Double
    let isComplete: Bool

    /// Between two lines of progress.
    private static let progressInterval = Duration.seconds(5)

    /// Runs to the end, or until the task is cancelled.
    static func simulate(_ plan: ServingPlan, showsProgress: Bool) -> SimulationResults {
        var outcomes: [RequestOutcome] = []
        var isComplete = true
        var reached = 0.0
        let begin = ContinuousClock.now
        var shown = begin
        let run = ServingRun(plan) { outcomes.append($0) }
        run.run { seconds in
            reached = seconds
            isComplete = !Task.isCancelled
            if showsProgress, ContinuousClock.now - shown > progressInterval {
                shown = .now
                let line = String(
                    format: "%.0f of %.0f simulated seconds, %d requests", seconds, plan.seconds,
                    outcomes.count)
                FileHandle.standardError.write(Data("\(line)\n".utf8))
            }
            return isComplete
        }
        return SimulationResults(
            plan: plan, outcomes: outcomes.sorted { $0.arrival < $1.arrival },
            timeline: run.timeline, prefillBusy: run.utilisation(.prefillWorker),
            decodeBusy: run.utilisation(.decodeWorker), simulatedSeconds: reached,
            seconds: (ContinuousClock.now - begin) / .seconds(1), isComplete: isComplete)
    }

    private var ttftLimit: Double { plan.scenario.ttftLimit.seconds }
    private var tpotLimit: Double { plan.scenario.tpotLimit.seconds }

    func report(facts: [(name: String, value: String)]) -> Report {
        var report = Report(name: "simulation", facts: facts)
        report.isComplete = isComplete
        report.tables = [requests, latencies, machines]
        let whole = outcomes.count { $0.endToEnd != nil }
        let begun = outcomes.count { $0.endToEnd == nil && $0.ttft != nil }
        let refused = outcomes.count - whole - begun
        if refused > 0 {
            report.findings.append(
                "\(refused) of \(outcomes.count) requests got no token: they would have been "
                    + "later than --ttft-limit.")
        }
        if begun > 0 {
            report.findings.append(
                "\(begun) of \(outcomes.count) answers had not ended when the simulation did.")
        }
        return report
    }

    private var requests: ReportTable {
        let measured = max(1e-9, min(simulatedSeconds, plan.seconds) - plan.warmUpSeconds)
        let figures = ServingFigures(
            outcomes, seconds: measured, ttftLimit: ttftLimit, tpotLimit: tpotLimit)
        var table = ReportTable(
            "requests", "Requests",
            columns: [
                "requests", "answered", "restarts", "good_%", "goodput_/s", "output_tokens/s",
                "simulated_requests/s",
            ])
        let answered = outcomes.filter { $0.endToEnd != nil }
        let tokens = answered.reduce(0) { $0 + $1.outputTokens }
        table.add([
            .whole(outcomes.count), .whole(answered.count),
            .whole(outcomes.reduce(0) { $0 + $1.restarts }),
            .number(100 * figures.goodput * measured / Double(max(1, outcomes.count)), 1),
            .number(figures.goodput, 2), .number(Double(tokens) / measured, 1),
            .number(Double(outcomes.count) / max(seconds, 1e-9), 0),
        ])
        table.note =
            "good: first token within \(ttftLimit) s and then \(tpotLimit) s per token; the last "
            + "column is how fast this simulation ran"
        return table
    }

    private var latencies: ReportTable {
        var table = ReportTable(
            "latencies", "Latencies",
            columns: ["time", "mean_ms", "p50_ms", "p90_ms", "p99_ms"])
        for (name, values) in series {
            let percentiles = ServingFigures.Percentiles(values)
            let mean = values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
            table.add([
                .text(name), .milliseconds(mean), .milliseconds(percentiles.p50),
                .milliseconds(percentiles.p90), .milliseconds(percentiles.p99),
            ])
        }
        return table
    }

    private var series: [(name: String, values: [Double])] {
        [
            ("TTFT", outcomes.compactMap(\.ttft)), ("TPOT", outcomes.compactMap(\.tpot)),
            ("E2E", outcomes.compactMap(\.endToEnd)),
        ]
    }

    private var machines: ReportTable {
        var table = ReportTable(
            "machines", "Machines", columns: ["role", "machine", "count", "busy_%"])
        for role in [ServingRole.prefill, .decode, .mixed] {
            let of = plan.machines.filter { $0.role == role }
            for device in Set(of.map(\.device)).sorted() {
                let busy = role == .prefill ? prefillBusy : decodeBusy
                table.add([
                    .text(role.name), .text(device), .whole(of.count { $0.device == device }),
                    .number(busy * 100, 1),
                ])
            }
        }
        table.note = "busy: part of the time in which the machines of a role computed"
        return table
    }

    // MARK: Plots

    var plots: [LinePlot] {
        series.filter { !$0.values.isEmpty }.map(distribution) + [overTime]
    }

    /// Points of a line; more are not seen.
    private static let plotPoints = 400

    private func distribution(_ series: (name: String, values: [Double])) -> LinePlot {
        let sorted = series.values.sorted()
        let end = sorted[min(sorted.count - 1, sorted.count * 995 / 1000)]
        let count = min(Self.plotPoints, sorted.count)
        let points = (0...count).map { index -> (x: Double, y: Double) in
            let part = Double(index) / Double(count)
            let place = min(sorted.count - 1, Int(part * Double(sorted.count)))
            return (sorted[place] * 1000, part)
        }.filter { $0.x <= end * 1000 }
        return LinePlot(
            title: "\(series.name): part of the requests that are as fast",
            axis: "milliseconds, up to the 99.5th percentile",
            panels: [
                LinePlot.Panel(
                    title: "part of requests",
                    lines: [
                        LinePlot.Line(
                            name: series.name, color: LinePlot.Palette.blue, points: points)
                    ])
            ], end: max(end * 1000, 1e-6))
    }

    private var overTime: LinePlot {
        func line(_ name: String, _ color: String, _ value: (Timeline.Point) -> Double)
            -> LinePlot.Line
        {
            LinePlot.Line(
                name: name, color: color, points: timeline.points.map { ($0.seconds, value($0)) })
        }
        return LinePlot(
            title: "The cluster over time", axis: "seconds",
            panels: [
                LinePlot.Panel(
                    title: "busy part",
                    lines: [
                        line("prefill", LinePlot.Palette.vermilion, \.prefillBusy),
                        line("decode", LinePlot.Palette.green, \.decodeBusy),
                        line("links", LinePlot.Palette.blue, \.linkBusy),
                        line("KV room taken", LinePlot.Palette.grey, \.kvUsed),
                    ]),
                LinePlot.Panel(
                    title: "requests",
                    lines: [
                        line("waiting", LinePlot.Palette.vermilion) { Double($0.waiting) },
                        line("answering", LinePlot.Palette.green) { Double($0.answering) },
                    ]),
            ], end: timeline.points.last?.seconds ?? 1)
    }
}
