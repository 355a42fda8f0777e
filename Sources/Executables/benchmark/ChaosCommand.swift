import ArgumentParser
import Chaos
import Foundation
import LocalCluster
import Measurement
import ServiceRuntime
import ServingTypes

/// Whether a cluster loses or alters anything while its processes and links fail.
struct ChaosCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chaos",
        abstract: "Kill, stop and cut off a cluster's processes under load; check every answer.",
        discussion: """
            Starts a cluster of simulated engines, asks questions whose answers are known, and \
            lets a seeded schedule of faults happen: kill -9, SIGSTOP, SIGTERM, and connections \
            that are cut, stand still, are slow, or damage what they carry. Ends with status 1 if \
            an answer was lost or altered, or if a process did not end or come back as it should.
            """)

    @Option(help: "Rounds of some faults each.")
    var rounds = 10

    @Option(help: "The same seed makes the same faults.")
    var seed: UInt64 = 1

    @Option(help: "Workers that prefill.")
    var prefillWorkers = 3

    @Option(help: "Workers that decode.")
    var decodeWorkers = 3

    @Option(help: "Gateways.")
    var gateways = 2

    @Option(help: "Clients, one request at a time each.")
    var users = 8

    @Flag(help: "Leave the links alone.")
    var noLinks = false

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard (1...100_000).contains(rounds), (1...500).contains(users) else {
            throw ValidationError("Rounds are 1…100000, users 1…500.")
        }
        guard [prefillWorkers, decodeWorkers, gateways].allSatisfy({ (2...32).contains($0) }) else {
            throw ValidationError(
                "Workers of each kind and gateways are 2…32: one of each is always left alone.")
        }
    }

    func run() async throws {
        var settings = ChaosSettings()
        settings.rounds = rounds
        settings.seed = seed
        settings.prefillWorkers = prefillWorkers
        settings.decodeWorkers = decodeWorkers
        settings.gateways = gateways
        settings.users = users
        settings.hasRelays = !noLinks && ChaosSettings.canRelay
        var clusterSettings = BenchmarkRun.clusterSettings(modelPath: nil)
        clusterSettings.engine = "simulated"
        let folder = clusterSettings.folder
        let cluster = LocalCluster(settings: clusterSettings)
        let chaos = ChaosRun(settings: settings, cluster: cluster, progress: showProgress)
        let outcome = await withStopSignals {
            showProgress("starting a cluster in \(folder.path)")
            try await chaos.run()
        }
        showProgress("stopping the cluster")
        await cluster.stop()
        try BenchmarkRun.conclude(outcome, report: chaos.report, json: common.json)
        guard chaos.violations == 0 else {
            showProgress("logs are in \(folder.path)")
            throw ExitCode(1)
        }
        try? FileManager.default.removeItem(at: folder)
    }
}
