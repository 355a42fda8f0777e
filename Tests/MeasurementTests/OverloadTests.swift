import Foundation
import LocalCluster
import Reports
import ServingTypes
import Testing

@testable import Measurement

/// A small run of `benchmark overload`.
@Suite(.serialized, .timeLimit(.minutes(3))) struct OverloadTests {
    private static let executables = URL(
        fileURLWithPath: ProcessInfo.processInfo.arguments[0]
    ).resolvingSymlinksInPath().deletingLastPathComponent()

    @Test func `five times too many requests are served or refused at once, and leave nothing`()
        async throws
    {
        var load = OverloadSettings()
        load.sequences = 4
        load.time = .seconds(1)
        load.ttftLimit = .seconds(1)
        load.waiting = 60
        load.connections = 60
        load.maximumRequests = 64
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-overload-\(UInt32.random(in: 0 ... .max))")
        defer { try? FileManager.default.removeItem(at: folder) }
        var settings = LocalCluster.Settings(
            executables: Self.executables, folder: folder, modelPath: nil)
        settings.engine = "simulated"
        settings.arguments = load.arguments
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let rules = folder.appending(path: "rules.yaml")
        try Data(load.clusterFile.utf8).write(to: rules)
        settings.clusterFile = rules.path
        let cluster = LocalCluster(settings: settings)
        let measurement = OverloadMeasurement(
            settings: load, cluster: cluster, progress: { print($0) })
        do {
            try await cluster.start()
            try await cluster.waitUntilHealthy { address in
                (try? await MetricsReading(at: address))?["gateway_view_epoch"] ?? 0 > 0
            }
            try await awaitPair(cluster)
            try await measurement.run()
        } catch {
            await cluster.stop()
            throw error
        }
        await cluster.stop()
        let report = measurement.report
        print(report.text)
        #expect(report.isComplete)
        #expect(measurement.complaints == [])
        let object = try #require(
            try JSONSerialization.jsonObject(with: report.json) as? [String: Any])
        let tables = try #require(object["tables"] as? [String: [[String: Any]]])
        let phases = try #require(tables["phases"])
        #expect(
            phases.compactMap { $0["load"] as? String } == ["capacity", "closed loop", "open loop"])
        for phase in phases {
            #expect(phase["served"] as? Int ?? 0 > 0)
            #expect(phase["broken"] as? Int == 0)
        }
        // Memory is bounded by what the gateway may hold: here 64 requests.
        for process in try #require(tables["memory"]) {
            let before = try #require(process["before_MiB"] as? Double)
            let most = try #require(process["most_MiB"] as? Double)
            #expect(most < before + 64, "\(process)")
        }
    }

    private func awaitPair(_ cluster: LocalCluster) async throws {
        let gateway = try #require(cluster.httpAddress)
        for _ in 0..<600 {
            let answer = try? await CompletionClient(
                connection: TimedConnection(to: gateway)
            ).complete([65, 66], newTokens: 1)
            if answer != nil { return }
            try await Task.sleep(for: .milliseconds(100))
        }
        throw MeasurementError.unexpectedAnswer(status: 0, body: "the cluster does not serve")
    }
}
