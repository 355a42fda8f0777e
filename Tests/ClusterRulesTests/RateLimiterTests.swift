import ClusterRules
import ServingTypes
import Testing

@Suite struct RateLimiterTests {
    private let scenario: ScenarioSpec = {
        var scenario = ScenarioSpec(name: "chat")
        scenario.rate = RateLimit(requestsPerMinute: 6, tokensPerMinute: 6000)
        return scenario
    }()
    private let key = key("anna", requests: 2, tokens: 600)

    private static func key(_ name: String, requests: Int = 0, tokens: Int = 0) -> APIKey {
        APIKey(
            name: name, hash: [],
            rate: RateLimit(requestsPerMinute: requests, tokensPerMinute: tokens))
    }

    private func time(_ seconds: Double) -> MonotonicTime {
        MonotonicTime(nanoseconds: Int64(seconds * 1e9))
    }

    /// Seconds to wait, 0 if it is allowed.
    private func wait(_ verdict: RateVerdict) -> Double {
        guard case .limited(_, let retryAfter) = verdict else { return 0 }
        return (retryAfter.seconds * 1e6).rounded() / 1e6
    }

    @Test func `a minute's requests may come at once and then one by one`() {
        var limiter = RateLimiter()
        for _ in 0..<2 {
            #expect(limiter.admit(scenario: scenario, key: key, tokens: 1, now: .start) == .allowed)
        }
        let third = limiter.admit(scenario: scenario, key: key, tokens: 1, now: .start)
        #expect(wait(third) == 30)
        guard case .limited(let client, let retryAfter) = third else { return }
        #expect(client == RateClient(scenario: "chat", key: "anna"))
        // Early is too early, on time is in time.
        let early = limiter.admit(scenario: scenario, key: key, tokens: 1, now: time(29.9))
        #expect(wait(early) == 0.1)
        let due = MonotonicTime.start + retryAfter
        #expect(limiter.admit(scenario: scenario, key: key, tokens: 1, now: due) == .allowed)
        #expect(wait(limiter.admit(scenario: scenario, key: key, tokens: 1, now: due)) > 29)
    }

    @Test func `tokens are charged as estimated and corrected at the end`() {
        var limiter = RateLimiter()
        let key = Self.key("anna", tokens: 600)
        #expect(limiter.admit(scenario: scenario, key: key, tokens: 500, now: .start) == .allowed)
        #expect(wait(limiter.admit(scenario: scenario, key: key, tokens: 200, now: .start)) == 10)
        limiter.correct(scenario: scenario, key: key, tokens: -100, now: .start)
        #expect(limiter.admit(scenario: scenario, key: key, tokens: 200, now: .start) == .allowed)
        limiter.correct(scenario: scenario, key: key, tokens: 300, now: .start)
        // 300 are owed before the next one.
        #expect(wait(limiter.admit(scenario: scenario, key: key, tokens: 1, now: .start)) == 30.1)
        // What is given back never exceeds a minute's worth.
        limiter.correct(scenario: scenario, key: key, tokens: -100_000, now: .start)
        #expect(wait(limiter.admit(scenario: scenario, key: key, tokens: 600, now: .start)) == 0)
        #expect(wait(limiter.admit(scenario: scenario, key: key, tokens: 600, now: .start)) == 60)
    }

    @Test func `hours without requests save up one minute's worth`() {
        var limiter = RateLimiter()
        func allowed(tokens: Int, at seconds: Double) -> Int {
            (0..<9).count { _ in
                limiter.admit(scenario: scenario, key: key, tokens: tokens, now: time(seconds))
                    == .allowed
            }
        }
        #expect(allowed(tokens: 1, at: 0) == 2)
        #expect(allowed(tokens: 1, at: 7200) == 2)
        #expect(allowed(tokens: 600, at: 14_400) == 1)
        #expect(allowed(tokens: 600, at: 21_600) == 1)
    }

    @Test func `a request larger than a minute's worth waits for a full bucket and owes the rest`()
    {
        var limiter = RateLimiter()
        let key = Self.key("anna", tokens: 600)
        #expect(limiter.admit(scenario: scenario, key: key, tokens: 1200, now: .start) == .allowed)
        let next = limiter.admit(scenario: scenario, key: key, tokens: 1200, now: .start)
        #expect(wait(next) == 120)
    }

