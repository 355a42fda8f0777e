import ChatAPI
package import HTTPServer

extension CompletionService {
    /// Adds OpenAI's paths.
    package func addRoutes(to routes: inout HTTPRoutes) {
        routes.add("POST", "/v1/chat/completions") { call in
            HTTPReply(try await answer(call.body, endpoint: .chat))
        }
        routes.add("POST", "/v1/completions") { call in
            HTTPReply(try await answer(call.body, endpoint: .completion))
        }
        routes.add("GET", "/v1/models") { _ in .json(ServedModel.listJSON(models)) }
        routes.add("GET", "/v1/models/*") { call in
            guard let model = models.first(where: { $0.name == call.rest }) else {
                throw APIError.modelNotFound(call.rest)
            }
            return .json(model.json)
        }
    }
}

extension HTTPReply {
    init(_ reply: CompletionService.Reply) {
        switch reply {
        case .complete(let json): self = .json(json)
        case .events(let events): self = .events(events)
        }
    }
}
