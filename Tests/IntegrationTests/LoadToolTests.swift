import LocalCluster
import ServingTypes
import Testing

/// `pdserve load` counts what clients would have seen.
@Suite(.serialized) struct LoadToolTests {
    @Test(.timeLimit(.minutes(2)))
    func `it tells good answers from refused, wrong and missing ones`() async throws {
        try await TestCluster.run(
            engine: "simulated", path: "/models/one",
            arguments: [.gateway: ["--maximum-requests", "2"]]
        ) { test in
            let gateway = try test.http.description
            func load(_ arguments: String...) async throws -> (status: Int32, output: String) {
                try await test.tool(
                    ["load", "--gateway", gateway, "--seconds", "1"] + arguments,
                    within: .seconds(60))
            }
            let good = try await load("--clients", "1", "--max-tokens", "8", "--same")
            #expect(good.status == 0, "\(good.output)")
            #expect(good.output.contains("refused 0, failed 0, differing 0"), "\(good.output)")
            #expect(!good.output.hasPrefix("answers 0,"), "\(good.output)")

            let crowd = try await load("--clients", "12", "--max-tokens", "64")
            #expect(crowd.status == 1 && !crowd.output.contains("refused 0"), "\(crowd.output)")
            let patient = try await load(
                "--clients", "12", "--max-tokens", "64", "--allow-refusals")
            #expect(patient.status == 0, "\(patient.output)")

            let wrong = try await load("--clients", "1", "--max-tokens", "100000")
            #expect(wrong.status == 1 && wrong.output.contains("× status 400"), "\(wrong.output)")
            let away = try await test.tool(
                ["load", "--gateway", "127.0.0.1:1", "--seconds", "1", "--clients", "1"])
            #expect(away.status == 1 && away.output.contains("can't be reached"))
            let mistaken = try await load("--clients", "0")
            #expect(mistaken.status == 64 && mistaken.output.contains("from 1 to 1000"))
        }
    }
}
