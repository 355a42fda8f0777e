import ClusterRules

/// What single values can't show.
extension ClusterKeys {
    @Sendable
    static func distinctScenarios(
        _ value: FileValue, _ scenarios: [ScenarioSpec], _ problems: inout ProblemList
    ) {
        distinct(value, scenarios.map(\.name), "name", &problems)
    }

    @Sendable
    static func distinctKeys(
        _ value: FileValue, _ keys: [APIKey], _ problems: inout ProblemList
    ) {
        distinct(value, keys.map(\.name), "name", &problems)
        distinct(value, keys.map(\.hash), "sha256", &problems)
    }

    private static func distinct<Field: Hashable & Collection>(
        _ value: FileValue, _ fields: [Field], _ key: String, _ problems: inout ProblemList
    ) {
        var seen: [Field: Int] = [:]
        for (index, field) in fields.enumerated() where !field.isEmpty {
            guard let earlier = seen.updateValue(index, forKey: field) else { continue }
            problems.add(
                value.elements?[index] ?? value,
                "its '\(key)' is that of \(value.path)[\(earlier)]; write another one")
        }
    }

    @Sendable
    static func ordered(
        _ value: FileValue, _ range: InstanceRange, _ problems: inout ProblemList
    ) {
        guard let maximum = range.maximum, maximum < range.minimum else { return }
        problems.add(
            value, "the maximum \(maximum) is less than the minimum \(range.minimum)")
    }

    @Sendable
    static func orderedPromptTokens(
        _ value: FileValue, _ rule: MatchRule, _ problems: inout ProblemList
    ) {
        guard rule.maximumPromptTokens < rule.minimumPromptTokens else { return }
        problems.add(
            value,
            "the maximum \(rule.maximumPromptTokens) is less than the minimum "
                + "\(rule.minimumPromptTokens)")
    }

    @Sendable
    static func meaningfulSchedule(
        _ value: FileValue, _ entries: [ScheduleEntry], _ problems: inout ProblemList
    ) {
        for (index, entry) in entries.enumerated() where entry.prefill == nil && entry.decode == nil
        {
            problems.add(
                value.elements?[index] ?? value,
                "it changes nothing; write 'prefill' or 'decode' with other numbers")
        }
    }
}
