/// Bounds and buckets of the metrics.
enum MetricsLimits {
    /// Series of all families; further ones are counted, not kept.
    static let series = 4096
    static let collectors = 64

    /// Upper bounds for values whose name ends in the unit.
    static func buckets(for name: String) -> [Double] {
        if name.hasSuffix("_seconds") {
            return [
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
                30, 60, 120,
            ]
        }
        if name.hasSuffix("_bytes") {
            return (0..<13).map { Double(1024 << (2 * $0)) }
        }
        if name.hasSuffix("_ratio") {
            return [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1]
        }
        return (0..<11).map { Double(1 << (2 * $0)) }
    }
}
