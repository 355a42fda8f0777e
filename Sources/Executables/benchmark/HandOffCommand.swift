import ArgumentParser
import Foundation
import LocalCluster
import Measurement
import ServiceRuntime
import ServingTypes

/// The hand-over of KV from one worker to the other, as a client and the workers see it.
struct HandOffCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "handoff",
        abstract: "Measure what of a KV transfer is left when the first token is there.",
        discussion: """
            Sends prompts of random tokens, one at a time, and splits the time of each hand-over \
            by what both workers count. The cluster is started here, with one thread per worker, \
            unless --gateway names one that has one worker of each kind and no other requests; \
            Scripts/handoff-over-link.sh does that over a link of a chosen rate. Use a release \
            build.
            """)

    /// How KV goes from worker to worker.
    enum Carrier: String, ExpressibleByArgument, CaseIterable {
        case memory
        case stream
    }

    @Option(help: "The GGUF file that is served; of a cluster elsewhere its vocabulary is read.")
    var model: String

    @Option(
        help: ArgumentHelp(
            "Lengths of prompts in tokens (default: 128,256,512,1024,2048,4096).",
            valueName: "a,b,…"),
        transform: parseLengths)
    var promptTokens = [128, 256, 512, 1024, 2048, 4096]

    @Option(help: "Rounds of all lengths.")
    var rounds = 10

    @Option(
        help: ArgumentHelp(
            "Measured rate of the link, for the least time a transfer can take.",
            valueName: "gbit/s"))
    var linkGbit: Double?

    @OptionGroup(title: "Workers that are started") var workers: WorkerOptions
    @OptionGroup(title: "A cluster elsewhere") var elsewhere: ElsewhereOptions
    @OptionGroup var common: CommonOptions

    struct WorkerOptions: ParsableArguments {
        @Option(help: "Pass KV as memory, or over a TLS connection (default: memory).")
        var carrier: Carrier?

        @Option(help: ArgumentHelp("As the workers' setting.", valueName: "mode"))
        var kvCompression: String?

        @Option(help: ArgumentHelp("As the workers' setting.", valueName: "count"))
        var kvConnections: Int?

        @Option(help: ArgumentHelp("As the workers' setting.", valueName: "tokens"))
        var microBatch: Int?

        @Option(help: ArgumentHelp("As the workers' setting.", valueName: "tokens"))
        var finalRun: Int?

        /// What differs from the workers' defaults.
        var arguments: [String] {
            let texts = [("kv-compression", kvCompression)]
            let numbers = [
                ("kv-connections", kvConnections), ("micro-batch", microBatch),
                ("final-run", finalRun),
            ].map { ($0, $1.map(String.init)) }
            let given = (texts + numbers).flatMap { name, value in
                value.map { ["--\(name)", $0] } ?? []
            }
            return (carrier == .stream ? ["--local-folder", "none"] : []) + given
        }
    }

    struct ElsewhereOptions: ParsableArguments {
        @Option(help: ArgumentHelp("Where the gateway serves.", valueName: "url"))
        var gateway: String?

        @Option(help: ArgumentHelp("Where the prefill-worker's metrics are.", valueName: "url"))
        var prefillMetrics: String?

        @Option(help: ArgumentHelp("Where the decode-worker's metrics are.", valueName: "url"))
        var decodeMetrics: String?

        @Option(help: ArgumentHelp("Its process, if it is on this host.", valueName: "pid"))
        var prefillProcess: Int32?

        @Option(help: ArgumentHelp("Its process, if it is on this host.", valueName: "pid"))
        var decodeProcess: Int32?

        var isEmpty: Bool {
            gateway == nil && prefillMetrics == nil && decodeMetrics == nil
                && prefillProcess == nil && decodeProcess == nil
        }

        func target() throws -> HandOverTarget? {
            if isEmpty { return nil }
            guard let gateway, let prefillMetrics, let decodeMetrics else {
                throw ValidationError(
                    "--gateway, --prefill-metrics and --decode-metrics go together.")
            }
            return HandOverTarget(
                gateway: try parseAddress(gateway),
                prefillMetrics: try parseAddress(prefillMetrics),
                decodeMetrics: try parseAddress(decodeMetrics), prefillProcess: prefillProcess,
                decodeProcess: decodeProcess)
        }
    }

    func validate() throws {
        guard FileManager.default.isReadableFile(atPath: model) else {
            throw ValidationError("The model file \(model) can't be read; give a GGUF file.")
        }
        guard (1...1000).contains(rounds), !promptTokens.isEmpty,
            Set(promptTokens).count == promptTokens.count,
            promptTokens.allSatisfy({ (1...1 << 20).contains($0) })
        else {
            throw ValidationError(
                "Rounds are 1…1000, lengths of prompts different numbers in 1…\(1 << 20).")
        }
        if let linkGbit, !(linkGbit > 0 && linkGbit.isFinite) {
            throw ValidationError("The link's rate is more than 0.")
        }
        if try elsewhere.target() != nil, workers.carrier != nil || !workers.arguments.isEmpty {
            throw ValidationError("Settings of workers are given where they are started.")
        }
    }

    func run() async throws {
        let path = URL(fileURLWithPath: model).path
        if let target = try elsewhere.target() {
            let measurement = measurement(path, [("cluster", "\(target.gateway)")])
            let outcome = await withStopSignals {
                try await measurement.run(on: target, seed: .random(in: 0 ... .max))
            }
            return try BenchmarkRun.conclude(
                outcome, report: measurement.report, json: common.json)
        }
        let carrier = workers.carrier ?? .memory
        let arguments = workers.arguments
        let measurement = measurement(
            path,
            [
                ("carrier", carrier.rawValue),
                ("worker settings", arguments.joined(separator: " ")),
            ])
        var clusterSettings = BenchmarkRun.clusterSettings(modelPath: path)
        let all = ["--threads", "1", "--kv-tokens", "\(settings(path, []).kvTokens)"] + arguments
        clusterSettings.arguments = [.prefillWorker: all, .decodeWorker: all]
        let cluster = LocalCluster(settings: try BenchmarkRun.withRules(clusterSettings))
        try await BenchmarkRun(settings: clusterSettings, json: common.json).run(
            report: { measurement.report },
            {
                try await measurement.run(
                    on: try cluster.handOverTarget, seed: .random(in: 0 ... .max))
            }, on: cluster)
    }

    private func settings(
        _ path: String, _ facts: [(name: String, value: String)]
    ) -> HandOverSettings {
        HandOverSettings(
            modelPath: path, promptTokens: promptTokens, rounds: rounds,
            linkBitsPerSecond: linkGbit.map { $0 * 1e9 }, facts: facts)
    }

    private func measurement(
        _ path: String, _ facts: [(name: String, value: String)]
    ) -> HandOverMeasurement {
        HandOverMeasurement(settings: settings(path, facts), progress: showProgress)
    }
}

/// `http://host:port`, or that without `http://`.
private func parseAddress(_ text: String) throws -> NetworkAddress {
    let scheme = "http://"
    var rest = text.hasPrefix(scheme) ? Substring(text.dropFirst(scheme.count)) : text[...]
    if rest.hasSuffix("/") { rest = rest.dropLast() }
    guard !rest.contains("/"), let address = NetworkAddress(String(rest)) else {
        throw ValidationError("'\(text)' is no address; write it as in http://10.0.0.1:8080.")
    }
    return address
}

private func parseLengths(_ text: String) throws -> [Int] {
    try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
        guard let number = Int(part.trimmingCharacters(in: .whitespaces)) else {
            throw ValidationError("'\(part)' is no whole number; write lengths as in 128,2048.")
        }
        return number
    }
}
