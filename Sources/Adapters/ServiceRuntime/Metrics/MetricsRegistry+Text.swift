extension MetricsRegistry {
    /// The type of `exposition`.
    package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    /// All metrics in Prometheus' text format 0.0.4.
    package func exposition() -> String {
        let (families, dropped) = snapshot()
        var text = ""
        for (name, help, family) in families {
            text += "# HELP \(name) \(Self.escaped(help, quotes: false))\n"
            text += "# TYPE \(name) \(family.kind.rawValue)\n"
            for (labels, series) in family.series.sorted(by: {
                $0.key.lexicographicallyPrecedes($1.key)
            }) {
                Self.write(name, labels, series, to: &text)
            }
        }
        let counter = "metrics_dropped_series_total"
        text += "# HELP \(counter) Series not kept because there were too many.\n"
        text += "# TYPE \(counter) counter\n\(counter) \(dropped)\n"
        return text
    }

    private static func write(
        _ name: String, _ labels: Labels, _ series: Series, to text: inout String
    ) {
        switch series {
        case .scalar(let scalar):
            text += "\(name)\(block(labels)) \(number(scalar.value))\n"
        case .histogram(let histogram):
            let content = histogram.content
            var total: UInt64 = 0
            for (bound, count) in zip(histogram.bounds + [.infinity], content.counts) {
                total += count
                let bucket = labels + [Label(name: "le", value: number(bound))]
                text += "\(name)_bucket\(block(bucket)) \(total)\n"
            }
            text += "\(name)_sum\(block(labels)) \(number(content.sum))\n"
            text += "\(name)_count\(block(labels)) \(total)\n"
        }
    }

    private static func block(_ labels: Labels) -> String {
        guard !labels.isEmpty else { return "" }
        let pairs = labels.map { "\($0.name)=\"\(escaped($0.value, quotes: true))\"" }
        return "{\(pairs.joined(separator: ","))}"
    }

    private static func number(_ value: Double) -> String {
        if value == .infinity { return "+Inf" }
        if value == -.infinity { return "-Inf" }
        if value.isNaN { return "NaN" }
        if let whole = Int64(exactly: value), whole.magnitude < 1 << 53 { return "\(whole)" }
        return value.description
    }

    private static func escaped(_ text: String, quotes: Bool) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\"" where quotes: result += "\\\""
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
