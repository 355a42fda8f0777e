import ClusterRules

/// Every key of the file; parsing, explanations and documentation come from these tables.
enum ClusterKeys {
    private static let standard = ScenarioSpec(name: ScenarioSpec.defaultName)
    private static let workers = 0...65_536
    private static let tokens = 0...10_000_000
    private static let perMinute = 0...1_000_000_000

    static let file: [ClusterKey<FileContents>] = [
        .tables(
            "scenarios", \.scenarios, scenario, empty: ScenarioSpec(name: ""),
            in: 1...ClusterFile.Limits.scenarios, fallback: "one scenario named default",
            "Classes of traffic; a request belongs to the first whose rule it meets.",
            check: distinctScenarios)
    ]

    static let scenario: [ClusterKey<ScenarioSpec>] =
        [
            .name("name", \.name, "Name for logs, metrics and commands.").required(),
            .text(
                "model", \.model, fallback: "whatever its workers have",
                "Name of the model it serves."),
            .table("match", \.match, match, "What a request must be like; all of it must hold."),
            .table("limits", \.self, limits, "Goals; requests beyond them do not count as good."),
            .integer(
                "priority", \.priority, in: 0...100, default: "\(standard.priority)",
                "Greater goes first when workers are short."),
        ] + workerKeys + policyKeys + accessKeys

    private static let workerKeys: [ClusterKey<ScenarioSpec>] = [
        .integer(
            "groups", \.groups, in: 1...512, default: "\(standard.groups)",
            "Groups its workers are divided into, if there are enough of them."),
        .table("prefill", \.prefill, range, "How many workers prefill.", check: ordered),
        .table("decode", \.decode, range, "How many workers decode.", check: ordered),
        .integer(
            "spares", \.spares, in: workers, default: "\(standard.spares)",
            "Workers kept out of use, to take a dead one's place."),
        .ratio(
            "ratio", \.ratio, "How the numbers of prefill- and decode-workers are chosen."),
        .table(
            "expect", \.self, expected, "What a request is like, until traffic was measured."),
        .tables(
            "schedule", \.schedule, scheduleEntry, empty: ScheduleEntry(from: 0, to: 0),
            in: 0...ClusterFile.Limits.scheduleEntries, fallback: "the same all day",
            "Other numbers of workers at certain times of the day; the first that applies.",
            check: meaningfulSchedule),
    ]

    private static let policyKeys: [ClusterKey<ScenarioSpec>] = [
        .choice(
            "placement", \.placement, default: standard.placement,
            "Which policy chooses workers."),
        .choice(
            "decode-placement", \.decodePlacement, default: standard.decodePlacement,
            "Whether the decode-worker is chosen before prefill or after it."),
        .bool(
            "deflection", \.deflection, default: standard.deflection,
            "Whether short prompts may be computed by decode-workers when prefill is behind."),
        .table(
            "fallback", \.self, fallback, "What goes on while a role has no live worker."),
    ]

    private static let accessKeys: [ClusterKey<ScenarioSpec>] = [
        .tables(
            "keys", \.keys, key, empty: APIKey(name: "", hash: []),
            in: 0...ClusterFile.Limits.keys, fallback: "anybody may use it",
            "API keys; with any, each request must show one of them.", check: distinctKeys),
        .integer(
            "requests-per-minute", \.rate.requestsPerMinute, in: perMinute,
            default: "0, no limit", "Requests of all its clients together, on each gateway."),
        .integer(
            "tokens-per-minute", \.rate.tokensPerMinute, in: perMinute, default: "0, no limit",
            "Prompt and answer tokens of all its clients together, on each gateway."),
    ]

    static let match: [ClusterKey<MatchRule>] = [
        .texts(
            "models", \.models, fallback: "the scenario's model",
            "Model names that clients give, any of them."),
        .headers("headers", \.headers, "Headers of the request and their values, all of them."),
        .table(
            "prompt-tokens", \.self, promptTokens, "Length of the prompt in tokens.",
            check: orderedPromptTokens),
        .text(
            "prefix", \.prefix, fallback: "any",
            "How the text of the first message, or of the prompt, begins."),
    ]

    private static let promptTokens: [ClusterKey<MatchRule>] = [
        .integer("minimum", \.minimumPromptTokens, in: tokens, default: "0", "At least so many."),
        .integer(
            "maximum", \.maximumPromptTokens, in: tokens, default: "any number",
            "At most so many."),
    ]

    private static let limits: [ClusterKey<ScenarioSpec>] = [
        .duration(
            "ttft", \.ttftLimit, in: .milliseconds(1) ... .seconds(3600),
            default: standard.ttftLimit,
            "Longest good time to the first token; who has no worker by then gets 503."),
        .duration(
            "tpot", \.tpotLimit, in: .milliseconds(1) ... .seconds(60),
            default: standard.tpotLimit, "Longest good mean time per further token."),
    ]

    private static let range: [ClusterKey<InstanceRange>] = [
        .integer(
            "minimum", \.minimum, in: workers, default: "\(InstanceRange().minimum)",
            "At least so many, as long as there are enough."),
        .optionalInteger(
            "maximum", \.maximum, in: workers, default: "as many as there are",
            "At most so many."),
    ]

    private static let expected: [ClusterKey<ScenarioSpec>] = [
        .integer(
            "prompt-tokens", \.expectedPromptTokens, in: 1...tokens.upperBound,
            default: "\(standard.expectedPromptTokens)", "Tokens of a prompt."),
        .integer(
            "output-tokens", \.expectedOutputTokens, in: 1...tokens.upperBound,
            default: "\(standard.expectedOutputTokens)", "Tokens of an answer."),
    ]

