import ArgumentParser
import Foundation
import LocalCluster
import Measurement
import ServingTypes

/// Requests through a cluster against the engine alone.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Compare requests through a cluster with the engine called directly.",
        discussion: """
            Starts a prefill-worker and a decode-worker of one thread each, and the engine in this \
            process. Ratios of medians of interleaved rounds are comparable between runs; times \
            are only comparable on a quiet machine.
            """)

    @Option(help: "The GGUF file to serve.")
    var model: String

    @Option(help: "Rounds of all cases.")
    var rounds = 20

    @Option(parsing: .upToNextOption, help: "Lengths of prompts in tokens.")
    var prompts = [16, 256, 1500]

    @Option(parsing: .upToNextOption, help: "Lengths of answers in tokens.")
    var outputs = [1, 64]

    @Option(parsing: .upToNextOption, help: "Numbers of requests at once.")
    var streams = [1, 4, 16, 64]

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard FileManager.default.isReadableFile(atPath: model) else {
            throw ValidationError("The model file \(model) can't be read; give a GGUF file.")
        }
        let numbers = [rounds] + prompts + outputs + streams
        guard numbers.allSatisfy({ $0 >= 1 }), !prompts.isEmpty, !outputs.isEmpty else {
            throw ValidationError("Rounds, prompts, outputs and streams are at least 1.")
        }
        guard streams.allSatisfy({ $0 <= 255 }) else {
            throw ValidationError("A worker decodes at most 255 sequences at once.")
        }
    }

    func run() async throws {
        let path = URL(fileURLWithPath: model).path
        let settings = ServeSettings(
            modelPath: path, rounds: rounds, promptTokens: prompts, newTokens: outputs,
            streams: streams)
        var clusterSettings = BenchmarkRun.clusterSettings(modelPath: path)
        clusterSettings.arguments = [
            .prefillWorker: settings.prefillArguments, .decodeWorker: settings.decodeArguments,
        ]
        let cluster = LocalCluster(settings: try BenchmarkRun.withRules(clusterSettings))
        let measurement = ServeMeasurement(
            settings: settings, cluster: cluster, progress: showProgress)
        try await BenchmarkRun(settings: clusterSettings, json: common.json).run(
            report: { measurement.report }, { try await measurement.run() }, on: cluster)
    }
}
