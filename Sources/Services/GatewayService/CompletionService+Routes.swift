import ChatAPI
package import HTTPServer

extension CompletionService {
    /// Adds OpenAI's paths.
    package func addRoutes(to routes: inout HTTPRoutes) {
        routes.add("POST", "/v1/chat/completions") { call in
            HTTPReply(try await answer(call.body, endpoint: .chat, from: RequestSource(call)))
        }
        routes.add("POST", "/v1/completions") { call in
            HTTPReply(
                try await answer(call.body, endpoint: .completion, from: RequestSource(call)))
        }
        routes.add("GET", "/v1/models") { call in
            .json(ServedModel.listJSON(try models(for: RequestSource(call))))
        }
        routes.add("GET", "/v1/models/*") { call in
            let models = try models(for: RequestSource(call))
            guard let model = models.first(where: { $0.name == call.rest }) else {
                throw APIError.modelNotFound(call.rest)
            }
            return .json(model.json)
        }
    }
}

extension HTTPReply {
    init(_ reply: CompletionService.Reply) {
        let headers = reply.headers.map { (name: $0.name, value: $0.value) }
        switch reply.content {
        case .complete(let json):
            self = .json(json)
            self.headers += headers
        case .events(let events): self = .events(events, headers: headers)
        }
    }
}
