import Foundation
import Measurement
import Reports
import Provisioning
import RequestTraces
import SplitwiseSimulation

/// Runs that SplitwiseSim ran, with its percentiles beside.
struct SplitwiseTable {
    let files: ReferenceFiles
    let times: PerformanceTable

    func run(into results: SplitwiseResults) throws {
        var table = ReportTable(
            "splitwise_sim", "The simulation and SplitwiseSim",
            columns: ["trace", "system", "machines", "figures"]
                + ["ttft", "tbt", "e2e"].flatMap { ["\($0)_p50", "\($0)_p90", "\($0)_p99"] }
                + ["goals", "ttft_p99_s", "tbt_p99_ms", "e2e_p99_s", "worst_%"])
        table.note =
            "slowdowns of TTFT, TBT and E2E against a request alone on an A100 machine; worst: "
            + "the largest deviation, also of times, beyond the places that the reference gives"
        var worst = 0.0
        var differing = 0
        let reference = try SplitwiseEvaluator.reference(model: .bloom176B, table: times)
        for row in try files.text("splitwise_sim_percentiles.csv")
            .split(whereSeparator: \.isNewline).dropFirst() where !Task.isCancelled
        {
            let fields = row.split(separator: ",").map(String.init)
            guard fields.count == 20, let design = SplitwiseDesign(rawValue: fields[1]),
                let first = Int(fields[2]), let second = Int(fields[3])
            else { continue }
            let counts =
                design.isBaseline
                ? MachineCounts(mixed: first) : MachineCounts(prefill: first, decode: second)
            let run = try SplitwiseRun(
                design, counts, RequestTrace(text: files.text("\(fields[0]).csv")), times)
            var judge = ServiceJudge(reference: reference)
            for outcome in run.outcomes { judge.record(outcome) }
            let figures = judge.figures
            let deviation = Self.deviation(figures, fields)
            worst = max(worst, deviation)
            let isKept = figures.meets(.splitwise)
            if isKept != (fields[13] == "1") { differing += 1 }
            add(fields, counts, figures, isKept, deviation, to: &table)
            results.show(table)
        }
        guard !table.rows.isEmpty else { return }
        results.find(
            String(
                format: "Of %d runs the largest deviation is %.2f %%; %d verdicts differ.",
                table.rows.count / 2, worst * 100, differing))
    }

    private func add(
        _ fields: [String], _ counts: MachineCounts, _ figures: ServiceFigures, _ isKept: Bool,
        _ deviation: Double, to table: inout ReportTable
    ) {
        let slowdowns =
            figures.ttftSlowdown.all + figures.tbtSlowdown.all + figures.e2eSlowdown.all
        table.add(
            [.text(fields[0]), .text(fields[1]), .text(counts.description), .text("here")]
                + slowdowns.map { .number($0, 2) }
                + [
                    .text(isKept ? "kept" : "broken"), .number(figures.ttftSeconds.p99, 3),
                    .milliseconds(figures.tbtSeconds.p99, 1), .number(figures.e2eSeconds.p99, 2),
                    .number(deviation * 100, 2),
                ])
        table.add(
            [.text(""), .text(""), .text(""), .text("SplitwiseSim")]
                + fields[4...12].map { .number(Double($0), 2) }
                + [
                    .text(fields[13] == "1" ? "kept" : "broken"), .number(Double(fields[15]), 3),
                    .number(Double(fields[17]), 1), .number(Double(fields[19]), 2),
                    .number(nil, 2),
                ])
    }

    /// The largest relative deviation, less what rounding of the reference may be.
    private static func deviation(_ figures: ServiceFigures, _ fields: [String]) -> Double {
        let mine =
            figures.ttftSlowdown.all + figures.tbtSlowdown.all + figures.e2eSlowdown.all
            + [
                figures.ttftSeconds.p50, figures.ttftSeconds.p99, figures.tbtSeconds.p50 * 1e3,
                figures.tbtSeconds.p99 * 1e3, figures.e2eSeconds.p50, figures.e2eSeconds.p99,
            ]
        return zip(mine, fields[4...12] + fields[14...]).map { value, text in
            guard let wanted = Double(text) else { return .infinity }
            let places = text.split(separator: ".").dropFirst().first?.count ?? 0
            let rounding = 0.5 * pow(10, -Double(places))
            return max(0, abs(value - wanted) - rounding) / wanted
        }.max() ?? 0
    }
}

/// One run of a trace.
struct SplitwiseRun {
    var outcomes: [RequestOutcome] = []

