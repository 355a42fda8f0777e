import ServingTypes

/// Checks the `messages` of a chat request; the template reads them as the client wrote them.
enum ChatMessages {
    private static let roles: Set = ["system", "developer", "user", "assistant", "tool"]

    /// Bytes of the checked array.
    static func check(_ fields: RequestFields) throws(APIError) -> [UInt8] {
        guard let node = fields["messages"] else { throw .missing("messages") }
        guard case .array(let messages) = node.value else {
            throw .wrongType("messages", expected: "an array of objects", got: node.kind)
        }
        guard !messages.isEmpty else {
            throw .invalid("'messages' must not be empty.", param: "messages")
        }
        guard messages.count <= APILimits.messages else {
            throw .invalid(
                "'messages' has more than \(APILimits.messages) elements.", param: "messages")
        }
        for (index, message) in messages.enumerated() {
            try check(
                message: RequestFields(fields.document, message, path: "messages[\(index)]"))
        }
        return Array(fields.document.bytes[node.range])
    }

    /// Beginning of the first message's text; its messages are checked.
    static func beginning(_ fields: RequestFields) -> String {
        guard case .array(let messages)? = fields["messages"]?.value, let first = messages.first,
            case .object(let members) = first.value, let content = members["content"]
        else { return "" }
        let limit = APILimits.beginningCharacters
        if case .array(let parts) = content.value {
            var text = ""
            for part in parts where text.count < limit {
                guard case .object(let members) = part.value, let node = members["text"] else {
                    continue
                }
                text += fields.document.text(node) ?? ""
            }
            return String(text.prefix(limit))
        }
        return String((fields.document.text(content) ?? "").prefix(limit))
    }

    private static func check(message: RequestFields) throws(APIError) {
        guard let role = try message.string("role") else { throw .missing(message.path("role")) }
        guard roles.contains(role) else {
            throw .invalid(
                "'\(APIError.quoted(role))' is no role; use one of "
                    + "\(roles.sorted().joined(separator: ", ")).",
                param: message.path("role"))
        }
        guard let content = message["content"] else {
            if role == "assistant" { return }
            throw message.contains("content")
                ? .wrongType(
                    message.path("content"), expected: "a string or an array of parts",
                    got: "null")
                : .missing(message.path("content"))
        }
        switch content.value {
        case .string: return
        case .array(let parts):
            for (index, part) in parts.enumerated() {
                try check(
                    part: RequestFields(
                        message.document, part, path: message.path("content[\(index)]")))
            }
        default:
            throw .wrongType(
                message.path("content"), expected: "a string or an array of parts",
                got: content.kind)
        }
    }

    private static func check(part: RequestFields) throws(APIError) {
        guard let type = try part.string("type") else { throw .missing(part.path("type")) }
        guard type == "text" else {
            throw .unsupported(
                part.path("type"),
                "Parts of the type '\(APIError.quoted(type))' are not supported, only 'text'.")
        }
        guard try part.string("text") != nil else { throw .missing(part.path("text")) }
    }
}

extension CompletionPrompt {
    /// Reads `prompt`: a string, strings, tokens, or arrays of tokens.
    static func read(_ fields: RequestFields) throws(APIError) -> [CompletionPrompt] {
        guard let node = fields["prompt"] else { throw .missing("prompt") }
        switch node.value {
        case .string, .integers: return [try prompt(node, fields.document, path: "prompt")]
        case .array(let elements):
            guard !elements.isEmpty else {
                throw .invalid("'prompt' must not be empty.", param: "prompt")
            }
            guard elements.count <= APILimits.promptsPerRequest else {
                throw .invalid(
                    "'prompt' has more than \(APILimits.promptsPerRequest) elements.",
                    param: "prompt")
            }
            var prompts: [CompletionPrompt] = []
            for (index, element) in elements.enumerated() {
                prompts.append(
                    try prompt(element, fields.document, path: "prompt[\(index)]"))
            }
            return prompts
        default:
            throw .wrongType("prompt", expected: expectation, got: node.kind)
        }
    }

    private static let expectation = "a string, an array of strings or an array of token ids"

    private static func prompt(
        _ node: JSONNode, _ document: JSONDocument, path: String
    ) throws(APIError) -> CompletionPrompt {
        if let text = document.text(node) { return .text(text) }
        guard case .integers(let numbers) = node.value else {
            throw .wrongType(path, expected: "a string or an array of token ids", got: node.kind)
        }
        var tokens: [TokenID] = []
        tokens.reserveCapacity(numbers.count)
        for (index, number) in numbers.enumerated() {
            guard let token = TokenID(exactly: number), token >= 0 else {
                throw .invalid(
                    "'\(path)[\(index)]' is no token id.", param: "\(path)[\(index)]")
            }
            tokens.append(token)
        }
        return .tokens(tokens)
    }
}
