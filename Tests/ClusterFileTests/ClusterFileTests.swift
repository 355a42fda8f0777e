import ClusterFile
import ClusterRules
import Testing

@Suite("Cluster files")
struct ClusterFileTests {
    @Test("no file is the default scenario", arguments: ["", "# nothing\n", "---\n", "{}"])
    func empty(text: String) throws {
        #expect(try ClusterFile.parse(text) == ClusterSpec())
    }

    @Test("a scenario with nothing but a name has every default")
    func defaults() throws {
        let spec = try ClusterFile.parse("scenarios: [{name: chat}]")
        #expect(spec == ClusterSpec(scenarios: [ScenarioSpec(name: "chat")]))
    }

    @Test("every key arrives in its field")
    func complete() throws {
        let spec = try ClusterFile.parse(Samples.complete)
        #expect(spec.scenarios.count == 2)
        let scenario = try #require(spec["code"])
        #expect(scenario == Samples.code)
        let night = ScheduleEntry(from: 1200, to: 1440, decode: InstanceRange(minimum: 1))
        #expect(spec["rest"]?.schedule == [night])
        #expect(spec["rest"]?.ratio == .asStarted)
        #expect(spec["rest"]?.match.models == ["a"])
    }

    @Test("an unknown key is a problem with the key that was meant")
    func unknownKey() {
        expect(
            "scenarios:\n  - name: a\n    limits:\n      tftt: 2s\n",
            ["line 4, scenarios[0].limits.tftt: 'tftt' is no key here; did you mean 'ttft'?"])
        expect(
            "scenario: []",
            ["line 1, scenario: 'scenario' is no key here; did you mean 'scenarios'?"])
        expect(
            "scenarios: [{name: a, fallback: {sideways: true}}]",
            [
                "line 1, scenarios[0].fallback.sideways: 'sideways' is no key here; "
                    + "there are decode-only, prefill-only"
            ])
    }

    @Test("a wrong value is told with line, key, what is allowed and the default")
    func wrongValue() {
        expect(
            "scenarios:\n- name: a\n- name: b\n  limits: {ttft: 12x}\n",
            [
                "line 4, scenarios[1].limits.ttft: '12x' is not allowed; write a duration in "
                    + "1ms…1h such as 500ms, 2s or 1m (without the key: 10s)"
            ])
        expect(
            "scenarios: [{name: a, ratio: sometimes}]",
            [
                "line 1, scenarios[0].ratio: 'sometimes' is not allowed; write automatic, "
                    + "as-started or a table such as {prefill: 2, decode: 3}"
            ])
    }

    @Test("all problems are told at once, in the order of the file")
    func all() {
        let problems = problems(
            """
            scenarios:
              - model: 1
                priority: 101
                placement: fastest
                keys: [{name: a b, sha256: 12}]
                schedule: [{from: 25:00, to: "8"}]
              - name: x
                prefill: {minimum: 3, maximum: 2}
                match: {prompt-tokens: {minimum: 2, maximum: 1}, headers: {Authorization: x}}
              - name: x
            """)
        let keys = problems.map { $0.split(separator: ":")[0] }
        #expect(
            keys == [
                "line 3, scenarios[0].priority", "line 4, scenarios[0].placement",
                "line 5, scenarios[0].keys[0].name", "line 5, scenarios[0].keys[0].sha256",
                "line 6, scenarios[0].schedule[0].from", "line 6, scenarios[0].schedule[0].to",
                "line 6, scenarios[0].schedule[0]", "line 2, scenarios[0]",
                "line 8, scenarios[1].prefill", "line 9, scenarios[1].match.prompt-tokens",
                "line 9, scenarios[1].match.headers.Authorization", "line 10, scenarios[2]",
            ])
    }

    @Test("what must be there is asked for")
    func required() {
        expect(
            "scenarios: [{keys: [{}], schedule: [{prefill: {}}]}]",
            [
                "line 1, scenarios[0].keys[0]: 'name' is missing; write 1 to 64 letters, digits, "
                    + "'-', '_' or '.'",
                "line 1, scenarios[0].keys[0]: 'sha256' is missing; write 64 hexadecimal digits",
                "line 1, scenarios[0].schedule[0]: 'from' is missing; write a time from 00:00 to "
                    + "24:00 such as \"08:30\"",
                "line 1, scenarios[0].schedule[0]: 'to' is missing; write a time from 00:00 to "
                    + "24:00 such as \"08:30\"",
                "line 1, scenarios[0]: 'name' is missing; write 1 to 64 letters, digits, '-', "
                    + "'_' or '.'",
            ])
    }

    @Test("what is not YAML is told by its line")
    func noYAML() {
        #expect(problems("scenarios: [").first?.hasPrefix("line ") == true)
        #expect(problems("a: 1\n\tb: 2").first?.hasPrefix("line 2") == true)
        #expect(problems("- 1").first?.contains("no table") == true)
        #expect(problems("scenarios: [{name: a, name: b}]").first?.contains("twice") == true)
        #expect(problems("a: 1\n---\nb: 2").count == 1)
    }

    @Test("large files, deep ones and ones that multiply are refused")
    func bombs() {
        let limit = ClusterFile.Limits.bytes
        #expect(
            problems(String(repeating: "#", count: limit + 1)).first?.contains("larger") == true)
        let deep = String(repeating: "[", count: 100_000)
        #expect(problems("scenarios: " + deep).count == 1)
        #expect(problems(String(repeating: "- ", count: 100_000)).count == 1)
        var bomb = "a0: &a0 [x, x]\n"
        for level in 1...30 { bomb += "a\(level): &a\(level) [*a\(level - 1), *a\(level - 1)]\n" }
        #expect(problems(bomb).first?.contains("anchors") == true)
        let many = (0..<10_000).map { "k\($0): 1" }.joined(separator: "\n")
        let told = problems(many)
        #expect(told.count == ClusterFile.Limits.problems + 1)
        #expect(told.last == "and 9950 more")
    }

    @Test("a value may be repeated by an anchor")
    func anchors() throws {
        let spec = try ClusterFile.parse(
            """
            scenarios:
              - {name: a, prefill: &two {minimum: 2}}
              - {name: b, prefill: *two}
            """)
        #expect(spec["b"]?.prefill.minimum == 2)
    }

    private func expect(
        _ text: String, _ expected: [String], _ location: SourceLocation = #_sourceLocation
    ) {
        #expect(problems(text) == expected, sourceLocation: location)
    }
}

/// What is wrong with a text; empty if nothing is.
func problems(_ text: String) -> [String] {
    do throws(ClusterFile.Failure) {
        _ = try ClusterFile.parse(text)
        return []
    } catch {
        return error.problems
    }
}
