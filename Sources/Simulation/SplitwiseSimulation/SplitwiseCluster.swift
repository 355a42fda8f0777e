/// A model as SplitwiseSim knows it.
package struct ServedModel: Sendable, Hashable {
    package var name: String
    package var weightBytes: Int
    /// KV of a token in all layers; SplitwiseSim counts a key and a value per attention head.
    package var kvBytesPerToken: Int

    package static let bloom176B = ServedModel(
        name: "bloom-176b", weightBytes: 329_000_000_000, kvBytesPerToken: 2 * 14_336 * 70 * 2)
    package static let llama2With70B = ServedModel(
        name: "llama2-70b", weightBytes: 135_000_000_000, kvBytesPerToken: 2 * 8192 * 80 * 2)
}

/// Machines, what is on them, and who places requests: what a simulation begins with.
package struct SplitwiseCluster: Sendable {
    /// Pools that a machine belongs to by its tag.
    package enum Tag: Sendable, Hashable {
        case prompt, token
        /// For policies without pools.
        case any
    }

    package struct Machine: Sendable, Hashable {
        /// Index into `kinds`.
        package var kind: Int
        package var tag: Tag

        package init(kind: Int, tag: Tag) {
            self.kind = kind
            self.tag = tag
        }
    }

    /// SplitwiseSim's schedulers.
    package enum Policy: Sendable, Hashable {
        /// Both phases of a request on one machine.
        case random(seed: UInt64)
        case roundRobin
        /// The machine with the fewest requests.
        case shortestQueue
        /// The machine with the fewest pending tokens.
        case fewestTokens
        /// Prefill and decode always apart, KV over a link.
        case kvRoundRobin
        case kvShortestQueue
        /// Machines' pending tokens fall as prompts end but never rise, as in SplitwiseSim.
        case kvFewestTokens
        /// Prefill and decode apart, with machines that do both when a pool is full.
        case mixedPool

        package var separatesPhases: Bool {
            switch self {
            case .random, .roundRobin, .shortestQueue, .fewestTokens: false
            case .kvRoundRobin, .kvShortestQueue, .kvFewestTokens, .mixedPool: true
            }
        }
    }

    /// Limits of a machine and of what the simulation keeps.
    package struct Limits: Sendable, Hashable {
        package var batchSize = 512
        /// One longer prompt alone is allowed.
        package var batchTokens = 2048
        package var preemptions = 4
        /// A prompt pool with more pending tokens per machine is full.
        package var promptQueueTokens = 8192
        /// Requests at once; with more, the run ends as overloaded.
        package var liveRequests = 4_000_000

        package init() {}
    }

    package var kinds: [PhaseCurves]
    package var machines: [Machine]
    package var model: ServedModel
    package var policy: Policy
    package var limits = Limits()
    package var memoryBytes = 8 * 80 << 30
    /// Of each KV transfer, however many there are.
    package var linkBytesPerSecond = 200.0 * 1_073_741_824
    /// Seconds until a transfer that found no room at its target tries again.
    package var transferRetrySeconds = 1.0

    package init(
        kinds: [PhaseCurves], machines: [Machine], model: ServedModel, policy: Policy
    ) {
        self.kinds = kinds
        self.machines = machines
        self.model = model
        self.policy = policy
    }
}

/// What became of one request; 32 bytes.
package struct RequestOutcome: Sendable, Hashable {
    /// Position in the trace.
    package var number: UInt32
    package var promptTokens: UInt32
    package var outputTokens: UInt32
    /// From the end of prefill to the begin of decode: KV transfer and waiting.
    package var gapSeconds: Float
    package var ttftSeconds: Double
    package var e2eSeconds: Double

    /// Seconds per token after the first, over all tokens, as SplitwiseSim has it.
    package var tbtSeconds: Double { (e2eSeconds - ttftSeconds) / Double(outputTokens) }

    package init(
        number: UInt32, promptTokens: UInt32, outputTokens: UInt32, gapSeconds: Float,
        ttftSeconds: Double, e2eSeconds: Double
    ) {
        self.number = number
        self.promptTokens = promptTokens
        self.outputTokens = outputTokens
        self.gapSeconds = gapSeconds
        self.ttftSeconds = ttftSeconds
        self.e2eSeconds = e2eSeconds
    }
}
