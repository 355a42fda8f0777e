import Foundation

/// Values whose percentiles are wanted, in bounded memory.
///
/// Exact up to a number of values; with more, each counts in a bucket 0.1 % wide, so that a
/// percentile is known to 0.05 %.
package struct PercentileRecorder: Sendable {
    private static let least = 1e-9
    private static let width = log(1.001)
    /// Up to 10^15 times the least.
    private static let buckets = Int(log(1e15) / width) + 2

    private let exactValues: Int
    private var values: [Double] = []
    private var counts: [Int] = []
    package private(set) var count = 0

    package init(exactValues: Int = 1_000_000) { self.exactValues = exactValues }

    /// Whether percentiles are still of the values themselves.
    package var isExact: Bool { counts.isEmpty }

    /// Takes a value of at least 0.
    package mutating func record(_ value: Double) {
        count += 1
        if counts.isEmpty {
            values.append(value)
            guard count > exactValues else { return }
            counts = Array(repeating: 0, count: Self.buckets)
            for value in values { counts[Self.bucket(value)] += 1 }
            values = []
        } else {
            counts[Self.bucket(value)] += 1
        }
    }

    private static func bucket(_ value: Double) -> Int {
        guard value > least else { return 0 }
        return min(buckets - 1, Int(log(value / least) / width) + 1)
    }

    /// Percentiles for shares in 0…1, between two values in proportion; nil of no value.
    package func percentiles(_ shares: [Double]) -> [Double]? {
        guard count > 0 else { return nil }
        if !counts.isEmpty { return shares.map { fromBuckets($0) } }
        let sorted = values.sorted()
        return shares.map { share in
            let position = share * Double(sorted.count - 1)
            let below = Int(position)
            let above = min(below + 1, sorted.count - 1)
            return sorted[below] + (sorted[above] - sorted[below]) * (position - Double(below))
        }
    }

    private func fromBuckets(_ share: Double) -> Double {
        var left = Int(share * Double(count - 1))
        for (bucket, inside) in counts.enumerated() {
            if left < inside {
                return bucket == 0 ? 0 : Self.least * exp((Double(bucket) - 0.5) * Self.width)
            }
            left -= inside
        }
        return 0
    }
}

/// The percentiles that goals are about.
package struct Percentiles: Sendable, Hashable, Codable {
    package var p50: Double
    package var p90: Double
    package var p99: Double

    package init(p50: Double, p90: Double, p99: Double) {
        self.p50 = p50
        self.p90 = p90
        self.p99 = p99
    }

    /// Of no value: all are infinite, so that no goal is met.
    init(_ recorder: PercentileRecorder) {
        let values = recorder.percentiles([0.5, 0.9, 0.99]) ?? [.infinity, .infinity, .infinity]
        self.init(p50: values[0], p90: values[1], p99: values[2])
    }

    package var all: [Double] { [p50, p90, p99] }

    func isBelow(_ limits: Percentiles) -> Bool {
        p50 < limits.p50 && p90 < limits.p90 && p99 < limits.p99
    }
}
