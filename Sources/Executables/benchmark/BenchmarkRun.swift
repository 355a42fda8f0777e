import ArgumentParser
import Foundation
import HTTPClient
import LocalCluster
import Measurement
import Reports
import ServiceRuntime
import ServingTypes

/// Options of every benchmark.
struct CommonOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Also write the report as JSON to this file.", valueName: "file"))
    var json: String?
}

/// Starts a cluster for one benchmark, and stops it whatever happens.
struct BenchmarkRun {
    let settings: LocalCluster.Settings
    let json: String?

    /// This program.
    static var executable: URL {
        URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    }

    /// Settings for a cluster beside this executable, in a folder of its own.
    static func clusterSettings(modelPath: String?) -> LocalCluster.Settings {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-benchmark-\(ProcessInfo.processInfo.processIdentifier)")
        return LocalCluster.Settings(
            executables: executable.deletingLastPathComponent(), folder: folder,
            modelPath: modelPath)
    }

    /// The rules of a measurement: roles stay, and every prompt is handed over.
    private static let rules = """
        scenarios:
          - name: default
            ratio: as-started
            deflection: false

        """

    /// Writes the rules of the cluster, unless the benchmark has its own.
    ///
    /// - Parameter ttftLimit: instead of the usual one.
    static func withRules(
        _ settings: LocalCluster.Settings, spares: Int = 0, ttftLimit: Duration? = nil
    ) throws -> LocalCluster.Settings {
        guard settings.clusterFile == nil else { return settings }
        try FileManager.default.createDirectory(
            at: settings.folder, withIntermediateDirectories: true)
        let file = settings.folder.appending(path: "rules.yaml")
        var text = rules
        if spares > 0 { text += "    decode: {minimum: 2}\n    spares: \(spares)\n" }
        if let ttftLimit { text += "    limits: {ttft: \(ttftLimit.components.seconds)s}\n" }
        try Data(text.utf8).write(to: file)
        var ruled = settings
        ruled.clusterFile = file.path
        return ruled
    }

    /// Runs a measurement; on Ctrl-C or a failure reports what there is.
    func run(
        report: @escaping @Sendable () -> Report,
        _ measure: @escaping @Sendable () async throws -> Void, on cluster: LocalCluster
    ) async throws {
        let outcome = await Self.onHealthy(cluster, measure)
        try Self.conclude(outcome, report: report(), json: json)
        try? FileManager.default.removeItem(at: settings.folder)
    }

    /// Starts a cluster, waits until it serves, does something with it, and stops it.
    static func onHealthy(
        _ cluster: LocalCluster, _ body: @escaping @Sendable () async throws -> Void
    ) async -> SignalOutcome {
        await on(cluster) {
            try await cluster.start()
            try await cluster.waitUntilHealthy { address in
                let answer = try? await HTTPCall("GET", address, "/health").collect()
                return answer?.head.status == 200
            }
            try await body()
        }
    }

    /// Stops a cluster that is started meanwhile, whatever happens.
    static func on(
        _ cluster: LocalCluster, _ body: @escaping @Sendable () async throws -> Void
    ) async -> SignalOutcome {
        let outcome = await withStopSignals {
            showProgress("starting a cluster in \(cluster.settings.folder.path)")
            try await body()
        }
        showProgress("stopping the cluster")
        await cluster.stop()
        return outcome
    }

    /// Shows what was found; throws unless the measurement is finished.
    static func conclude(_ outcome: SignalOutcome, report: Report, json: String?) throws {
        print(report.text)
        if let json { try report.json.write(to: URL(fileURLWithPath: json)) }
        switch outcome {
        case .finished: return
        case .interrupted: throw ExitCode(130)
        case .failed(let error): throw error
        }
    }
}

/// Writes a line that is no part of the result.
@Sendable func showProgress(_ line: String) {
    FileHandle.standardError.write(Data("\(line)\n".utf8))
}
