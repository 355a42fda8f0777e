import ArgumentParser
import Foundation
import LocalCluster
import Measurement

/// Workers that die or hang, and when gateways know.
struct FailureCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "failure",
        abstract: "Measure how soon gateways exclude a worker that was killed, or that hangs.",
        discussion: """
            Starts all services with simulated engines, kills (SIGKILL) or stops (SIGSTOP) a \
            decode-worker, takes the time until the group view of a gateway excludes it, and \
            starts another one in its place. With --streams, it takes the time for which clients' \
            streams stand still instead, also for prefill-workers in the middle of a prompt, and \
            what is left of it without the engines' own time.
            """)

    @Option(help: "Failures of each kind.")
    var rounds = 10

    @Option(help: "Requests at once whose gaps are measured; 0: when gateways know is measured.")
    var streams = 0

    @Flag(help: "Measure gaps for killed workers alone.")
    var killOnly = false

    @Flag(help: "Keep a spare, serve requests, and also take the time until it is in a role.")
    var spare = false

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard (1...1000).contains(rounds) else { throw ValidationError("Rounds are 1…1000.") }
        guard !spare || streams == 0 else {
            throw ValidationError("--spare and --streams are two measurements.")
        }
        guard (0...24).contains(streams) else { throw ValidationError("Streams are 0…24.") }
    }

    func run() async throws {
        var settings = BenchmarkRun.clusterSettings(modelPath: nil)
        settings.engine = "simulated"
        settings.decodeWorkers = 2
        if streams > 0 { settings.prefillWorkers = 2 }
        if spare {
            settings.decodeWorkers = 3
            settings.argumentsByName["decode-worker-3"] = ["--role", "spare"]
        }
        settings = try BenchmarkRun.withRules(settings, spares: spare ? 1 : 0)
        guard streams == 0 else { return try await measureGaps(settings) }
        let cluster = LocalCluster(settings: settings)
        let measurement = FailureMeasurement(
            settings: FailureMeasurement.Settings(
                rounds: rounds, hasSpare: spare),
            cluster: cluster, progress: showProgress)
        try await BenchmarkRun(settings: settings, json: common.json).run(
            report: { measurement.report }, { try await measurement.run() }, on: cluster)
        guard measurement.lost.isEmpty else {
            showProgress(measurement.lost.joined(separator: "\n"))
            throw ExitCode.failure
        }
    }

    private func measureGaps(_ settings: LocalCluster.Settings) async throws {
        let cluster = LocalCluster(settings: settings)
        let measurement = StreamGaps(
            settings: StreamGaps.Settings(
                rounds: rounds, streams: streams, includesHanging: !killOnly),
            cluster: cluster, progress: showProgress)
        try await BenchmarkRun(settings: settings, json: common.json).run(
            report: { measurement.report }, { try await measurement.run() }, on: cluster)
    }
}
