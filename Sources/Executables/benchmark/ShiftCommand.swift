import ArgumentParser
import Foundation
import LocalCluster
import Measurement
import ServiceRuntime
import ServingTypes

/// What the automatic ratio gains when traffic changes its kind.
struct ShiftCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "shift",
        abstract: "Change the kind of traffic; compare the automatic ratio with the started one.",
        discussion: """
            Starts a cluster of simulated engines twice, sends long prompts with short answers and \
            then short prompts with long answers, and counts the requests that met their limits. \
            Engines sleep for the time they model, so two cores are enough for a few workers.
            """)

    @Option(help: "Workers that start as prefill-workers.")
    var prefillWorkers = 4

    @Option(help: "Workers that start as decode-workers.")
    var decodeWorkers = 2

    @Option(help: "Clients, one request at a time each.")
    var users = 16

    @Option(help: "Seconds of long prompts with short answers.")
    var firstSeconds = 40.0

    @Option(help: "Seconds of short prompts with long answers.")
    var secondSeconds = 60.0

    @Option(help: "Tokens of a long prompt; answers to it have a hundredth.")
    var promptTokens = 2000

    @Option(help: "Tokens of a long answer; prompts for it have half as many.")
    var newTokens = 200

    @Option(help: "Longest good time to the first token in seconds.")
    var ttft = 10.0

    @Option(help: "Longest good mean time of a further token in milliseconds.")
    var tpot = 100.0

    @Option(help: "How many times as fast as its device the simulated engine is.")
    var simulatedSpeed = 0.25

    @Option(help: "Seconds over which the scheduler measures traffic.")
    var window = 8

    @Option(help: "Seconds between two steps of the scheduler.")
    var settle = 4

    @Option(help: ArgumentHelp("Draw goodput and workers over time as SVG.", valueName: "file"))
    var svg: String?

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard (1...32).contains(prefillWorkers), (1...32).contains(decodeWorkers),
            (1...1000).contains(users)
        else { throw ValidationError("Workers are 1…32 of each kind, users 1…1000.") }
        guard (1...3600).contains(firstSeconds), (1...3600).contains(secondSeconds) else {
            throw ValidationError("Each phase takes 1…3600 seconds.")
        }
        guard (100...100_000).contains(promptTokens), (2...100_000).contains(newTokens) else {
            throw ValidationError("Long prompts have 100…100000 tokens, long answers 2…100000.")
        }
        guard (0.001...3600).contains(ttft), (1...60_000).contains(tpot),
            (0.001...1000).contains(simulatedSpeed)
        else {
            throw ValidationError(
                "TTFT is 0.001…3600 s, TPOT 1…60000 ms, the engine's speed 0.001…1000.")
        }
        guard (2...600).contains(window), (1...3600).contains(settle) else {
            throw ValidationError("The window is 2…600 seconds, the time between steps 1…3600.")
        }
    }

    private var settings: ShiftSettings {
        var settings = ShiftSettings()
        settings.prefillWorkers = prefillWorkers
        settings.decodeWorkers = decodeWorkers
        settings.users = users
        settings.first = ShiftPhase(
            promptTokens: promptTokens, newTokens: promptTokens / 100,
            duration: .seconds(firstSeconds))
        settings.second = ShiftPhase(
            promptTokens: newTokens / 2, newTokens: newTokens, duration: .seconds(secondSeconds))
        settings.ttftLimit = .seconds(ttft)
        settings.tpotLimit = .milliseconds(tpot)
        settings.speed = simulatedSpeed
        settings.window = .seconds(window)
        settings.settle = .seconds(settle)
        return settings
    }

    func run() async throws {
        let settings = settings
        #if DEBUG
            let build = "debug"
        #else
            let build = "release"
        #endif
        let measurement = ShiftMeasurement(
            settings: settings, facts: [("build", build)], progress: showProgress)
        var outcome = SignalOutcome.finished
        for mode in ShiftMode.allCases {
            guard case .finished = outcome else { break }
            outcome = try await run(mode, settings, measurement)
        }
        if let svg { try measurement.plot.write(toFile: svg, atomically: true, encoding: .utf8) }
        try BenchmarkRun.conclude(outcome, report: measurement.report, json: common.json)
    }

    /// One run on a cluster of its own, which is stopped whatever happens.
    private func run(
        _ mode: ShiftMode, _ settings: ShiftSettings, _ measurement: ShiftMeasurement
    ) async throws -> SignalOutcome {
        var clusterSettings = BenchmarkRun.clusterSettings(modelPath: nil)
        clusterSettings.folder.append(path: mode.rawValue)
        clusterSettings.engine = "simulated"
        clusterSettings.prefillWorkers = settings.prefillWorkers
        clusterSettings.decodeWorkers = settings.decodeWorkers
        clusterSettings.arguments = settings.arguments
        let folder = clusterSettings.folder
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let rules = folder.appending(path: "cluster.yaml")
        try settings.clusterFile(mode).write(to: rules, atomically: true, encoding: .utf8)
        clusterSettings.clusterFile = rules.path
        let cluster = LocalCluster(settings: clusterSettings)
        let outcome = await BenchmarkRun.onHealthy(cluster) {
            try await measurement.run(mode, on: cluster)
        }
        if case .finished = outcome {
            try? FileManager.default.removeItem(at: folder.deletingLastPathComponent())
        }
        return outcome
    }
}