    init(
        _ design: SplitwiseDesign, _ counts: MachineCounts, _ trace: RequestTrace,
        _ times: PerformanceTable
    ) throws {
        let kinds = try design.kinds(model: .bloom176B, table: times)
        var simulation = SplitwiseSimulation(
            design.cluster(counts, kinds: kinds, model: .bloom176B))
        var entries = trace.entries.makeIterator()
        var made: [RequestOutcome] = []
        made.reserveCapacity(trace.entries.count)
        _ = simulation.run(next: { entries.next() }) {
            made.append($0)
            return true
        }
        outcomes = made
    }
}

/// How fast the simulation is.
struct SplitwiseSpeed {
    /// Events between two looks at whether to stop.
    private static let eventsAtOnce = 1_000_000
    /// Seconds of CPU per tick of `clock`, as POSIX has it.
    private static let clockTick = 1e-6

    let files: ReferenceFiles
    let times: PerformanceTable

    /// One load on one cluster.
    private struct Load {
        var words: String
        var design: SplitwiseDesign
        var counts: MachineCounts
        var lengths: RequestTrace
        /// Nil for the arrivals of the trace itself.
        var perSecond: Double?
        var seconds: Double
    }

    func run(into results: SplitwiseResults) throws {
        var table = ReportTable(
            "speed", "Requests simulated on one core",
            columns: [
                "load", "system", "machines", "requests", "simulated_s", "cpu_s",
                "requests_/cpu_s", "events_/cpu_s", "memory_MB",
            ])
        table.note =
            "CPU seconds with reading outcomes into percentiles; memory is the process's peak"
        let conversation = try RequestTrace(text: files.text("AzureLLMInferenceTrace_conv.csv"))
        let hour = conversation.entries.last?.arrivalSeconds ?? 0
        let short = try RequestTrace(text: files.text("rr_conv_70_2min.csv"))
        let loads = [
            Load(
                words: "2 min at 70/s", design: .hh, counts: .init(prefill: 25, decode: 15),
                lengths: short, seconds: 120),
            Load(
                words: "2 min at 70/s", design: .baselineH100, counts: .init(mixed: 40),
                lengths: short, seconds: 120),
            Load(
                words: "Azure's hour as it was", design: .hh,
                counts: .init(prefill: 6250, decode: 3750), lengths: conversation, seconds: hour),
            Load(
                words: "an hour at 70/s", design: .hh, counts: .init(prefill: 25, decode: 15),
                lengths: conversation, perSecond: 70, seconds: 3600),
            Load(
                words: "a minute at 17500/s", design: .hh,
                counts: .init(prefill: 6250, decode: 3750), lengths: conversation,
                perSecond: 17_500, seconds: 60),
        ]
        for load in loads where !Task.isCancelled {
            showProgress("speed: \(load.words), \(load.counts)")
            table.add(try measure(load))
            results.show(table)
        }
    }

    private func measure(_ load: Load) throws -> [ReportTable.Cell] {
        let kinds = try load.design.kinds(model: .bloom176B, table: times)
        var judge = ServiceJudge(
            reference: try SplitwiseEvaluator.reference(model: .bloom176B, table: times))
        var entries = load.lengths.entries.makeIterator()
        var random = load.perSecond.map {
            PoissonArrivals(
                lengths: load.lengths, perSecond: $0, seconds: load.seconds, seed: 1,
                draw: .independent)
        }
        let begin = clock()
        var simulation = SplitwiseSimulation(
            load.design.cluster(load.counts, kinds: kinds, model: .bloom176B))
        var ending = SplitwiseSimulation.Ending.paused
        while ending == .paused, !Task.isCancelled {
            ending = simulation.run(
                next: { random == nil ? entries.next() : random?.next() },
                record: {
                    judge.record($0)
                    return true
                }, events: Self.eventsAtOnce)
        }
        let figures = judge.figures
        let seconds = Double(clock() - begin) * Self.clockTick
        return [
            .text(load.words), .text(load.design.rawValue), .text(load.counts.description),
            .whole(figures.requests), .number(simulation.now, 0), .number(seconds, 3),
            .whole(Int(Double(figures.requests) / seconds)),
            .whole(Int(Double(simulation.events) / seconds)), .number(Self.peakMegabytes, 0),
        ]
    }

    /// Most memory of this process so far.
    private static var peakMegabytes: Double? {
        guard let text = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("VmHWM:") })
        else { return nil }
        return line.split(whereSeparator: \.isWhitespace).dropFirst().first
            .flatMap { Double($0) }.map { $0 / 1024 }
    }
}
