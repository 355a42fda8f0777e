/// A strict reader of JSON (RFC 8259) with bounds on depth and size; duplicate keys are refused.
struct JSONParser {
    private let bytes: [UInt8]
    private var position = 0
    private var depth = 0
    private var values = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func document() throws(JSONError) -> JSONNode {
        // Some clients send a byte order mark; RFC 8259 lets a reader skip it.
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { position = 3 }
        skipSpace()
        let node = try value()
        skipSpace()
        guard position == bytes.count else { throw failure("text after the value") }
        return node
    }

    private var current: UInt8? { position < bytes.count ? bytes[position] : nil }

    private func failure(_ reason: String) -> JSONError {
        JSONError(
            reason: position >= bytes.count ? "the text ends too early" : reason,
            offset: position)
    }

    private mutating func skipSpace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x09, 0x0A, 0x0D: position += 1
            default: return
            }
        }
    }

    private mutating func value() throws(JSONError) -> JSONNode {
        values += 1
        guard values <= APILimits.values else {
            throw JSONError(reason: "more than \(APILimits.values) values", offset: position)
        }
        let start = position
        let value: JSONNode.Value
        switch current {
        case UInt8(ascii: "{"): value = try object()
        case UInt8(ascii: "["): value = try array()
        case UInt8(ascii: "\""): value = .string(hasEscapes: try string())
        case UInt8(ascii: "t"): value = try literal("true", .bool(true))
        case UInt8(ascii: "f"): value = try literal("false", .bool(false))
        case UInt8(ascii: "n"): value = try literal("null", .null)
        case .some(UInt8(ascii: "-")), .some(0x30...0x39): value = try number()
        default: throw failure("a value was expected")
        }
        return JSONNode(value: value, range: start..<position)
    }

    private mutating func literal(
        _ word: String, _ value: JSONNode.Value
    ) throws(JSONError) -> JSONNode.Value {
        guard bytes[position...].starts(with: word.utf8) else {
            throw failure("a value was expected")
        }
        position += word.utf8.count
        return value
    }

    private mutating func enter() throws(JSONError) {
        depth += 1
        guard depth <= APILimits.nestingDepth else {
            throw JSONError(
                reason: "nested deeper than \(APILimits.nestingDepth) levels", offset: position)
        }
        position += 1
        skipSpace()
    }

    private mutating func object() throws(JSONError) -> JSONNode.Value {
        try enter()
        var members: [String: JSONNode] = [:]
        if current == UInt8(ascii: "}") {
            leave()
            return .object(members)
        }
        while true {
            let keyStart = position
            guard current == UInt8(ascii: "\"") else { throw failure("a key was expected") }
            let hasEscapes = try string()
            let inner = bytes[(keyStart + 1)..<(position - 1)]
            let key = String(
                decoding: hasEscapes ? Self.unescaped(inner)[...] : inner, as: UTF8.self)
            skipSpace()
            guard current == UInt8(ascii: ":") else { throw failure("':' was expected") }
            position += 1
            skipSpace()
            let member = try value()
            guard members.updateValue(member, forKey: key) == nil else {
                throw JSONError(
                    reason: "the key '\(APIError.quoted(key))' occurs twice", offset: keyStart)
            }
            guard try continues(until: UInt8(ascii: "}")) else { return .object(members) }
        }
    }

    private mutating func array() throws(JSONError) -> JSONNode.Value {
        let start = position
        try enter()
        if current == UInt8(ascii: "]") {
            leave()
            return .array([])
        }
        if let integers = try integers() { return .integers(integers) }
        position = start + 1
        skipSpace()
        var elements: [JSONNode] = []
        while true {
            elements.append(try value())
            guard try continues(until: UInt8(ascii: "]")) else { return .array(elements) }
        }
    }

    /// Reads `1, 2, 3]`; nil as soon as an element is not a whole number.
    private mutating func integers() throws(JSONError) -> [Int]? {
        var numbers: [Int] = []
        while true {
            let start = position
            if current == UInt8(ascii: "-") { position += 1 }
            let digits = position
            var magnitude = 0
            while let byte = current, (0x30...0x39).contains(byte) {
                guard position - digits < 18 else { return nil }
                magnitude = magnitude * 10 + Int(byte - 0x30)
                position += 1
            }
            guard position > digits, position == digits + 1 || bytes[digits] != 0x30 else {
                return nil
            }
            skipSpace()
            guard current == UInt8(ascii: ",") || current == UInt8(ascii: "]") else { return nil }
            guard numbers.count < APILimits.integersPerArray else {
                throw failure("more than \(APILimits.integersPerArray) numbers in an array")
            }
            numbers.append(bytes[start] == UInt8(ascii: "-") ? -magnitude : magnitude)
            guard try continues(until: UInt8(ascii: "]")) else { return numbers }
        }
    }

    /// Reads the comma or the closing bracket after an element; false when closed.
    private mutating func continues(until end: UInt8) throws(JSONError) -> Bool {
        skipSpace()
        if current == end {
            leave()
            return false
        }
        guard current == UInt8(ascii: ",") else {
            throw failure("',' or '\(Character(UnicodeScalar(end)))' was expected")
        }
        position += 1
        skipSpace()
        return true
    }

    private mutating func leave() {
        position += 1
        depth -= 1
    }
}

