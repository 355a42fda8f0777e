import Metrics

/// The gateway's metrics; made once, since finding one by its name costs more than recording.
struct GatewayMetrics: Sendable {
    let open = Gauge(label: "gateway_requests_open")
    let waiting = Gauge(label: "gateway_requests_waiting")
    let finished = Counter(label: "gateway_requests_finished_total")
    let failed = Counter(label: "gateway_requests_failed_total")
    let restarted = Counter(label: "gateway_requests_restarted_total")
    let clientsGone = Counter(label: "gateway_clients_gone_total")
    let outputTokens = Counter(label: "gateway_output_tokens_total")
    let timeToFirstToken = Timer(label: "gateway_time_to_first_token_seconds")
    let interTokenLatency = Timer(label: "gateway_inter_token_latency_seconds")
}
