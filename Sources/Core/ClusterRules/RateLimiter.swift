package import ServingTypes

/// Bounds of the rate limiter.
package struct RateLimiterLimits: Sendable, Hashable {
    /// Scenarios and keys whose use is remembered; beyond, who could go on soonest is forgotten.
    package var maximumClients = 16_384

    package init() {}
}

/// Whose rate a request counts against.
package struct RateClient: Sendable, Hashable {
    package var scenario: String
    /// Name of the key; nil: all of the scenario's clients together.
    package var key: String?

    package init(scenario: String, key: String? = nil) {
        self.scenario = scenario
        self.key = key
    }
}

/// Whether a request may go on.
package enum RateVerdict: Sendable, Hashable {
    case allowed
    /// This client's rate is used up: 429, with the time as Retry-After.
    case limited(RateClient, retryAfter: Duration)
}

/// Requests and tokens per minute, for each key and for each scenario as a whole.
///
/// Both are buckets that fill evenly and hold a minute's worth. Tokens are charged as an estimate
/// when a request arrives and corrected when it ends, so a bucket may go below zero; then nothing
/// is allowed until it has filled again. A request of more tokens than a bucket holds is allowed
/// once it is full.
///
/// Rates are given with each call, so a changed cluster file holds from the next request on.
package struct RateLimiter: Sendable {
    /// What is left at a time.
    private struct Bucket: Sendable {
        var requests: Double
        var tokens: Double
        var at: MonotonicTime

        init(_ rate: RateLimit, at time: MonotonicTime) {
            requests = Double(rate.requestsPerMinute)
            tokens = Double(rate.tokensPerMinute)
            at = time
        }

        /// What is left later, with what has flowed in since.
        func filled(_ rate: RateLimit, at time: MonotonicTime) -> Bucket {
            let minutes = max(0, (time - at).seconds) / 60
            var bucket = Bucket(rate, at: max(at, time))
            bucket.requests = min(bucket.requests, requests + minutes * bucket.requests)
            bucket.tokens = min(bucket.tokens, tokens + minutes * bucket.tokens)
            return bucket
        }

        /// Takes from what is limited; the rest stays at zero.
        mutating func take(requests: Int, tokens: Int, _ rate: RateLimit) {
            if rate.requestsPerMinute > 0 { self.requests -= Double(requests) }
            if rate.tokensPerMinute > 0 {
                self.tokens = min(self.tokens - Double(tokens), Double(rate.tokensPerMinute))
            }
        }

        /// When nothing is missing any more.
        func fullAt(_ rate: RateLimit) -> MonotonicTime {
            let full = Bucket(rate, at: at)
            let minutes = max(
                full.requests > 0 ? 1 - requests / full.requests : 0,
                full.tokens > 0 ? 1 - tokens / full.tokens : 0)
            return at + .seconds(minutes * 60)
        }

        /// Minutes until so much can be taken.
        func wait(forTokens needed: Int, _ rate: RateLimit) -> Double {
            func minutes(_ missing: Double, _ perMinute: Int) -> Double {
                perMinute > 0 ? max(0, missing) / Double(perMinute) : 0
            }
            let neededTokens = Double(min(needed, rate.tokensPerMinute))
            return max(
                minutes(1 - requests, rate.requestsPerMinute),
                minutes(neededTokens - tokens, rate.tokensPerMinute))
        }
    }

    package let limits: RateLimiterLimits
    private var buckets: [RateClient: (bucket: Bucket, fullAt: MonotonicTime)] = [:]

    package init(limits: RateLimiterLimits = RateLimiterLimits()) { self.limits = limits }

    package var clientCount: Int { buckets.count }

    /// Charges a request of so many tokens to its key and its scenario, or to neither.
    ///
    /// - Parameter key: nil for a scenario without keys.
    package mutating func admit(
        scenario: ScenarioSpec, key: APIKey?, tokens: Int, now: MonotonicTime
    ) -> RateVerdict {
        var charged: [(client: RateClient, bucket: Bucket, fullAt: MonotonicTime)] = []
        var longest: (client: RateClient, minutes: Double)?
        for (client, rate) in clients(scenario, key) {
            var bucket = filled(client, rate, now: now)
            let minutes = bucket.wait(forTokens: tokens, rate)
            if minutes > longest?.minutes ?? 0 { longest = (client, minutes) }
            bucket.take(requests: 1, tokens: tokens, rate)
            charged.append((client, bucket, bucket.fullAt(rate)))
        }
        if let longest {
            // Rounded up: who comes back at that time is let in.
            let nanoseconds = Int64((longest.minutes * 60e9).rounded(.up)) + 1
            return .limited(longest.client, retryAfter: .nanoseconds(nanoseconds))
        }
        for (client, bucket, fullAt) in charged { keep(bucket, of: client, fullAt: fullAt) }
        return .allowed
    }

    /// Charges what an allowed request took beyond its estimate; negative: gives back.
    package mutating func correct(
        scenario: ScenarioSpec, key: APIKey?, tokens: Int, now: MonotonicTime
    ) {
        for (client, rate) in clients(scenario, key) {
            var bucket = filled(client, rate, now: now)
            bucket.take(requests: 0, tokens: tokens, rate)
            keep(bucket, of: client, fullAt: bucket.fullAt(rate))
        }
    }

    /// What is left to a key and its scenario together: of each, the smaller rest.
    package func standing(
        scenario: ScenarioSpec, key: APIKey?, now: MonotonicTime
    ) -> RateStanding {
        func part(_ perMinute: Int, _ left: Double) -> RateStanding.Part? {
            perMinute > 0 ? RateStanding.Part(perMinute: perMinute, left: left) : nil
        }
        var standing = RateStanding()
        for (client, rate) in clients(scenario, key) {
            let bucket = filled(client, rate, now: now)
            standing.narrow(
                requests: part(rate.requestsPerMinute, bucket.requests),
                tokens: part(rate.tokensPerMinute, bucket.tokens))
        }
        return standing
    }

    private func clients(_ scenario: ScenarioSpec, _ key: APIKey?) -> [(RateClient, RateLimit)] {
        var clients = [(RateClient(scenario: scenario.name), scenario.rate)]
        if let key {
            clients.append((RateClient(scenario: scenario.name, key: key.name), key.rate))
        }
        return clients.filter { $0.1 != RateLimit() }
    }

    private func filled(_ client: RateClient, _ rate: RateLimit, now: MonotonicTime) -> Bucket {
        buckets[client]?.bucket.filled(rate, at: now) ?? Bucket(rate, at: now)
    }

    private mutating func keep(
        _ bucket: Bucket, of client: RateClient, fullAt: MonotonicTime
    ) {
        if buckets[client] == nil, buckets.count >= limits.maximumClients { forget(now: bucket.at) }
        buckets[client] = (bucket, fullAt)
    }

    /// Forgets full buckets, which are as good as none; if there are none, the next one to be full.
    private mutating func forget(now: MonotonicTime) {
        let before = buckets.count
        buckets = buckets.filter { $0.value.fullAt > now }
        guard buckets.count == before else { return }
        let next = buckets.min {
            ($0.value.fullAt, $0.key.scenario, $0.key.key ?? "")
                < ($1.value.fullAt, $1.key.scenario, $1.key.key ?? "")
        }
        if let next { buckets[next.key] = nil }
    }
}
