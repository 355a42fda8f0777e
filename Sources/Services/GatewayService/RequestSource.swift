import ChatAPI
import ClusterRules
package import HTTPServer
import ServiceRuntime
import ServingTypes

/// Who sends a request, as far as its head tells; the key itself is not kept.
package struct RequestSource: Sendable {
    /// Longest key that is looked at.
    private static let maximumKeyBytes = 512
    private static let keyFields: Set = ["authorization", "api-key", "x-api-key"]

    /// Names in lower case, without those that carry keys.
    let headers: [String: String]
    let address: String
    /// SHA-256 of the key that was shown; nil if there was none.
    let keyHash: [UInt8]?

    package init(_ call: HTTPCall) {
        var headers = call.headers
        keyHash = Self.key(in: headers).map { SHA256.hash(Array($0.utf8)) }
        for field in Self.keyFields { headers[field] = nil }
        self.headers = headers
        address = call.remoteAddress
    }

    /// `Authorization: Bearer` first, then the fields that other clients use.
    private static func key(in headers: [String: String]) -> String? {
        var key = headers["x-api-key"] ?? headers["api-key"]
        if let authorization = headers["authorization"] {
            let parts = authorization.split(separator: " ", maxSplits: 1)
            if parts.count == 2, parts[0].lowercased() == "bearer" { key = String(parts[1]) }
        }
        guard let key, 1...maximumKeyBytes ~= key.utf8.count else { return nil }
        return key
    }

    /// A client may only step back behind others of its scenario.
    func priority(in scenario: ScenarioSpec) throws(APIError) -> Int {
        guard let text = headers["x-priority"] else { return scenario.priority }
        guard let wanted = Int(text), 0...100 ~= wanted else {
            throw .invalid("'x-priority' must be a whole number in 0…100.", param: "x-priority")
        }
        return min(wanted, scenario.priority)
    }

    /// Whose turn it is when workers are short: of each key, or without keys of each address.
    ///
    /// Nothing that a client writes into its request counts: it could be anybody then.
    func tenant(_ admission: Admission) -> String {
        admission.key.map { "key \($0.name)" } ?? "address \(address)"
    }
}

extension APIError {
    /// - Parameter traits: nil if the request was not read yet.
    init(_ error: AccessError, _ traits: RequestTraits?) {
        switch error {
        case .noRules:
            self = .overloaded(
                "The gateway has not heard the cluster's rules yet.", retryAfterSeconds: 1)
        case .unauthorized: self = .unauthorized
        case .noScenario(let known):
            self = .noScenario(
                model: traits?.model ?? "", promptTokens: traits?.promptTokens ?? 0, known: known)
        case .limited(let client, let retryAfter, let standing):
            let seconds = Int(retryAfter.seconds.rounded(.up))
            self = .rateLimited(
                whose: client.key.map { "the key '\($0)'" } ?? "all clients together",
                retryAfterSeconds: max(1, seconds), headers: standing.headers)
        }
    }
}

extension RateStanding {
    /// As OpenAI tells it; no fields for what has no limit.
    var headers: [APIHeader] {
        func fields(_ part: Part?, _ what: String) -> [APIHeader] {
            guard let part else { return [] }
            return [
                APIHeader("x-ratelimit-limit-\(what)", "\(part.perMinute)"),
                APIHeader("x-ratelimit-remaining-\(what)", "\(part.left)"),
                APIHeader("x-ratelimit-reset-\(what)", SettingValues.text(part.reset)),
            ]
        }
        return fields(requests, "requests") + fields(tokens, "tokens")
    }
}
