import Foundation
import HTTPClient
import LocalCluster
import ServingTypes
import Testing

/// Late placement when the place turns out to be the worker that computed the prompt.
@Suite(.serialized) struct StayingTests {
    private static let series = [
        "prefill_kv_raw_bytes_total", "prefill_kv_memory_bytes_total",
        "decode_kv_raw_bytes_total", "decode_kv_memory_bytes_total",
    ]

    private func travelled(_ cluster: TestCluster, _ worker: ManagedProcess) async throws -> Double
    {
        var sum = 0.0
        for name in Self.series { sum += try await cluster.metric(name, of: worker) ?? 0 }
        return sum
    }

    private func text(_ cluster: TestCluster, _ prompt: String) async throws -> String? {
        let answer = try await cluster.post(
            "/v1/completions",
            #"{"prompt": "\#(prompt)", "max_tokens": 16, "temperature": 0}"#)
        #expect(answer.status == 200, "\(answer.json)")
        return answer.json["choices"][0]["text"].string
    }

    @Test(.timeLimit(.minutes(3)))
    func `a worker that does both goes on with its own KV, which does not travel`() async throws {
        let file = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-rules-\(UInt32.random(in: 0 ... .max)).yaml")
        defer { try? FileManager.default.removeItem(at: file) }
        let rules = """
            scenarios:
              - name: default
                limits: {ttft: 60s}
                ratio: as-started
                decode-placement: late
                deflection: false
            """
        try Data(rules.utf8).write(to: file)
        let prompts = (1...6).map { "The module number \($0) provides" }
        try await TestCluster.run(arguments: [.scheduler: ["--cluster-file", file.path]]) {
            cluster in
            var texts: [String?] = []
            for prompt in prompts { texts.append(try await text(cluster, prompt)) }
            let worker = try #require(cluster.cluster.processes(of: .decodeWorker).first)
            let before = try await travelled(cluster, worker)
            #expect(before > 0, "with two workers it does travel")
            let reply = try await cluster.pdserve("assign", worker.name, "mixed")
            #expect(reply.status == 0, "\(reply.output)")
            let other = try #require(cluster.cluster.processes(of: .prefillWorker).first)
            other.signal(SIGTERM)
            #expect(await other.waitUntilExit(within: .seconds(20)))
            try await cluster.waitForOutput(of: "status") { output in
                output.contains("mixed") && !output.contains(other.name)
            }
            // One after the other, then all at once.
            for (prompt, expected) in zip(prompts, texts) {
                #expect(try await text(cluster, prompt) == expected)
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (prompt, expected) in zip(prompts, texts) {
                    group.addTask {
                        let answer = try await text(cluster, prompt)
                        #expect(answer == expected)
                    }
                }
                try await group.waitForAll()
            }
            #expect(try await travelled(cluster, worker) == before)
            try await cluster.waitForFreeKV(of: worker)
        }
    }
}
