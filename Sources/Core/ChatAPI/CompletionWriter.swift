package import ServingTypes

/// Tokens that a request used, as clients are told.
package struct TokenUsage: Hashable, Sendable {
    package var promptTokens: Int
    package var completionTokens: Int
    /// Prompt tokens that were not computed because their KV was there.
    package var cachedTokens: Int

    package init(promptTokens: Int, completionTokens: Int, cachedTokens: Int = 0) {
        self.promptTokens = promptTokens
        self.completionTokens = completionTokens
        self.cachedTokens = cachedTokens
    }
}

/// One complete answer.
package struct FinishedChoice: Hashable, Sendable {
    package var text: String
    package var finish: FinishReason
    /// Of the tokens in `text`; written only if the request asked for them.
    package var logprobs: [OutputLogprob]

    package init(text: String, finish: FinishReason, logprobs: [OutputLogprob] = []) {
        self.text = text
        self.finish = finish
        self.logprobs = logprobs
    }
}

/// Writes the answers to one request exactly as OpenAI's clients read them.
///
/// A stream is: for a chat one `opening` per choice; any number of `chunk`; per choice one
/// `closing`; `usageChunk` if asked for; `endOfStream`. After a failure it is `failure` instead.
package struct CompletionWriter: Sendable {
    private let endpoint: GenerationEndpoint
    private let id: String
    private let createdSeconds: Int
    private let model: String
    private let fingerprint: String?
    private let writesLogprobs: Bool
    private let alternatives: Int
    private let streamsUsage: Bool

    /// - Parameters:
    ///   - createdSeconds: seconds since 1970.
    ///   - model: the name of the model that answers.
    ///   - fingerprint: says which weights and settings answered, for `system_fingerprint`.
    package init(
        request: GenerationRequest, id: RequestID, createdSeconds: Int, model: String,
        fingerprint: String? = nil
    ) {
        endpoint = request.endpoint
        self.id = (request.endpoint == .chat ? "chatcmpl-" : "cmpl-") + id.description
        self.createdSeconds = createdSeconds
        self.model = model
        self.fingerprint = fingerprint
        writesLogprobs = request.reportsLogprobs
        alternatives = request.sampling.topLogprobs ?? 0
        streamsUsage = request.streamsUsage
    }

    package static let endOfStream = Array("data: [DONE]\n\n".utf8)

    // MARK: Complete answers

    /// The whole answer.
    ///
    /// - Parameter choices: in the order of their index: all choices of the first prompt first.
    package func response(_ choices: [FinishedChoice], usage: TokenUsage) -> [UInt8] {
        let textBytes = choices.reduce(0) { $0 + $1.text.utf8.count }
        var writer = JSONWriter(reservedBytes: textBytes + textBytes / 8 + 512)
        writer.object {
            writeHead(&$0, object: endpoint == .chat ? "chat.completion" : "text_completion")
            $0.key("choices")
            $0.array { array in
                for (index, choice) in choices.enumerated() {
                    array.object { write(choice, index: index, to: &$0) }
                }
            }
            $0.key("usage")
            write(usage, to: &$0)
        }
        return writer.bytes
    }

    private func write(_ choice: FinishedChoice, index: Int, to writer: inout JSONWriter) {
        writer.member("index", index)
        switch endpoint {
        case .chat:
            writer.key("message")
            writer.object {
                $0.member("role", "assistant")
                $0.member("content", choice.text)
                $0.nullMember("refusal")
            }
        case .completion:
            writer.member("text", choice.text)
        }
        writeLogprobs(choice.logprobs, to: &writer)
        writer.member("finish_reason", choice.finish.name)
    }

    // MARK: Streams

    /// The first chunk of a chat's choice, which names the role; empty for completions.
    package func opening(choice index: Int) -> [UInt8] {
        guard endpoint == .chat else { return [] }
        return event { writer in
            writeChoice(&writer, index: index, logprobs: nil, finish: nil) {
                $0.key("delta")
                $0.object {
                    $0.member("role", "assistant")
                    $0.member("content", "")
                }
            }
        }
    }

    /// Text of one choice.
    package func chunk(choice index: Int, _ delta: OutputDelta) -> [UInt8] {
        event { writer in
            writeChoice(&writer, index: index, logprobs: delta.logprobs, finish: nil) {
                writeText(delta.text, to: &$0)
            }
        }
    }

    /// The last chunk of one choice, with the rest of its text if there is any.
    package func closing(
        choice index: Int, _ finish: FinishReason, rest: OutputDelta = OutputDelta()
    ) -> [UInt8] {
        let isEmpty = rest.text.isEmpty && rest.logprobs.isEmpty
        return (isEmpty ? [] : chunk(choice: index, rest))
            + event { writer in
                writeChoice(&writer, index: index, logprobs: nil, finish: finish) {
                    switch endpoint {
                    case .chat:
                        $0.key("delta")
                        $0.object { _ in }
                    case .completion: writeText("", to: &$0)
                    }
                }
            }
    }

    /// The chunk before the end of the stream; empty if the request did not ask for it.
    package func usageChunk(_ usage: TokenUsage) -> [UInt8] {
        guard streamsUsage else { return [] }
        return event(usage: usage) {
            $0.key("choices")
            $0.array { _ in }
        }
    }

    /// The end of a stream that failed: the error, then the end mark.
    package static func failure(_ error: APIError) -> [UInt8] {
        Array("data: ".utf8) + error.json + Array("\n\n".utf8) + endOfStream
    }

    private func event(
        usage: TokenUsage? = nil, _ choices: (inout JSONWriter) -> Void
    ) -> [UInt8] {
        var writer = JSONWriter(prefix: "data: ")
        writer.object {
            writeHead(
                &$0, object: endpoint == .chat ? "chat.completion.chunk" : "text_completion")
            choices(&$0)
            if streamsUsage {
                $0.key("usage")
                if let usage { write(usage, to: &$0) } else { $0.null() }
            }
        }
        writer.appendRaw("\n\n")
        return writer.bytes
    }

    private func writeChoice(
        _ writer: inout JSONWriter, index: Int, logprobs: [OutputLogprob]?,
        finish: FinishReason?, _ content: (inout JSONWriter) -> Void
    ) {
        writer.key("choices")
        writer.array {
            $0.object {
                $0.member("index", index)
                content(&$0)
                writeLogprobs(logprobs, to: &$0)
                $0.member("finish_reason", finish?.name)
            }
        }
    }

    private func writeText(_ text: String, to writer: inout JSONWriter) {
        guard endpoint == .chat else { return writer.member("text", text) }
        writer.key("delta")
        writer.object { $0.member("content", text) }
    }

    // MARK: Parts

    private func writeHead(_ writer: inout JSONWriter, object: String) {
        writer.member("id", id)
        writer.member("object", object)
        writer.member("created", createdSeconds)
        writer.member("model", model)
        if let fingerprint { writer.member("system_fingerprint", fingerprint) }
    }

    private func write(_ usage: TokenUsage, to writer: inout JSONWriter) {
        writer.object {
            $0.member("prompt_tokens", usage.promptTokens)
            $0.member("completion_tokens", usage.completionTokens)
            $0.member("total_tokens", usage.promptTokens + usage.completionTokens)
            $0.key("prompt_tokens_details")
            $0.object { $0.member("cached_tokens", usage.cachedTokens) }
        }
    }

    private func writeLogprobs(_ logprobs: [OutputLogprob]?, to writer: inout JSONWriter) {
        guard writesLogprobs, let logprobs else { return writer.nullMember("logprobs") }
        writer.key("logprobs")
        switch endpoint {
        case .chat: writer.chatLogprobs(logprobs, alternatives: alternatives)
        case .completion: writer.completionLogprobs(logprobs, alternatives: alternatives)
        }
    }
}

extension FinishReason {
    /// The word in `finish_reason`.
    package var name: String {
        switch self {
        case .stop: "stop"
        case .length: "length"
        }
    }
}
