import ArgumentParser
import Foundation
import LocalCluster
import Measurement

/// More requests than a cluster can bear.
struct OverloadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "overload",
        abstract: "Ask a cluster for several times what it can do; see answers, memory and files.",
        discussion: """
            Starts all services with simulated engines, finds out how many requests they serve, \
            then sends FACTOR times as many: by clients that wait for their answers, and by \
            clients that don't. Fails if an answer that had begun was not finished, if a refusal \
            has no Retry-After, or if files were left open.
            """)

    @Option(help: "Sequences the decode-worker writes at once.")
    var sequences = 16

    @Option(help: "Load in multiples of what the cluster can do.")
    var factor = 5

    @Option(help: "Seconds of each kind of load.")
    var seconds = 20

    @Option(help: "Limit for the first token in milliseconds.")
    var ttft = 2000

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard (1...255).contains(sequences), (1...100).contains(factor),
            (1...3600).contains(seconds), (10...600_000).contains(ttft)
        else {
            throw ValidationError(
                "Sequences are 1…255, the factor 1…100, seconds 1…3600, the limit 10…600000 ms.")
        }
    }

    func run() async throws {
        var load = OverloadSettings()
        load.sequences = sequences
        load.factor = factor
        load.time = .seconds(seconds)
        load.ttftLimit = .milliseconds(ttft)
        var settings = BenchmarkRun.clusterSettings(modelPath: nil)
        settings.engine = "simulated"
        settings.arguments = load.arguments
        try FileManager.default.createDirectory(
            at: settings.folder, withIntermediateDirectories: true)
        let rules = settings.folder.appending(path: "rules.yaml")
        try Data(load.clusterFile.utf8).write(to: rules)
        settings.clusterFile = rules.path
        let cluster = LocalCluster(settings: settings)
        let measurement = OverloadMeasurement(
            settings: load, cluster: cluster, progress: showProgress)
        try await BenchmarkRun(settings: settings, json: common.json).run(
            report: { measurement.report }, { try await measurement.run() }, on: cluster)
        guard measurement.complaints.isEmpty else { throw ExitCode.failure }
    }
}
