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
            starts another one in its place.
            """)

    @Option(help: "Failures of each kind.")
    var rounds = 10

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard (1...1000).contains(rounds) else { throw ValidationError("Rounds are 1…1000.") }
    }

    func run() async throws {
        var settings = BenchmarkRun.clusterSettings(modelPath: nil)
        settings.engine = "simulated"
        settings.decodeWorkers = 2
        settings = try BenchmarkRun.withRules(settings)
        let cluster = LocalCluster(settings: settings)
        let measurement = FailureMeasurement(
            settings: FailureMeasurement.Settings(rounds: rounds), cluster: cluster,
            progress: showProgress)
        try await BenchmarkRun(settings: settings, json: common.json).run(
            report: { measurement.report }, { try await measurement.run() }, on: cluster)
    }
}
