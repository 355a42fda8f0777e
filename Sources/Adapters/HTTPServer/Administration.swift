package import ServiceRuntime

/// Whether a service can do its work now.
package enum ServiceHealth: Hashable, Sendable {
    case ready
    /// Waits to take another's place: nothing is wrong with it.
    case standby
    /// With a sentence for people.
    case unavailable(String)
}

extension HTTPRoutes {
    /// Adds what operators and their tools read.
    ///
    /// - `GET /live`: 200 as long as the process answers.
    /// - `GET /health`: 200 when it can do its work, or stands by; else 503 with the reason.
    /// - `GET /metrics`: for Prometheus.
    package mutating func addAdministration(
        metrics: MetricsRegistry, health: @escaping @Sendable () async -> ServiceHealth
    ) {
        add("GET", "/live") { _ in .json(Array(#"{"status":"ok"}"#.utf8)) }
        add("GET", "/health") { _ in
            switch await health() {
            case .ready: .json(Array(#"{"status":"ok"}"#.utf8))
            case .standby: .json(Array(#"{"status":"standby"}"#.utf8))
            case .unavailable(let reason):
                .json(
                    Array(
                        #"{"status":"unavailable","reason":"\#(jsonEscaped(reason))"}"#.utf8),
                    status: 503)
            }
        }
        add("GET", "/metrics") { _ in
            .bytes(Array(metrics.exposition().utf8), type: MetricsRegistry.contentType)
        }
    }
}
