/// What `benchmark serve` measures.
package struct ServeSettings: Sendable {
    /// Threads of each engine: of the one in this process and of each worker.
    package static let threads = 1
    /// Prompt of the requests that run side by side, in tokens.
    package static let streamPromptTokens = 128
    /// Tokens that they write.
    package static let streamNewTokens = 64
    /// Repetitions of each number of streams, if there are as many rounds.
    package static let streamRounds = 5

    package var modelPath: String
    package var rounds: Int
    package var promptTokens: [Int]
    package var newTokens: [Int]
    /// Requests at once.
    package var streams: [Int]

    package init(
        modelPath: String, rounds: Int, promptTokens: [Int], newTokens: [Int], streams: [Int]
    ) {
        self.modelPath = modelPath
        self.rounds = rounds
        self.promptTokens = promptTokens
        self.newTokens = newTokens
        self.streams = streams
    }

    var sequences: Int { max(64, streams.max() ?? 1) }

    /// KV for all streams at once, and for the longest prompt.
    var kvTokens: Int {
        let stream = Self.streamPromptTokens + Self.streamNewTokens
        let longest = (promptTokens.max() ?? 1) + (newTokens.max() ?? 1)
        return max(16_384, sequences * stream, 2 * longest)
    }

    private var workerArguments: [String] {
        ["--threads", "\(Self.threads)", "--kv-tokens", "\(kvTokens)"]
    }

    /// Arguments of the prefill-worker.
    package var prefillArguments: [String] { workerArguments }

    /// Arguments by which the decode-worker holds all streams at once.
    package var decodeArguments: [String] {
        workerArguments + ["--decode-sequences", "\(sequences)"]
    }
}

/// A length of prompt with a length of output.
struct ServeCase: Hashable, Sendable {
    var promptTokens: Int
    var newTokens: Int
}
