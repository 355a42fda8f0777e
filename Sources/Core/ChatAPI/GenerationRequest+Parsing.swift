import ServingTypes

extension GenerationRequest {
    /// Reads and checks a request's body.
    ///
    /// Unknown fields are ignored, known ones that ask for something missing here are refused.
    package init(parsing body: [UInt8], endpoint: GenerationEndpoint) throws(APIError) {
        let document: JSONDocument
        do throws(JSONError) {
            document = try JSONDocument(body)
        } catch {
            throw .invalid(
                "The body is not valid JSON: \(error.reason), at byte \(error.offset).",
                code: "invalid_json")
        }
        let fields = try RequestFields(document, document.root, path: "")
        try Self.refuseUnsupported(fields, endpoint)
        let input: GenerationInput =
            switch endpoint {
            case .chat: .chat(messages: try ChatMessages.check(fields))
            case .completion: .prompts(try CompletionPrompt.read(fields))
            }
        self.init(endpoint: endpoint, input: input)
        beginning = Self.beginning(fields, input)
        try readModel(fields)
        try readStream(fields)
        try readLengthAndChoices(fields)
        try readSampling(fields)
        try readLogprobs(fields)
        sampling.logitBias = try Self.logitBias(fields)
        stops = try Self.stops(fields)
    }

    private static func beginning(_ fields: RequestFields, _ input: GenerationInput) -> String {
        switch input {
        case .chat: ChatMessages.beginning(fields)
        case .prompts(let prompts):
            if case .text(let text) = prompts.first {
                String(text.prefix(APILimits.beginningCharacters))
            } else {
                ""
            }
        }
    }

    private mutating func readModel(_ fields: RequestFields) throws(APIError) {
        model = try fields.string("model")
        if let model, model.utf8.count > APILimits.modelNameBytes {
            throw .invalid(
                "'model' is longer than \(APILimits.modelNameBytes) bytes.", param: "model")
        }
        if model == "" { model = nil }
    }

    private mutating func readStream(_ fields: RequestFields) throws(APIError) {
        isStreamed = try fields.bool("stream") ?? false
        guard let options = try fields.object("stream_options") else { return }
        guard isStreamed else {
            throw .invalid(
                "'stream_options' is only allowed when 'stream' is true.",
                param: "stream_options")
        }
        streamsUsage = try options.bool("include_usage") ?? false
    }

    private mutating func readLengthAndChoices(_ fields: RequestFields) throws(APIError) {
        let lengths = 1...Int(Int32.max)
        let older = try fields.integer("max_tokens", in: lengths)
        let newer =
            endpoint == .chat
            ? try fields.integer("max_completion_tokens", in: lengths) : nil
        if let older, let newer, older != newer {
            throw .invalid(
                "'max_tokens' and 'max_completion_tokens' differ; send one of them.",
                param: "max_tokens")
        }
        maximumNewTokens = newer ?? older
        choicesPerPrompt = try fields.integer("n", in: 1...APILimits.choicesPerPrompt) ?? 1
        guard promptCount * choicesPerPrompt <= APILimits.choicesPerRequest else {
            throw .invalid(
                "The request asks for more than \(APILimits.choicesPerRequest) choices.",
                param: "n")
        }
        let bestOf = try fields.integer("best_of", in: 1...Int(Int32.max))
        if let bestOf, bestOf != choicesPerPrompt {
            throw .unsupported("best_of", "'best_of' is only supported when it equals 'n'.")
        }
    }

