import ArgumentParser
import LocalCluster
import Measurement
import ServingTypes

/// The way of a request without any computing.
struct GatewayCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "gateway",
        abstract: "Load a gateway whose workers compute nothing and answer at once.")

    /// Enough that no request waits for a worker.
    private static let sequences = 255
    /// Fits the workers' KV for all of them.
    private static let mostTokens = 200

    @Option(help: "Rounds of all numbers of connections.")
    var rounds = 5

    @Option(parsing: .upToNextOption, help: "Numbers of connections, one request at a time each.")
    var connections = [1, 16, 64]

    @Option(help: "Tokens in an answer; answers of several tokens are streamed.")
    var newTokens = 1

    @Option(help: "Seconds of one window of requests.")
    var seconds = 3.0

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard rounds >= 1, connections.allSatisfy({ (1...Self.sequences).contains($0) }),
            (0.1...3600).contains(seconds), (1...Self.mostTokens).contains(newTokens)
        else {
            throw ValidationError(
                """
                Rounds are at least 1, connections 1…\(Self.sequences), seconds 0.1…3600, \
                tokens 1…\(Self.mostTokens).
                """)
        }
    }

    func run() async throws {
        var clusterSettings = BenchmarkRun.clusterSettings(modelPath: nil)
        clusterSettings.engine = "simulated"
        let all = ["--simulated-speed", "0", "--kv-tokens", "65536"]
        clusterSettings.arguments = [
            .prefillWorker: all + ["--prefill-slots", "\(Self.sequences)"],
            .decodeWorker: all + ["--decode-sequences", "\(Self.sequences)"],
        ]
        let cluster = LocalCluster(settings: try BenchmarkRun.withRules(clusterSettings))
        let measurement = GatewayMeasurement(
            settings: GatewayMeasurement.Settings(
                rounds: rounds, connections: connections, newTokens: newTokens,
                window: .seconds(seconds)),
            cluster: cluster, progress: showProgress)
        try await BenchmarkRun(settings: clusterSettings, json: common.json).run(
            report: { measurement.report }, { try await measurement.run() }, on: cluster)
    }
}
