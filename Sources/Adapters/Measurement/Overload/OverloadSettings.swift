package import ServingTypes

/// What `benchmark overload` asks of a cluster.
package struct OverloadSettings: Sendable {
    /// Sequences the decode-worker writes at once: what the cluster can do.
    package var sequences = 16
    /// Load in multiples of what the cluster can do.
    package var factor = 5
    /// Of each kind of load.
    package var time = Duration.seconds(20)
    package var newTokens = 32
    /// Limit of the scenario for the first token.
    package var ttftLimit = Duration.seconds(2)
    /// Requests that wait at once, to see what one costs.
    package var waiting = 1000
    /// Connections that rest, to see what one costs.
    package var connections = 1000
    /// Requests the gateway holds at most.
    package var maximumRequests = 4096

    package init() {}

    /// Bytes, and so tokens, of the prompt of a request that only waits.
    static let patientPromptBytes = 2000

    /// Two classes of requests: those with a limit, and long ones that wait as long as it takes.
    package var clusterFile: String {
        """
        scenarios:
          - name: patient
            match: {prompt-tokens: {minimum: 1000}}
            limits: {ttft: 600s}
            prefill: {minimum: 0}
            decode: {minimum: 0}
          - name: hasty
            limits: {ttft: \(ttftLimit.milliseconds)ms}
            ratio: as-started
            deflection: false

        """
    }

    package var arguments: [Role: [String]] {
        [
            .gateway: ["--maximum-requests", "\(maximumRequests)"],
            .decodeWorker: ["--decode-sequences", "\(sequences)", "--kept-sequences", "0"],
            .prefillWorker: ["--kept-sequences", "0"],
        ]
    }
}

/// What came of one request.
struct OverloadAnswer: Sendable {
    var status = 0
    var saysWhenToRetry = false
    /// Nil if there was none.
    var first: Duration?
    var total = Duration.zero
    /// The stream ended as it should.
    var isWhole = false

    var isRefused: Bool { status == 429 || status == 503 }
    /// It began and did not end well, or was neither served nor refused.
    var isBroken: Bool { status == 200 ? !isWhole : !isRefused }
}

/// The requests of one kind of load.
struct OverloadPhase: Sendable {
    var name: String
    var answers: [OverloadAnswer] = []
    var time = Duration.zero

    var served: [OverloadAnswer] { answers.filter { $0.status == 200 && $0.isWhole } }
    var servedPerSecond: Double { Double(served.count) / max(time.seconds, 1e-9) }
    var broken: Int { answers.count { $0.isBroken } }
    /// Refusals that don't say when to try again.
    var mute: Int { answers.count { $0.isRefused && !$0.saysWhenToRetry } }

    func late(_ limit: Duration) -> Int { served.count { ($0.first ?? .zero) > limit } }
    func count(_ status: Int) -> Int { answers.count { $0.status == status } }
    var firstTokens: Samples { Samples(served.compactMap { $0.first?.seconds }) }
    var refusals: Samples { Samples(answers.filter(\.isRefused).map(\.total.seconds)) }
}
