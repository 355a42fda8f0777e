import ClusterRules
import Testing

@Suite struct KeyLookupTests {
    private func hash(_ last: UInt8) -> [UInt8] { [UInt8](repeating: 7, count: 31) + [last] }

    @Test func `a key is found by its whole hash only`() {
        var scenario = ScenarioSpec(name: "chat")
        #expect(scenario.key(withHash: hash(1)) == nil)
        scenario.keys = [
            APIKey(name: "a", hash: hash(1)), APIKey(name: "b", hash: hash(2)),
            APIKey(name: "broken", hash: []), APIKey(name: "again", hash: hash(2)),
        ]
        #expect(scenario.key(withHash: hash(1))?.name == "a")
        #expect(scenario.key(withHash: hash(2))?.name == "b")
        #expect(scenario.key(withHash: hash(3)) == nil)
        #expect(scenario.key(withHash: [8] + hash(1).dropFirst()) == nil)
        #expect(scenario.key(withHash: Array(hash(1).dropLast())) == nil)
        #expect(scenario.key(withHash: []) == nil)
    }
}
