import ArgumentParser
import Calibration
import DeviceProfile
import Foundation
import LocalCluster
import Measurement
import Reports
import RequestTraces
import ServingTypes
import Synchronization

/// Simulated times against those of a real cluster.
struct FidelityCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fidelity",
        abstract: "Compare a simulated cluster with the real one, under the same requests.",
        discussion: """
            Starts workers of one thread each, which measure their engines; asks some requests one \
            by one, for what a request costs besides the engine; then sends a random load with \
            the lengths of a trace, scaled down, and simulates the same requests with the measured \
            times. Needs a quiet machine: whatever else runs slows the real cluster alone. Where a \
            host's speed drifts, many short loads say more than a long one, for what requests cost \
            is asked anew before and after each.
            """)

    @Option(help: "The GGUF file to serve.")
    var model: String
    @Option(help: "Requests per second.")
    var rate = 3.0
    @Option(help: "Seconds of each load.")
    var seconds = 15.0
    @Option(help: "Trace whose lengths are used.")
    var trace = "Tests/ServingSimulationTests/Traces/azure-conversation.csv"
    @Option(help: "Part of the trace's prompt lengths.")
    var promptScale = 0.25
    @Option(help: "Part of the trace's answer lengths.")
    var outputScale = 0.25
    @Option(help: "Longest prompt and answer together, in tokens.")
    var longest = 1024
    @Option(help: "Prefill-workers.")
    var prefillWorkers = 1
    @Option(help: "Decode-workers.")
    var decodeWorkers = 1
    @Option(help: "Loads, one after the other; each has its own requests.")
    var rounds = 10
    @Option(help: "Number that the requests are drawn by.")
    var seed: UInt64 = 1
    @Option(
        help: ArgumentHelp(
            "Also write each request's real and simulated times to this CSV file.",
            valueName: "file"))
    var requests: String?
    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard FileManager.default.isReadableFile(atPath: model) else {
            throw ValidationError("The model file \(model) can't be read; give a GGUF file.")
        }
        guard rate > 0, rate <= 1000, seconds >= 5, seconds <= 3600, promptScale > 0,
            outputScale > 0, (64...1 << 17).contains(longest), (1...8).contains(prefillWorkers),
            (1...8).contains(decodeWorkers), (1...100).contains(rounds)
        else {
            throw ValidationError(
                "--rate is above 0 and at most 1000, --seconds 5…3600, the scales above 0, "
                    + "--longest 64…131072, workers 1…8, --rounds 1…100.")
        }
    }

    func run() async throws {
        let path = URL(fileURLWithPath: model).path
        let lengths = try RequestTrace(
            text: String(contentsOfFile: trace, encoding: .utf8))
        var settings = BenchmarkRun.clusterSettings(modelPath: path)
        settings.prefillWorkers = prefillWorkers
        settings.decodeWorkers = decodeWorkers
        settings.calibrate = "always"
        let profiles = settings.folder.appending(path: "profiles")
        let worker = [
            "--threads", "1", "--kv-tokens", "\(FidelityMeasurement.kvTokens)",
            "--kept-sequences", "0", "--calibration-limit", "20s", "--profile-folder",
            profiles.path,
        ]
        settings.arguments = [.prefillWorker: worker, .decodeWorker: worker]
        let cluster = LocalCluster(
            settings: try BenchmarkRun.withRules(
                settings, ttftLimit: FidelityMeasurement.ttftLimit))
        let measurement = FidelityMeasurement(
            command: self, lengths: lengths, cluster: cluster, profiles: profiles,
            modelPath: path)
        defer {
            if let requests { measurement.write(requests) }
        }
        try await BenchmarkRun(settings: settings, json: common.json).run(
            report: { measurement.report }, { try await measurement.run() }, on: cluster)
    }
}
