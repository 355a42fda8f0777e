extension GenerationRequest {
    /// Fields that would change the answer but are not supported, so ignoring them would be a lie.
    private static let unsupportedFields = [
        "tools", "functions", "audio", "suffix", "echo", "web_search_options", "grammar",
        "json_schema", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
        "structured_outputs",
    ]

    static func refuseUnsupported(
        _ fields: RequestFields, _ endpoint: GenerationEndpoint
    ) throws(APIError) {
        for name in unsupportedFields {
            guard let node = fields[name], node.asksForSomething else { continue }
            throw .unsupported(name, "'\(name)' is not supported by this server.")
        }
        for name in ["tool_choice", "function_call"] {
            guard let node = fields[name], fields.document.text(node) != "none" else { continue }
            throw .unsupported(name, "'\(name)' other than \"none\" is not supported.")
        }
        if let format = try fields.object("response_format"),
            try format.string("type") ?? "text" != "text"
        {
            throw .unsupported(
                "response_format", "'response_format' other than \"text\" is not supported.")
        }
        if let node = fields["modalities"] {
            guard case .array(let elements) = node.value else {
                throw .wrongType("modalities", expected: "an array of strings", got: node.kind)
            }
            for element in elements where fields.document.text(element) != "text" {
                throw .unsupported(
                    "modalities", "'modalities' other than \"text\" are not supported.")
            }
        }
    }
}
