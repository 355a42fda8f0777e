import ArgumentParser
import Foundation
import LocalCluster
import Measurement
import ServiceRuntime

/// One scheduler and very many instances.
struct SchedulerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scheduler",
        abstract: "Load a scheduler with instances that register, beat and die.",
        discussion: """
            Starts a scheduler for each number of instances and plays the instances and some \
            gateways itself, each with a TLS connection of its own. Each connection needs an open \
            file in both processes; a number that this host does not bear is reported and left \
            out.
            """)

    private static let mostInstances = 60_000

    @Option(
        help: ArgumentHelp("Numbers of instances.", valueName: "a,b,…"),
        transform: parseNumbers)
    var instances = [100, 1000, 3000, 10_000]

    @Option(help: "Gateways that follow the group view.")
    var gateways = 3

    @Option(help: "Seconds of the window at rest.")
    var seconds = 10.0

    @Option(help: "Deaths of each kind; at most a quarter of the instances die of each.")
    var deaths = 50

    @Flag(help: "The scheduler keeps its state in a file and finds it again.")
    var keepState = false

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard !instances.isEmpty,
            instances.allSatisfy({ (2...Self.mostInstances).contains($0) }),
            (1...100).contains(gateways), (1...3600).contains(seconds),
            (0...10_000).contains(deaths)
        else {
            throw ValidationError(
                """
                Instances are 2…\(Self.mostInstances), gateways 1…100, seconds 1…3600, deaths \
                0…10000.
                """)
        }
    }

    func run() async throws {
        let cluster = BenchmarkRun.clusterSettings(modelPath: nil)
        var settings = ScaleMeasurement.Settings(
            instances: instances, gateways: gateways, window: .seconds(seconds),
            deaths: deaths, executables: cluster.executables, folder: cluster.folder)
        settings.keepsState = keepState
        let measurement = ScaleMeasurement(settings: settings, progress: showProgress)
        let outcome = await withStopSignals { try await measurement.run() }
        try BenchmarkRun.conclude(outcome, report: measurement.report, json: common.json)
        try? FileManager.default.removeItem(at: cluster.folder)
    }
}

/// Decisions of a gateway's machine.
struct PlacementCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "placement",
        abstract: "Measure what choosing workers costs a gateway, without any network.")

    @Option(
        help: ArgumentHelp("Numbers of workers, half of which decode.", valueName: "a,b,…"),
        transform: parseNumbers)
    var workers = [10, 100, 1000, 10_000]

    @Option(help: "Requests per policy and number of workers.")
    var requests = 10_000

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard !workers.isEmpty, workers.allSatisfy({ (2...60_000).contains($0) }),
            (1...10_000_000).contains(requests)
        else { throw ValidationError("Workers are 2…60000, requests 1…10000000.") }
    }

    func run() async throws {
        let measurement = PlacementMeasurement(
            settings: PlacementMeasurement.Settings(workers: workers, requests: requests),
            progress: showProgress)
        let outcome = await withStopSignals { try measurement.run() }
        try BenchmarkRun.conclude(outcome, report: measurement.report, json: common.json)
    }
}
