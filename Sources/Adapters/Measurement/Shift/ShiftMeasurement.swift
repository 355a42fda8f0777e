import Foundation
package import LocalCluster
package import Reports
import ServiceRuntime
import ServingTypes
import Synchronization

/// Loads a cluster with traffic whose kind changes, once per mode, and watches its workers.
package final class ShiftMeasurement: Sendable {
    private static let path = "/v1/completions"
    /// Time a client waits after a failure.
    private static let pause = Duration.milliseconds(200)

    private let settings: ShiftSettings
    private let facts: [(name: String, value: String)]
    private let progress: @Sendable (String) -> Void
    private let results: Mutex<ShiftResults>

    /// - Parameters:
    ///   - facts: what else the report's head tells.
    ///   - progress: takes sentences for people.
    package init(
        settings: ShiftSettings, facts: [(name: String, value: String)] = [],
        progress: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.facts = facts
        self.progress = progress
        results = Mutex(ShiftResults(settings: settings))
    }

    /// What was measured so far.
    package var report: Report { results.withLock { $0.report(facts) } }

    /// Goodput and workers over time, as an SVG file.
    package var plot: String { results.withLock { $0.plot } }

    /// One run, on a cluster with the cluster file of this mode that serves.
    package func run(_ mode: ShiftMode, on cluster: LocalCluster) async throws {
        guard let address = cluster.httpAddress else {
            throw MeasurementError.unexpectedAnswer(status: 0, body: "no gateway")
        }
        let watch = try ShiftWatch(cluster)
        progress("\(mode.rawValue): \(settings.users) users, \(Int(settings.duration.seconds)) s")
        let before = processorSeconds(cluster)
        let start = ContinuousClock.now
        var begun = ShiftRun(mode: mode)
        begun.startedAt = Date().timeIntervalSince1970 * 1000
        let log = ShiftLog(begun)
        defer {
            var run = log.run.withLock { $0 }
            run.workerProcessorSeconds = processorSeconds(cluster) - before
            results.withLock { $0.add(run) }
        }
        try await withThrowingTaskGroup(of: Bool.self) { group in
            group.addTask {
                try await watch.run { status in
                    let time = (ContinuousClock.now - start).seconds
                    log.run.withLock { run in
                        run.samples.append(ShiftSample(status, time: time))
                        run.decisions = status.decisions
                    }
                    return true
                }
                return false
            }
            for user in 0..<settings.users {
                group.addTask {
                    try await self.use(address, as: user, since: start) { request in
                        log.run.withLock { $0.requests.append(request) }
                    }
                    return true
                }
            }
            var users = 0
            while users < settings.users, let isUser = try await group.next() {
                guard isUser else {
                    throw MeasurementError.connectionLost(request: "cluster status", "it ended")
                }
                users += 1
            }
            group.cancelAll()
            // Only the watch is left, and it was told to end.
            while let _ = await group.nextResult() {}
        }
        if mode == ShiftMode.allCases.last { results.withLock { $0.isComplete = true } }
    }

    private func processorSeconds(_ cluster: LocalCluster) -> Double {
        (cluster.processes(of: .prefillWorker) + cluster.processes(of: .decodeWorker))
            .compactMap { ProcessReadings.processorSeconds($0.processIdentifier) }.reduce(0, +)
    }

    // MARK: Clients

    /// Sends one request after another until the run is over.
    private func use(
        _ address: NetworkAddress, as user: Int, since start: ContinuousClock.Instant,
        note: @Sendable (ShiftRequest) -> Void
    ) async throws {
        var numbers = SeededGenerator(seed: settings.seed &+ UInt64(user) << 32)
        var connection: TimedConnection?
        // Not all at once: equal clients would otherwise go in step.
        try await Task.sleep(for: .milliseconds(100 * user))
        while true {
            let sent = ContinuousClock.now - start
            guard sent < settings.duration else { break }
            let phase = sent < settings.first.duration ? settings.first : settings.second
            let body = Self.body(phase, &numbers)
            var request = ShiftRequest(sent: sent.seconds, ended: 0)
            do {
                let open: TimedConnection
                if let connection {
                    open = connection
                } else {
                    open = try await TimedConnection(to: address)
                }
                connection = open
                let answer = try await open.call("POST", Self.path, body: body)
                request.take(answer, newTokens: phase.newTokens)
            } catch {
                try Task.checkCancellation()
                connection = nil
                request.failure = "\(error)"
            }
            request.ended = (ContinuousClock.now - start).seconds
            note(request)
            if request.failure != nil { try await Task.sleep(for: Self.pause) }
        }
        await connection?.close()
    }

    /// A prompt that no other begins like; the simulated engine has a token per byte.
    private static func body(_ phase: ShiftPhase, _ numbers: inout SeededGenerator) -> [UInt8] {
        let letters = (0..<phase.promptTokens).map { _ in
            UInt8(ascii: "a") + UInt8.random(in: 0..<26, using: &numbers)
        }
        return Array(
            """
            {"prompt":"\(String(decoding: letters, as: UTF8.self))",\
            "max_tokens":\(phase.newTokens),"temperature":0,"ignore_eos":true,"stream":true}
            """.utf8)
    }
}

/// What clients and watch note at the same time.
private final class ShiftLog: Sendable {
    let run: Mutex<ShiftRun>

    init(_ run: ShiftRun) { self.run = Mutex(run) }
}

extension ShiftRequest {
    /// Reads times and success from the answer's stream.
    fileprivate mutating func take(_ answer: TimedAnswer, newTokens: Int) {
        guard answer.status == 200 else {
            failure = "\(CompletionClient.unexpected(answer))"
            return
        }
        let events = answer.events.filter { $0.data.first == UInt8(ascii: "{") }
        guard let first = events.first?.time, let last = events.last,
            String(decoding: last.data, as: UTF8.self).contains(#""finish_reason":"length""#)
        else {
            failure = "\(CompletionClient.unexpected(answer))"
            return
        }
        ttft = first.seconds
        tpot = newTokens > 1 ? (last.time - first).seconds / Double(newTokens - 1) : nil
    }
}
