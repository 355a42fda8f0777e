import ClusterFile
import ClusterRules
import Testing

@Suite("What a cluster file comes to")
struct ExplanationTests {
    @Test("each scenario is told in words")
    func words() throws {
        let spec = try ClusterFile.parse(Samples.complete)
        #expect(
            ClusterFile.explanation(of: spec) == """
                1. code: requests for tiny or gpt-4, with x-kind: code, of 10 to 2000 prompt \
                tokens, that begin with 'Write code'
                   served by tiny in 2 groups: prefill 2 to 6, decode 3 or more, 1 spare; divided \
                2 prefill to 3 decode
                   goals: the first token within 2s, then 50ms per token; priority 70
                   placement shortest-queue, decode-worker chosen after prefill, deflection off, \
                fallback off
                   from 08:00 to 20:00: prefill 4
                   open to 1 key: alice (60 requests and 100000 tokens per minute); together 600 \
                requests and 1000000 tokens per minute
                2. rest: requests for a
                   served by the model its workers have in 1 group: prefill 1 or more, decode 1 or \
                more, no spares; divided as the processes were started
                   goals: the first token within 10s, then 200ms per token; priority 50
                   placement on-demand, decode-worker chosen before prefill, deflection on, \
                fallback decode-only and prefill-only
                   from 20:00 to 24:00: decode 1 or more
                   open to anybody
                """)
    }

    @Test(
        "a scenario behind one that takes all it would is warned of",
        arguments: [
            ("{name: a}", "{name: b, match: {headers: {x: y}}}", true),
            ("{name: a, match: {headers: {x: y}}}", "{name: b}", false),
            ("{name: a, model: m}", "{name: b, model: m, match: {prefix: hi}}", true),
            ("{name: a, model: m}", "{name: b, model: n}", false),
            ("{name: a, match: {models: [m, n]}}", "{name: b, model: n}", true),
            ("{name: a, match: {models: [m, n]}}", "{name: b, match: {models: [m, o]}}", false),
            (
                "{name: a, match: {prompt-tokens: {maximum: 10}}}",
                "{name: b, match: {prompt-tokens: {minimum: 2, maximum: 9}}}", true
            ),
            (
                "{name: a, match: {prompt-tokens: {maximum: 10}}}",
                "{name: b, match: {prompt-tokens: {minimum: 2, maximum: 11}}}", false
            ),
            ("{name: a, match: {prefix: hi}}", "{name: b, match: {prefix: high}}", true),
            ("{name: a, match: {prefix: high}}", "{name: b, match: {prefix: hi}}", false),
        ])
    func unreachable(first: String, second: String, isWarnedOf: Bool) throws {
        let spec = try ClusterFile.parse("scenarios: [\(first), \(second), {name: z}]")
        let warnings = ClusterFile.warnings(for: spec).filter { $0.contains("gets no request") }
        #expect(warnings.contains { $0.hasPrefix("'b' gets no request: 'a'") } == isWarnedOf)
    }

    @Test("a file that leaves requests over, or too few tokens, is warned of")
    func others() throws {
        let open = try ClusterFile.parse("scenarios: [{name: a}]")
        #expect(ClusterFile.warnings(for: open) == [])
        let closed = try ClusterFile.parse(
            "scenarios: [{name: a, model: m, tokens-per-minute: 100}]")
        let warnings = ClusterFile.warnings(for: closed)
        #expect(warnings.count == 2)
        #expect(warnings.first?.contains("expects 1152 tokens") == true)
        #expect(warnings.last?.contains("404") == true)
    }
}
