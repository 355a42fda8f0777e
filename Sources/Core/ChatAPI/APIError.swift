/// A field of an answer's head.
package struct APIHeader: Hashable, Sendable {
    /// In lower case.
    package var name: String
    package var value: String

    package init(_ name: String, _ value: String) {
        self.name = name
        self.value = value
    }
}

/// An answer other than success, in the shape OpenAI's clients read.
///
/// The HTTP server sends it with its status; in an event stream it is the last event.
package struct APIError: Error, Hashable, Sendable {
    /// HTTP status.
    package var status: Int
    package var message: String
    /// `invalid_request_error`, `server_error`, `rate_limit_error` and the like.
    package var type: String
    /// Path of the offending field, for example `messages[0].content`.
    package var param: String?
    /// A fixed word for programs.
    package var code: String?
    /// Seconds after which another try makes sense; sent as `Retry-After`.
    package var retryAfterSeconds: Int?
    /// Further fields of the answer's head.
    package var headers: [APIHeader] = []

    package init(
        status: Int, message: String, type: String, param: String? = nil, code: String? = nil,
        retryAfterSeconds: Int? = nil
    ) {
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.retryAfterSeconds = retryAfterSeconds
    }

    /// The body of the answer: `{"error":{…}}`.
    package var json: [UInt8] {
        var writer = JSONWriter()
        write(to: &writer)
        return writer.bytes
    }

    func write(to writer: inout JSONWriter) {
        writer.object {
            $0.key("error")
            $0.object {
                $0.member("message", message)
                $0.member("type", type)
                $0.member("param", param)
                $0.member("code", code)
            }
        }
    }
}

// MARK: - The client's mistakes

extension APIError {
    /// 400: the request can't be carried out as it is.
    package static func invalid(
        _ message: String, param: String? = nil, code: String? = "invalid_value"
    ) -> APIError {
        APIError(
            status: 400, message: message, type: "invalid_request_error", param: param, code: code)
    }

    package static func missing(_ param: String) -> APIError {
        invalid(
            "'\(param)' is required.", param: param, code: "missing_required_parameter")
    }

    package static func wrongType(_ param: String, expected: String, got: String) -> APIError {
        invalid(
            "'\(param)' must be \(expected), but it is \(got).", param: param,
            code: "invalid_type")
    }

    /// 400: asks for something that this server does not do.
    package static func unsupported(_ param: String, _ message: String) -> APIError {
        invalid(message, param: param, code: "unsupported_parameter")
    }

    package static func modelNotFound(_ name: String) -> APIError {
        APIError(
            status: 404, message: "The model '\(quoted(name))' does not exist here.",
            type: "invalid_request_error", param: "model", code: "model_not_found")
    }

    package static func contextLengthExceeded(
        contextTokens: Int, promptTokens: Int, outputTokens: Int
    ) -> APIError {
        invalid(
            "This model's context is \(contextTokens) tokens, but the request needs "
                + "\(promptTokens) for the prompt and \(outputTokens) for the output. "
                + "Shorten the prompt or ask for less output.",
            code: "context_length_exceeded")
    }

    /// 404: the cluster has no class of traffic for such a request.
    package static func noScenario(
        model: String, promptTokens: Int, known: [String]
    ) -> APIError {
        APIError(
            status: 404,
            message: "No scenario takes a request for the model '\(quoted(model))' with "
                + "\(promptTokens) prompt tokens and these headers; there are "
                + "\(known.joined(separator: ", ")).",
            type: "invalid_request_error", param: "model", code: "model_not_found")
    }

    /// 401: says how a key is shown, never what was.
    package static let unauthorized: APIError = {
        var error = APIError(
            status: 401,
            message: "The API key is missing or not valid; send 'Authorization: Bearer <key>'.",
            type: "authentication_error", code: "invalid_api_key")
        error.headers = [APIHeader("www-authenticate", #"Bearer realm="pdserve""#)]
        return error
    }()

    package static func notFound(method: String, path: String) -> APIError {
        APIError(
            status: 404, message: "There is nothing at \(quoted(method)) \(quoted(path)).",
            type: "invalid_request_error", code: "not_found")
    }

    package static func methodNotAllowed(method: String, allowed: [String]) -> APIError {
        APIError(
            status: 405,
            message: "\(quoted(method)) is not allowed here, only "
                + "\(allowed.joined(separator: ", ")).",
            type: "invalid_request_error", code: "method_not_allowed")
    }

    package static func bodyTooLarge(limitBytes: Int) -> APIError {
        APIError(
            status: 413, message: "The body is larger than \(limitBytes) bytes.",
            type: "invalid_request_error", code: "request_too_large")
    }

    package static func quoted(_ text: String) -> String {
        guard text.utf8.count > APILimits.quotedBytes else { return text }
        var kept = text.prefix(APILimits.quotedBytes)
        while kept.utf8.count > APILimits.quotedBytes { kept.removeLast() }
        return kept + "…"
    }
}

// MARK: - The server's state

extension APIError {
    /// 429: a rate of the cluster file is used up.
    ///
    /// - Parameter whose: the end of "the rate of …".
    package static func rateLimited(
        whose: String, retryAfterSeconds: Int, headers: [APIHeader] = []
    ) -> APIError {
        var error = APIError(
            status: 429,
            message: "The rate of \(whose) is used up; try again in \(retryAfterSeconds) s.",
            type: "rate_limit_error", code: "rate_limit_exceeded",
            retryAfterSeconds: retryAfterSeconds)
        error.headers = headers
        return error
    }

    /// 503: no worker could take the request in time.
    package static func overloaded(
        _ message: String = "All workers are busy.", retryAfterSeconds: Int
    ) -> APIError {
        APIError(
            status: 503, message: message, type: "server_error", code: "overloaded",
            retryAfterSeconds: retryAfterSeconds)
    }

    package static let timedOut = APIError(
        status: 504, message: "The request took longer than its deadline.", type: "server_error",
        code: "deadline_exceeded")

    /// 500: details are in the log, never in the answer.
    package static let internalFailure = APIError(
        status: 500, message: "The server failed on this request.", type: "server_error",
        code: "internal_error")
}
