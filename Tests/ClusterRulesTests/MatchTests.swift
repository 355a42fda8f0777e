import ClusterRules
import Testing

@Suite("Which scenario a request belongs to")
struct MatchTests {
    @Test("the first scenario whose whole rule holds")
    func first() {
        var long = ScenarioSpec(name: "long")
        long.match.minimumPromptTokens = 1000
        var code = ScenarioSpec(name: "code")
        code.match.headers = ["x-kind": "code"]
        let spec = ClusterSpec(scenarios: [long, code, ScenarioSpec(name: "rest")])
        func name(_ tokens: Int, _ headers: [String: String] = [:]) -> String? {
            spec.scenario(
                for: RequestTraits(model: "m", headers: headers, promptTokens: tokens))?.name
        }
        #expect(name(1000, ["x-kind": "code"]) == "long")
        #expect(name(999, ["x-kind": "code"]) == "code")
        #expect(name(999, ["x-kind": "chat"]) == "rest")
    }

    @Test("a scenario of another model takes nothing")
    func otherModel() {
        var spec = ScenarioSpec(name: "a")
        spec.model = "tiny"
        #expect(spec.matches(RequestTraits(model: "tiny", promptTokens: 1)))
        #expect(!spec.matches(RequestTraits(model: "large", promptTokens: 1)))
    }
}
