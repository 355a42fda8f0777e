import Foundation
import Testing

/// `benchmark handoff` as people start it, with real services on the small model.
@Suite(.timeLimit(.minutes(5))) struct HandOffCommandTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
    private static let model = root.appending(path: "Models/tiny.gguf").path

    private static func tables(
        _ model: String, _ options: [String], in folder: URL
    ) async throws -> [String: [[String: Any]]] {
        let json = folder.appending(path: "report.json")
        let (status, output) = try await Command.run(
            Command.benchmark, ["handoff", "--model", model, "--json", json.path] + options,
            in: folder)
        #expect(status == 0, "\(output)")
        let report = try JSONSerialization.jsonObject(with: Data(contentsOf: json))
        let object = try #require(report as? [String: Any])
        #expect(object["complete"] as? Bool == true)
        return try #require(object["tables"] as? [String: [[String: Any]]])
    }

    @Test(arguments: ["stream", "memory"])
    func `prompts are handed over and their time is split`(carrier: String) async throws {
        try await Command.withFolder { folder in
            let tables = try await Self.tables(
                Self.model,
                [
                    "--prompt-tokens", "300,16", "--rounds", "2", "--carrier", carrier,
                    "--kv-compression", "off", "--link-gbit", "10", "--final-run", "32",
                ], in: folder)
            let times = try #require(tables["times"])
            let shares = try #require(tables["shares"])
            #expect(times.map { $0["prompt_tokens"] as? Int } == [16, 300])
            for row in times {
                for key in ["first_token_ms", "compute_ms", "export_ms", "import_ms", "step_ms"] {
                    #expect(try #require(row[key] as? Double) > 0, "\(key) of \(row)")
                }
                let exposed = try #require(row["exposed_ms"] as? Double)
                #expect(exposed > 0)
                #expect(exposed < (row["transfer_ms"] as? Double ?? 0))
                let isSent = (row["send_ms"] as? Double ?? 0) > 0
                #expect(isSent == (carrier == "stream"), "\(row)")
            }
            // 300 tokens: one micro-batch and the rest, of which a last run is cut off.
            #expect(shares.map { $0["chunks"] as? Double } == [1, 3])
            for row in shares {
                let payload = try #require(row["payload_mb"] as? Double)
                let way = carrier == "stream" ? "wire_mb" : "memory_mb"
                let other = carrier == "stream" ? "memory_mb" : "wire_mb"
                #expect(abs((row[way] as? Double ?? 0) / payload - 1) < 0.01, "\(row)")
                #expect(row[other] as? Double == 0)
                #expect((row["exposed_to_floor"] is NSNull) == (carrier == "memory"))
            }
            #expect(tables["memory"]?.count == 4)
        }
    }

    @Test func `a model from the generator is served`() async throws {
        let script = Self.root.appending(path: "Scripts/make-model.py")
        try await Command.withFolder { folder in
            let model = folder.appending(path: "wide.gguf").path
            let shape = ["--layers", "2", "--width", "64", "--heads", "2", "--kv-heads", "2"]
            let (status, output) = try await Command.run(
                script, ["--out", model, "--ffn", "64", "--type", "q4_0"] + shape, in: folder)
            #expect(status == 0, "\(output)")
            let tables = try await Self.tables(
                model, ["--prompt-tokens", "40", "--rounds", "1"], in: folder)
            let payload = try #require(tables["shares"]?.first?["payload_mb"] as? Double)
            // Keys and values of 2 layers, 2 heads of 64 half-precision numbers each.
            #expect((0.0409...0.06).contains(payload))
        }
    }

    @Test(arguments: [
        ["--prompt-tokens", "16,x"], ["--prompt-tokens", "16,16"], ["--rounds", "0"],
        ["--link-gbit", "0"], ["--carrier", "pigeon"], ["--gateway", "http://127.0.0.1:1"],
        ["--gateway", "127.0.0.1", "--prefill-metrics", "a:1", "--decode-metrics", "a:1"],
        [
            "--gateway", "a:1", "--prefill-metrics", "a:1", "--decode-metrics", "a:1",
            "--final-run", "1",
        ],
    ])
    func `wrong options are refused`(options: [String]) async throws {
        try await Command.withFolder { folder in
            let (status, output) = try await Command.run(
                Command.benchmark, ["handoff", "--model", Self.model] + options, in: folder)
            #expect(status == 64, "\(output)")
            #expect(output.contains("Error: "), "\(output)")
        }
    }
}
