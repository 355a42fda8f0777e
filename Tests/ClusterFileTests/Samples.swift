import ClusterRules

enum Samples {
    static let complete = """
        scenarios:
          - name: code
            model: tiny
            match:
              models: [tiny, "gpt-4"]
              headers: {X-Kind: code}
              prompt-tokens: {minimum: 10, maximum: 2000}
              prefix: "Write code"
            limits: {ttft: 2s, tpot: 50ms}
            priority: 70
            groups: 2
            prefill: {minimum: 2, maximum: 6}
            decode: {minimum: 3}
            spares: 1
            ratio: {prefill: 2, decode: 3}
            expect: {prompt-tokens: 800, output-tokens: 200}
            placement: shortest-queue
            decode-placement: late
            deflection: false
            fallback: {decode-only: false, prefill-only: no}
            schedule:
              - {from: "08:00", to: "20:00", prefill: {minimum: 4, maximum: 4}}
            keys:
              - name: alice
                sha256: \(hash)
                requests-per-minute: 60
                tokens-per-minute: 100000
            requests-per-minute: 600
            tokens-per-minute: 1000000
          - name: rest
            match: {models: a}
            ratio: as-started
            schedule: [{from: 20:00, to: 24:00, decode: {}}]
        """

    static let hash = String(repeating: "0aF1", count: 16)

    /// What `code` in the complete file comes to.
    static var code: ScenarioSpec {
        var code = ScenarioSpec(name: "code")
        code.model = "tiny"
        code.match.models = ["tiny", "gpt-4"]
        code.match.headers = ["x-kind": "code"]
        code.match.minimumPromptTokens = 10
        code.match.maximumPromptTokens = 2000
        code.match.prefix = "Write code"
        code.ttftLimit = .seconds(2)
        code.tpotLimit = .milliseconds(50)
        code.priority = 70
        code.groups = 2
        code.prefill = InstanceRange(minimum: 2, maximum: 6)
        code.decode = InstanceRange(minimum: 3)
        code.spares = 1
        code.ratio = .fixed(prefill: 2, decode: 3)
        code.expectedPromptTokens = 800
        code.expectedOutputTokens = 200
        code.placement = .shortestQueue
        code.decodePlacement = .late
        code.deflection = false
        code.decodeOnlyFallback = false
        code.prefillOnlyFallback = false
        code.schedule = [
            ScheduleEntry(from: 480, to: 1200, prefill: InstanceRange(minimum: 4, maximum: 4))
        ]
        let bytes: [UInt8] = (0..<32).map { $0.isMultiple(of: 2) ? 0x0a : 0xf1 }
        code.keys = [
            APIKey(
                name: "alice", hash: bytes,
                rate: RateLimit(requestsPerMinute: 60, tokensPerMinute: 100_000))
        ]
        code.rate = RateLimit(requestsPerMinute: 600, tokensPerMinute: 1_000_000)
        return code
    }
}
