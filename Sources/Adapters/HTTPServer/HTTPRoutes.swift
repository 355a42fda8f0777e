package import ChatAPI
import Logging

/// Answers a call or throws `APIError`; its task is cancelled when the client leaves.
package typealias HTTPHandler = @Sendable (HTTPCall) async throws -> HTTPReply

/// Which handler answers which method and path.
package struct HTTPRoutes: Sendable {
    private struct Route {
        var pattern: String
        var handlers: [String: HTTPHandler] = [:]
    }

    /// What answers a call and the name to count it under.
    struct Match {
        var pattern: String
        var handler: HTTPHandler
        var rest = ""
    }

    private var exact: [String: Route] = [:]
    /// Longest first.
    private var prefixes: [(prefix: String, route: Route)] = []

    package init() {}

    /// - Parameter pattern: a path, or one that ends in `/*` for all paths below.
    package mutating func add(
        _ method: String, _ pattern: String, _ handler: @escaping HTTPHandler
    ) {
        precondition(pattern.hasPrefix("/"), "a path begins with a slash")
        guard pattern.hasSuffix("/*") else {
            exact[pattern, default: Route(pattern: pattern)].handlers[method] = handler
            return
        }
        let prefix = String(pattern.dropLast())
        if let index = prefixes.firstIndex(where: { $0.prefix == prefix }) {
            prefixes[index].route.handlers[method] = handler
        } else {
            prefixes.append((prefix, Route(pattern: pattern, handlers: [method: handler])))
            prefixes.sort { $0.prefix.utf8.count > $1.prefix.utf8.count }
        }
    }

    func match(_ call: HTTPCall) throws(APIError) -> Match {
        let path =
            call.path.count > 1 && call.path.hasSuffix("/")
            ? String(call.path.dropLast()) : call.path
        if let route = exact[path] {
            return Match(pattern: route.pattern, handler: try handler(route, call))
        }
        for (prefix, route) in prefixes
        where path.hasPrefix(prefix) && path.utf8.count > prefix.utf8.count {
            return Match(
                pattern: route.pattern, handler: try handler(route, call),
                rest: String(path.dropFirst(prefix.count)))
        }
        throw .notFound(method: call.method, path: call.path)
    }

    private func handler(_ route: Route, _ call: HTTPCall) throws(APIError) -> HTTPHandler {
        if let handler = route.handlers[call.method] { return handler }
        throw .methodNotAllowed(method: call.method, allowed: route.handlers.keys.sorted())
    }
}

extension HTTPReply {
    /// The error as OpenAI's clients read it, with `Retry-After` if it makes sense.
    package static func error(_ error: APIError) -> HTTPReply {
        var reply = HTTPReply.json(error.json, status: error.status)
        reply.headers += error.headers.map { ($0.name, $0.value) }
        if let seconds = error.retryAfterSeconds {
            reply.headers.append(("retry-after", "\(seconds)"))
        }
        return reply
    }
}
