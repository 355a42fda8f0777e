import ClusterRules
import ServingTypes
import Testing

@Suite("Who is let in")
struct AccessGateTests {
    private let traits = RequestTraits(model: "m", promptTokens: 10)
    private let hash = [UInt8](repeating: 7, count: 32)

    private func gate(_ edit: (inout ScenarioSpec) -> Void) -> AccessGate {
        var scenario = ScenarioSpec(name: "a")
        edit(&scenario)
        var gate = AccessGate()
        gate.follow(ClusterSpec(scenarios: [scenario]))
        return gate
    }

    @Test("nobody, before the rules have come")
    func noRules() {
        #expect(throws: AccessError.noRules) { try AccessGate().checkKey(nil) }
        #expect(throws: AccessError.noRules) {
            try AccessGate().authorize(traits, keyHash: hash)
        }
    }

    @Test("who shows a key of the request's scenario")
    func keys() throws {
        let gate = gate { $0.keys = [APIKey(name: "k", hash: hash)] }
        #expect(try gate.authorize(traits, keyHash: hash).key?.name == "k")
        for wrong in [nil, [], [UInt8](repeating: 8, count: 32)] {
            #expect(throws: AccessError.unauthorized) {
                try gate.authorize(traits, keyHash: wrong)
            }
            #expect(throws: AccessError.unauthorized) { try gate.checkKey(wrong) }
        }
        #expect(throws: Never.self) { try gate.checkKey(hash) }
    }

    @Test("without a key only what needs none, and no early refusal then")
    func openScenario() throws {
        var closed = ScenarioSpec(name: "closed")
        closed.keys = [APIKey(name: "k", hash: hash)]
        closed.match.headers = ["x-kind": "closed"]
        var gate = AccessGate()
        gate.follow(ClusterSpec(scenarios: [closed, ScenarioSpec(name: "open")]))
        #expect(throws: Never.self) { try gate.checkKey(nil) }
        #expect(try gate.authorize(traits, keyHash: nil).scenario.name == "open")
        var asked = traits
        asked.headers = ["x-kind": "closed"]
        #expect(throws: AccessError.unauthorized) { try gate.authorize(asked, keyHash: nil) }
    }

    @Test("what no scenario takes is told which there are")
    func noScenario() {
        let gate = gate { $0.model = "other" }
        #expect(throws: AccessError.noScenario(known: ["a"])) {
            try gate.authorize(traits, keyHash: nil)
        }
    }

    @Test("a charge shows what is left, and the end gives back what was not used")
    func charge() throws {
        var gate = gate { $0.rate = RateLimit(requestsPerMinute: 2, tokensPerMinute: 100) }
        var first = try gate.authorize(traits, keyHash: nil)
        let left = try gate.charge(&first, tokens: 90, now: .start)
        #expect(left.requests == RateStanding.Part(perMinute: 2, left: 1, reset: .seconds(30)))
        #expect(left.tokens == RateStanding.Part(perMinute: 100, left: 10, reset: .seconds(54)))
        var second = try gate.authorize(traits, keyHash: nil)
        do throws(AccessError) {
            _ = try gate.charge(&second, tokens: 20, now: .start)
            Issue.record("more tokens than were left")
        } catch {
            guard case .limited(let client, let retryAfter, let standing) = error else {
                Issue.record("\(error)")
                return
            }
            #expect(client == RateClient(scenario: "a"))
            #expect(retryAfter > .seconds(6) && retryAfter < .milliseconds(6001))
            #expect(standing == left)
        }
        gate.ended(first, usedTokens: 40, now: .start)
        #expect(try gate.charge(&second, tokens: 20, now: .start).tokens?.left == 40)
    }
}
