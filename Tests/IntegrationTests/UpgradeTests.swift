import Foundation
import HTTPClient
import LocalCluster
import ServingTypes
import Testing

/// Workers that take up another model while requests run.
@Suite(.serialized) struct UpgradeTests {
    /// The small model with one metadata value changed: another fingerprint, equal tokens.
    static func otherRevision(in folder: URL) throws -> String {
        var data = try Data(contentsOf: URL(fileURLWithPath: TestCluster.model))
        let place = try #require(data.range(of: Data("a demo, not an assistant".utf8)))
        data.replaceSubrange(place, with: Data("a Demo, not an assistant".utf8))
        let file = folder.appending(path: "revision-2.gguf")
        try data.write(to: file)
        return file.path
    }

    private static func slow(_ speed: String) -> [Role: [String]] {
        let arguments = ["--simulated-speed", speed]
        return [.prefillWorker: arguments, .decodeWorker: arguments]
    }

    @Test(.timeLimit(.minutes(5)))
    func `fifty streams see nothing of an upgrade of all workers`() async throws {
        try await TestCluster.run(
            prefill: 2, decode: 2, engine: "simulated", path: "/models/one",
            arguments: Self.slow("4")
        ) { test in
            let before = try await test.members(4)
            #expect(before.count == 4)
            try await test.upgrade("--model", "/models/two", "--settle", "0")
            let start = ContinuousClock.now
            let load = try await test.load(while: { try await test.waitForUpgrade("done") })
            let took = ContinuousClock.now - start
            #expect(load.lost == [])
            #expect(load.answered > 50)
            print("upgrade of 4 workers under load: \(took), \(load.answered) streams, 0 lost")
            try await test.printMoves()
            let after = try await test.members()
            #expect(Set(after.map(\.worker)) == Set(before.map(\.worker)))
            #expect(Set(after.map(\.group)).isDisjoint(with: before.map(\.group)))
            #expect(Set(after.map(\.group)).count == 1)
            for process in test.cluster.all {
                #expect(process.isRunning, "\(process.name) kept its process")
            }
        }
    }

    @Test(.timeLimit(.minutes(5)))
    func `an aborted upgrade goes back without a lost stream`() async throws {
        try await TestCluster.run(
            prefill: 2, decode: 2, engine: "simulated", path: "/models/one",
            arguments: Self.slow("4")
        ) { test in
            let before = try await test.members(4)
            try await test.upgrade("--model", "/models/two", "--settle", "6")
            let load = try await test.load(while: {
                try await test.waitForUpgrade("2 of 4 workers")
                try await test.upgrade("--abort")
                try await test.waitForUpgrade("taken back")
            })
            #expect(load.lost == [])
            let after = try await test.members()
            #expect(Set(after.map(\.group)) == Set(before.map(\.group)))
        }
    }

    @Test(.timeLimit(.minutes(5)))
    func `a worker killed on its way pauses the upgrade, which goes on later`() async throws {
        try await TestCluster.run(
            prefill: 2, decode: 2, engine: "simulated", path: "/models/one",
            arguments: Self.slow("4")
        ) { test in
            let load = try await test.load(while: {
                try await test.upgrade("--model", "/models/two", "--settle", "0")
                let name = try await test.firstMover()
                let worker = try #require(test.cluster.all.first { $0.name == name })
                worker.signal(SIGKILL)
                #expect(await worker.waitUntilExit(within: .seconds(5)))
                let number = try #require(Int(name.suffix(1)))
                _ = try await test.cluster.startWorker(worker.role, number: number)
                let line = try await test.waitForUpgrade("paused:", "done")
                if line.contains("paused:") {
                    try await test.upgrade("--resume")
                    try await test.waitForUpgrade("done")
                }
            })
            #expect(load.lost == [])
            #expect(try await test.members().count == 4)
        }
    }

    @Test(.timeLimit(.minutes(5)))
    func `real models change, and a damaged one changes nothing`() async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-models-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let other = try Self.otherRevision(in: folder)
        let damaged = folder.appending(path: "damaged.gguf")
        try Data("GGUF, or not".utf8).write(to: damaged)
        try await TestCluster.run(prefill: 2, decode: 2) { test in
            let text = try await test.greedy()
            let before = try await test.members(4)
            try await test.upgrade("--model", damaged.path, "--settle", "0")
            let line = try await test.waitForUpgrade("paused:")
            #expect(line.contains("can't load \(damaged.path)"))
            try await test.upgrade("--abort")
            try await test.waitForUpgrade("taken back")
            try await test.waitUntilHealthy()
            #expect(try await test.greedy() == text)
            try await test.waitForMembers(before)

            try await test.upgrade("--model", other, "--settle", "0")
            try await test.waitForUpgrade("done")
            try await test.waitUntilHealthy()
            #expect(try await test.greedy() == text)
            let after = try await test.members()
            #expect(Set(after.map(\.group)).isDisjoint(with: before.map(\.group)))
            try await test.printMoves()
        }
    }
}
