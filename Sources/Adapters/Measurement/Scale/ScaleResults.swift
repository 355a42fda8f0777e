import Foundation
import Reports
import ServingTypes

/// What one number of instances showed.
struct ScaleLevel: Sendable {
    struct Status: Sendable {
        var members = 0
        var messages = 0
        var time = Duration.zero
    }

    let instances: Int
    /// Of the scheduler before the first instance.
    var emptyBytes: Int?
    var registered = Duration.zero
    var inUse: Duration?
    var registeringProcessorSeconds: Double?
    var connections = 0
    var heartbeatsPerSecond = 0.0
    var missedLeases = 0
    var lostConnections = 0
    /// Of one core.
    var processorShare: Double?
    var ownProcessorShare: Double?
    var residentBytes: Int?
    var gatewayBytesPerSecond = 0.0
    var viewsPerSecond = 0.0
    var outOfStep = 0
    var status = Status()
    var disconnected = Samples()
    var silenced = Samples()
    var restarted = Duration.zero
    var inUseAgain: Duration?

    init(instances: Int) { self.instances = instances }

    /// Memory per instance above the empty scheduler's.
    var bytesPerInstance: Double? {
        residentBytes.flatMap { all in
            emptyBytes.map { Double(all - $0) / Double(max(1, instances)) }
        }
    }
}

/// Everything `benchmark scheduler` has measured.
struct ScaleResults: Sendable {
    let settings: ScaleMeasurement.Settings
    let loadBefore = ProcessReadings.loadAverage
    private(set) var levels: [ScaleLevel] = []
    var findings: [String] = []
    var isComplete = false

    init(settings: ScaleMeasurement.Settings) { self.settings = settings }

    mutating func add(_ level: ScaleLevel) { levels.append(level) }

    var report: Report {
        var report = Report(
            name: "scheduler",
            facts: [
                ("processor", ProcessReadings.processorName),
                ("cores", "\(ProcessInfo.processInfo.activeProcessorCount)"),
                ("load average before", loadBefore),
                ("load average after", ProcessReadings.loadAverage),
                ("gateways", "\(settings.gateways)"), ("window", "\(settings.window)"),
            ])
        report.isComplete = isComplete
        report.tables = [rest, arrivals, deaths]
        report.findings = findings
        return report
    }

    private var rest: ReportTable {
        var table = ReportTable(
            "rest", "At rest: each instance beats once a second, with other readings each time",
            columns: [
                "instances", "connections", "heartbeats_per_s", "missed_leases",
                "lost_connections", "scheduler_core_percent", "benchmark_core_percent",
                "resident_MB", "kB_per_instance", "gateway_kB_per_s", "views_per_s",
                "out_of_step", "status_ms", "status_messages",
            ])
        table.note = """
            missed leases, lost connections: by the scheduler's word, none is expected. gateway: \
            what each of them receives. status: all members, as a person asks for them.
            """
        for level in levels {
            table.add([
                .whole(level.instances), .whole(level.connections),
                .number(level.heartbeatsPerSecond, 0), .whole(level.missedLeases),
                .whole(level.lostConnections), .number(level.processorShare.map { $0 * 100 }, 1),
                .number(level.ownProcessorShare.map { $0 * 100 }, 1),
                .number(level.residentBytes.map { Double($0) / 1e6 }, 1),
                .number(level.bytesPerInstance.map { $0 / 1e3 }, 1),
                .number(level.gatewayBytesPerSecond / 1e3, 1),
                .number(level.viewsPerSecond, 2), .whole(level.outOfStep),
                .milliseconds(level.status.time.seconds, 0), .whole(level.status.messages),
            ])
        }
        return table
    }

    private var arrivals: ReportTable {
        var table = ReportTable(
            "arrivals", "Until every gateway sees all instances serve, in seconds",
            columns: [
                "instances", "registered_s", "in_use_s", "scheduler_processor_s", "restarted_s",
                "in_use_again_s",
            ])
        table.note = """
            registered: from nothing, all connect at once. restarted: from the scheduler's death \
            by SIGKILL, its start included. in use: all have a role, too.
            """
        for level in levels {
            table.add([
                .whole(level.instances), .number(level.registered.seconds, 2),
                .number(level.inUse?.seconds, 2), .number(level.registeringProcessorSeconds, 2),
                .number(level.restarted.seconds, 2), .number(level.inUseAgain?.seconds, 2),
            ])
        }
        return table
    }

    private var deaths: ReportTable {
        var table = ReportTable(
            "deaths", "From the death of an instance until no gateway may choose it",
            columns: ["death", "instances", "p50_ms", "p99_ms", "max_ms", "deaths"])
        table.note = "silent: counted from its last heartbeat; its connection stays open."
        for level in levels {
            for (name, samples) in [
                ("disconnected", level.disconnected), ("silent", level.silenced),
            ] where samples.count > 0 {
                table.add([
                    .text(name), .whole(level.instances),
                    .milliseconds(samples.median, 1), .milliseconds(samples.quantile(0.99), 1),
                    .milliseconds(samples.quantile(1), 1), .whole(samples.count),
                ])
            }
        }
        return table
    }
}
