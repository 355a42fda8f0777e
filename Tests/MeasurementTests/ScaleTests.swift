import ClusterRules
import FileBudget
import Foundation
import Reports
import ServiceRuntime
import ServingTypes
import Testing

@testable import Measurement
import Roles

/// Small runs of `benchmark scheduler` and `benchmark placement`.
@Suite(.timeLimit(.minutes(3))) struct ScaleTests {
    private static let executables = URL(
        fileURLWithPath: ProcessInfo.processInfo.arguments[0]
    ).resolvingSymlinksInPath().deletingLastPathComponent()

    @Test func `every policy places every request among many workers`() throws {
        for placement in PlacementName.allCases {
            var scene = PlacementScene(workers: 40, placement: placement, seed: 1)
            let costs = try scene.place(200)
            #expect(costs.submit.count == 200 && costs.rest.count == 200)
            #expect(scene.openRequests == 40, "older ones have ended")
            _ = scene.changeReadings()
            #expect(scene.machine.view.version == 2)
        }
    }

    @Test func `a scheduler keeps its instances, sees deaths and comes back`() async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-scale-\(UInt32.random(in: 0 ... .max))")
        defer { try? FileManager.default.removeItem(at: folder) }
        let measurement = ScaleMeasurement(
            settings: ScaleMeasurement.Settings(
                instances: [24], gateways: 2, window: .seconds(2), deaths: 3,
                executables: Self.executables, folder: folder), progress: { print($0) })
        try await measurement.run()
        let report = measurement.report
        #expect(report.isComplete)
        let json = try report.json
        let object = try #require(
            try JSONSerialization.jsonObject(with: json) as? [String: Any])
        let tables = try #require(object["tables"] as? [String: [[String: Any]]])
        let rest = try #require(tables["rest"]?.first)
        #expect(rest["connections"] as? Int == 24)
        #expect(rest["missed_leases"] as? Int == 0)
        #expect(rest["lost_connections"] as? Int == 0)
        let beats = try #require(rest["heartbeats_per_s"] as? Double)
        #expect((12...48).contains(beats))
        let deaths = try #require(tables["deaths"])
        #expect(deaths.compactMap { $0["deaths"] as? Int } == [3, 3])
        let silent = try #require(deaths.last?["p50_ms"] as? Double)
        #expect(silent > 2500, "a lease of 3 s comes before")
    }

    @Test func `a number that needs more open files than allowed is reported`() async throws {
        let files = try #require(OpenFiles.limit)
        let measurement = ScaleMeasurement(
            settings: ScaleMeasurement.Settings(
                instances: [files], gateways: 1, window: .seconds(1), deaths: 0,
                executables: Self.executables, folder: FileManager.default.temporaryDirectory),
            progress: { _ in })
        await #expect(throws: MeasurementError.self) { try await measurement.run() }
        #expect(measurement.report.text.contains("open files are needed"))
        #expect(!measurement.report.isComplete)
    }
}
