package import ClusterRules
import Foundation
package import Reports
import ServiceRuntime
import ServingTypes
import Synchronization

/// What placing a request costs a gateway, by policy and number of workers.
///
/// The machine alone: the messages to it are made here, those from it are read and dropped.
package final class PlacementMeasurement: Sendable {
    package struct Settings: Sendable {
        package var workers: [Int]
        package var requests: Int
        package var placements: [PlacementName]

        package init(
            workers: [Int], requests: Int, placements: [PlacementName] = PlacementName.allCases
        ) {
            self.workers = workers
            self.requests = requests
            self.placements = placements
        }
    }

    private static let viewChanges = 20
    /// From so many workers on, their memory stands out from what the process takes anyway.
    private static let weighedWorkers = 1000

    private let settings: Settings
    private let progress: @Sendable (String) -> Void
    private let results: Mutex<Report>

    package init(settings: Settings, progress: @escaping @Sendable (String) -> Void) {
        self.settings = settings
        self.progress = progress
        var report = Report(
            name: "placement",
            facts: [
                ("processor", ProcessReadings.processorName),
                ("load average before", ProcessReadings.loadAverage),
                ("prompt", "\(PlacementScene.promptTokens) tokens"),
                ("requests", "\(settings.requests) per line"),
            ])
        report.isComplete = false
        var table = ReportTable(
            "placement", "Time of the gateway's machine per request and per view",
            columns: [
                "policy", "workers", "submit_us", "submit_p99_us", "grant_us", "grant_p99_us",
                "rest_us", "all_us", "placements_per_s", "view_us", "view_us_per_worker",
                "bytes_per_worker",
            ])
        table.note = """
            submit: hash of the prompt and choice of a decode-worker; grant: choice of a \
            prefill-worker; rest: accepted, first token, end. Medians, where no quantile is named. \
            A placement is submit and grant. view: readings of all workers are new.
            """
        report.tables = [table]
        results = Mutex(report)
    }

    /// What was measured so far.
    package var report: Report { results.withLock { $0 } }

    package func run() throws {
        for workers in settings.workers {
            for placement in settings.placements {
                try Task.checkCancellation()
                progress("\(placement.rawValue), \(workers) workers")
                try measure(placement, workers)
            }
        }
        results.withLock { $0.isComplete = true }
    }

    private func measure(_ placement: PlacementName, _ workers: Int) throws {
        let before = ResidentMemory.bytes()
        var scene = PlacementScene(workers: workers, placement: placement, seed: 1)
        let after = ResidentMemory.bytes()
        // Until as many requests are open as there are workers.
        _ = try scene.place(workers)
        let costs = try scene.place(settings.requests)
        var views = Samples()
        for _ in 0..<Self.viewChanges { views.add(scene.changeReadings()) }
        guard scene.openRequests == workers else {
            throw MeasurementError.notReached(
                instances: workers, "\(scene.openRequests) requests are open")
        }
        let (submit, grant, rest) = (
            costs.submit.median ?? 0, costs.grant.median ?? 0, costs.rest.median ?? 0
        )
        let isWeighed = workers >= Self.weighedWorkers
        let bytes = before.flatMap { before in
            isWeighed ? after.map { Double($0 - before) } : nil
        }
        results.withLock {
            $0.tables[0].add([
                .text(placement.rawValue), .whole(workers), Self.microseconds(submit),
                Self.microseconds(costs.submit.quantile(0.99)), Self.microseconds(grant),
                Self.microseconds(costs.grant.quantile(0.99)), Self.microseconds(rest),
                Self.microseconds(submit + grant + rest), .number(1 / (submit + grant), 0),
                Self.microseconds(views.median),
                .number(views.median.map { $0 * 1e6 / Double(workers) }, 3),
                .number(bytes.map { $0 / Double(workers) }, 0),
            ])
        }
    }

    private static func microseconds(_ seconds: Double?) -> ReportTable.Cell {
        .number(seconds.map { $0 * 1e6 }, 1)
    }
}
