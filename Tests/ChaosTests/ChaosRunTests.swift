import Foundation
import LocalCluster
import Measurement
import Reports
import ServingTypes
import Testing

@testable import Chaos

@Suite(.serialized) struct ChaosRunTests {
    @Test func `nothing is lost or altered while processes and links fail`() async throws {
        var settings = ChaosSettings()
        settings.rounds = 3
        settings.users = 4
        settings.questions = 8
        settings.prefillWorkers = 2
        settings.decodeWorkers = 2
        settings.network = .loopback(hasRelays: ChaosSettings.canRelay)
        let folder = FileManager.default.temporaryDirectory.appending(
            path: "pdserve-chaos-\(UInt64.random(in: 0 ... .max))")
        let executables = URL(fileURLWithPath: ProcessInfo.processInfo.arguments[0])
            .deletingLastPathComponent()
        var cluster = LocalCluster.Settings(
            executables: executables, folder: folder, modelPath: nil)
        cluster.engine = "simulated"
        let processes = LocalCluster(settings: cluster)
        let chaos = ChaosRun(settings: settings, cluster: processes) { print($0) }
        do {
            try await chaos.run()
        } catch {
            await processes.stop()
            throw error
        }
        await processes.stop()
        #expect(chaos.violations == 0, "\(chaos.report.text)\nlogs are in \(folder.path)")
        if chaos.violations == 0 { try FileManager.default.removeItem(at: folder) }
    }
}
