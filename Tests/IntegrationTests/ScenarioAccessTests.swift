import Foundation
import HTTPClient
import LocalCluster
import ServingTypes
import Testing

/// Scenarios, keys and rates of a cluster file, as clients meet them.
@Suite(.serialized) struct ScenarioAccessTests {
    private static let key = "pd-one-client's-key"
    private static let other = "pd-another-client's-key"

    /// The long prompts' scenario comes first, then the one with keys, which a header asks for.
    private static func file(priority: Int = 50, requestsPerMinute: Int = 2) -> String {
        """
        scenarios:
          - name: long
            match: {prompt-tokens: {minimum: 400}}
            limits: {ttft: 20s}
          - name: closed
            match: {headers: {x-kind: closed}}
            priority: \(priority)
            limits: {ttft: 20s}
            keys:
              - name: one
                sha256: \(hash(key))
                requests-per-minute: \(requestsPerMinute)
              - name: another
                sha256: \(hash(other))
        """
    }

    private static func hash(_ key: String) -> String {
        SHA256.hash(Array(key.utf8)).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    @Test func `a cluster file's scenarios, keys and rates hold, and are followed when it changes`()
        async throws
    {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-rules-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appending(path: "cluster.yaml")
        try Data(Self.file().utf8).write(to: file)
        try await TestCluster.run(
            prefill: 2, decode: 2, engine: "simulated",
            arguments: [.scheduler: ["--cluster-file", file.path]]
        ) { cluster in
            try await cluster.waitForModels()
            try await scenarios(cluster)
            try await keys(cluster)
            try await rates(cluster)
            try await cached(cluster)
            try await newFile(cluster, file)
        }
    }

    private func scenarios(_ cluster: TestCluster) async throws {
        let long = try await cluster.ask(prompt: String(repeating: "word ", count: 100))
        #expect(long.status == 200)
        try await cluster.waitForAnswers(scenario: "long", outcome: "finished", toBe: 1)
        let none = try await cluster.ask(prompt: "short")
        #expect(none.status == 404)
        let message = try #require(try JSONValue(none.body)["error"]["message"].string)
        #expect(message.contains("there are long, closed"))
        let open = try await cluster.ask(prompt: "short", headers: ["x-kind": "open"])
        #expect(open.status == 404)
    }

    private func keys(_ cluster: TestCluster) async throws {
        let wrong: [[String: String]] = [
            [:], ["authorization": "Bearer pd-guess"], ["authorization": "Basic \(Self.other)"],
            ["x-api-key": ""], ["authorization": "Bearer \(String(repeating: "x", count: 2000))"],
        ]
        for headers in wrong {
            let answer = try await cluster.ask(
                prompt: "short", headers: headers.merging(["X-Kind": "closed"]) { $1 })
            #expect(answer.status == 401)
            #expect(answer.headers["www-authenticate"]?.hasPrefix("Bearer") == true)
            let error = try JSONValue(answer.body)["error"]
            #expect(error["code"].string == "invalid_api_key")
        }
        for headers in [
            ["authorization": "bearer \(Self.other)"], ["x-api-key": Self.other],
            ["api-key": Self.other],
        ] {
            let answer = try await cluster.ask(
                prompt: "short", headers: headers.merging(["x-kind": "closed"]) { $1 })
            #expect(answer.status == 200)
            #expect(answer.headers["x-ratelimit-limit-requests"] == nil)
        }
        try await cluster.waitForAnswers(scenario: "closed", outcome: "finished", toBe: 3)
        let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
        #expect(
            try await cluster.metric("gateway_unauthorized_total", of: gateway)
                == Double(wrong.count))
        let log = gateway.logTail(lines: 10_000)
        #expect(!log.contains(Self.other) && !log.contains("pd-guess"))
        #expect(log.contains("plain HTTP"))
    }

