import ChatAPI
import ServingTypes
import Testing

@Suite struct CompletionWriterTests {
    private let id = RequestID(high: 0, low: 10)
    private let hexadecimal = "0000000000000000000000000000000a"

    private func writer(
        _ request: GenerationRequest, fingerprint: String? = "fp"
    ) -> CompletionWriter {
        CompletionWriter(
            request: request, id: id, createdSeconds: 1_700_000_000, model: "m",
            fingerprint: fingerprint)
    }

    private func delta(_ text: String, _ logprobs: [OutputLogprob] = []) -> OutputDelta {
        var delta = OutputDelta()
        delta.text = text
        delta.logprobs = logprobs
        return delta
    }

    private var euroParts: OutputLogprob {
        var entry = OutputLogprob(
            token: TokenText(bytes: [0xE2, 0x82], logprob: -0.5),
            alternatives: [
                TokenText(bytes: Array("a".utf8), logprob: -0.25),
                TokenText(bytes: [0xE2, 0x82], logprob: -0.5),
                TokenText(bytes: Array("b".utf8), logprob: -.infinity),
            ])
        entry.textOffset = 3
        return entry
    }

    @Test func `a whole chat answer`() throws {
        let bytes = writer(try chat("")).response(
            [
                FinishedChoice(text: "hi \"you\"\n\u{1}😀", finish: .stop),
                FinishedChoice(text: "", finish: .length),
            ], usage: TokenUsage(promptTokens: 5, completionTokens: 3, cachedTokens: 4))
        #expect(
            text(bytes)
                == #"{"id":"chatcmpl-\#(hexadecimal)","object":"chat.completion","#
                + #""created":1700000000,"model":"m","system_fingerprint":"fp","choices":["#
                + #"{"index":0,"message":{"role":"assistant","content":"hi \"you\"\n\u0001😀","#
                + #""refusal":null},"logprobs":null,"finish_reason":"stop"},"#
                + #"{"index":1,"message":{"role":"assistant","content":"","refusal":null},"#
                + #""logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":5,"#
                + #""completion_tokens":3,"total_tokens":8,"#
                + #""prompt_tokens_details":{"cached_tokens":4}}}"#)
    }