    @Test func `a key's limit charges nobody else, the scenario's counts for all keys`() {
        var limiter = RateLimiter()
        var allowed = 0
        for name in ["a", "b", "c", "d"] {
            for _ in 0..<3 {
                let key = Self.key(name, requests: 2)
                let verdict = limiter.admit(scenario: scenario, key: key, tokens: 1, now: .start)
                if verdict == .allowed { allowed += 1 }
            }
        }
        // Three keys twice each; what they were refused was not charged to the scenario.
        #expect(allowed == 6)
        let more = limiter.admit(scenario: scenario, key: nil, tokens: 1, now: .start)
        #expect(
            more == .limited(RateClient(scenario: "chat"), retryAfter: .nanoseconds(10_000_000_001))
        )
        var other = scenario
        other.name = "other"
        #expect(limiter.admit(scenario: other, key: nil, tokens: 1, now: .start) == .allowed)
    }

    @Test func `no limit means no limit`() {
        var limiter = RateLimiter()
        let free = ScenarioSpec(name: "free")
        for _ in 0..<1000 {
            let verdict = limiter.admit(
                scenario: free, key: Self.key("a"), tokens: 1_000_000, now: .start)
            #expect(verdict == .allowed)
        }
        #expect(limiter.clientCount == 0)
    }

    @Test func `a changed rate holds at once`() {
        var limiter = RateLimiter()
        var scenario = scenario
        scenario.rate = RateLimit(requestsPerMinute: 100)
        _ = limiter.admit(scenario: scenario, key: nil, tokens: 1, now: .start)
        scenario.rate = RateLimit(requestsPerMinute: 1)
        #expect(limiter.admit(scenario: scenario, key: nil, tokens: 1, now: .start) == .allowed)
        #expect(wait(limiter.admit(scenario: scenario, key: nil, tokens: 1, now: .start)) == 60)
    }

    @Test func `only so many clients are remembered, first those in use`() {
        var limits = RateLimiterLimits()
        limits.maximumClients = 10
        var limiter = RateLimiter(limits: limits)
        let free = ScenarioSpec(name: "free")
        func admit(_ number: Int, at seconds: Double) -> RateVerdict {
            limiter.admit(
                scenario: free, key: Self.key("key-\(number)", requests: 1), tokens: 1,
                now: time(seconds))
        }
        for number in 0..<10 { #expect(admit(number, at: Double(number)) == .allowed) }
        #expect(limiter.clientCount == 10)
        // Seven have had a minute: their buckets are full.
        #expect(admit(10, at: 66.5) == .allowed)
        #expect(limiter.clientCount == 4)
        #expect(wait(admit(9, at: 66.5)) == 2.5)
        for number in 20..<40 { #expect(admit(number, at: 67) == .allowed) }
        #expect(limiter.clientCount == 10)
    }

    @Test(arguments: 1...5)
    func `nobody ever gets more than two minutes' worth in a minute`(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var limiter = RateLimiter()
        var taken: [(seconds: Double, tokens: Int)] = []
        let key = Self.key("a", requests: 30, tokens: 1000)
        let free = ScenarioSpec(name: "free")
        var seconds = 0.0
        for _ in 0..<3000 {
            seconds += Double(generator.below(1000)) / 1000
            let tokens = generator.below(100)
            let verdict = limiter.admit(
                scenario: free, key: key, tokens: tokens, now: time(seconds))
            guard verdict == .allowed else { continue }
            taken.append((seconds, tokens))
            let lastMinute = taken.filter { $0.seconds > seconds - 60 }
            guard lastMinute.count <= 60, lastMinute.map(\.tokens).reduce(0, +) <= 2000 else {
                Issue.record("seed \(seed): too much at \(seconds) s")
                return
            }
        }
        // And gets what is due.
        let minutes = seconds / 60
        #expect(Double(taken.map(\.tokens).reduce(0, +)) > 0.9 * minutes * 1000, "seed \(seed)")
    }
}