// MARK: - Numbers and strings

extension JSONParser {
    private mutating func number() throws(JSONError) -> JSONNode.Value {
        let start = position
        if current == UInt8(ascii: "-") { position += 1 }
        if current == UInt8(ascii: "0") { position += 1 } else { try digits() }
        var isWhole = true
        if current == UInt8(ascii: ".") {
            isWhole = false
            position += 1
            try digits()
        }
        if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            isWhole = false
            position += 1
            if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
            try digits()
        }
        guard position - start <= APILimits.numberBytes else {
            throw JSONError(
                reason: "a number longer than \(APILimits.numberBytes) bytes", offset: start)
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isWhole, let integer = Int(text) { return .integer(integer) }
        guard let number = Double(text), number.isFinite else {
            throw JSONError(reason: "a number out of range", offset: start)
        }
        return .number(number)
    }

    private mutating func digits() throws(JSONError) {
        let start = position
        while let byte = current, (0x30...0x39).contains(byte) { position += 1 }
        guard position > start else { throw failure("a digit was expected") }
    }

    /// Skips a string and checks it; true if it has escapes.
    private mutating func string() throws(JSONError) -> Bool {
        let start = position
        var hasEscapes = false
        var isASCII = true
        position += 1
        while true {
            // The run of ordinary bytes; long prompts spend their time here.
            var index = position
            while index < bytes.count {
                let byte = bytes[index]
                if byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { break }
                if byte >= 0x80 { isASCII = false }
                index += 1
            }
            position = index
            guard index < bytes.count else { throw failure("an unfinished string") }
            if bytes[index] == UInt8(ascii: "\\") {
                hasEscapes = true
                try escape()
                continue
            }
            guard bytes[index] == UInt8(ascii: "\"") else {
                throw failure("a control character in a string")
            }
            position += 1
            if !isASCII, String(validating: bytes[start..<position], as: UTF8.self) == nil {
                throw JSONError(reason: "a string that is not UTF-8", offset: start)
            }
            return hasEscapes
        }
    }

    private mutating func escape() throws(JSONError) {
        let start = position
        position += 1
        guard current == UInt8(ascii: "u") else {
            guard let byte = current, Self.shortEscape(byte) != nil else {
                throw failure("an unknown escape in a string")
            }
            position += 1
            return
        }
        position += 1
        let unit = try hexadecimal()
        guard (0xD800...0xDFFF).contains(unit) else { return }
        guard unit < 0xDC00, current == UInt8(ascii: "\\"), position + 1 < bytes.count,
            bytes[position + 1] == UInt8(ascii: "u")
        else { throw JSONError(reason: "half a surrogate pair", offset: start) }
        position += 2
        guard (0xDC00...0xDFFF).contains(try hexadecimal()) else {
            throw JSONError(reason: "half a surrogate pair", offset: start)
        }
    }

    private mutating func hexadecimal() throws(JSONError) -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = current, let digit = Self.hexadecimalDigit(byte) else {
                throw failure("four hexadecimal digits were expected")
            }
            value = value << 4 | digit
            position += 1
        }
        return value
    }

    private static func hexadecimalDigit(_ byte: UInt8) -> UInt32? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt32(byte - UInt8(ascii: "a")) + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt32(byte - UInt8(ascii: "A")) + 10
        default: nil
        }
    }

    /// What stands for the byte after a backslash.
    private static func shortEscape(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): byte
        case UInt8(ascii: "b"): 0x08
        case UInt8(ascii: "f"): 0x0C
        case UInt8(ascii: "n"): 0x0A
        case UInt8(ascii: "r"): 0x0D
        case UInt8(ascii: "t"): 0x09
        default: nil
        }
    }

    /// UTF-8 of a checked string's inner bytes.
    static func unescaped(_ inner: ArraySlice<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(inner.count)
        var index = inner.startIndex
        func unit(at index: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 << 4 | (hexadecimalDigit(inner[index + $1]) ?? 0) }
        }
        while index < inner.endIndex {
            let byte = inner[index]
            guard byte == UInt8(ascii: "\\") else {
                result.append(byte)
                index += 1
                continue
            }
            if let byte = shortEscape(inner[index + 1]) {
                result.append(byte)
                index += 2
                continue
            }
            var value = unit(at: index + 2)
            index += 6
            if (0xD800...0xDBFF).contains(value) {
                value = 0x10000 + (value - 0xD800) << 10 + (unit(at: index + 2) - 0xDC00)
                index += 6
            }
            let scalar = UnicodeScalar(value) ?? "\u{FFFD}"
            UTF8.encode(scalar)?.forEach { result.append($0) }
        }
        return result
    }
}
