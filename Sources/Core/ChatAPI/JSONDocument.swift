/// A parsed JSON text: values that refer to ranges of its bytes.
struct JSONDocument {
    let bytes: [UInt8]
    private(set) var root = JSONNode(value: .null, range: 0..<0)

    /// - Throws: `JSONError` with the offset of the first byte that is not JSON (RFC 8259).
    init(_ bytes: [UInt8]) throws(JSONError) {
        self.bytes = bytes
        var parser = JSONParser(bytes)
        root = try parser.document()
    }

    /// The text of a string value; nil if the node is not a string.
    func text(_ node: JSONNode) -> String? {
        guard case .string(let hasEscapes) = node.value else { return nil }
        let inner = bytes[(node.range.lowerBound + 1)..<(node.range.upperBound - 1)]
        guard hasEscapes else { return String(decoding: inner, as: UTF8.self) }
        return String(decoding: JSONParser.unescaped(inner), as: UTF8.self)
    }
}

/// One value and where it stands.
struct JSONNode {
    enum Value {
        case null
        case bool(Bool)
        case integer(Int)
        case number(Double)
        /// The text is made on demand by `JSONDocument.text`.
        case string(hasEscapes: Bool)
        case array([JSONNode])
        /// A non-empty array of nothing but whole numbers, kept small.
        case integers([Int])
        case object([String: JSONNode])
    }

    var value: Value
    /// Bytes of the value, quotes and brackets included.
    var range: Range<Int>

    var isNull: Bool {
        if case .null = value { true } else { false }
    }

    /// The value's kind in a sentence: "it is …".
    var kind: String {
        switch value {
        case .null: "null"
        case .bool: "a boolean"
        case .integer, .number: "a number"
        case .string: "a string"
        case .array, .integers: "an array"
        case .object: "an object"
        }
    }
}

/// Why bytes are not JSON, or not JSON that this server reads; answered with 400.
struct JSONError: Error, Hashable {
    var reason: String
    var offset: Int
}
