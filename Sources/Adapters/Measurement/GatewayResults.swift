import Foundation
import Reports
import ServingTypes

/// Everything `benchmark gateway` has measured, by number of connections.
struct GatewayResults: Sendable {
    static let ownName = "benchmark"

    struct Level: Sendable {
        var rate = Samples()
        var times = Samples()
        var plainRate = Samples()
        var plainTimes = Samples()
        /// Of each window, per request and process.
        var processorSeconds: [String: Samples] = [:]
    }

    let settings: GatewayMeasurement.Settings
    let loadBefore = ProcessReadings.loadAverage
    var isComplete = false
    private var levels: [Int: Level] = [:]

    init(settings: GatewayMeasurement.Settings) { self.settings = settings }

    mutating func add(
        served: GatewayWindow, plain: GatewayWindow, processorSeconds: [String: Double],
        connections: Int
    ) {
        var level = levels[connections] ?? Level()
        level.rate.add(served.requestsPerSecond)
        level.times.add(served.times)
        level.plainRate.add(plain.requestsPerSecond)
        level.plainTimes.add(plain.times)
        for (name, seconds) in processorSeconds {
            level.processorSeconds[name, default: Samples()]
                .add(seconds / Double(max(1, served.times.count)))
        }
        levels[connections] = level
    }

    var report: Report {
        var report = Report(
            name: "gateway",
            facts: [
                ("engine", "simulated, takes no time"),
                ("processor", ProcessReadings.processorName),
                ("cores", "\(ProcessInfo.processInfo.activeProcessorCount)"),
                ("load average before", loadBefore),
                ("load average after", ProcessReadings.loadAverage),
                ("rounds", "\(settings.rounds)"), ("window", "\(settings.window)"),
            ])
        report.isComplete = isComplete
        report.tables = [requests, processors]
        return report
    }

    private var requests: ReportTable {
        var table = ReportTable(
            "requests",
            "Completions of \(settings.newTokens) token(s), and GET /health over the same "
                + "connections",
            columns: [
                "connections", "requests_per_s", "tokens_per_s", "p50_ms", "p99_ms", "health_per_s",
                "health_p50_ms", "health_p99_ms", "health_to_requests", "requests",
            ])
        for (count, level) in levels.sorted(by: { $0.key < $1.key }) {
            table.add([
                .whole(count), .number(level.rate.median, 0),
                .number(level.rate.median.map { $0 * Double(settings.newTokens) }, 0),
                .milliseconds(level.times.median, 3),
                .milliseconds(level.times.quantile(0.99), 3),
                .number(level.plainRate.median, 0), .milliseconds(level.plainTimes.median, 3),
                .milliseconds(level.plainTimes.quantile(0.99), 3),
                .ratio(level.plainRate.median, to: level.rate.median),
                .whole(level.times.count),
            ])
        }
        return table
    }

    private var processors: ReportTable {
        let names = Set(levels.values.flatMap { $0.processorSeconds.keys }).sorted()
        var table = ReportTable(
            "processor", "Processor time per request in microseconds",
            columns: ["connections"] + names.map { "\($0)_us" } + ["all_us"])
        for (count, level) in levels.sorted(by: { $0.key < $1.key }) {
            let seconds = names.map { level.processorSeconds[$0]?.median }
            let all = seconds.compactMap { $0 }.reduce(0, +)
            table.add(
                [.whole(count)] + (seconds + [all]).map { .number($0.map { $0 * 1e6 }, 0) })
        }
        return table
    }
}
