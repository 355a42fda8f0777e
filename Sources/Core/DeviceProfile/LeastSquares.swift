/// Fits sums of known terms to measured values.
enum LeastSquares {
    /// Factors of the terms, none below zero, that explain the values best by relative error.
    ///
    /// Each row has as many terms as every other; `values` are above zero. Tries each subset of
    /// terms, so it is for few of them; a term that explains little more than chance is left out
    /// (Akaike's criterion for few points), so that a few points aren't overdone.
    ///
    /// - Parameter needs: for a term, the one without which it means nothing.
    /// - Returns: no factors without points; the criterion's value, of which less is better.
    static func fit(
        rows: [[Double]], values: [Double], needs: [Int: Int] = [:]
    ) -> (factors: [Double], criterion: Double) {
        let width = rows.first?.count ?? 0
        let count = Double(rows.count)
        var best: (criterion: Double, factors: [Double]) = (.infinity, [])
        for subset in 0..<(1 << width) {
            let chosen = (0..<width).filter { subset & (1 << $0) != 0 }
            guard needs.allSatisfy({ !chosen.contains($0) || chosen.contains($1) }) else {
                continue
            }
            guard let solution = solve(rows: rows, values: values, terms: chosen),
                solution.allSatisfy({ $0 >= 0 && $0.isFinite })
            else { continue }
            var factors = [Double](repeating: 0, count: width)
            for (place, term) in chosen.enumerated() { factors[term] = solution[place] }
            let error = zip(rows, values).reduce(0.0) { sum, point in
                let relative = 1 - dot(point.0, factors) / point.1
                return sum + relative * relative
            }
            let terms = Double(chosen.count)
            guard rows.count > chosen.count || chosen.count == 1 else { continue }
            let chance = 2 * terms * (terms + 1) / max(count - terms - 1, 1)
            let criterion = count * Self.log(error / count + 1e-6) + 2 * terms + chance
            if criterion < best.criterion { best = (criterion, factors) }
        }
        return (best.factors, best.criterion)
    }

    /// Fits without the points that took far longer than a first fit says.
    ///
    /// Other programs only ever add time. At least two thirds of the points stay.
    static func trimmedFit(
        rows: [[Double]], values: [Double], needs: [Int: Int] = [:]
    ) -> (factors: [Double], criterion: Double) {
        let first = fit(rows: rows, values: values, needs: needs)
        guard !first.factors.isEmpty, rows.count >= 6 else { return first }
        let excess = zip(rows, values).map { $1 / max(dot($0, first.factors), 1e-12) }
        let bound = max(1.3, excess.sorted()[rows.count * 2 / 3])
        let kept = rows.indices.filter { excess[$0] <= bound }
        guard kept.count < rows.count else { return first }
        let second = fit(
            rows: kept.map { rows[$0] }, values: kept.map { values[$0] }, needs: needs)
        return (second.factors.isEmpty ? first.factors : second.factors, first.criterion)
    }

    /// The natural logarithm, from the exponent and a series for the rest.
    private static func log(_ value: Double) -> Double {
        let rest = (value.significand - 1) / (value.significand + 1)
        var (power, sum) = (rest, 0.0)
        for term in 0..<30 {
            sum += power / Double(2 * term + 1)
            power *= rest * rest
        }
        return 2 * sum + Double(value.exponent) * 0.6931471805599453
    }

    static func dot(_ row: [Double], _ factors: [Double]) -> Double {
        zip(row, factors).reduce(0) { $0 + $1.0 * $1.1 }
    }

    /// Solves the normal equations of some of the terms; nil if the points don't tell them apart.
    private static func solve(
        rows: [[Double]], values: [Double], terms: [Int]
    ) -> [Double]? {
        guard rows.count >= terms.count else { return nil }
        let count = terms.count
        // Terms differ by many orders of magnitude: each is divided by its largest value.
        let scales = terms.map { term in rows.map { abs($0[term]) }.max() ?? 0 }
        guard scales.allSatisfy({ $0 > 0 }) else { return nil }
        var matrix = [[Double]](
            repeating: [Double](repeating: 0, count: count + 1), count: count)
        for (row, value) in zip(rows, values) {
            let scaled = (0..<count).map { row[terms[$0]] / scales[$0] / value }
            for left in 0..<count {
                for right in 0..<count { matrix[left][right] += scaled[left] * scaled[right] }
                matrix[left][count] += scaled[left]
            }
        }
        for column in 0..<count {
            let pivot = (column..<count).max { abs(matrix[$0][column]) < abs(matrix[$1][column]) }
            guard let pivot, abs(matrix[pivot][column]) > 1e-12 else { return nil }
            matrix.swapAt(column, pivot)
            for row in 0..<count where row != column {
                let factor = matrix[row][column] / matrix[column][column]
                for place in column...count {
                    matrix[row][place] -= factor * matrix[column][place]
                }
            }
        }
        return (0..<count).map { matrix[$0][count] / matrix[$0][$0] / scales[$0] }
    }
}
