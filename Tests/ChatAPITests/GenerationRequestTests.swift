import ChatAPI
import ServingTypes
import Testing

@Suite struct GenerationRequestTests {
    @Test func `a chat request with everything is read`() throws {
        let request = try chat(
            #"""
            "model":"small","stream":true,"stream_options":{"include_usage":true},"n":3,
            "max_completion_tokens":7,"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05,
            "frequency_penalty":-2,"presence_penalty":2,"repeat_penalty":1.1,"repeat_last_n":-1,
            "seed":-1,"logit_bias":{"9":-100,"3":1.5},"stop":["a","b"],"logprobs":true,
            "top_logprobs":20,"user":"u","unknown":{"x":[1]},"tools":[],"tool_choice":"none",
            "response_format":{"type":"text"},"modalities":["text"],"best_of":3
            """#)
        var expected = GenerationRequest(
            endpoint: .chat,
            input: .chat(messages: Array(#"[{"role":"user","content":"hi"}]"#.utf8)))
        expected.model = "small"
        expected.isStreamed = true
        expected.streamsUsage = true
        expected.choicesPerPrompt = 3
        expected.maximumNewTokens = 7
        expected.sampling.temperature = 0.5
        expected.sampling.topP = 0.9
        expected.sampling.topK = 40
        expected.sampling.minP = 0.05
        expected.sampling.frequencyPenalty = -2
        expected.sampling.presencePenalty = 2
        expected.sampling.repeatPenalty = 1.1
        expected.sampling.penaltyWindowTokens = -1
        expected.sampling.logitBias = [
            LogitBias(token: 3, bias: 1.5), LogitBias(token: 9, bias: -100),
        ]
        expected.sampling.topLogprobs = 20
        expected.seed = .max
        expected.stops = ["a", "b"]
        expected.beginning = "hi"
        #expect(request == expected)
    }

    @Test func `the beginning is the first message's text, or the first prompt's, cut`() throws {
        let parts = #"[{"type":"text","text":"You "},{"type":"text","text":"are"}]"#
        let messages = #"[{"role":"system","content":\#(parts)},{"role":"user","content":"x"}]"#
        #expect(try chat("", messages: messages).beginning == "You are")
        #expect(try completion(#""prompt":["first","second"]"#).beginning == "first")
        #expect(try completion(#""prompt":[1,2]"#).beginning == "")
        let long = String(repeating: "ä", count: 2000)
        let request = try completion("\"prompt\":\"\(long)\"")
        #expect(request.beginning == String(long.prefix(APILimits.beginningCharacters)))
    }

    @Test func `what is left out or null takes OpenAI's defaults`() throws {
        for fields in ["", #""max_tokens":null,"temperature":null,"stop":null,"seed":null"#] {
            let request = try chat(fields)
            #expect(request.model == nil && !request.isStreamed && !request.streamsUsage)
            #expect(request.maximumNewTokens == nil && request.choicesPerPrompt == 1)
            #expect(request.sampling.temperature == 1 && request.sampling.topP == 1)
            #expect(request.sampling.topK == 0 && request.sampling.minP == 0)
            #expect(request.sampling.topLogprobs == nil && !request.sampling.hasPenalties)
            #expect(request.seed == nil && request.stops.isEmpty)
        }
    }

    @Test func `messages keep the client's bytes`() throws {
        let messages =
            #"[ {"role":"system","content":"é\u00e9 \ud83d\ude00"}, {"role":"assistant"},"#
            + #" {"role":"assistant","content":null,"tool_calls":[]},"#
            + #" {"role":"developer","content":[{"type":"text","text":""}]},"#
            + #" {"role":"tool","content":"","tool_call_id":"1"} ]"#
        let request = try chat("", messages: messages)
        #expect(request.input == .chat(messages: Array(messages.utf8)))
    }

    @Test func `a prompt is text, texts, tokens or token lists`() throws {
        let cases: [(String, [CompletionPrompt])] = [
            (#""a\n""#, [.text("a\n")]),
            (#"["a","😀"]"#, [.text("a"), .text("😀")]),
            ("[1, 2,3]", [.tokens([1, 2, 3])]),
            ("[[1],[2,2147483647]]", [.tokens([1]), .tokens([2, .max])]),
            (#"[[7],"x"]"#, [.tokens([7]), .text("x")]),
        ]
        for (json, prompts) in cases {
            #expect(try completion(#""prompt":"# + json).input == .prompts(prompts))
        }
    }

    @Test func `a completion reads its own fields`() throws {
        let request = try completion(
            #""prompt":"x","max_tokens":16.0,"logprobs":5,"stop":"end","echo":false,"suffix":"""#)
        #expect(request.maximumNewTokens == 16)
        #expect(request.sampling.topLogprobs == 5)
        #expect(request.stops == ["end"])
        #expect(
            try completion(#""prompt":"x","ignore_eos":true"#)
                .sampling.ignoresEndOfGeneration)
    }

    @Test(arguments: [
        (#""max_tokens":0"#, "max_tokens"), (#""max_tokens":-1"#, "max_tokens"),
        (#""max_tokens":2147483648"#, "max_tokens"), (#""max_tokens":1e300"#, "max_tokens"),
        (#""max_tokens":1.5"#, "max_tokens"), (#""max_tokens":"5""#, "max_tokens"),
        (#""max_tokens":1,"max_completion_tokens":2"#, "max_tokens"),
        (#""n":0"#, "n"), (#""n":17"#, "n"), (#""n":true"#, "n"),
        (#""best_of":2"#, "best_of"), (#""temperature":2.1"#, "temperature"),
        (#""temperature":-0.1"#, "temperature"), (#""temperature":"hot""#, "temperature"),
        (#""top_p":0"#, "top_p"), (#""top_p":1.01"#, "top_p"), (#""top_k":-2"#, "top_k"),
        (#""min_p":-1"#, "min_p"), (#""repeat_penalty":0"#, "repeat_penalty"),
        (#""repetition_penalty":11"#, "repetition_penalty"),
        (#""frequency_penalty":2.5"#, "frequency_penalty"),
        (#""presence_penalty":-3"#, "presence_penalty"),
        (#""repeat_last_n":-2"#, "repeat_last_n"), (#""seed":1.5"#, "seed"),
        (#""seed":"1""#, "seed"), (#""logit_bias":[]"#, "logit_bias"),
        (#""logit_bias":{"a":1}"#, "logit_bias.a"), (#""logit_bias":{"-1":1}"#, "logit_bias.-1"),
        (#""logit_bias":{"1":101}"#, "logit_bias.1"),
        (#""logit_bias":{"1":"x"}"#, "logit_bias.1"),
        (#""logit_bias":{"1":1,"01":1}"#, "logit_bias"),
        (#""stop":"""#, "stop"), (#""stop":[1]"#, "stop[0]"), (#""stop":["a",""]"#, "stop[1]"),
        (#""stop":["a",null]"#, "stop[1]"), (#""stop":{}"#, "stop"),
        (#""stream":"yes""#, "stream"), (#""stream":1"#, "stream"),
        (#""stream_options":{"include_usage":true}"#, "stream_options"),
        (#""stream":true,"stream_options":true"#, "stream_options"),
        (#""stream":true,"stream_options":{"include_usage":1}"#, "stream_options.include_usage"),
        (#""logprobs":3"#, "logprobs"), (#""top_logprobs":3"#, "top_logprobs"),
        (#""logprobs":true,"top_logprobs":21"#, "top_logprobs"), (#""model":5"#, "model"),
        (#""response_format":"json""#, "response_format"),
    ]) func `a bad field of a chat is named`(fields: String, param: String) {
        let error = failure { () throws(APIError) in try chat(fields) }
        #expect(error?.status == 400 && error?.type == "invalid_request_error")
        #expect(error?.param == param, "\(error?.message ?? "accepted")")
    }

    @Test(arguments: [
        ("[]", "messages"), ("{}", "messages"), ("null", "messages"), ("\"x\"", "messages"),
        ("[1]", "messages"), (#"["x"]"#, "messages[0]"), ("[{}]", "messages[0].role"),
        (#"[{"role":"cook","content":"x"}]"#, "messages[0].role"),
        (#"[{"role":1,"content":"x"}]"#, "messages[0].role"),
        (#"[{"role":"user"}]"#, "messages[0].content"),
        (#"[{"role":"user","content":null}]"#, "messages[0].content"),
        (#"[{"role":"user","content":5}]"#, "messages[0].content"),
        (#"[{"role":"user","content":{}}]"#, "messages[0].content"),
        (
            #"[{"role":"user","content":"a"},{"role":"user","content":["a"]}]"#,
            "messages[1].content[0]"
        ),
        (
            #"[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#,
            "messages[0].content[0].type"
        ),
        (#"[{"role":"user","content":[{"text":"x"}]}]"#, "messages[0].content[0].type"),
        (#"[{"role":"user","content":[{"type":"text"}]}]"#, "messages[0].content[0].text"),
        (
            #"[{"role":"user","content":[{"type":"text","text":1}]}]"#,
            "messages[0].content[0].text"
        ),
    ]) func `a bad message is named by its path`(messages: String, param: String) {
        let error = failure { () throws(APIError) in try chat("", messages: messages) }
        #expect(error?.status == 400)
        #expect(error?.param == param, "\(error?.message ?? "accepted")")
    }

    @Test(arguments: [
        ("", "prompt"), (#""prompt":null"#, "prompt"), (#""prompt":5"#, "prompt"),
        (#""prompt":[]"#, "prompt"), (#""prompt":[1,"a"]"#, "prompt[0]"),
        (#""prompt":[[1],[]]"#, "prompt[1]"), (#""prompt":[1,-1]"#, "prompt[1]"),
        (#""prompt":[2147483648]"#, "prompt[0]"), (#""prompt":[[0],[1.5]]"#, "prompt[1]"),
        (#""prompt":{"a":1}"#, "prompt"), (#""prompt":"x","logprobs":21"#, "logprobs"),
        (#""prompt":"x","logprobs":true"#, "logprobs"),
        (#""prompt":["1","2","3","4","5","6","7","8","9"],"n":16"#, "n"),
    ]) func `a bad field of a completion is named`(fields: String, param: String) {
        let error = failure { () throws(APIError) in try completion(fields) }
        #expect(error?.status == 400)
        #expect(error?.param == param, "\(error?.message ?? "accepted")")
    }

    @Test(arguments: [
        (#""tools":[{"type":"function"}]"#, "tools"), (#""tool_choice":"auto""#, "tool_choice"),
        (#""tool_choice":{"type":"function"}"#, "tool_choice"),
        (#""functions":[{}]"#, "functions"), (#""function_call":"auto""#, "function_call"),
        (#""response_format":{"type":"json_object"}"#, "response_format"),
        (#""response_format":{"type":"json_schema","json_schema":{}}"#, "response_format"),
        (#""modalities":["text","audio"]"#, "modalities"),
        (#""audio":{"voice":"x"}"#, "audio"), (#""suffix":"x""#, "suffix"),
        (#""echo":true"#, "echo"), (#""best_of":4"#, "best_of"), (#""grammar":"x""#, "grammar"),
        (#""guided_choice":["a"]"#, "guided_choice"),
    ]) func `what is not supported is refused by name`(fields: String, param: String) {
        let error = failure { () throws(APIError) in try chat(fields) }
        #expect(error?.code == "unsupported_parameter" && error?.status == 400)
        #expect(error?.param == param)
    }

    @Test func `counts beyond the limits are refused`() {
        let many = { (count: Int, element: String) in
            "[" + Array(repeating: element, count: count).joined(separator: ",") + "]"
        }
        let biases = (0...APILimits.logitBiasEntries).map { "\"\($0)\":1" }
        let bodies: [(String, String)] = [
            (#""prompt":"x","stop":"# + many(APILimits.stopStrings + 1, #""a""#), "stop"),
            (#""prompt":"x","stop":"\#(String(repeating: "a", count: 257))""#, "stop"),
            (#""prompt":"# + many(APILimits.promptsPerRequest + 1, #""a""#), "prompt"),
            (#""prompt":"x","logit_bias":{"# + biases.joined(separator: ",") + "}", "logit_bias"),
            (#""prompt":"x","model":"\#(String(repeating: "m", count: 257))""#, "model"),
        ]
        for (fields, param) in bodies {
            #expect(failure { () throws(APIError) in try completion(fields) }?.param == param)
        }
        let tooMany = many(APILimits.messages + 1, #"{"role":"user","content":"x"}"#)
        #expect(
            failure { () throws(APIError) in try chat("", messages: tooMany) }?.param
                == "messages")
    }
}