    @Test func `a whole completion with log-probabilities`() throws {
        let bytes = writer(try completion(#""prompt":"x","logprobs":2"#), fingerprint: nil)
            .response(
                [FinishedChoice(text: "€", finish: .length, logprobs: [euroParts])],
                usage: TokenUsage(promptTokens: 1, completionTokens: 1))
        #expect(
            text(bytes)
                == #"{"id":"cmpl-\#(hexadecimal)","object":"text_completion","#
                + #""created":1700000000,"model":"m","choices":[{"index":0,"text":"€","#
                + #""logprobs":{"text_offset":[3],"token_logprobs":[-0.5],"#
                + #""tokens":["bytes:\\xe2\\x82"],"#
                + #""top_logprobs":[{"a":-0.25,"bytes:\\xe2\\x82":-0.5}]},"#
                + #""finish_reason":"length"}],"usage":{"prompt_tokens":1,"#
                + #""completion_tokens":1,"total_tokens":2,"#
                + #""prompt_tokens_details":{"cached_tokens":0}}}"#)
    }

    @Test func `a chat stream from the role to the end`() throws {
        let request = try chat(#""stream":true,"stream_options":{"include_usage":true}"#)
        let writer = writer(request)
        func chunk(_ choices: String, usage: String = "null") -> String {
            #"data: {"id":"chatcmpl-\#(hexadecimal)","object":"chat.completion.chunk","#
                + #""created":1700000000,"model":"m","system_fingerprint":"fp","choices":"#
                + "[\(choices)]" + #","usage":\#(usage)}"# + "\n\n"
        }
        #expect(
            text(writer.opening(choice: 1))
                == chunk(
                    #"{"index":1,"delta":{"role":"assistant","content":""},"#
                        + #""logprobs":null,"finish_reason":null}"#))
        #expect(
            text(writer.chunk(choice: 1, delta("a\tb")))
                == chunk(
                    #"{"index":1,"delta":{"content":"a\tb"},"logprobs":null,"#
                        + #""finish_reason":null}"#))
        let closing = chunk(
            #"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}"#)
        #expect(text(writer.closing(choice: 0, .stop)) == closing)
        #expect(
            text(writer.closing(choice: 0, .stop, rest: delta("z")))
                == text(writer.chunk(choice: 0, delta("z"))) + closing)
        #expect(
            text(writer.usageChunk(TokenUsage(promptTokens: 2, completionTokens: 1)))
                == chunk(
                    "",
                    usage: #"{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3,"#
                        + #""prompt_tokens_details":{"cached_tokens":0}}"#))
        #expect(text(CompletionWriter.endOfStream) == "data: [DONE]\n\n")
    }

    @Test func `a chat chunk with log-probabilities`() throws {
        let request = try chat(#""stream":true,"logprobs":true,"top_logprobs":3"#)
        let bytes = writer(request, fingerprint: nil).chunk(choice: 0, delta("", [euroParts]))
        let token = "\u{FFFD}"
        #expect(
            text(bytes)
                == #"data: {"id":"chatcmpl-\#(hexadecimal)","object":"chat.completion.chunk","#
                + #""created":1700000000,"model":"m","choices":[{"index":0,"#
                + #""delta":{"content":""},"logprobs":{"content":[{"token":"\#(token)","#
                + #""logprob":-0.5,"bytes":[226,130],"top_logprobs":["#
                + #"{"token":"a","logprob":-0.25,"bytes":[97]},"#
                + #"{"token":"\#(token)","logprob":-0.5,"bytes":[226,130]},"#
                + #"{"token":"b","logprob":-9999.0,"bytes":[98]}]}],"refusal":null},"#
                + #""finish_reason":null}]}"# + "\n\n")
    }

    @Test func `a completion stream has no role and no usage unless asked`() throws {
        let writer = writer(try completion(#""prompt":"x","stream":true"#), fingerprint: nil)
        #expect(writer.opening(choice: 0).isEmpty)
        #expect(writer.usageChunk(TokenUsage(promptTokens: 1, completionTokens: 1)).isEmpty)
        let head =
            #"data: {"id":"cmpl-\#(hexadecimal)","object":"text_completion","#
            + #""created":1700000000,"model":"m","choices":[{"index":0,"text":"#
        #expect(
            text(writer.chunk(choice: 0, delta("x")))
                == head + #""x","logprobs":null,"finish_reason":null}]}"# + "\n\n")
        #expect(
            text(writer.closing(choice: 0, .length))
                == head + #""","logprobs":null,"finish_reason":"length"}]}"# + "\n\n")
    }

    @Test func `a failed stream ends with the error and the end mark`() {
        #expect(
            text(CompletionWriter.failure(.overloaded(retryAfterSeconds: 2)))
                == #"data: {"error":{"message":"All workers are busy.","type":"server_error","#
                + #""param":null,"code":"overloaded"}}"# + "\n\ndata: [DONE]\n\n")
    }

    @Test func `errors name their field`() {
        #expect(
            text(APIError.missing("messages").json)
                == #"{"error":{"message":"'messages' is required.","#
                + #""type":"invalid_request_error","param":"messages","#
                + #""code":"missing_required_parameter"}}"#)
    }

    @Test func `long client values are cut in errors`() {
        let message = APIError.modelNotFound(String(repeating: "é", count: 1000)).message
        #expect(message.utf8.count < 200 && message.contains("é…"))
    }

    @Test func `models are listed`() {
        let model = ServedModel(name: "tiny", createdSeconds: 5)
        let json = #"{"id":"tiny","object":"model","created":5,"owned_by":"pdserve"}"#
        #expect(text(model.json) == json)
        #expect(
            text(ServedModel.listJSON([model, model]))
                == #"{"object":"list","data":[\#(json),\#(json)]}"#)
        #expect(text(ServedModel.listJSON([])) == #"{"object":"list","data":[]}"#)
    }

    @Test func `every control character is escaped`() throws {
        let all = (0..<0x21).compactMap { UnicodeScalar($0) }.reduce(into: "") {
            $0.unicodeScalars.append($1)
        }
        let json = text(ServedModel(name: all + "\u{7F}\u{2028}", createdSeconds: 0).json)
        #expect(json.utf8.allSatisfy { $0 >= 0x20 })
        // Our own strict reader takes it back.
        let inner = json.dropFirst(#"{"id":"#.count).prefix { $0 != "," }
        let request = try completion(#""prompt":\#(inner)"#)
        #expect(request.input == .prompts([.text(all + "\u{7F}\u{2028}")]))
    }
}
