import Foundation
package import LocalCluster
import Measurement
package import Reports
import ServingTypes
import Synchronization

/// What processes need over a long time: memory, files, threads, KV that nobody wants.
///
/// A line is fitted to what follows the warm-up. A process grows if that line rises by more than
/// a bound, and by more than chance lets it.
package final class Soak: Sendable {
    /// Something that a process has some of.
    package enum Quantity: String, CaseIterable, Sendable {
        case memory = "resident_mib"
        case descriptors
        case threads
        case stranded = "stranded_transfers"

        /// What the line may rise over the whole time.
        func bound(mean: Double) -> Double {
            switch self {
            case .memory: max(8, 0.05 * mean)
            case .descriptors: 8
            case .threads: 4
            case .stranded: 0.5
            }
        }
    }

    private struct Series {
        var seconds: [Double] = []
        var values: [Quantity: [Double]] = [:]
        var process: Int32
    }

    /// Samples of a process, at most; over a longer time they are further apart.
    private static let mostSamples = 2000
    private static let shortestInterval = Duration.seconds(1)
    /// Part of the time that is left out of the line.
    package static let warmUp = 0.25
    /// A slope of so many standard errors is no chance.
    private static let certainty = 3.0

    private let interval: Duration
    private let series = Mutex<[String: Series]>([:])

    package init(duration: Duration) {
        interval = max(Self.shortestInterval, duration / Self.mostSamples)
    }

    /// Looks at the processes until it is cancelled.
    package func watch(_ processes: [ManagedProcess]) async throws {
        let start = ContinuousClock.now
        while true {
            for process in processes where process.isRunning {
                let reading = try? await MetricsReading(of: process)
                let seconds = (ContinuousClock.now - start).seconds
                let id = process.processIdentifier
                var values: [Quantity: Double] = [:]
                values[.memory] = ProcessReadings.residentBytes(id).map { Double($0) / 1_048_576 }
                values[.descriptors] = ProcessReadings.descriptors(id).map(Double.init)
                values[.threads] = ProcessReadings.threads(id).map(Double.init)
                values[.stranded] = ["prefill", "decode"].reduce(0) {
                    $0 + (reading?.sum("\($1)_kv_stranded_transfers") ?? 0)
                }
                guard values.count == Quantity.allCases.count else { continue }
                add(process.name, id, seconds, values)
            }
            try await Task.sleep(for: interval)
        }
    }

    private func add(
        _ name: String, _ process: Int32, _ seconds: Double, _ values: [Quantity: Double]
    ) {
        series.withLock { all in
            var one = all[name] ?? Series(process: process)
            // Another process has a beginning of its own.
            if one.process != process { one = Series(process: process) }
            one.seconds.append(seconds)
            for (quantity, value) in values { one.values[quantity, default: []].append(value) }
            all[name] = one
        }
    }

    // MARK: Findings

    /// Processes that grow, a sentence each.
    package var growing: [String] {
        rows.filter(\.trend.isGrowing).map { row in
            String(
                format: "%@ grows: %@ by %.1f in %.0f s, bound %.1f", row.name,
                row.quantity.rawValue, row.trend.rise, row.trend.seconds, row.trend.bound)
        }
    }

    private var rows: [(name: String, quantity: Quantity, trend: Trend)] {
        let all = series.withLock { $0 }
        return all.sorted { $0.key < $1.key }.flatMap { name, one in
            Quantity.allCases.compactMap { quantity in
                Trend(one.seconds, one.values[quantity] ?? [], quantity).map {
                    (name, quantity, $0)
                }
            }
        }
    }

    package var table: ReportTable {
        var table = ReportTable(
            "soak", "What each process has, after a warm-up",
            columns: [
                "process", "what", "samples", "first", "last", "highest", "per_hour", "rise",
                "bound", "verdict",
            ])
        table.note =
            "Rise: of the fitted line over the time it covers; it counts if it is more than the\n"
            + "bound and than three standard errors. Per hour: the same slope, for a longer time."
        for (name, quantity, trend) in rows {
            table.add([
                .text(name), .text(quantity.rawValue), .whole(trend.samples),
                .number(trend.first, 1), .number(trend.last, 1), .number(trend.highest, 1),
                .number(trend.slope * 3600, 2), .number(trend.rise, 2), .number(trend.bound, 1),
                .text(trend.isGrowing ? "growing" : "flat"),
            ])
        }
        return table
    }

    /// A line through the samples after the warm-up.
    struct Trend {
        var samples: Int
        var first: Double
        var last: Double
        var highest: Double
        /// Per second.
        var slope: Double
        var seconds: Double
        var bound: Double
        private var slopeError: Double

        var rise: Double { slope * seconds }
        var isGrowing: Bool { rise > bound && slope > Soak.certainty * slopeError }

        /// Nil if there are too few samples for a line.
        init?(_ seconds: [Double], _ values: [Double], _ quantity: Quantity) {
            guard let end = seconds.last, seconds.count == values.count else { return nil }
            let start = seconds[0] + Soak.warmUp * (end - seconds[0])
            let points = zip(seconds, values).filter { $0.0 >= start }
            let count = Double(points.count)
            guard count >= 3, let first = points.first, let last = points.last else { return nil }
            let middle = points.reduce(0) { $0 + $1.0 } / count
            let mean = points.reduce(0) { $0 + $1.1 } / count
            let spread = points.reduce(0) { $0 + ($1.0 - middle) * ($1.0 - middle) }
            guard spread > 0 else { return nil }
            slope = points.reduce(0) { $0 + ($1.0 - middle) * ($1.1 - mean) } / spread
            let slope = slope
            let errors = points.reduce(0) { sum, point in
                let error = point.1 - mean - slope * (point.0 - middle)
                return sum + error * error
            }
            slopeError = (errors / (count - 2) / spread).squareRoot()
            samples = points.count
            self.first = first.1
            self.last = last.1
            highest = points.map(\.1).max() ?? last.1
            self.seconds = last.0 - first.0
            bound = quantity.bound(mean: mean)
        }
    }
}

extension ChaosSettings {
    /// Constant load, and now and then a fault that no process dies of.
    package static func soak(_ duration: Duration) -> ChaosSettings {
        var settings = ChaosSettings()
        settings.rounds = .max
        settings.duration = duration
        settings.faults = 1
        settings.roundDuration = .seconds(20)
        settings.kinds = [.stop, .cut, .stall, .slow, .late, .corrupt]
        return settings
    }
}
