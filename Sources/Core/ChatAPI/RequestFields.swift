/// The members of one JSON object in a request, read with their types and ranges checked.
///
/// `null` counts as absent, as OpenAI's clients send it for what they leave out.
struct RequestFields {
    let document: JSONDocument
    private let members: [String: JSONNode]
    /// Path of the object with a dot at its end; empty for the body itself.
    private let prefix: String

    init(_ document: JSONDocument, _ node: JSONNode, path: String) throws(APIError) {
        guard case .object(let members) = node.value else {
            throw path.isEmpty
                ? .invalid(
                    "The body must be a JSON object, but it is \(node.kind).",
                    code: "invalid_type")
                : .wrongType(path, expected: "an object", got: node.kind)
        }
        self.document = document
        self.members = members
        self.prefix = path.isEmpty ? "" : path + "."
    }

    func path(_ name: String) -> String { prefix + name }

    subscript(name: String) -> JSONNode? {
        guard let node = members[name], !node.isNull else { return nil }
        return node
    }

    func contains(_ name: String) -> Bool { members[name] != nil }

    func bool(_ name: String) throws(APIError) -> Bool? {
        guard let node = self[name] else { return nil }
        guard case .bool(let value) = node.value else {
            throw .wrongType(path(name), expected: "a boolean", got: node.kind)
        }
        return value
    }

    func string(_ name: String) throws(APIError) -> String? {
        guard let node = self[name] else { return nil }
        guard let text = document.text(node) else {
            throw .wrongType(path(name), expected: "a string", got: node.kind)
        }
        return text
    }

    func integer(_ name: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
        guard let node = self[name] else { return nil }
        let value: Int
        switch node.value {
        case .integer(let integer): value = integer
        case .number(let number):
            guard number.rounded() == number else {
                throw .wrongType(path(name), expected: "a whole number", got: "a fraction")
            }
            value = Int(exactly: number) ?? (number < 0 ? Int.min : Int.max)
        default: throw .wrongType(path(name), expected: "a whole number", got: node.kind)
        }
        guard range.contains(value) else {
            throw .invalid(
                "'\(path(name))' must be between \(range.lowerBound) and \(range.upperBound).",
                param: path(name))
        }
        return value
    }

    func number(
        _ name: String, in range: ClosedRange<Double>, excludesLower: Bool = false
    ) throws(APIError) -> Float? {
        guard let node = self[name] else { return nil }
        guard let value = node.number else {
            throw .wrongType(path(name), expected: "a number", got: node.kind)
        }
        guard range.contains(value), !(excludesLower && value == range.lowerBound) else {
            let lower = excludesLower ? "greater than" : "at least"
            throw .invalid(
                "'\(path(name))' must be \(lower) \(short(range.lowerBound)) and at most "
                    + "\(short(range.upperBound)).",
                param: path(name))
        }
        return Float(value)
    }

    func object(_ name: String) throws(APIError) -> RequestFields? {
        guard let node = self[name] else { return nil }
        return try RequestFields(document, node, path: path(name))
    }

    private func short(_ value: Double) -> String {
        Int(exactly: value).map(String.init) ?? value.description
    }
}

extension JSONNode {
    /// The value of a number of either kind.
    var number: Double? {
        switch value {
        case .integer(let integer): Double(integer)
        case .number(let number): number
        default: nil
        }
    }

    /// False for what asks for nothing: `null`, `false`, `""`, `[]` and `{}`.
    var asksForSomething: Bool {
        switch value {
        case .null: false
        case .bool(let value): value
        case .string: range.count > 2
        case .array(let elements): !elements.isEmpty
        case .object(let members): !members.isEmpty
        case .integer, .number, .integers: true
        }
    }
}
