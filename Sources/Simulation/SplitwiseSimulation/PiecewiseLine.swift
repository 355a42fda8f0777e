/// A function through points, straight between them and straight on outside.
package struct PiecewiseLine: Sendable, Hashable {
    /// Rising.
    private let xs: [Double]
    private let ys: [Double]

    /// At least two points; of points with one x, the median counts.
    package init?(points: [(x: Double, y: Double)]) {
        var groups: [Double: [Double]] = [:]
        for point in points { groups[point.x, default: []].append(point.y) }
        guard groups.count > 1 else { return nil }
        xs = groups.keys.sorted()
        ys = xs.map { Self.median(groups[$0, default: []].sorted()) }
    }

    private static func median(_ sorted: [Double]) -> Double {
        let middle = sorted.count / 2
        guard sorted.count.isMultiple(of: 2) else { return sorted[middle] }
        return (sorted[middle - 1] + sorted[middle]) / 2
    }

    package func callAsFunction(_ x: Double) -> Double {
        var low = 0
        var high = xs.count
        while low < high {
            let middle = (low + high) / 2
            if xs[middle] < x { low = middle + 1 } else { high = middle }
        }
        let right = min(max(low, 1), xs.count - 1)
        let slope = (ys[right] - ys[right - 1]) / (xs[right] - xs[right - 1])
        return slope * (x - xs[right - 1]) + ys[right - 1]
    }
}
