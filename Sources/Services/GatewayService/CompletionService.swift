package import ChatAPI
import ClusterRules
import Foundation
import InferenceEngine
import Roles
import ServingTypes
import WireProtocol

/// Answers completion requests: from JSON to tokens, through the cluster, and back to JSON.
package struct CompletionService: Sendable {
    /// What the HTTP side sends back.
    package struct Reply: Sendable {
        package enum Content: Sendable {
            case complete([UInt8])
            /// Server-sent events; the client's leaving ends the stream and with it the request.
            case events(AsyncStream<[UInt8]>)
        }

        package var content: Content
        package var headers: [APIHeader]
    }

    /// Output limit of `/v1/completions` when the client gives none; OpenAI's default.
    package static let defaultCompletionTokens = 16

    private let gateway: GatewayService
    private let startedSeconds: Int

    package init(gateway: GatewayService) {
        self.gateway = gateway
        startedSeconds = Int(Date().timeIntervalSince1970)
    }

    /// That of the gateway's own model; a request's group may have another one.
    private var tokenizer: any Tokenizer { gateway.vocabularies.own.tokenizer }

    /// Names under which the workers serve this gateway's model now.
    package func models(for source: RequestSource) throws(APIError) -> [ServedModel] {
        try checkKey(of: source)
        return gateway.modelNames(for: tokenizer.modelName).map {
            ServedModel(name: $0, createdSeconds: startedSeconds)
        }
    }

    package func answer(
        _ body: [UInt8], endpoint: GenerationEndpoint, from source: RequestSource
    ) async throws(APIError) -> Reply {
        try checkKey(of: source)
        let request = try GenerationRequest(parsing: body, endpoint: endpoint)
        try requireModel(request)
        var generator = SystemRandomNumberGenerator()
        let id = RequestID(using: &generator)
        var stops = request.stops
        // Which scenario it belongs to may depend on how long it is.
        let usual = gateway.speaker(scenario: nil)
        var prompts = try promptTokens(of: request, by: usual.tokenizer, stops: &stops)
        var admission = try authorize(request, prompts: prompts, source)
        let speaker = gateway.speaker(scenario: admission.scenario.name)
        if speaker.vocabulary != usual.vocabulary {
            stops = request.stops
            prompts = try promptTokens(of: request, by: speaker.tokenizer, stops: &stops)
        }
        var plan = try plan(
            for: request, by: speaker, prompts: prompts, stops: stops, using: &generator)
        try plan.assign(to: admission, of: source, limit: gateway.access.ttftLimit)
        let standing = try charge(&admission, for: plan, of: request)
        let writer = CompletionWriter(
            request: request, id: id, createdSeconds: Int(Date().timeIntervalSince1970),
            model: tokenizer.modelName)
        let generation = Generation(
            gateway: gateway, tokenizer: speaker.tokenizer, plan: plan, writer: writer,
            admission: admission)
        let headers = standing.headers
        guard request.isStreamed else {
            return Reply(content: .complete(try await generation.response()), headers: headers)
        }
        try await generation.awaitStart()
        let requests = plan.jobs.map(\.request)
        let events = AsyncStream {
            await generation.nextPiece()
        } onCancel: { [gateway] in
            for request in requests { gateway.cancel(request, isClientGone: true) }
        }
        return Reply(content: .events(events), headers: headers)
    }

    // MARK: Access

    private func checkKey(of source: RequestSource) throws(APIError) {
        do throws(AccessError) {
            try gateway.access.checkKey(source.keyHash)
        } catch {
            gateway.metrics.refused(error)
            throw APIError(error, nil)
        }
    }

    /// Refuses unknown models before anything is tokenized.
    private func requireModel(_ request: GenerationRequest) throws(APIError) {
        guard let model = request.model, let spec = gateway.access.spec else { return }
        let isKnown = spec.scenarios.contains { scenario in
            let names = scenario.matchedModels
            return names.isEmpty ? model == tokenizer.modelName : names.contains(model)
        }
        if !isKnown { throw .modelNotFound(model) }
    }

    private func authorize(
        _ request: GenerationRequest, prompts: [[TokenID]], _ source: RequestSource
    ) throws(APIError) -> Admission {
        let traits = RequestTraits(
            model: request.model ?? tokenizer.modelName, headers: source.headers,
            promptTokens: prompts.map(\.count).max() ?? 0, text: request.beginning)
        let admission: Admission
        do throws(AccessError) {
            admission = try gateway.access.authorize(traits, keyHash: source.keyHash)
        } catch {
            gateway.metrics.refused(error)
            throw APIError(error, traits)
        }
        let served = admission.scenario.model
        let isServed =
            served.isEmpty
            ? !admission.scenario.match.models.isEmpty || traits.model == tokenizer.modelName
            : served == tokenizer.modelName
        guard isServed else { throw .modelNotFound(traits.model) }
        return admission
    }

    /// Charges prompts and the longest answers, or usual ones if the client sets no limit.
    private func charge(
        _ admission: inout Admission, for plan: GenerationPlan, of request: GenerationRequest
    ) throws(APIError) -> RateStanding {
        let usual =
            request.maximumNewTokens == nil ? admission.scenario.expectedOutputTokens : Int.max
        let output = plan.jobs.reduce(0) { $0 + min($1.maximumNewTokens, usual) }
        do throws(AccessError) {
            return try gateway.access.charge(&admission, tokens: plan.promptTokens + output)
        } catch {
            gateway.metrics.refused(error)
            throw APIError(error, nil)
        }
    }

    // MARK: Planning

    private func plan(
        for request: GenerationRequest, by speaker: Speaker, prompts: [[TokenID]],
        stops: [String], using generator: inout some RandomNumberGenerator
    ) throws(APIError) -> GenerationPlan {
        let tokenizer = speaker.tokenizer
        let context =
            gateway.contextTokens(ofModel: tokenizer.modelName)
            ?? tokenizer.contextTokens
        let seed = request.seed ?? generator.next()
        for bias in request.sampling.logitBias where bias.token >= tokenizer.vocabularySize {
            throw .invalid(
                "Token \(bias.token) is outside the vocabulary of \(tokenizer.vocabularySize).",
                param: "logit_bias")
        }
        var jobs: [GenerationJob] = []
        for prompt in prompts {
            let rest = context - prompt.count
            let wanted =
                request.maximumNewTokens
                ?? (request.endpoint == .chat ? rest : min(rest, Self.defaultCompletionTokens))
            guard rest >= 1, wanted <= rest else {
                throw .contextLengthExceeded(
                    contextTokens: context, promptTokens: prompt.count,
                    outputTokens: max(1, wanted))
            }
            for _ in 0..<request.choicesPerPrompt {
                var sampling = request.sampling
                sampling.seed = seed &+ UInt64(jobs.count)
                var job = GenerationJob(
                    request: RequestID(using: &generator), modelName: tokenizer.modelName,
                    promptTokens: prompt, maximumNewTokens: wanted, sampling: sampling)
                job.vocabulary = speaker.vocabulary
                jobs.append(job)
            }
        }
        for job in jobs { try requireSendable(job) }
        return GenerationPlan(
            jobs: jobs, choicesPerPrompt: request.choicesPerPrompt, stops: stops,
            promptTokens: prompts.reduce(0) { $0 + $1.count },
            reportsLogprobs: request.reportsLogprobs)
    }

    /// Refuses what could not be written to a worker, before any worker is asked.
    private func requireSendable(_ job: GenerationJob) throws(APIError) {
        let terms = AttemptTerms(
            attempt: AttemptID(request: job.request, number: 1), outputTokens: 0,
            maximumNewTokens: job.maximumNewTokens, sampling: job.sampling,
            deadline: .seconds(1))
        do {
            _ = try encodeFrame(
                .reserveKV(ReserveKV(terms: terms)),
                payloadBytes: job.promptTokens.count * MemoryLayout<TokenID>.size)
        } catch {
            throw .invalid("The workers do not take this request: \(error).")
        }
    }

    private func promptTokens(
        of request: GenerationRequest, by tokenizer: any Tokenizer, stops: inout [String]
    ) throws(APIError) -> [[TokenID]] {
        switch request.input {
        case .chat(let messages):
            do {
                let prompt = try tokenizer.prompt(forChat: messages)
                stops += prompt.stops
                return [
                    try nonEmpty(
                        tokenizer.tokenize(prompt.text, addsSpecial: true, parsesSpecial: true))
                ]
            } catch let error as APIError {
                throw error
            } catch TokenizerError.templateRefused(let reason) {
                throw .invalid(
                    "The model's chat template does not take these messages: \(reason)",
                    param: "messages")
            } catch {
                throw .internalFailure
            }
        case .prompts(let prompts):
            var all: [[TokenID]] = []
            for prompt in prompts {
                switch prompt {
                case .text(let text):
                    all.append(
                        try nonEmpty(
                            tokenizer.tokenize(text, addsSpecial: true, parsesSpecial: true)))
                case .tokens(let tokens):
                    if let beyond = tokens.first(where: { $0 >= tokenizer.vocabularySize }) {
                        throw .invalid(
                            "Token \(beyond) is outside the vocabulary of "
                                + "\(tokenizer.vocabularySize).", param: "prompt")
                    }
                    all.append(tokens)
                }
            }
            return all
        }
    }

    private func nonEmpty(_ tokens: [TokenID]) throws(APIError) -> [TokenID] {
        guard !tokens.isEmpty else {
            throw .invalid("The prompt has no tokens.", param: "prompt")
        }
        return tokens
    }
}