    private mutating func readSampling(_ fields: RequestFields) throws(APIError) {
        sampling.temperature =
            try fields.number("temperature", in: 0...2) ?? APIDefaults.temperature
        sampling.topP =
            try fields.number("top_p", in: 0...1, excludesLower: true) ?? APIDefaults.topP
        // -1 switches it off in some servers, 0 in others.
        let topK = try fields.integer("top_k", in: -1...Int(Int32.max))
        sampling.topK = topK.map { Int32(max($0, 0)) } ?? APIDefaults.topK
        sampling.minP = try fields.number("min_p", in: 0...1) ?? APIDefaults.minP
        sampling.frequencyPenalty = try fields.number("frequency_penalty", in: -2...2) ?? 0
        sampling.presencePenalty = try fields.number("presence_penalty", in: -2...2) ?? 0
        let repeated = try fields.number("repeat_penalty", in: 0...10, excludesLower: true)
        let repetition = try fields.number("repetition_penalty", in: 0...10, excludesLower: true)
        sampling.repeatPenalty = repeated ?? repetition ?? 1
        if let window = try fields.integer("repeat_last_n", in: -1...Int(Int32.max)) {
            sampling.penaltyWindowTokens = Int32(window)
        }
        sampling.ignoresEndOfGeneration = try fields.bool("ignore_eos") ?? false
        seed = try fields.integer("seed", in: Int.min...Int.max).map {
            UInt64(bitPattern: Int64($0))
        }
    }

    private mutating func readLogprobs(_ fields: RequestFields) throws(APIError) {
        let range = 0...APILimits.topLogprobs
        guard endpoint == .chat else {
            sampling.topLogprobs = try fields.integer("logprobs", in: range)
            return
        }
        let isWanted = try fields.bool("logprobs") ?? false
        let top = try fields.integer("top_logprobs", in: range)
        if !isWanted, let top, top > 0 {
            throw .invalid(
                "'top_logprobs' is only allowed when 'logprobs' is true.", param: "top_logprobs")
        }
        sampling.topLogprobs = isWanted ? top ?? 0 : nil
    }

    private static func logitBias(_ fields: RequestFields) throws(APIError) -> [LogitBias] {
        guard let node = fields["logit_bias"] else { return [] }
        guard case .object(let members) = node.value else {
            throw .wrongType("logit_bias", expected: "an object", got: node.kind)
        }
        guard members.count <= APILimits.logitBiasEntries else {
            throw .invalid(
                "'logit_bias' has more than \(APILimits.logitBiasEntries) entries.",
                param: "logit_bias")
        }
        var entries: [LogitBias] = []
        for (name, value) in members {
            let path = "logit_bias.\(APIError.quoted(name))"
            guard let token = TokenID(name), token >= 0 else {
                throw .invalid("The keys of 'logit_bias' must be token ids.", param: path)
            }
            guard let bias = value.number else {
                throw .wrongType(path, expected: "a number", got: value.kind)
            }
            guard (-100...100).contains(bias) else {
                throw .invalid("'\(path)' must be at least -100 and at most 100.", param: path)
            }
            entries.append(LogitBias(token: token, bias: Float(bias)))
        }
        entries.sort { $0.token < $1.token }
        for (left, right) in zip(entries, entries.dropFirst()) where left.token == right.token {
            throw .invalid(
                "'logit_bias' names the token \(left.token) twice.", param: "logit_bias")
        }
        return entries
    }

    private static func stops(_ fields: RequestFields) throws(APIError) -> [String] {
        guard let node = fields["stop"] else { return [] }
        let nodes: [(path: String, node: JSONNode)]
        switch node.value {
        case .string: nodes = [("stop", node)]
        case .array(let elements):
            nodes = elements.enumerated().map { ("stop[\($0.offset)]", $0.element) }
        case .integers:
            throw .wrongType("stop[0]", expected: "a string", got: "a number")
        default:
            throw .wrongType(
                "stop", expected: "a string or an array of strings", got: node.kind)
        }
        guard nodes.count <= APILimits.stopStrings else {
            throw .invalid(
                "'stop' has more than \(APILimits.stopStrings) strings.", param: "stop")
        }
        var stops: [String] = []
        for (path, node) in nodes {
            guard let text = fields.document.text(node) else {
                throw .wrongType(path, expected: "a string", got: node.kind)
            }
            guard (1...APILimits.stopStringBytes).contains(text.utf8.count) else {
                throw .invalid(
                    "'\(path)' must have 1 to \(APILimits.stopStringBytes) bytes.", param: path)
            }
            stops.append(text)
        }
        return stops
    }
}
