import Foundation
import LocalCluster
import Reports
import Testing

@testable import Measurement

/// A small run of `benchmark failure --streams`.
@Suite(.serialized, .timeLimit(.minutes(3))) struct FailureTests {
    @Test func `streams go on soon after a worker that serves them is killed`() async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-gaps-\(UInt32.random(in: 0 ... .max))")
        defer { try? FileManager.default.removeItem(at: folder) }
        var settings = LocalCluster.Settings(
            executables: Command.benchmark.deletingLastPathComponent(), folder: folder,
            modelPath: nil)
        settings.engine = "simulated"
        settings.prefillWorkers = 2
        settings.decodeWorkers = 2
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let rules = folder.appending(path: "rules.yaml")
        let text = "scenarios:\n  - name: default\n    ratio: as-started\n    deflection: false\n"
        try Data(text.utf8).write(to: rules)
        settings.clusterFile = rules.path
        let cluster = LocalCluster(settings: settings)
        let measurement = StreamGaps(
            settings: StreamGaps.Settings(rounds: 1, streams: 2, includesHanging: false),
            cluster: cluster, progress: { print($0) })
        do {
            try await cluster.start()
            // Each stream has to bring all of its tokens.
            try await measurement.run()
        } catch {
            await cluster.stop()
            throw error
        }
        await cluster.stop()
        #expect(measurement.report.isComplete)
        // The end of a connection tells it; beats would take seconds.
        #expect(try #require(measurement.longestAfterKill) < 3)
    }
}
