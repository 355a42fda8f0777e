import ServingTypes

/// Reading of values as people write them.
package enum SettingValues {
    /// `250ms`, `1.5s`, `2m`, `1h`; a bare `0`.
    package static func duration(_ text: String) -> Duration? {
        if text == "0" { return .zero }
        let units: [(String, Double)] = [
            ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("s", 1), ("m", 60),
            ("h", 3600),
        ]
        for (unit, seconds) in units where text.hasSuffix(unit) {
            guard let number = decimal(text.dropLast(unit.count)), number * seconds < 1e9 else {
                return nil
            }
            return .nanoseconds(Int64((number * seconds * 1e9).rounded()))
        }
        return nil
    }

    package static func text(_ duration: Duration) -> String {
        let nanoseconds = duration.nanoseconds
        for (unit, size) in [
            ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000),
            ("ms", 1_000_000), ("us", 1000),
        ] as [(String, Int64)]
        where nanoseconds != 0 && nanoseconds % size == 0 {
            return "\(nanoseconds / size)\(unit)"
        }
        return nanoseconds == 0 ? "0" : "\(nanoseconds)ns"
    }

    /// `4096`, `64KiB`, `1.5GiB`, `2GB`.
    static func bytes(_ text: String) -> Int? {
        for (unit, size) in byteUnits where text.hasSuffix(unit) {
            guard let number = decimal(text.dropLast(unit.count)) else { return nil }
            return Int(exactly: (number * Double(size)).rounded())
        }
        return text.allSatisfy { $0.isASCII && $0.isNumber } ? Int(text) : nil
    }

    static func text(bytes: Int) -> String {
        for (unit, size) in byteUnits.prefix(4) where bytes != 0 && bytes % size == 0 {
            return "\(bytes / size)\(unit)"
        }
        return "\(bytes)"
    }

    private static let byteUnits: [(String, Int)] = [
        ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000),
        ("KB", 1000), ("B", 1),
    ]

    /// A plain number without sign and exponent.
    private static func decimal(_ text: Substring) -> Double? {
        guard !text.isEmpty, text.allSatisfy({ ("0"..."9").contains($0) || $0 == "." }) else {
            return nil
        }
        return Double(text)
    }

    package static func bool(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "true", "yes", "on", "1": true
        case "false", "no", "off", "0": false
        default: nil
        }
    }

    static func list(_ text: String) -> [String] {
        text.split(separator: ",").map { $0.trimmed }.filter { !$0.isEmpty }
    }

    /// Number of single-character changes between two names, to find what a typo meant.
    package static func distance(_ left: String, _ right: String) -> Int {
        let (left, right) = (Array(left), Array(right))
        var row = Array(0...right.count)
        for (i, a) in left.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for (j, b) in right.enumerated() {
                let above = row[j + 1]
                row[j + 1] = min(above + 1, row[j] + 1, diagonal + (a == b ? 0 : 1))
                diagonal = above
            }
        }
        return row[right.count]
    }
}

extension Substring {
    var trimmed: String {
        var rest = self
        while rest.first?.isWhitespace == true { rest.removeFirst() }
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return String(rest)
    }
}
