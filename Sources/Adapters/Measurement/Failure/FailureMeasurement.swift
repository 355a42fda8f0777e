import Foundation
package import LocalCluster
package import Reports
import ServiceRuntime
import ServiceStart
import ServingTypes
import Synchronization

/// How long gateways go on choosing a worker that is dead, or hangs.
package final class FailureMeasurement: Sendable {
    package struct Settings: Sendable {
        /// Of each kind.
        package var rounds: Int
        /// A decode-worker is kept as a spare, and requests are served meanwhile.
        package var hasSpare: Bool

        package init(rounds: Int, hasSpare: Bool = false) {
            self.rounds = rounds
            self.hasSpare = hasSpare
        }
    }

    /// What happens to a worker.
    enum Failure: String, CaseIterable {
        /// SIGKILL: its connections end with it.
        case killed
        /// SIGSTOP: they stand.
        case hung

        var signal: Int32 { self == .killed ? SIGKILL : SIGSTOP }
        var goal: Duration { self == .killed ? .seconds(1) : .seconds(3) }
    }

    private enum Limits {
        /// Until the view shows a failure, or a worker that was started again.
        static let view = Duration.seconds(60)
        static let poll = Duration.milliseconds(2)
        /// Requests at once while spares take places.
        static let streams = 4
        /// In which the worker has answered some beats.
        static let calm = Duration.seconds(2)
    }

    private struct State {
        var times: [Failure: Samples] = [:]
        /// From a worker's end until a spare serves in its role.
        var replacements: [Failure: Samples] = [:]
        var answered = 0
        var lost: [String] = []
        var isComplete = false
        let loadBefore = ProcessReadings.loadAverage
    }

    private let settings: Settings
    private let cluster: LocalCluster
    private let progress: @Sendable (String) -> Void
    private let state = Mutex(State())

    /// - Parameter cluster: with two decode-workers and a health-agent.
    package init(
        settings: Settings, cluster: LocalCluster,
        progress: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.cluster = cluster
        self.progress = progress
    }

    package func run() async throws {
        guard let address = cluster.schedulerAddress else {
            throw MeasurementError.unexpectedAnswer(status: 0, body: "no scheduler")
        }
        let services = try PlayedServices(
            cluster: cluster.settings.cluster, scheduler: address,
            certificates: cluster.settings.folder.appending(path: "certificates").path)
        let watcher = ViewWatcher(number: 1000, services: services)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await watcher.run() }
            group.addTask { try await self.measure(watcher) }
            if settings.hasSpare, let gateway = cluster.httpAddress {
                for _ in 0..<Limits.streams {
                    group.addTask {
                        while !Task.isCancelled { await self.ask(gateway) }
                        try await Task.sleep(for: Limits.view)
                    }
                }
            }
            // The watcher has no end of its own.
            try await group.next()
            group.cancelAll()
        }
        state.withLock { $0.isComplete = true }
    }

    /// Requests that fail, or what became of them that did not, are counted.
    private func ask(_ gateway: NetworkAddress) async {
        do {
            let connection = try await TimedConnection(to: gateway)
            _ = try await CompletionClient(connection: connection).stream(
                Array(65..<97), newTokens: 32)
            state.withLock { $0.answered += 1 }
        } catch {
            guard !Task.isCancelled else { return }
            state.withLock { $0.lost.append("\(error)") }
        }
    }

    /// Requests that were not answered while workers failed.
    package var lost: [String] { state.withLock { $0.lost } }

    private func measure(_ watcher: ViewWatcher) async throws {
        let all =
            cluster.processes(of: .prefillWorker).count
            + cluster.processes(of: .decodeWorker).count
        let used = settings.hasSpare ? all - 1 : all
        for round in 1...settings.rounds {
            for failure in Failure.allCases {
                try await wait("all workers serve") {
                    watcher.reading.serving == all && watcher.reading.inUse == used
                }
                try await Task.sleep(for: Limits.calm)
                let time = try await fail(failure, watcher)
                state.withLock { $0.times[failure, default: Samples()].add(time) }
                progress("\(round): \(failure) for \(time.milliseconds) ms")
            }
        }
    }

    /// Lets the last decode-worker with a role fail and starts another one in its place.
    private func fail(
        _ failure: Failure, _ watcher: ViewWatcher
    ) async throws -> Duration {
        let spare = watcher.reading.spare
        let workers = cluster.processes(of: .decodeWorker)
            .filter { InstanceID($0.name) != spare }
        guard let worker = workers.max(by: { $0.name < $1.name })
        else { throw MeasurementError.unexpectedAnswer(status: 0, body: "no decode-worker") }
        let instance = InstanceID(worker.name)
        watcher.watch([instance])
        let start = ProcessClock.now()
        worker.signal(failure.signal)
        try await wait("\(instance) is excluded") {
            watcher.excluded(instance).map { $0 >= start } == true
        }
        let time = watcher.excluded(instance).map { $0 - start } ?? .zero
        if spare != nil {
            let used = cluster.processes(of: .prefillWorker).count + workers.count
            try await wait("a spare serves") { watcher.reading.inUse == used }
            let replaced = watcher.reading.time - start
            state.withLock { $0.replacements[failure, default: Samples()].add(replaced) }
            progress("a spare serves after \(replaced.milliseconds) ms")
        }
        worker.signal(SIGKILL)
        await worker.waitUntilExit(within: Limits.view)
        let number = worker.name.split(separator: "-").last.flatMap { Int($0) } ?? 1
        try await cluster.startWorker(.decodeWorker, number: number)
        return time
    }

    private func wait(_ what: String, _ condition: () -> Bool) async throws {
        let end = ContinuousClock.now + Limits.view
        while !condition() {
            guard ContinuousClock.now < end else {
                throw MeasurementError.unexpectedAnswer(
                    status: 0, body: "not within \(Limits.view): \(what)")
            }
            try await Task.sleep(for: Limits.poll)
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
                ("load average before", state.loadBefore),
                ("load average after", ProcessReadings.loadAverage),
            ])
        report.isComplete = state.isComplete
        var table = ReportTable(
            "failures", "From a worker's end until a gateway's view excludes it",
            columns: ["failure", "rounds", "p50_ms", "p99_ms", "most_ms", "goal_ms"])
        for failure in Failure.allCases {
            guard let times = state.times[failure] else { continue }
            func milliseconds(_ share: Double) -> Double? {
                times.quantile(share).map { $0 * 1000 }
            }
            table.add([
                .text(failure.rawValue), .whole(times.count), .number(milliseconds(0.5), 0),
                .number(milliseconds(0.99), 0), .number(milliseconds(1), 0),
                .number(failure.goal.seconds * 1000, 0),
            ])
        }
        report.tables = [table]
        guard settings.hasSpare else { return report }
        report.facts += [
            ("requests answered", "\(state.answered)"), ("requests lost", "\(state.lost.count)"),
        ]
        var spares = ReportTable(
            "substitutions", "From a worker's end until a gateway's view has a spare in its role",
            columns: ["failure", "rounds", "p50_ms", "p99_ms", "most_ms"])
        for failure in Failure.allCases {
            guard let times = state.replacements[failure] else { continue }
            spares.add(
                [.text(failure.rawValue), .whole(times.count)]
                    + [0.5, 0.99, 1].map { share in
                        .number(times.quantile(share).map { $0 * 1000 }, 0)
                    })
        }
        report.tables.append(spares)
        return report
    }
}
