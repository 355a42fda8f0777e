import Foundation
package import LocalCluster
package import Reports
import ServingTypes
import Synchronization

/// Loads the gateway of a running cluster whose engines take no time.
///
/// What is left is the way of a request itself: HTTP, JSON, placement, control connections, KV of
/// a few bytes. Windows of requests alternate with windows of `GET /health`, which has the HTTP
/// part alone.
package final class GatewayMeasurement: Sendable {
    package struct Settings: Sendable {
        package var rounds: Int
        /// Kept connections, each with one request at a time.
        package var connections: [Int]
        /// Length of one answer; answers of several tokens are streamed.
        package var newTokens: Int
        /// Length of one window.
        package var window: Duration

        package init(rounds: Int, connections: [Int], newTokens: Int, window: Duration) {
            self.rounds = rounds
            self.connections = connections
            self.newTokens = newTokens
            self.window = window
        }
    }

    /// Ten words.
    private static let prompt = "The quick brown fox jumps over the lazy old dog"
    private static let warmUp = Duration.milliseconds(500)

    private let settings: Settings
    private let cluster: LocalCluster
    private let progress: @Sendable (String) -> Void
    private let results: Mutex<GatewayResults>

    package init(
        settings: Settings, cluster: LocalCluster,
        progress: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.cluster = cluster
        self.progress = progress
        results = Mutex(GatewayResults(settings: settings))
    }

    /// What was measured so far.
    package var report: Report { results.withLock { $0.report } }

    package func run() async throws {
        guard let address = cluster.httpAddress else {
            throw MeasurementError.unexpectedAnswer(status: 0, body: "no gateway")
        }
        let body = Array(
            """
            {"prompt":"\(Self.prompt)","max_tokens":\(settings.newTokens),"temperature":0,\
            "ignore_eos":true,"stream":\(settings.newTokens > 1)}
            """.utf8)
        for round in 1...max(1, settings.rounds) {
            for count in settings.connections {
                progress("\(count) connections, round \(round) of \(settings.rounds)")
                var connections: [TimedConnection] = []
                for _ in 0..<count { connections.append(try await TimedConnection(to: address)) }
                let completion = GatewayRequest(
                    method: "POST", path: CompletionClient.path, body: body)
                let health = GatewayRequest(method: "GET", path: "/health", body: [])
                _ = try await load(connections, completion, for: Self.warmUp)
                let before = processorSeconds()
                let served = try await load(connections, completion, for: settings.window)
                let after = processorSeconds()
                let plain = try await load(connections, health, for: settings.window / 2)
                for connection in connections { await connection.close() }
                let used = after.merging(before) { $0 - $1 }
                results.withLock {
                    $0.add(
                        served: served, plain: plain, processorSeconds: used, connections: count)
                }
            }
        }
        results.withLock { $0.isComplete = true }
    }

    private func processorSeconds() -> [String: Double] {
        var seconds: [String: Double] = [:]
        for process in cluster.all {
            seconds[process.name] = ProcessReadings.processorSeconds(process.processIdentifier)
        }
        seconds[GatewayResults.ownName] = ProcessReadings.processorSeconds(
            ProcessInfo.processInfo.processIdentifier)
        return seconds
    }

    /// Sends requests back to back over all connections until the window is over.
    private func load(
        _ connections: [TimedConnection], _ request: GatewayRequest, for window: Duration
    ) async throws -> GatewayWindow {
        let start = ContinuousClock.now
        let end = start + window
        let times = try await withThrowingTaskGroup(of: Samples.self) { group in
            for connection in connections {
                group.addTask {
                    var times = Samples()
                    while ContinuousClock.now < end {
                        let answer = try await connection.call(
                            request.method, request.path, body: request.body)
                        guard answer.status == 200 else {
                            throw CompletionClient.unexpected(answer)
                        }
                        times.add(answer.total)
                    }
                    return times
                }
            }
            return try await group.reduce(into: Samples()) { $0.add($1) }
        }
        return GatewayWindow(times: times, wall: ContinuousClock.now - start)
    }
}

/// What is sent over and over.
struct GatewayRequest: Sendable {
    var method: String
    var path: String
    var body: [UInt8]
}

/// The answers of one window.
struct GatewayWindow: Sendable {
    var times: Samples
    var wall: Duration

    var requestsPerSecond: Double { Double(times.count) / max(wall.seconds, 1e-9) }
}
