import Foundation
import HTTPClient
import InferenceEngine
import LlamaEngine
import LocalCluster
import ServingTypes
import Testing

/// Many clients at once.
@Suite(.serialized) struct LoadTests {
    /// One stream of the test and what came of it.
    private struct Stream: Sendable {
        var number: Int
        var text: String
        var finishes: [String]
        var isDone: Bool
        var completionTokens: Int
    }

    @Test func `64 streams at once end, none mixed up, and everything is free again`()
        async throws
    {
        let model = try UndividedModel()
        let words = ["lists", "modules", "generators", "classes", "floats", "files", "sets", "str"]
        let prompts = (0..<64).map { "Note \($0): in Python, \(words[$0 % 8]) are" }
        var expected: [String] = []
        for prompt in prompts {
            let tokens = model.tokenizer.tokenize(prompt, addsSpecial: true, parsesSpecial: true)
            let output = try await model.generate(
                tokens, sampling: SamplingParameters(), maximumNewTokens: 32)
            expected.append(
                String(
                    decoding: output.tokens.flatMap { model.tokenizer.bytes(of: $0) },
                    as: UTF8.self))
        }
        await model.shutdown()
        try await TestCluster.run(prefill: 2, decode: 2) { cluster in
            let workers =
                cluster.cluster.processes(of: .decodeWorker)
                + cluster.cluster.processes(of: .prefillWorker)
            var memory: [[Int]] = []
            for _ in 0..<3 {
                let streams = try await all(prompts, cluster)
                check(streams, expected)
                try await awaitQuiet(cluster)
                memory.append(workers.compactMap(\.residentBytes))
            }
            // The first round warms pools and allocators up; after that memory must stand still.
            for (before, after) in zip(memory[1], memory[2]) {
                #expect(after < before + (24 << 20), "\(memory)")
            }
        }
    }

    private func all(_ prompts: [String], _ cluster: TestCluster) async throws -> [Stream] {
        try await withThrowingTaskGroup(of: Stream.self) { group in
            for (number, prompt) in prompts.enumerated() {
                group.addTask { try await stream(number, prompt, cluster) }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
    }

    private func stream(
        _ number: Int, _ prompt: String, _ cluster: TestCluster
    ) async throws -> Stream {
        let events = try await cluster.stream(
            "/v1/completions",
            """
            {"prompt":"\(prompt)","max_tokens":32,"temperature":0,"stream":true,
            "stream_options":{"include_usage":true}}
            """)
        let chunks = try events.dropLast().map { try JSONValue(text: $0) }
        return Stream(
            number: number,
            text: chunks.compactMap { $0["choices"][0]["text"].string }.joined(),
            finishes: chunks.compactMap { $0["choices"][0]["finish_reason"].string },
            isDone: events.last == "[DONE]",
            completionTokens: chunks.last?["usage"]["completion_tokens"].int ?? 0)
    }

    /// Most answers must equal the undivided run's.
    ///
    /// Sequences that are computed together may differ from those computed alone where two tokens
    /// are nearly equally likely: other kernels, other cell places.
    private func check(_ streams: [Stream], _ expected: [String]) {
        #expect(streams.count == 64)
        var equal = 0
        var alikeAtStart = 0
        for stream in streams {
            #expect(stream.isDone)
            #expect(stream.finishes.count == 1)
            #expect((1...32).contains(stream.completionTokens))
            let wanted = expected[stream.number]
            if stream.text == wanted { equal += 1 }
            if stream.text.prefix(6) == wanted.prefix(6) { alikeAtStart += 1 }
        }
        #expect(equal >= 32, "\(equal) of 64 equal the undivided run")
        #expect(alikeAtStart >= 58, "\(alikeAtStart) of 64 begin like the undivided run")
    }

    private func awaitQuiet(_ cluster: TestCluster) async throws {
        for worker in cluster.cluster.processes(of: .decodeWorker) {
            try await cluster.wait(for: "decode_kv_reserved_bytes", of: worker, toBe: 0)
            try await cluster.waitForFreeKV(of: worker)
        }
        for worker in cluster.cluster.processes(of: .prefillWorker) {
            try await cluster.wait(for: "prefill_free_slots", of: worker, toBe: 4)
            try await cluster.waitForFreeKV(of: worker)
        }
        let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
        try await cluster.wait(for: "gateway_requests_open", of: gateway, toBe: 0)
    }
}
