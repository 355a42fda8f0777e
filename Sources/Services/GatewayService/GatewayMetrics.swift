import ClusterRules
import Metrics
import Roles
import ServiceRuntime

/// The gateway's metrics; made once, since finding one by its name costs more than recording.
struct GatewayMetrics: Sendable {
    /// What came of a request of a client, all its choices together.
    enum Outcome: String { case finished, failed, cancelled }

    let open = Gauge(label: "gateway_requests_open")
    let waiting = Gauge(label: "gateway_requests_waiting")
    let connected = Gauge(label: "gateway_workers_connected")
    let finished = Counter(label: "gateway_requests_finished_total")
    let failed = Counter(label: "gateway_requests_failed_total")
    let restarted = Counter(label: "gateway_requests_restarted_total")
    let clientsGone = Counter(label: "gateway_clients_gone_total")
    let clientsSlow = Counter(label: "gateway_clients_slow_total")
    let promptTokens = Counter(label: "gateway_prompt_tokens_total")
    let cachedTokens = Counter(label: "gateway_cached_tokens_total")
    let outputTokens = Counter(label: "gateway_output_tokens_total")
    let timeToFirstToken = Timer(label: "gateway_time_to_first_token_seconds")
    let interTokenLatency = Timer(label: "gateway_inter_token_latency_seconds")

    static func describe(in registry: MetricsRegistry) {
        for (name, help) in [
            ("gateway_answers", "Requests of clients that ended, by scenario and outcome."),
            ("gateway_clients_gone", "Requests that ended as their client had left."),
            ("gateway_clients_slow", "Requests that ended as their client left too much unread."),
            ("gateway_unauthorized", "Requests refused for their key."),
            ("gateway_rate_limited", "Requests refused for their rate, by scenario."),
            ("gateway_vocabulary_errors", "Vocabularies of groups that could not be loaded."),
            ("gateway_view_failures", "Times the last view could not be written to its file."),
            ("gateway_rules_errors", "Rules of the scheduler that could not be used."),
            ("gateway_prompt_tokens", "Tokens of prompts whose computing began."),
            ("gateway_workers_connected", "Workers that this gateway is connected with."),
            ("gateway_placements", "Attempts by how they were placed; see PlacementCounts."),
            ("gateway_cached_tokens", "Those of them whose KV a worker had already."),
        ] { registry.describe(name, help) }
    }

    func record(_ machine: borrowing GatewayMachine) {
        open.record(machine.requestCount)
        waiting.record(machine.waitingCount)
        connected.record(machine.connectedWorkers)
    }

    func ended(_ outcome: Outcome, scenario: String) {
        Counter(
            label: "gateway_answers_total",
            dimensions: [("scenario", scenario), ("outcome", outcome.rawValue)]
        ).increment()
    }

    func refused(_ error: AccessError) {
        switch error {
        case .unauthorized: Counter(label: "gateway_unauthorized_total").increment()
        case .limited(let client, _, _):
            Counter(
                label: "gateway_rate_limited_total", dimensions: [("scenario", client.scenario)]
            ).increment()
        case .noRules, .noScenario: break
        }
    }

    static func countViewFailure() {
        Counter(label: "gateway_view_failures_total").increment()
    }
    static func countWrongRules() { Counter(label: "gateway_rules_errors_total").increment() }
}

/// How attempts were placed, as counters by kind.
struct PlacementMetrics {
    private static let kinds: [(String, @Sendable (PlacementCounts) -> Int)] = [
        ("early", { $0.early }), ("late", { $0.late }), ("deflected", { $0.deflected }),
        ("decode-only", { $0.decodeOnly }), ("prefill-only", { $0.prefillOnly }),
        ("moved", { $0.moved }), ("rejected", { $0.rejected }), ("refused", { $0.refused }),
        ("expired", { $0.expired }), ("shed", { $0.shed }),
    ]

    private var last = PlacementCounts()
    private let counters = kinds.map {
        Counter(label: "gateway_placements_total", dimensions: [("kind", $0.0)])
    }

    /// Counts what has been added since the last call.
    mutating func record(_ counts: PlacementCounts) {
        for (counter, (_, count)) in zip(counters, Self.kinds) {
            let new = count(counts) - count(last)
            if new > 0 { counter.increment(by: new) }
        }
        last = counts
    }
}
