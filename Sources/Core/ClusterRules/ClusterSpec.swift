/// What an operator wants of a cluster: its scenarios, in the order in which requests match them.
package struct ClusterSpec: Hashable, Sendable {
    package var scenarios: [ScenarioSpec]

    package init(scenarios: [ScenarioSpec] = [ScenarioSpec(name: ScenarioSpec.defaultName)]) {
        self.scenarios = scenarios
    }

    package subscript(name: String) -> ScenarioSpec? { scenarios.first { $0.name == name } }
}

/// A class of traffic with its model, limits and goals.
package struct ScenarioSpec: Hashable, Sendable {
    /// The scenario of a cluster without a cluster file.
    package static let defaultName = "default"

    package var name: String
    /// Name of the model it serves, as clients give it; empty: whatever its workers have.
    package var model = ""
    package var match = MatchRule()
    /// Longest good time to the first token.
    package var ttftLimit: Duration = .seconds(10)
    /// Longest good mean time per further token.
    package var tpotLimit: Duration = .milliseconds(200)
    /// Longest time of an engine's iteration while sequences decode.
    ///
    /// Less than the TPOT limit: a first token's way to the gateway and errors of forecasts count
    /// too, and an iteration as long as the limit would break it for all.
    package var stepLimit: Duration { tpotLimit * 4 / 5 }
    /// Greater goes first; range 0…100.
    package var priority = 50
    /// Groups its workers are divided into, if there are enough of them.
    package var groups = 1
    package var prefill = InstanceRange()
    package var decode = InstanceRange()
    /// Workers kept out of use, to take a dead one's place.
    package var spares = 0
    package var ratio = RatioMode.automatic
    /// What a request is expected to be, until traffic was measured.
    package var expectedPromptTokens = 1024
    package var expectedOutputTokens = 128
    package var placement = PlacementName.onDemand
    package var decodePlacement = DecodePlacement.early
    package var deflection = true
    /// Whether one role may do the other's work while no worker of the other is alive.
    package var decodeOnlyFallback = true
    package var prefillOnlyFallback = true
    package var schedule: [ScheduleEntry] = []
    /// Empty: no key is needed.
    package var keys: [APIKey] = []
    /// Of all its clients together.
    package var rate = RateLimit()

    package init(name: String) { self.name = name }
}

/// How many workers of one role.
package struct InstanceRange: Hashable, Sendable {
    package var minimum: Int
    /// Nil: as many as there are.
    package var maximum: Int?

    package init(minimum: Int = 1, maximum: Int? = nil) {
        self.minimum = minimum
        self.maximum = maximum
    }
}

/// How the numbers of prefill- and decode-workers are chosen.
package enum RatioMode: Hashable, Sendable {
    /// By P/D-Serve's eq. (1) and the share of prefill in the whole time of requests.
    case automatic
    /// What the processes were started as.
    case asStarted
    case fixed(prefill: Int, decode: Int)
}

/// Which policy chooses workers.
package enum PlacementName: String, Hashable, Sendable, CaseIterable {
    /// P/D-Serve: expected prefix hit and own open work, then the next one after each rejection.
    case onDemand = "on-demand"
    /// Splitwise: fewest pending tokens.
    case shortestQueue = "shortest-queue"
    case roundRobin = "round-robin"
    case leastConnections = "least-connections"
}

/// When the decode-worker of a request is chosen.
package enum DecodePlacement: String, Hashable, Sendable, CaseIterable {
    /// Before prefill, so that KV travels while prefill computes.
    case early
    /// After prefill: P/D-Serve's default.
    case late
}

/// What a request must be like; all that is given must hold.
package struct MatchRule: Hashable, Sendable {
    /// Model names of the API, any of them; empty: the scenario's model.
    package var models: [String] = []
    /// Headers of the request and their values; names in lower case.
    package var headers: [String: String] = [:]
    package var minimumPromptTokens = 0
    package var maximumPromptTokens = Int.max
    /// How the first message, or the prompt, begins.
    package var prefix = ""

    package init() {}
}

/// Other numbers of workers at certain times of the day.
package struct ScheduleEntry: Hashable, Sendable {
    /// Minutes since midnight, local time; `from` may be later than `to`, over midnight.
    package var from: Int
    package var to: Int
    package var prefill: InstanceRange?
    package var decode: InstanceRange?

    package init(from: Int, to: Int, prefill: InstanceRange? = nil, decode: InstanceRange? = nil) {
        self.from = from
        self.to = to
        self.prefill = prefill
        self.decode = decode
    }
}

/// Requests and tokens per minute; 0: no limit.
package struct RateLimit: Hashable, Sendable {
    package var requestsPerMinute: Int
    /// Prompt and answer together.
    package var tokensPerMinute: Int

    package init(requestsPerMinute: Int = 0, tokensPerMinute: Int = 0) {
        self.requestsPerMinute = requestsPerMinute
        self.tokensPerMinute = tokensPerMinute
    }
}

/// A key that clients show, known by its hash alone.
package struct APIKey: Hashable, Sendable {
    /// For logs, metrics and fairness.
    package var name: String
    /// SHA-256 of the key's text, 32 bytes.
    package var hash: [UInt8]
    package var rate: RateLimit

    package init(name: String, hash: [UInt8], rate: RateLimit = RateLimit()) {
        self.name = name
        self.hash = hash
        self.rate = rate
    }
}

/// What decides which scenario a request belongs to.
package struct RequestTraits: Hashable, Sendable {
    package var model: String
    /// Names in lower case.
    package var headers: [String: String]
    package var promptTokens: Int
    /// Beginning of the first message or the prompt.
    package var text: String

    package init(
        model: String, headers: [String: String] = [:], promptTokens: Int, text: String = ""
    ) {
        self.model = model
        self.headers = headers
        self.promptTokens = promptTokens
        self.text = text
    }
}

extension ClusterSpec {
    /// The first scenario whose rule the request meets.
    package func scenario(for request: RequestTraits) -> ScenarioSpec? {
        scenarios.first { $0.matches(request) }
    }
}

extension ScenarioSpec {
    /// Model names that belong to it; empty: any.
    package var matchedModels: [String] {
        match.models.isEmpty && !model.isEmpty ? [model] : match.models
    }

    package func matches(_ request: RequestTraits) -> Bool {
        let models = matchedModels
        return (models.isEmpty || models.contains(request.model))
            && match.headers.allSatisfy { request.headers[$0.key] == $0.value }
            && request.promptTokens >= match.minimumPromptTokens
            && request.promptTokens <= match.maximumPromptTokens
            && (match.prefix.isEmpty || request.text.hasPrefix(match.prefix))
    }
}
