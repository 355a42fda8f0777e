import ClusterRules
package import ServingTypes

/// What recognises a vocabulary: tokens of one mean nothing in another.
package struct VocabularyID: Hashable, Sendable {
    package let digest: [UInt8]

    package init(digest: [UInt8]) { self.digest = digest }
}

/// A request as the gateway's machine sees it: tokens, not text.
package struct GenerationJob: Sendable, Hashable {
    package var request: RequestID
    package var modelName: String
    package var promptTokens: [TokenID]
    package var maximumNewTokens: Int
    package var sampling: SamplingParameters
    /// Name of the scenario it belongs to; its groups serve it.
    package var scenario = ScenarioSpec.defaultName
    /// Greater goes first; range 0…100.
    package var priority = 50
    /// Whose it is; requests of equal priority are served in turn between tenants.
    package var tenant = ""
    /// When the first token is due, counted from its arrival; nil: the placement deadline.
    package var ttftLimit: Duration?
    /// Whether it may start again on another revision of its model while nothing was delivered.
    package var mayChangeRevision = true
    /// That of its tokens, which only groups that are known to have it serve; nil: all do.
    package var vocabulary: VocabularyID?

    package init(
        request: RequestID, modelName: String, promptTokens: [TokenID], maximumNewTokens: Int,
        sampling: SamplingParameters
    ) {
        self.request = request
        self.modelName = modelName
        self.promptTokens = promptTokens
        self.maximumNewTokens = maximumNewTokens
        self.sampling = sampling
    }
}

/// Why a request ended without its result; the gateway's HTTP side turns it into an answer.
package enum GenerationFailure: Error, Hashable, Sendable {
    /// Too many requests are in the gateway: 429 with Retry-After.
    case tooManyRequests(limit: Int)
    /// No worker of this role serves the model: 503 with Retry-After.
    case noWorker(Role)
    /// Workers are there, but none had room in time: 503 with Retry-After.
    case overloaded(waited: Duration)
    /// Its first token is due before the fastest worker could bring it, while others wait, too: 503
    /// with Retry-After.
    case tooLate(left: Duration, needed: Duration)
    /// Prompt and output exceed what every worker allows: 400.
    case tooLong(contextTokens: Int)
    /// Each attempt was lost with its workers: 502.
    case attemptsExhausted(attempts: UInt32, reason: String)
    /// The time for the whole request is over: 504.
    case deadline(Duration)
    /// The gateway is shutting down: 503.
    case shuttingDown
}

/// What the gateway's shell has to do.
package enum GatewayAction: Hashable, Sendable {
    /// Send a message; with `tokens` as its payload if there are any.
    case send(ControlMessage, to: InstanceID, tokens: [TokenID]? = nil)
    /// Its prompt is being computed; so many of its tokens need not be.
    case started(RequestID, cachedTokens: Int)
    /// Hand tokens to the client, in order, each exactly once.
    case deliver(RequestID, [TokenOutput])
    case finish(RequestID, FinishReason)
    case fail(RequestID, GenerationFailure)
    /// For the log and the counter: the request goes on elsewhere.
    case restarted(RequestID, attempt: UInt32, reason: String)
}
