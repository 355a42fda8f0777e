import Foundation
import HTTPClient
import LocalCluster
import ServingTypes
import Testing

/// What no log may hold, of real processes that write all they ever write.
@Suite(.serialized) struct SecretsTests {
    /// Words that appear nowhere but in what a client sends.
    private static let marker = "quetzalcoatlus"
    private static let key = "pd-key-of-the-right-client"
    private static let guess = "pd-key-that-was-guessed"

    private static let hash = SHA256.hash(Array(key.utf8))
        .map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()

    private static let rules = """
        scenarios:
          - name: closed
            limits: {ttft: 20s}
            keys:
              - name: one
                sha256: \(hash)
        """

    @Test(arguments: ["simulated", "llama"])
    func `no log holds a prompt, an answer, a key or a secret`(engine: String) async throws {
        let file = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-rules-\(UInt32.random(in: 0 ... .max)).yaml")
        try Data(Self.rules.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        var loud: [Role: [String]] = [:]
        for role in Role.allCases where role != .administrator {
            loud[role] = ["--log-level", "trace"]
        }
        loud[.scheduler]?.append(contentsOf: ["--cluster-file", file.path])
        try await TestCluster.run(decode: 2, engine: engine, arguments: loud) { cluster in
            let answers = try await ask(cluster)
            try await loseWorker(cluster)
            try check(cluster, answers)
        }
    }

    /// Sends prompts in all ways there are, right ones and wrong ones; gives what came back.
    private func ask(_ cluster: TestCluster) async throws -> [String] {
        let end = ContinuousClock.now + .seconds(30)
        let asked = #""prompt":"The \#(Self.marker) of","user":"\#(Self.marker)""#
        let body = #"{\#(asked),"max_tokens":40,"ignore_eos":true}"#
        var answer = try await send(cluster, "/v1/completions", body)
        while answer.status != 200 {
            guard ContinuousClock.now < end else { throw TestFailure("\(answer)") }
            try await Task.sleep(for: .milliseconds(50))
            answer = try await send(cluster, "/v1/completions", body)
        }
        let text = try #require(try JSONValue(answer.body)["choices"][0]["text"].string)
        let chat = try await send(
            cluster, "/v1/chat/completions",
            #"{"messages":[{"role":"user","content":"\#(Self.marker)?"}],"max_tokens":8}"#)
        #expect([200, 400].contains(chat.status))
        let long = String(repeating: "\(Self.marker) ", count: 20_000)
        for (path, wrong) in [
            ("/v1/completions", #"{"prompt":"\#(Self.marker)","#),
            (
                "/v1/completions",
                #"{"prompt":"a","\#(Self.marker)":1,"max_tokens":"\#(Self.marker)"}"#
            ),
            ("/v1/completions", #"{"prompt":"\#(long)","max_tokens":4}"#),
            ("/v1/\(Self.marker)", "{}"),
        ] {
            #expect(try await send(cluster, path, wrong).status >= 400)
        }
        #expect(try await send(cluster, "/v1/completions", body, key: Self.guess).status == 401)
        return [text]
    }

    private func send(
        _ cluster: TestCluster, _ path: String, _ json: String, key: String = key
    ) async throws -> (status: Int, body: [UInt8]) {
        let (head, body) = try await HTTPCall(
            "POST", cluster.http, path,
            headers: ["content-type": "application/json", "authorization": "Bearer \(key)"],
            body: Array(json.utf8)
        ).collect()
        return (head.status, body)
    }

    /// A request that starts again elsewhere is told of in the log.
    private func loseWorker(_ cluster: TestCluster) async throws {
        let body =
            #"{"prompt":"A \#(Self.marker) is","max_tokens":800,"ignore_eos":true}"#
        try await withThrowingTaskGroup(of: Int.self) { group in
            group.addTask { try await self.send(cluster, "/v1/completions", body).status }
            let workers = cluster.cluster.processes(of: .decodeWorker)
            let end = ContinuousClock.now + .seconds(20)
            busy: while ContinuousClock.now < end {
                for worker in workers
                where try await cluster.metric("decode_running_sequences", of: worker) ?? 0 > 0 {
                    worker.signal(SIGKILL)
                    break busy
                }
            }
            // An answer that was quicker than the look is one all the same.
            for try await status in group { #expect(status == 200) }
        }
    }

    private func check(_ cluster: TestCluster, _ answers: [String]) throws {
        var log = ""
        for process in cluster.cluster.all {
            log += try String(contentsOf: process.logFile, encoding: .utf8)
        }
        // The most is written indeed.
        #expect(log.contains("debug") || log.contains("trace"))
        let tokens = Self.marker.utf8.map { "\($0)" }.joined(separator: ", ")
        var secrets = [Self.marker, tokens, Self.key, Self.guess, "PRIVATE KEY"]
        for answer in answers {
            #expect(answer.count >= 16)
            secrets.append(String(answer.prefix(16)))
        }
        let folder = cluster.cluster.settings.folder.appending(path: "certificates")
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path)
        where name.hasSuffix(".key") {
            let text = try String(contentsOf: folder.appending(path: name), encoding: .utf8)
            secrets += text.split(separator: "\n").filter { !$0.hasPrefix("-") }.map(String.init)
        }
        #expect(secrets.count > 12)
        for secret in secrets {
            let line = log.split(separator: "\n").first { $0.contains(secret) }
            #expect(line == nil, "\(secret.prefix(20)) is in the log")
        }
    }
}
