import ClusterRules
import Metrics
import ServiceRuntime

/// The gateway's metrics; made once, since finding one by its name costs more than recording.
struct GatewayMetrics: Sendable {
    /// What came of a request of a client, all its choices together.
    enum Outcome: String { case finished, failed, cancelled }

    let open = Gauge(label: "gateway_requests_open")
    let waiting = Gauge(label: "gateway_requests_waiting")
    let finished = Counter(label: "gateway_requests_finished_total")
    let failed = Counter(label: "gateway_requests_failed_total")
    let restarted = Counter(label: "gateway_requests_restarted_total")
    let clientsGone = Counter(label: "gateway_clients_gone_total")
    let promptTokens = Counter(label: "gateway_prompt_tokens_total")
    let cachedTokens = Counter(label: "gateway_cached_tokens_total")
    let outputTokens = Counter(label: "gateway_output_tokens_total")
    let timeToFirstToken = Timer(label: "gateway_time_to_first_token_seconds")
    let interTokenLatency = Timer(label: "gateway_inter_token_latency_seconds")

    static func describe(in registry: MetricsRegistry) {
        for (name, help) in [
            ("gateway_answers", "Requests of clients that ended, by scenario and outcome."),
            ("gateway_unauthorized", "Requests refused for their key."),
            ("gateway_rate_limited", "Requests refused for their rate, by scenario."),
            ("gateway_vocabulary_errors", "Vocabularies of groups that could not be loaded."),
            ("gateway_rules_errors", "Rules of the scheduler that could not be used."),
            ("gateway_prompt_tokens", "Tokens of prompts whose computing began."),
            ("gateway_cached_tokens", "Those of them whose KV a worker had already."),
        ] { registry.describe(name, help) }
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

    static func countWrongRules() { Counter(label: "gateway_rules_errors_total").increment() }
}
