import ServingTypes

/// Numbers measured under equal conditions.
package struct Samples: Sendable {
    package private(set) var values: [Double] = []

    package init() {}

    package init(_ values: [Double]) { self.values = values }

    package mutating func add(_ value: Double) { values.append(value) }

    package mutating func add(_ duration: Duration) { values.append(duration.seconds) }

    package mutating func add(_ other: Samples) { values += other.values }

    package var count: Int { values.count }

    /// Nil without values.
    package var median: Double? { quantile(0.5) }

    /// Standard error of the median, from the middle half of the values; nil for fewer than four.
    package var medianError: Double? {
        guard count >= 4, let low = quantile(0.25), let high = quantile(0.75) else { return nil }
        // For normally distributed values: 1.253 · deviation / √n, deviation = range / 1.349.
        return 0.929 * (high - low) / Double(count).squareRoot()
    }

    /// The value that a share of the values does not exceed, interpolated between neighbours.
    ///
    /// - Parameter share: in 0…1.
    package func quantile(_ share: Double) -> Double? {
        guard !values.isEmpty else { return nil }
        let sorted = values.sorted()
        let position = share * Double(sorted.count - 1)
        let lower = Int(position)
        let upper = min(lower + 1, sorted.count - 1)
        return sorted[lower] + (sorted[upper] - sorted[lower]) * (position - Double(lower))
    }
}
