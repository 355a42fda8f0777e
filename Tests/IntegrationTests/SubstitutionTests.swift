import Foundation
import LocalCluster
import ServingTypes
import Testing

/// Workers that die while a spare is there.
@Suite(.serialized) struct SubstitutionTests {
    private static let rules = """
        scenarios:
          - name: default
            ratio: as-started
            decode: {minimum: 2}
            spares: 1

        """

    /// Workers that serve as decode-workers, as the scheduler shows them.
    private func decoding(_ cluster: TestCluster) async throws -> [String] {
        let status = try await cluster.pdserve("status")
        return status.output.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard words.count > 2, words[0].contains("-worker-"), words[1] == "decode",
                words[2] == "serving"
            else { return nil }
            return String(words[0])
        }
    }

    @Test func `a spare takes a killed worker's place, nothing fails, and events tell it`()
        async throws
    {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-spare-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let rules = folder.appending(path: "rules.yaml")
        try Data(Self.rules.utf8).write(to: rules)
        try await TestCluster.run(
            decode: 3, engine: "simulated",
            settings: { settings in
                settings.clusterFile = rules.path
                settings.argumentsByName["decode-worker-3"] = ["--role", "spare"]
            }, waits: false
        ) { cluster in
            try await cluster.waitUntilHealthy()
            let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
            try await cluster.wait(
                for: "gateway_workers_connected", of: gateway, toBe: 4, within: .seconds(30))
            try await cluster.waitForOutput(of: "status") { $0.contains("1 prefill, 2 decode") }
            // Who came first has a role.
            let before = try await decoding(cluster)
            try #require(before.count == 2)
            let all = cluster.cluster.processes(of: .decodeWorker)
            let spare = try #require(all.first { !before.contains($0.name) }).name
            let victim = try #require(all.first { $0.name == before[0] })
            let after = [before[1], spare].sorted()
            try await cluster.underLoad {
                try await Task.sleep(for: .milliseconds(300))
                victim.signal(SIGKILL)
                let end = ContinuousClock.now + .seconds(30)
                while try await decoding(cluster) != after {
                    try #require(ContinuousClock.now < end, "no spare serves")
                    try await Task.sleep(for: .milliseconds(20))
                }
            }
            let lines = try await cluster.pdserve("events", "--last", "100").output
                .split(separator: "\n").map(String.init)
            // What happened, in this order, each with its time.
            let steps = [
                "\(victim.name)  suspect: its connection is lost",
                "\(spare) becomes decode: a spare takes the place of \(victim.name)",
                "\(spare)  works as decode",
            ]
            // Roles may have changed before, while workers came.
            let places = steps.map { step in lines.lastIndex { $0.contains(step) } }
            #expect(!places.contains(nil), "\(lines.joined(separator: "\n"))")
            #expect(places.compactMap { $0 } == places.compactMap { $0 }.sorted())
            let time = #/^\d+  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z  /#
            for place in places.compactMap({ $0 }) {
                #expect(lines[place].firstMatch(of: time) != nil, "\(lines[place])")
                print(lines[place])
            }
        }
    }
}