    private func rates(_ cluster: TestCluster) async throws {
        let headers = ["authorization": "Bearer \(Self.key)", "x-kind": "closed"]
        for left in [1, 0] {
            let answer = try await cluster.ask(prompt: "short", headers: headers)
            #expect(answer.status == 200)
            #expect(answer.headers["x-ratelimit-limit-requests"] == "2")
            #expect(answer.headers["x-ratelimit-remaining-requests"] == "\(left)")
        }
        let limited = try await cluster.ask(prompt: "short", headers: headers)
        #expect(limited.status == 429)
        let wait = try #require(limited.headers["retry-after"].flatMap { Int($0) })
        #expect((1...30).contains(wait))
        #expect(limited.headers["x-ratelimit-remaining-requests"] == "0")
        #expect(try JSONValue(limited.body)["error"]["code"].string == "rate_limit_exceeded")
        let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
        #expect(
            try await cluster.metric(
                #"gateway_rate_limited_total{scenario="closed"}"#, of: gateway) == 1)
        let bad = try await cluster.ask(
            prompt: "short",
            headers: ["x-api-key": Self.other, "x-kind": "closed", "x-priority": "9x"])
        #expect(bad.status == 400)
    }

    /// Asked again, a prompt is found in the cache, whether the answer is streamed or not.
    private func cached(_ cluster: TestCluster) async throws {
        let prompt = String(repeating: "remember this. ", count: 40)
        let json = #"{"prompt":"\#(prompt)","max_tokens":4,"n":2"#
        var seen: [Int] = []
        for _ in 0..<4 {
            let usage = try await cluster.post("/v1/completions", json + "}").json["usage"]
            #expect(usage["prompt_tokens"].int == prompt.utf8.count)
            seen.append(try #require(usage["prompt_tokens_details"]["cached_tokens"].int))
        }
        #expect(seen[0] == 0)
        #expect(seen[3] > 0 && seen[3] < prompt.utf8.count, "\(seen)")
        let events = try await cluster.stream(
            "/v1/completions", json + #","stream":true,"stream_options":{"include_usage":true}}"#)
        let usage = try JSONValue(text: try #require(events.dropLast().last))["usage"]
        #expect(usage["prompt_tokens_details"]["cached_tokens"].int ?? 0 > 0)
        let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
        let total = try await cluster.metric("gateway_cached_tokens_total", of: gateway)
        #expect(total ?? 0 >= Double(seen[3]))
    }

    /// A wrong file changes nothing; a right one lets in more.
    private func newFile(_ cluster: TestCluster, _ file: URL) async throws {
        let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
        try Data("scenarios: [{nam: a}]".utf8).write(to: file)
        try await cluster.wait(for: "scheduler_cluster_file_errors_total", of: scheduler, toBe: 1)
        let headers = ["authorization": "Bearer \(Self.key)", "x-kind": "closed"]
        #expect(try await cluster.ask(prompt: "short", headers: headers).status == 429)
        try Data(Self.file(requestsPerMinute: 6000).utf8).write(to: file)
        let end = ContinuousClock.now + .seconds(10)
        while try await cluster.ask(prompt: "short", headers: headers).status != 200 {
            guard ContinuousClock.now < end else {
                throw TestFailure("the new rate does not hold")
            }
            try await Task.sleep(for: .milliseconds(50))
        }
    }
}

extension TestCluster {
    fileprivate struct Answer {
        var status: Int
        var headers: [String: String]
        var body: [UInt8]
    }

    /// Asks for four tokens.
    fileprivate func ask(prompt: String, headers: [String: String] = [:]) async throws -> Answer {
        let json = #"{"prompt":"\#(prompt)","max_tokens":4}"#
        let (head, body) = try await HTTPCall(
            "POST", http, "/v1/completions",
            headers: headers.merging(["content-type": "application/json"]) { $1 },
            body: Array(json.utf8)
        ).collect()
        return Answer(status: head.status, headers: head.headers, body: body)
    }

    /// Waits until the scheduler has opened groups for the scenarios.
    fileprivate func waitForModels() async throws {
        let end = ContinuousClock.now + .seconds(20)
        while try await get("/v1/models").json["data"].array.isEmpty {
            guard ContinuousClock.now < end else { throw TestFailure("no group is open") }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    fileprivate func waitForAnswers(
        scenario: String, outcome: String, toBe count: Double
    ) async throws {
        let gateway = try #require(cluster.processes(of: .gateway).first)
        let labels = #"{outcome="\#(outcome)",scenario="\#(scenario)"}"#
        try await wait(for: "gateway_answers_total\(labels)", of: gateway, toBe: count)
    }
}
