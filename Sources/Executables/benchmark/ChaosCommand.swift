import ArgumentParser
import Chaos
import Foundation
import LocalCluster
import Measurement
import Reports
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
            an answer was lost or altered, if a process did not end or come back as it should, or \
            if a worker still holds something of a request in the end.

            With --network namespaces each process has a host of its own, and hosts lose each \
            other: partitions, also one way, a link that is down, lost packets, a low rate. That \
            needs root, and ip, nft, tc and nsenter.
            """)

    /// Where the processes are.
    enum Network: String, ExpressibleByArgument, CaseIterable {
        case loopback, namespaces
    }

    @Option(help: "Where the processes are: loopback, or namespaces of their own.")
    var network = Network.loopback

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

    @Option(help: "Only this fault, by its name in the report; can be given again.")
    var only: [ChaosFault] = []

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
        settings.network = .loopback(hasRelays: !noLinks && ChaosSettings.canRelay)
        if network == .namespaces { settings.network = .namespaces(hasNetem: false) }
        if !only.isEmpty { settings.kinds = Set(only) }
        try await ChaosSession(common: common).run(settings)
    }
}

extension ChaosFault: ExpressibleByArgument {}

/// One run of chaos on a cluster of its own, and all that is taken away after it.
struct ChaosSession {
    let common: CommonOptions

    /// - Parameter soak: watches what the processes need.
    func run(_ settings: ChaosSettings, soak: Soak? = nil) async throws {
        var settings = settings
        // A real model's last digits depend on what is computed beside a request.
        var clusterSettings = BenchmarkRun.clusterSettings(modelPath: nil)
        clusterSettings.engine = "simulated"
        let network = settings.makeNetwork()
        if let network {
            try network.setUp()
            settings.network = .namespaces(hasNetem: network.hasNetem())
            settings.place(&clusterSettings, on: network)
        }
        defer { network?.tearDown() }
        let cluster = LocalCluster(settings: clusterSettings)
        let chaos = ChaosRun(
            settings: settings, cluster: cluster, network: network,
            progress: showProgress)
        let outcome = await BenchmarkRun.on(cluster) {
            try await chaos.run { processes in try await soak?.watch(processes) }
        }
        var report = chaos.report
        let growing = soak?.growing ?? []
        if let soak {
            report.name = "soak"
            report.tables.append(soak.table)
            report.findings += growing.isEmpty ? ["no process grows"] : growing
        }
        try BenchmarkRun.conclude(outcome, report: report, json: common.json)
        let folder = clusterSettings.folder
        guard chaos.violations == 0, growing.isEmpty else {
            showProgress("logs are in \(folder.path)")
            throw ExitCode(1)
        }
        try? FileManager.default.removeItem(at: folder)
    }
}
