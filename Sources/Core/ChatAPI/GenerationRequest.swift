package import ServingTypes

/// Which of OpenAI's two interfaces a request came through.
package enum GenerationEndpoint: Hashable, Sendable {
    /// `POST /v1/chat/completions`
    case chat
    /// `POST /v1/completions`
    case completion
}

/// What a client wants generated, checked as far as that is possible without a model.
package struct GenerationRequest: Hashable, Sendable {
    package var endpoint: GenerationEndpoint
    /// Nil if the client leaves the choice to the server.
    package var model: String?
    package var input: GenerationInput
    /// The text of the first message, or of the first prompt, cut; empty if it is given as tokens.
    package var beginning = ""
    package var isStreamed = false
    /// The client wants the last chunk of the stream to tell the usage.
    package var streamsUsage = false
    /// Nil if the client sets no limit; at least 1 otherwise.
    package var maximumNewTokens: Int?
    /// How many answers to each prompt, 1…16.
    package var choicesPerPrompt = 1
    /// Sampling; its `seed` is meaningless, see `seed`.
    package var sampling = SamplingParameters()
    /// Nil if the gateway has to draw one.
    package var seed: UInt64?
    /// At most 16 strings, none empty.
    package var stops: [String] = []

    package init(endpoint: GenerationEndpoint, input: GenerationInput) {
        self.endpoint = endpoint
        self.input = input
    }

    package var promptCount: Int {
        switch input {
        case .chat: 1
        case .prompts(let prompts): prompts.count
        }
    }

    package var reportsLogprobs: Bool { sampling.topLogprobs != nil }
}

/// What is to be continued.
package enum GenerationInput: Hashable, Sendable {
    /// UTF-8 JSON of the `messages` array as the client sent it; shape and roles are checked.
    case chat(messages: [UInt8])
    /// At least one prompt.
    case prompts([CompletionPrompt])
}

/// One prompt of a completion request.
package enum CompletionPrompt: Hashable, Sendable {
    case text(String)
    /// At least one token; none is negative, but they may lie beyond the vocabulary.
    case tokens([TokenID])
}