    private static let fallback: [ClusterKey<ScenarioSpec>] = [
        .bool(
            "decode-only", \.decodeOnlyFallback, default: standard.decodeOnlyFallback,
            "Decode-workers read prompts too while no prefill-worker is alive."),
        .bool(
            "prefill-only", \.prefillOnlyFallback, default: standard.prefillOnlyFallback,
            "Prefill-workers write answers too while no decode-worker is alive."),
    ]

    private static let scheduleEntry: [ClusterKey<ScheduleEntry>] = [
        .time("from", \.from, "Beginning, in local time of the scheduler.").required(),
        .time("to", \.to, "End, not included; may be past midnight.").required(),
        .optionalTable(
            "prefill", \.prefill, range, empty: InstanceRange(), fallback: "the scenario's own",
            "How many workers prefill then.", check: ordered),
        .optionalTable(
            "decode", \.decode, range, empty: InstanceRange(), fallback: "the scenario's own",
            "How many workers decode then.", check: ordered),
    ]

    private static let key: [ClusterKey<APIKey>] = [
        .name("name", \.name, "Whose key it is, for logs, metrics and fairness.").required(),
        .hash("sha256", \.hash, "SHA-256 of the key; `pdserve key NAME` makes both.").required(),
        .integer(
            "requests-per-minute", \.rate.requestsPerMinute, in: perMinute,
            default: "0, no limit", "Requests with this key, on each gateway."),
        .integer(
            "tokens-per-minute", \.rate.tokensPerMinute, in: perMinute, default: "0, no limit",
            "Prompt and answer tokens with this key, on each gateway."),
    ]
}

// MARK: - Values of a shape of their own

extension ClusterKey {
    fileprivate static func ratio(
        _ name: String, _ path: Field<RatioMode>, _ help: String
    ) -> ClusterKey {
        let kind = "automatic, as-started or a table such as {prefill: 2, decode: 3}"
        return ClusterKey(name: name, kind: kind, fallback: "automatic", help: help) {
            value, target, problems in
            switch value.text {
            case "automatic": target[keyPath: path] = .automatic
            case "as-started": target[keyPath: path] = .asStarted
            default:
                guard value.members != nil else {
                    problems.add(value, "\(value.shown) is not allowed; write \(kind)")
                    return
                }
                var parts = FixedRatio()
                value.read(FixedRatio.keys, into: &parts, &problems)
                target[keyPath: path] = .fixed(prefill: parts.prefill, decode: parts.decode)
            }
        }
    }

    fileprivate static func headers(
        _ name: String, _ path: Field<[String: String]>,
        _ help: String
    ) -> ClusterKey {
        let limits = (entries: ClusterFile.Limits.matchEntries, bytes: ClusterFile.Limits.textBytes)
        let kind = "a table of at most \(limits.entries) header names and texts"
        return ClusterKey(name: name, kind: kind, fallback: "any", help: help) {
            value, target, problems in
            guard let members = value.members, members.count <= limits.entries else {
                problems.add(value, "\(value.shown) is not allowed; write \(kind)")
                return
            }
            var headers: [String: String] = [:]
            for (written, value) in members {
                let header = written.lowercased()
                if let reason = HeaderName.problem(header)
                    ?? (headers[header].map { _ in
                        "the header stands there twice; keep one"
                    })
                {
                    problems.add(value, reason)
                } else if let text = value.text, 1...limits.bytes ~= text.utf8.count {
                    headers[header] = text
                } else {
                    problems.add(
                        value, "\(value.shown) is not allowed; write 1 to \(limits.bytes) bytes")
                }
            }
            target[keyPath: path] = headers
        }
    }

    /// A time of the day, in minutes since midnight.
    fileprivate static func time(
        _ name: String, _ path: Field<Int>, _ help: String
    ) -> ClusterKey {
        value(
            name, path, kind: "a time from 00:00 to 24:00 such as \"08:30\"", fallback: "", help
        ) { text in
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            guard text.utf8.allSatisfy({ "0123456789:".utf8.contains($0) }), parts.count == 2,
                1...2 ~= parts[0].count, parts[1].count == 2,
                let hours = UInt(parts[0]), let minutes = UInt(parts[1]), minutes < 60,
                hours * 60 + minutes <= 1440
            else { return nil }
            return Int(hours * 60 + minutes)
        }
    }

    fileprivate static func hash(
        _ name: String, _ path: Field<[UInt8]>, _ help: String
    ) -> ClusterKey {
        value(name, path, kind: "64 hexadecimal digits", fallback: "", help) { text in
            let digits = text.utf8.compactMap {
                Character(UnicodeScalar($0)).hexDigitValue.flatMap { UInt8(exactly: $0) }
            }
            guard digits.count == 64, text.utf8.count == 64 else { return nil }
            return (0..<32).map { digits[2 * $0] << 4 | digits[2 * $0 + 1] }
        }
    }
}

/// The parts of a ratio that was written as a table.
private struct FixedRatio: Sendable {
    var prefill = 1
    var decode = 1

    static let keys: [ClusterKey<FixedRatio>] = [
        .integer("prefill", \.prefill, in: 1...1000, default: "", "").required(),
        .integer("decode", \.decode, in: 1...1000, default: "", "").required(),
    ]
}

private enum HeaderName {
    /// Whether clients can send it and a file may hold its values.
    static func problem(_ name: String) -> String? {
        if ["authorization", "api-key", "x-api-key", "cookie"].contains(name) {
            return "a file holds no secrets; write the scenario's 'keys' instead"
        }
        let isToken = name.utf8.allSatisfy { byte in
            UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte
                || UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte
                || "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
        guard isToken, 1...ClusterFile.Limits.nameBytes ~= name.utf8.count else {
            return "this is no header name; write letters, digits and '-'"
        }
        return nil
    }
}
