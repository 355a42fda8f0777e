package import ChatAPI
import Foundation
package import InferenceEngine
import Roles
import ServingTypes
import WireProtocol

/// Answers completion requests: from JSON to tokens, through the cluster, and back to JSON.
package struct CompletionService: Sendable {
    /// What the HTTP side sends back.
    package enum Reply: Sendable {
        case complete([UInt8])
        /// Server-sent events; the client's leaving ends the stream and with it the request.
        case events(AsyncStream<[UInt8]>)
    }

    /// Output limit of `/v1/completions` when the client gives none; OpenAI's default.
    package static let defaultCompletionTokens = 16

    private let gateway: GatewayService
    private let tokenizer: any Tokenizer
    private let startedSeconds: Int

    package init(gateway: GatewayService, tokenizer: any Tokenizer) {
        self.gateway = gateway
        self.tokenizer = tokenizer
        startedSeconds = Int(Date().timeIntervalSince1970)
    }

    package var models: [ServedModel] {
        [ServedModel(name: tokenizer.modelName, createdSeconds: startedSeconds)]
    }

    package func answer(
        _ body: [UInt8], endpoint: GenerationEndpoint
    ) async throws(APIError) -> Reply {
        let request = try GenerationRequest(parsing: body, endpoint: endpoint)
        if let model = request.model, model != tokenizer.modelName {
            throw .modelNotFound(model)
        }
        var generator = SystemRandomNumberGenerator()
        let id = RequestID(using: &generator)
        let plan = try plan(for: request, using: &generator)
        let writer = CompletionWriter(
            request: request, id: id, createdSeconds: Int(Date().timeIntervalSince1970),
            model: tokenizer.modelName)
        let generation = Generation(
            gateway: gateway, tokenizer: tokenizer, plan: plan, writer: writer)
        guard request.isStreamed else { return .complete(try await generation.response()) }
        try await generation.awaitStart()
        return .events(
            AsyncStream {
                await generation.nextPiece()
            } onCancel: { [gateway] in
                for job in plan.jobs { gateway.cancel(job.request) }
            })
    }

    // MARK: Planning

    private func plan(
        for request: GenerationRequest, using generator: inout some RandomNumberGenerator
    ) throws(APIError) -> GenerationPlan {
        var stops = request.stops
        let prompts = try promptTokens(of: request, stops: &stops)
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
                jobs.append(
                    GenerationJob(
                        request: RequestID(using: &generator), modelName: tokenizer.modelName,
                        promptTokens: prompt, maximumNewTokens: wanted, sampling: sampling))
            }
        }
        for job in jobs { try requireSendable(job) }
        return GenerationPlan(
            jobs: jobs, stops: stops, promptTokens: prompts.reduce(0) { $0 + $1.count },
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
        of request: GenerationRequest, stops: inout [String]
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
