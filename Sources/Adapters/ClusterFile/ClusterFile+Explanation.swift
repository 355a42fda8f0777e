package import ClusterRules
import ServiceRuntime

/// What a cluster file comes to, for people.
extension ClusterFile {
    /// Some lines per scenario, in the order in which requests are tried against them.
    package static func explanation(of spec: ClusterSpec) -> String {
        spec.scenarios.enumerated().map { number, scenario in
            let lines = [
                "\(number + 1). \(scenario.name): \(traffic(scenario))", workers(scenario),
                "goals: the first token within \(SettingValues.text(scenario.ttftLimit)), then "
                    + "\(SettingValues.text(scenario.tpotLimit)) per token; priority "
                    + "\(scenario.priority)",
                policies(scenario),
            ]
            let schedule = scenario.schedule.map { entry in
                let parts = [("prefill", entry.prefill), ("decode", entry.decode)]
                    .compactMap { name, range in range.map { "\(name) \(text($0))" } }
                return "from \(time(entry.from)) to \(time(entry.to)): "
                    + parts.joined(separator: ", ")
            }
            return (lines + schedule + access(scenario)).joined(separator: "\n   ")
        }.joined(separator: "\n")
    }

    /// What is allowed, but hardly meant.
    package static func warnings(for spec: ClusterSpec) -> [String] {
        var warnings: [String] = []
        for (index, scenario) in spec.scenarios.enumerated() {
            if let earlier = spec.scenarios[..<index].first(where: { $0.takesAll(of: scenario) }) {
                warnings.append(
                    "'\(scenario.name)' gets no request: '\(earlier.name)' stands before it and "
                        + "takes all that it would; move it up or give '\(earlier.name)' a rule")
            }
            let rates = [("its clients", scenario.rate)] + scenario.keys.map { ($0.name, $0.rate) }
            let usual = scenario.expectedPromptTokens + scenario.expectedOutputTokens
            for (name, rate) in rates
            where rate.tokensPerMinute > 0 && rate.tokensPerMinute < usual {
                warnings.append(
                    "'\(scenario.name)' expects \(usual) tokens per request, but \(name) may use "
                        + "\(rate.tokensPerMinute) per minute")
            }
        }
        if let last = spec.scenarios.last, !last.isCatchAll {
            warnings.append(
                "a request that meets none of the rules is answered 404; a last scenario without "
                    + "'match' and 'model' would take it")
        }
        return warnings
    }

    private static func traffic(_ scenario: ScenarioSpec) -> String {
        var parts: [String] = []
        let models = scenario.matchedModels
        if !models.isEmpty { parts.append("for \(models.joined(separator: " or "))") }
        for (name, value) in scenario.match.headers.sorted(by: { $0.key < $1.key }) {
            parts.append("with \(name): \(value)")
        }
        let (least, most) = (scenario.match.minimumPromptTokens, scenario.match.maximumPromptTokens)
        if most < .max {
            parts.append("of \(least) to \(most) prompt tokens")
        } else if least > 0 {
            parts.append("of \(least) prompt tokens or more")
        }
        if !scenario.match.prefix.isEmpty {
            parts.append("that begin with '\(Problem.cut(scenario.match.prefix))'")
        }
        return parts.isEmpty ? "all requests" : "requests " + parts.joined(separator: ", ")
    }

    private static func workers(_ scenario: ScenarioSpec) -> String {
        let model = scenario.model.isEmpty ? "the model its workers have" : scenario.model
        let ratio =
            switch scenario.ratio {
            case .automatic: "by the measured traffic"
            case .asStarted: "as the processes were started"
            case .fixed(let prefill, let decode): "\(prefill) prefill to \(decode) decode"
            }
        return "served by \(model) in \(count(scenario.groups, "group")): prefill "
            + "\(text(scenario.prefill)), decode \(text(scenario.decode)), "
            + "\(count(scenario.spares, "spare")); divided \(ratio)"
    }

    private static func policies(_ scenario: ScenarioSpec) -> String {
        let fallback = [
            scenario.decodeOnlyFallback ? "decode-only" : nil,
            scenario.prefillOnlyFallback ? "prefill-only" : nil,
        ].compactMap { $0 }
        return "placement \(scenario.placement.rawValue), decode-worker chosen "
            + "\(scenario.decodePlacement == .early ? "before" : "after") prefill, deflection "
            + "\(scenario.deflection ? "on" : "off"), fallback "
            + (fallback.isEmpty ? "off" : fallback.joined(separator: " and "))
    }

    private static func access(_ scenario: ScenarioSpec) -> [String] {
        let all = rate(scenario.rate)
        guard !scenario.keys.isEmpty else {
            return ["open to anybody" + (all.isEmpty ? "" : ", together \(all)")]
        }
        let keys = scenario.keys.map { key in
            let own = rate(key.rate)
            return key.name + (own.isEmpty ? "" : " (\(own))")
        }
        return [
            "open to \(count(keys.count, "key")): \(keys.prefix(20).joined(separator: ", "))"
                + (keys.count > 20 ? ", …" : "") + (all.isEmpty ? "" : "; together \(all)")
        ]
    }

    private static func rate(_ rate: RateLimit) -> String {
        [(rate.requestsPerMinute, "requests"), (rate.tokensPerMinute, "tokens")]
            .filter { $0.0 > 0 }.map { "\($0.0) \($0.1)" }.joined(separator: " and ")
            + (rate == RateLimit() ? "" : " per minute")
    }

    private static func text(_ range: InstanceRange) -> String {
        guard let maximum = range.maximum else { return "\(range.minimum) or more" }
        return maximum == range.minimum ? "\(maximum)" : "\(range.minimum) to \(maximum)"
    }

    private static func time(_ minutes: Int) -> String {
        let rest = minutes % 60
        return "\(minutes / 60 < 10 ? "0" : "")\(minutes / 60):\(rest < 10 ? "0" : "")\(rest)"
    }

    private static func count(_ number: Int, _ name: String) -> String {
        number == 0 ? "no \(name)s" : number == 1 ? "1 \(name)" : "\(number) \(name)s"
    }
}

extension ScenarioSpec {
    /// Whether its rule holds for any request.
    fileprivate var isCatchAll: Bool { matchedModels.isEmpty && rulesOut(nothingBut: MatchRule()) }

    /// Whether each request that meets the other's rule meets this one's as well.
    fileprivate func takesAll(of other: ScenarioSpec) -> Bool {
        let (models, others) = (Set(matchedModels), Set(other.matchedModels))
        return (models.isEmpty || !others.isEmpty && others.isSubset(of: models))
            && rulesOut(nothingBut: other.match)
    }

    private func rulesOut(nothingBut other: MatchRule) -> Bool {
        match.headers.allSatisfy { other.headers[$0.key] == $0.value }
            && match.minimumPromptTokens <= other.minimumPromptTokens
            && match.maximumPromptTokens >= other.maximumPromptTokens
            && other.prefix.hasPrefix(match.prefix)
    }
}
