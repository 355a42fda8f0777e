import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Decode-workers that are told to end in the middle of long answers.
@Suite(.serialized) struct DrainTests {
    private static let streams = 4

    private static func body(_ number: Int, _ engine: String) -> String {
        #"{"prompt":"Request \#(number) is about lists.","max_tokens":\#(answerTokens(engine)),"#
            + #""temperature":0.8,"seed":\#(number),"ignore_eos":true"#
    }

    private static func answerTokens(_ engine: String) -> Int { engine == "llama" ? 1500 : 600 }

    /// The answers take longer than the worker has.
    @Test(arguments: ["llama", "simulated"])
    func `long answers go on elsewhere with their KV, and nothing is computed again`(
        engine: String
    ) async throws {
        let arguments = ["--shutdown-limit", "4s"]
        try await TestCluster.run(
            prefill: 1, decode: 1, engine: engine,
            arguments: [.prefillWorker: arguments, .decodeWorker: arguments]
        ) { cluster in
            let leaving = try #require(cluster.cluster.processes(of: .decodeWorker).first)
            let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
            let prefill = try #require(cluster.cluster.processes(of: .prefillWorker).first)
            let events = try await withThrowingTaskGroup(of: (Int, [String]).self) { group in
                for number in 1...Self.streams {
                    group.addTask {
                        let options = #","stream":true,"stream_options":{"include_usage":true}}"#
                        return (
                            number,
                            try await cluster.stream(
                                "/v1/completions", Self.body(number, engine) + options)
                        )
                    }
                }
                try await cluster.wait(
                    for: "decode_running_sequences", of: leaving, toBe: Double(Self.streams),
                    within: .seconds(30))
                let next = try await cluster.cluster.startWorker(.decodeWorker, number: 2)
                try await cluster.wait(
                    for: "gateway_workers_connected", of: gateway, toBe: 3, within: .seconds(30))
                let computed = try await cluster.metric("prefill_engine_steps", of: prefill)
                leaving.signal(SIGTERM)
                #expect(await leaving.waitUntilExit(within: .seconds(20)))
                #expect(leaving.exitStatus == 0)
                let moved = #"gateway_placements_total{kind="moved"}"#
                #expect(try await cluster.metric(moved, of: gateway) == Double(Self.streams))
                #expect(try await cluster.metric("prefill_engine_steps", of: prefill) == computed)
                #expect(try await cluster.metric("decode_running_sequences", of: next) ?? 0 > 0)
                return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
            }
            let restarted = "gateway_requests_restarted_total"
            #expect(try await cluster.metric(restarted, of: gateway) ?? 0 == 0)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (number, stream) in events {
                    group.addTask { try await expectWhole(stream, number, of: engine, cluster) }
                }
                try await group.waitForAll()
            }
        }
    }

    private func expectWhole(
        _ stream: [String], _ number: Int, of engine: String, _ cluster: TestCluster
    ) async throws {
        #expect(stream.last == "[DONE]")
        let chunks = try stream.dropLast().map { try JSONValue(text: $0) }
        #expect(!chunks.contains { $0["error"] != .null }, "\(chunks.last as Any)")
        #expect(chunks.last?["usage"]["completion_tokens"].int == Self.answerTokens(engine))
        let whole = try await cluster.post("/v1/completions", Self.body(number, engine) + "}").json
        let text = chunks.compactMap { $0["choices"][0]["text"].string }.joined()
        let expected = try #require(whole["choices"][0]["text"].string)
        if engine == "simulated" {
            #expect(text == expected)
        } else {
            // What is computed beside it may turn a near-tie.
            #expect(text.prefix(40) == expected.prefix(40))
        }
    }
}
