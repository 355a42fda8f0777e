package import ServingTypes

/// A request that may go on: as what, and what it was charged.
package struct Admission: Sendable, Hashable {
    package var scenario: ScenarioSpec
    /// Nil in a scenario without keys.
    package var key: APIKey?
    /// Estimate of its tokens; corrected when it ends.
    package var chargedTokens = 0

    package init(scenario: ScenarioSpec, key: APIKey? = nil) {
        self.scenario = scenario
        self.key = key
    }
}

/// Why a request may not go on.
package enum AccessError: Error, Sendable, Hashable {
    /// The rules have not come yet: 503.
    case noRules
    /// No scenario takes it: 404 with the names of those there are.
    case noScenario(known: [String])
    /// Its scenario wants another key than it shows, or any: 401.
    case unauthorized
    /// Its key's rate or its scenario's is used up: 429, with the time as Retry-After.
    case limited(RateClient, retryAfter: Duration, RateStanding)
}

/// Lets requests in by scenarios, keys and rates.
///
/// Nobody is let in before the first rules have come: they may ask for keys.
package struct AccessGate: Sendable {
    /// The rules that hold; nil before the first.
    package private(set) var spec: ClusterSpec?
    private var limiter: RateLimiter

    package init(limits: RateLimiterLimits = RateLimiterLimits()) {
        limiter = RateLimiter(limits: limits)
    }

    /// Takes over other rules; what clients used of their rates stays known.
    package mutating func follow(_ spec: ClusterSpec) { self.spec = spec }

    /// Refuses early who can't be let in by any scenario: before the request is read.
    ///
    /// - Parameter keyHash: SHA-256 of the key that was shown; nil if there was none.
    package func checkKey(_ keyHash: [UInt8]?) throws(AccessError) {
        guard let spec else { throw .noRules }
        let isKnown = spec.scenarios.contains { scenario in
            scenario.keys.isEmpty || keyHash.flatMap { scenario.key(withHash: $0) } != nil
        }
        if !isKnown { throw .unauthorized }
    }

    /// Finds the scenario of a request and checks its key.
    package func authorize(
        _ traits: RequestTraits, keyHash: [UInt8]?
    ) throws(AccessError) -> Admission {
        guard let spec else { throw .noRules }
        guard let scenario = spec.scenario(for: traits) else {
            throw .noScenario(known: spec.scenarios.map(\.name))
        }
        guard !scenario.keys.isEmpty else { return Admission(scenario: scenario) }
        guard let key = keyHash.flatMap({ scenario.key(withHash: $0) }) else {
            throw .unauthorized
        }
        return Admission(scenario: scenario, key: key)
    }

    /// Charges a request to its rates, or refuses it; says what is left of them.
    ///
    /// - Parameter tokens: estimate of prompt and answer.
    package mutating func charge(
        _ admission: inout Admission, tokens: Int, now: MonotonicTime
    ) throws(AccessError) -> RateStanding {
        let verdict = limiter.admit(
            scenario: admission.scenario, key: admission.key, tokens: tokens, now: now)
        let standing = limiter.standing(
            scenario: admission.scenario, key: admission.key, now: now)
        if case .limited(let client, let retryAfter) = verdict {
            throw .limited(client, retryAfter: retryAfter, standing)
        }
        admission.chargedTokens = tokens
        return standing
    }

    /// A request has ended: its estimate gives way to what it took.
    package mutating func ended(_ admission: Admission, usedTokens: Int, now: MonotonicTime) {
        limiter.correct(
            scenario: admission.scenario, key: admission.key,
            tokens: usedTokens - admission.chargedTokens, now: now)
    }
}
