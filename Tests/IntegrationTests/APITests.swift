import Foundation
import ServingTypes
import Testing

/// The OpenAI interface, as a client sees it, on one running cluster.
@Suite(.serialized) struct APITests {
    @Test func `chat and completions answer in OpenAI's shape`() async throws {
        try await TestCluster.run { cluster in
            try await chat(cluster)
            try await streams(cluster)
            try await choices(cluster)
            try await stops(cluster)
            try await models(cluster)
            try await logprobs(cluster)
            try await badInput(cluster)
        }
    }

    private func chat(_ cluster: TestCluster) async throws {
        let (status, answer) = try await cluster.post(
            "/v1/chat/completions",
            """
            {"model":"tiny","messages":[{"role":"system","content":"Be brief."},
            {"role":"user","content":"Explain generators."}],"max_completion_tokens":12,"seed":1}
            """)
        let name = try await cluster.get("/v1/models").json["data"][0]["id"].string
        if status == 404 {
            #expect(answer["error"]["code"].string == "model_not_found")
            #expect(name != "tiny")
        } else {
            #expect(answer["object"].string == "chat.completion")
        }
        let (again, reply) = try await cluster.post(
            "/v1/chat/completions",
            """
            {"messages":[{"role":"user","content":[{"type":"text","text":"Explain"}]}],
            "max_completion_tokens":12,"temperature":0}
            """)
        #expect(again == 200)
        #expect(reply["choices"][0]["message"]["role"].string == "assistant")
        #expect(reply["usage"]["completion_tokens"].int ?? 99 <= 12)
        #expect(reply["model"].string == name)
    }

    private func streams(_ cluster: TestCluster) async throws {
        let whole = try await cluster.post(
            "/v1/chat/completions",
            #"{"messages":[{"role":"user","content":"Lists"}],"max_tokens":20,"temperature":0}"#
        ).json
        let events = try await cluster.stream(
            "/v1/chat/completions",
            """
            {"messages":[{"role":"user","content":"Lists"}],"max_tokens":20,"temperature":0,
            "stream":true,"stream_options":{"include_usage":true}}
            """)
        #expect(events.last == "[DONE]")
        let chunks = try events.dropLast().map { try JSONValue(text: $0) }
        #expect(chunks.first?["choices"][0]["delta"]["role"].string == "assistant")
        let text = chunks.compactMap { $0["choices"][0]["delta"]["content"].string }.joined()
        #expect(text == whole["choices"][0]["message"]["content"].string)
        let reasons = chunks.compactMap { $0["choices"][0]["finish_reason"].string }
        #expect(reasons == [whole["choices"][0]["finish_reason"].string])
        let usage = try #require(chunks.last)["usage"]
        #expect(usage == whole["usage"])
        #expect(chunks.last?["choices"].array.isEmpty == true)
    }

    private func choices(_ cluster: TestCluster) async throws {
        let body = """
            {"prompt":["A list is","A dictionary is"],"n":2,"max_tokens":8,"temperature":0.9,
            "seed":7}
            """
        let answer = try await cluster.post("/v1/completions", body).json
        let choices = answer["choices"].array
        #expect(choices.map { $0["index"].int } == [0, 1, 2, 3])
        #expect(answer["usage"]["completion_tokens"].int ?? 99 <= 32)
        #expect(Set(choices.compactMap { $0["text"].string }).count > 2, "seeds must differ")
    }

    private func stops(_ cluster: TestCluster) async throws {
        let body = #"{"prompt":"The yield expression","max_tokens":40,"temperature":0"#
        let free = try await cluster.post("/v1/completions", body + "}").json
        let text = try #require(free["choices"][0]["text"].string)
        let words = text.split(separator: " ")
        try #require(words.count > 2)
        let stop = " \(words[2])"
        let stopped = try await cluster.post(
            "/v1/completions", body + #","stop":["\#(stop)"]}"#
        ).json
        let expected = try #require(text.range(of: stop)).lowerBound
        #expect(stopped["choices"][0]["text"].string == String(text[..<expected]))
        #expect(stopped["choices"][0]["finish_reason"].string == "stop")
        let used = try #require(stopped["usage"]["completion_tokens"].int)
        #expect(used < (free["usage"]["completion_tokens"].int ?? 0))
    }

    private func models(_ cluster: TestCluster) async throws {
        let (status, list) = try await cluster.get("/v1/models")
        #expect(status == 200)
        let id = try #require(list["data"][0]["id"].string)
        #expect(try await cluster.get("/v1/models/\(id)").json["id"].string == id)
        #expect(try await cluster.get("/v1/models/none").status == 404)
        #expect(try await cluster.get("/live").status == 200)
        #expect(try await cluster.get("/health").status == 200)
        #expect(try await cluster.get("/nothing").json["error"]["code"].string == "not_found")
    }

    private func logprobs(_ cluster: TestCluster) async throws {
        let answer = try await cluster.post(
            "/v1/chat/completions",
            """
            {"messages":[{"role":"user","content":"Tuples"}],"max_tokens":6,"temperature":0,
            "logprobs":true,"top_logprobs":3}
            """
        ).json
        let entries = answer["choices"][0]["logprobs"]["content"].array
        #expect(!entries.isEmpty)
        for entry in entries {
            let top = entry["top_logprobs"].array
            #expect(top.count == 3)
            #expect(top[0]["token"] == entry["token"], "greedy takes the most likely token")
            #expect((entry["logprob"].double ?? 1) <= 0)
        }
    }

    /// Each is refused in OpenAI's shape, and nothing else suffers.
    private func badInput(_ cluster: TestCluster) async throws {
        let long = Array(repeating: 5, count: 2100)
        let cases: [(String, String, Int, String?)] = [
            ("/v1/chat/completions", "{", 400, nil),
            ("/v1/chat/completions", "[1]", 400, nil),
            ("/v1/chat/completions", #"{"messages":[]}"#, 400, "messages"),
            ("/v1/chat/completions", #"{"messages":"hello"}"#, 400, "messages"),
            (
                "/v1/chat/completions", #"{"messages":[{"role":"user","content":5}]}"#, 400,
                "messages[0].content"
            ),
            (
                "/v1/chat/completions",
                #"{"model":"gpt-x","messages":[{"role":"user","content":"a"}]}"#, 404, "model"
            ),
            ("/v1/completions", #"{"prompt":\#(long)}"#, 400, nil),
            ("/v1/completions", #"{"prompt":"a","max_tokens":0}"#, 400, "max_tokens"),
            ("/v1/completions", #"{"prompt":"a","max_tokens":1000000}"#, 400, nil),
            ("/v1/completions", #"{"prompt":[99999999]}"#, 400, "prompt"),
            ("/v1/completions", #"{"prompt":"a","temperature":9}"#, 400, "temperature"),
            ("/v1/completions", #"{"prompt":"a","n":0}"#, 400, "n"),
            ("/v1/completions", #"{"prompt":"a","repeat_last_n":2000000000}"#, 400, nil),
            ("/v1/completions", #"{"prompt":"a","repeat_penalty":1e-300}"#, 400, nil),
        ]
        for (path, body, status, param) in cases {
            let (got, answer) = try await cluster.post(path, body)
            #expect(got == status, "\(body.prefix(80)): \(answer)")
            let message = try #require(answer["error"]["message"].string)
            #expect(!message.isEmpty)
            #expect(answer["error"]["type"].string == "invalid_request_error")
            if let param { #expect(answer["error"]["param"].string == param, "\(body)") }
        }
        let fine = try await cluster.post("/v1/completions", #"{"prompt":"a","max_tokens":2}"#)
        #expect(fine.status == 200)
    }
}
