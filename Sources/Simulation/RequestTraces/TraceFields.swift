extension ArraySlice<UInt8> {
    var decimal: Double? { Double(String(decoding: self, as: UTF8.self)) }

    /// A number of digits alone, not beyond 10^18.
    var wholeNumber: Int? {
        guard (1...18).contains(count) else { return nil }
        var value = 0
        for byte in self {
            guard let digit = byte.digit else { return nil }
            value = value * 10 + digit
        }
        return value
    }

    /// Nanoseconds since 1970 of `2023-11-16 18:17:03.9799600`, also with `T`, `Z` or `+00:00`.
    var nanosecondsOfDate: Int? {
        var rest = self
        guard let year = rest.take(digits: 4), rest.take("-"), let month = rest.take(digits: 2),
            rest.take("-"), let day = rest.take(digits: 2), rest.take(" ") || rest.take("T"),
            let hour = rest.take(digits: 2), rest.take(":"), let minute = rest.take(digits: 2),
            rest.take(":"), let second = rest.take(digits: 2), (1971...2200).contains(year),
            (1...12).contains(month), (1...31).contains(day), hour < 24, minute < 60, second < 61
        else { return nil }
        var nanoseconds = 0
        if rest.take(".") {
            guard rest.first?.digit != nil else { return nil }
            var unit = 100_000_000
            while let digit = rest.first?.digit {
                nanoseconds += digit * unit
                unit /= 10
                rest.removeFirst()
            }
        }
        if !rest.take("Z"), !rest.isEmpty {
            guard Array(rest) == Array("+00:00".utf8) || Array(rest) == Array("+00".utf8) else {
                return nil
            }
        }
        let days = Self.days(year: year, month: month, day: day)
        let whole = ((days * 24 + hour) * 60 + minute) * 60 + second
        return whole * 1_000_000_000 + nanoseconds
    }

    /// Days from 1970-01-01, in the calendar that is valid since 1582.
    private static func days(year: Int, month: Int, day: Int) -> Int {
        // Years that begin in March have the leap day at their end.
        let shifted = month > 2 ? year : year - 1
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + dayOfYear - 719_468
    }

    mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard first == UInt8(ascii: character) else { return false }
        removeFirst()
        return true
    }

    private mutating func take(digits: Int) -> Int? {
        guard count >= digits, let value = prefix(digits).wholeNumber else { return nil }
        removeFirst(digits)
        return value
    }

    mutating func skipSpaces() {
        while let byte = first, byte == 0x20 || byte == 0x09 { removeFirst() }
    }
}

extension UInt8 {
    fileprivate var digit: Int? {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self) ? Int(self) - 0x30 : nil
    }
}

/// One line of Mooncake's traces: an object of numbers and one list of numbers.
struct MooncakeLine {
    var entry = RequestTrace.Entry(arrivalSeconds: -1, promptTokens: -1, outputTokens: -1)

    /// Nil if it isn't such an object or lacks a key.
    init?(_ text: ArraySlice<UInt8>) {
        var rest = text
        guard rest.take("{") else { return nil }
        repeat {
            guard let key = Self.key(&rest), take(key, &rest) else { return nil }
            rest.skipSpaces()
        } while rest.take(",")
        guard rest.take("}") else { return nil }
        rest.skipSpaces()
        guard rest.isEmpty, entry.arrivalSeconds >= 0, entry.promptTokens >= 0,
            entry.outputTokens >= 0
        else { return nil }
    }

    private mutating func take(_ key: String, _ rest: inout ArraySlice<UInt8>) -> Bool {
        if key == "hash_ids" {
            guard let hashes = Self.numbers(&rest) else { return false }
            entry.prefixHashes = hashes
            return true
        }
        guard let number = Self.number(&rest) else { return false }
        switch key {
        case "timestamp": entry.arrivalSeconds = number / 1000
        case "input_length": entry.promptTokens = Int(exactly: number) ?? -1
        case "output_length": entry.outputTokens = Int(exactly: number) ?? -1
        default: break
        }
        return true
    }

    private static func key(_ rest: inout ArraySlice<UInt8>) -> String? {
        rest.skipSpaces()
        guard rest.take("\""), let end = rest.firstIndex(of: UInt8(ascii: "\"")) else {
            return nil
        }
        let name = String(decoding: rest[..<end], as: UTF8.self)
        rest = rest[(end + 1)...]
        rest.skipSpaces()
        guard rest.take(":") else { return nil }
        rest.skipSpaces()
        return name
    }

    private static func number(_ rest: inout ArraySlice<UInt8>) -> Double? {
        let end = rest.firstIndex {
            ![0x2B, 0x2D, 0x2E, 0x45, 0x65].contains($0) && $0.digit == nil
        }
        let text = rest[..<(end ?? rest.endIndex)]
        rest = rest[text.endIndex...]
        return text.wholeNumber.map(Double.init) ?? text.decimal
    }

    private static func numbers(_ rest: inout ArraySlice<UInt8>) -> [UInt64]? {
        guard rest.take("[") else { return nil }
        var values: [UInt64] = []
        rest.skipSpaces()
        if rest.take("]") { return values }
        repeat {
            rest.skipSpaces()
            let end = rest.firstIndex { $0.digit == nil } ?? rest.endIndex
            guard let value = UInt64(String(decoding: rest[..<end], as: UTF8.self)) else {
                return nil
            }
            values.append(value)
            rest = rest[end...]
            rest.skipSpaces()
        } while rest.take(",")
        return rest.take("]") ? values : nil
    }
}
