import Foundation
package import LocalCluster
package import Reports
import ServiceRuntime
import ServiceStart
import ServingTypes
import Synchronization

/// How long clients' streams stand still when a worker that serves them dies or hangs.
package final class StreamGaps: Sendable {
    package struct Settings: Sendable {
        /// Of each kind.
        package var rounds: Int
        /// Requests that are written at once when a decode-worker fails.
        package var streams: Int
        /// Whether workers are also stopped, which takes longer to find out.
        package var includesHanging: Bool

        package init(rounds: Int, streams: Int, includesHanging: Bool = true) {
            self.rounds = rounds
            self.streams = streams
            self.includesHanging = includesHanging
        }
    }

    /// Who fails, and how.
    enum Failure: CaseIterable {
        case decodeKilled, prefillKilled, decodeHung, prefillHung

        var isHanging: Bool { self == .decodeHung || self == .prefillHung }
        var role: Role {
            self == .decodeKilled || self == .decodeHung ? .decodeWorker : .prefillWorker
        }
        var name: String {
            (role == .decodeWorker ? "decode-worker" : "prefill-worker, in a prompt")
                + (isHanging ? " hung" : " killed")
        }
    }

    private enum Limits {
        static let view = Duration.seconds(60)
        static let poll = Duration.milliseconds(2)
        /// Reading speed of the simulated engine, in tokens per second.
        static let readingSpeed = 4000.0
        static let shortPrompt = 64
        /// Half a second of reading.
        static let longPrompt = 2000
        static let newTokens = 150
        /// From which moment of a request its worker fails, by chance.
        static let moment = 0.15...0.45
    }

    private struct Stream: Sendable {
        var sent: MonotonicTime
        /// When each piece came, with the tokens that were there before it.
        var pieces: [(time: MonotonicTime, before: Int)]
    }

    private struct Gap {
        var whole: Double
        /// Without the time in which an engine read what had to be read again.
        var beyond: Double
    }

    private struct State {
        var gaps: [Failure: (whole: Samples, beyond: Samples)] = [:]
        var missed = 0
        var isComplete = false
        let loadBefore = ProcessReadings.loadAverage
    }

    private struct Chunk: Decodable {
        struct Choice: Decodable {
            var text: String?
            var finish_reason: String?
        }
        var choices: [Choice]
    }

    private let settings: Settings
    private let cluster: LocalCluster
    private let progress: @Sendable (String) -> Void
    private let state = Mutex(State())

    /// - Parameter cluster: with two workers of each kind, and simulated engines of usual speed.
    package init(
        settings: Settings, cluster: LocalCluster,
        progress: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.cluster = cluster
        self.progress = progress
    }

    /// The longest gap beyond the engine's time, of killed workers; nil if none was measured.
    package var longestAfterKill: Double? {
        state.withLock { state in
            Failure.allCases.filter { !$0.isHanging }
                .compactMap { state.gaps[$0]?.beyond.quantile(1) }.max()
        }
    }

    package func run() async throws {
        let failures = Failure.allCases.filter { settings.includesHanging || !$0.isHanging }
        for round in 1...settings.rounds {
            for failure in failures {
                try await waitForWorkers()
                let gaps = try await fail(failure, round: round)
                state.withLock { state in
                    if gaps.isEmpty { state.missed += 1 }
                    for gap in gaps {
                        state.gaps[failure, default: (Samples(), Samples())].whole.add(gap.whole)
                        state.gaps[failure, default: (Samples(), Samples())].beyond.add(gap.beyond)
                    }
                }
                let words = gaps.map { "\(Int($0.whole * 1000)) (\(Int($0.beyond * 1000)))" }
                progress(
                    "\(round): \(failure.name): gaps "
                        + "\(words.joined(separator: ", ")) ms (beyond the engine's time)")
            }
        }
        state.withLock { $0.isComplete = true }
    }

    private func gateway() throws -> (process: ManagedProcess, address: NetworkAddress) {
        guard let process = cluster.processes(of: .gateway).first,
            let address = process.announcement.http
        else { throw MeasurementError.unexpectedAnswer(status: 0, body: "no gateway") }
        return (process, address)
    }

    private func fail(_ failure: Failure, round: Int) async throws -> [Gap] {
        let (gateway, address) = try gateway()
        let before = try await MetricsReading(of: gateway)["gateway_requests_restarted_total"]
        let isLong = failure.role == .prefillWorker
        let (prompt, count) =
            isLong ? (Limits.longPrompt, 1) : (Limits.shortPrompt, settings.streams)
        return try await withThrowingTaskGroup(of: Stream.self) { group in
            for _ in 0..<count {
                group.addTask { try await Self.stream(to: address, promptTokens: prompt) }
            }
            try await Task.sleep(for: .seconds(Double.random(in: Limits.moment)))
            let worker = try await busiest(failure.role)
            let failed = ProcessClock.now()
            worker.signal(failure.isHanging ? SIGSTOP : SIGKILL)
            var streams: [Stream] = []
            for try await stream in group { streams.append(stream) }
            worker.signal(SIGKILL)
            await worker.waitUntilExit(within: Limits.view)
            let number = worker.name.split(separator: "-").last.flatMap { Int($0) } ?? 1
            try await cluster.startWorker(failure.role, number: number)
            let after = try await MetricsReading(of: gateway)["gateway_requests_restarted_total"]
            // Those that began again stood still longest.
            return streams.map { Self.gap($0, after: failed, promptTokens: isLong ? prompt : 0) }
                .sorted { $0.whole > $1.whole }.prefix(Int(after - before)).map { $0 }
        }
    }

    /// The worker of the role that has the most to do.
    private func busiest(_ role: Role) async throws -> ManagedProcess {
        let metric =
            role == .decodeWorker
            ? "decode_running_sequences" : "prefill_engine_open_sequences"
        var best: (worker: ManagedProcess, load: Double)?
        for worker in cluster.processes(of: role) {
            let load = try await MetricsReading(of: worker)[metric]
            if load > best?.load ?? -1 { best = (worker, load) }
        }
        guard let best else {
            throw MeasurementError.unexpectedAnswer(status: 0, body: "no \(role)")
        }
        return best.worker
    }

    /// The longest time without a piece that ends after the failure.
    ///
    /// - Parameter promptTokens: that have to be read again for sure; those of a prompt that was
    ///   read to its end may be kept by its prefill-worker.
    private static func gap(
        _ stream: Stream, after failed: MonotonicTime, promptTokens: Int
    ) -> Gap {
        var gap = Gap(whole: 0, beyond: 0)
        var last: MonotonicTime?
        for piece in stream.pieces {
            let start = last ?? failed
            last = piece.time
            guard piece.time > failed else { continue }
            let whole = (piece.time - start).seconds
            guard whole > gap.whole else { continue }
            let engine = Double(promptTokens + piece.before) / Limits.readingSpeed
            gap = Gap(whole: whole, beyond: max(0, whole - engine))
        }
        return gap
    }

    private static func stream(
        to address: NetworkAddress, promptTokens: Int
    ) async throws -> Stream {
        let connection = try await TimedConnection(to: address)
        // No two prompts begin alike.
        let prompt = (0..<promptTokens).map { _ in TokenID.random(in: 97...122) }
        let sent = ProcessClock.now()
        let answer = try await connection.call(
            "POST", CompletionClient.path,
            body: CompletionClient.body(prompt, newTokens: Limits.newTokens, isStreamed: true))
        guard answer.status == 200 else { throw CompletionClient.unexpected(answer) }
        var stream = Stream(sent: sent, pieces: [])
        var tokens = 0
        var isFinished = false
        for (data, time) in answer.events where data.first == UInt8(ascii: "{") {
            guard let chunk = try? JSONDecoder().decode(Chunk.self, from: Data(data)),
                let choice = chunk.choices.first
            else { throw CompletionClient.unexpected(answer) }
            if choice.finish_reason != nil { isFinished = true }
            stream.pieces.append((sent + time, tokens))
            tokens += choice.text?.utf8.count ?? 0
        }
        guard isFinished, tokens == Limits.newTokens else {
            throw MeasurementError.unexpectedAnswer(
                status: answer.status, body: "\(tokens) of \(Limits.newTokens) tokens")
        }
        return stream
    }

    /// Until the gateway is connected with all workers, and none of them is gone for the scheduler.
    private func waitForWorkers() async throws {
        let all =
            cluster.processes(of: .prefillWorker).count
            + cluster.processes(of: .decodeWorker).count
        let end = ContinuousClock.now + Limits.view
        while true {
            let reading = try await MetricsReading(of: gateway().process)
            let connected = reading["gateway_workers_connected"]
            var serving = 0.0
            for scheduler in cluster.processes(of: .scheduler) {
                let reading = try await MetricsReading(of: scheduler)
                for role in ["prefill", "decode"] {
                    let series = #"scheduler_instances{role="\#(role)",state="serving"}"#
                    serving += reading[series]
                }
            }
            if connected == Double(all), serving == Double(all) { return }
            guard ContinuousClock.now < end else {
                throw MeasurementError.unexpectedAnswer(
                    status: 0, body: "not all workers serve within \(Limits.view)")
            }
            try await Task.sleep(for: Limits.poll * 10)
        }
    }

    /// What was measured so far.
    package var report: Report {
        let state = state.withLock { $0 }
        var report = Report(
            name: "failure",
            facts: [
                ("processor", ProcessReadings.processorName),
                ("cores", "\(ProcessInfo.processInfo.activeProcessorCount)"),
                ("streams", "\(settings.streams)"),
                ("rounds in which nothing had to begin again", "\(state.missed)"),
                ("load average before", state.loadBefore),
                ("load average after", ProcessReadings.loadAverage),
            ])
        report.isComplete = state.isComplete
        var table = ReportTable(
            "gaps", "Longest time without a token in streams whose worker failed",
            columns: [
                "failure", "streams", "gap_p50_ms", "gap_p99_ms", "beyond_engine_p50_ms",
                "beyond_engine_p99_ms", "beyond_engine_most_ms",
            ])
        for failure in Failure.allCases {
            guard let gaps = state.gaps[failure] else { continue }
            func milliseconds(_ samples: Samples, _ share: Double) -> ReportTable.Cell {
                .number(samples.quantile(share).map { $0 * 1000 }, 0)
            }
            table.add([
                .text(failure.name), .whole(gaps.whole.count), milliseconds(gaps.whole, 0.5),
                milliseconds(gaps.whole, 0.99), milliseconds(gaps.beyond, 0.5),
                milliseconds(gaps.beyond, 0.99), milliseconds(gaps.beyond, 1),
            ])
        }
        report.tables = [table]
        return report
    }
}
