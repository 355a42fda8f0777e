package import ServingTypes

/// Reads the settings of one service, one declaration per key.
///
/// Sources, the first wins: `--key value`, the environment variable `PDSERVE_KEY`, the YAML or JSON
/// file named by `--config`, the default. Call `finish` after the last declaration.
///
///     port = try reader.integer("port", default: 8080, in: 0...65535, "Port clients use.")
package struct SettingsReader {
    private struct Declaration {
        var key: String
        var kind: String
        var fallback: String
        var help: String
    }

    private let service: String
    private let version: String
    private var sources: SettingsSources
    private var declarations: [Declaration] = []
    /// `--help` or `--version`: values are not read, so that wrong ones don't hide the help.
    private let isAskedForText: Bool

    /// - Parameter arguments: without the program's name.
    package init(
        service: String, version: String, arguments: [String], environment: [String: String]
    ) throws(SettingsError) {
        self.service = service
        self.version = version
        let arguments = arguments.map { $0 == "-h" ? "--help" : $0 }
        sources = try SettingsSources(arguments: arguments, environment: environment)
        isAskedForText = sources.flags.contains("help") || sources.flags.contains("version")
        let path = try optionalText(
            "config", "YAML or JSON file with settings; flags and environment win over it.")
        if let path, !isAskedForText { try sources.load(path, service: service) }
    }

    /// Ends the declarations.
    ///
    /// - Throws: what was asked for by `--help` or `--version`; the first unknown flag or file key.
    package func finish() throws(SettingsError) {
        if sources.flags.contains("help") { throw .textRequested(help) }
        if sources.flags.contains("version") { throw .textRequested("\(service) \(version)") }
        let known = Set(declarations.map(\.key))
        for flag in sources.flags where !known.contains(flag) {
            throw .unknown(
                source: "--\(flag)", suggestion: suggestion(for: flag).map { "--\($0)" })
        }
        for key in sources.fileKeys where !known.contains(key) {
            throw .unknown(source: sources.nameInFile(key), suggestion: suggestion(for: key))
        }
    }

    private func suggestion(for name: String) -> String? {
        declarations.map { (key: $0.key, distance: SettingValues.distance($0.key, name)) }
            .filter { $0.distance <= max(2, name.count / 3) }
            .min { $0.distance < $1.distance }?.key
    }

    private var help: String {
        let rows = declarations.map { ("--\($0.key) <\($0.kind)>", $0) }
        let lines = rows.map { flag, row in
            let fallback = row.fallback.isEmpty ? "" : " [\(row.fallback)]"
            return "  \(flag)\n      \(row.help)\(fallback)"
        }
        return """
            \(service) \(version)

            Each setting is a flag, an environment variable (--listen is \
            \(SettingsSources.variable("listen"))) or a key of the file named by --config, at its \
            top or in its section '\(service)'; the first of these wins. [Defaults] in brackets.

            \(lines.joined(separator: "\n"))
              --help
              --version
            """
    }
}

// MARK: - Values

extension SettingsReader {
    /// Declares a key and gives its parsed value, or nil if it is nowhere.
    private mutating func value<Value>(
        _ key: String, kind: String, fallback: String, _ help: String,
        _ parse: (SettingsSources.Finding) -> Value?
    ) throws(SettingsError) -> Value? {
        precondition(!declarations.contains { $0.key == key }, "--\(key) is declared twice")
        declarations.append(Declaration(key: key, kind: kind, fallback: fallback, help: help))
        guard !isAskedForText, let finding = try sources.find(key) else { return nil }
        guard let value = parse(finding) else {
            throw .invalid(source: finding.source, value: finding.text, expected: kind)
        }
        return value
    }

    private func required<Value>(
        _ value: Value?, _ key: String, kind: String, placeholder: Value
    ) throws(SettingsError) -> Value {
        if let value { return value }
        guard isAskedForText else { throw .missing(key: key, expected: kind) }
        return placeholder
    }

    /// - Parameter fallback: nil makes the key required.
    package mutating func integer(
        _ key: String, default fallback: Int?, in range: ClosedRange<Int>, _ help: String
    ) throws(SettingsError) -> Int {
        let kind = "a whole number in \(range.lowerBound)…\(range.upperBound)"
        let value = try value(key, kind: kind, fallback: describe(fallback), help) {
            Int($0.text).flatMap { range.contains($0) ? $0 : nil }
        }
        return try required(value ?? fallback, key, kind: kind, placeholder: range.lowerBound)
    }

    /// Nil if the key is not set.
    package mutating func optionalInteger(
        _ key: String, in range: ClosedRange<Int>, _ help: String
    ) throws(SettingsError) -> Int? {
        let kind = "a whole number in \(range.lowerBound)…\(range.upperBound)"
        return try value(key, kind: kind, fallback: "", help) {
            Int($0.text).flatMap { range.contains($0) ? $0 : nil }
        }
    }

    package mutating func number(
        _ key: String, default fallback: Double, in range: ClosedRange<Double>, _ help: String
    ) throws(SettingsError) -> Double {
        let kind = "a number in \(range.lowerBound)…\(range.upperBound)"
        return try value(key, kind: kind, fallback: "\(fallback)", help) {
            Double($0.text).flatMap { range.contains($0) ? $0 : nil }
        } ?? fallback
    }

    /// On the command line, the bare flag means true.
    package mutating func bool(
        _ key: String, default fallback: Bool, _ help: String
    ) throws(SettingsError) -> Bool {
        try value(key, kind: "true or false", fallback: "\(fallback)", help) {
            $0.isBare ? true : SettingValues.bool($0.text)
        } ?? fallback
    }

    /// - Parameter fallback: nil makes the key required.
    package mutating func text(
        _ key: String, default fallback: String?, _ help: String
    ) throws(SettingsError) -> String {
        let value = try value(key, kind: "text", fallback: fallback ?? "", help) {
            $0.isBare ? nil : $0.text
        }
        return try required(value ?? fallback, key, kind: "text", placeholder: "")
    }

    /// Nil if the key is not set.
    package mutating func optionalText(
        _ key: String, _ help: String
    ) throws(SettingsError) -> String? {
        try value(key, kind: "text", fallback: "", help) {
            $0.isBare || $0.text.isEmpty ? nil : $0.text
        }
    }

    /// One of the cases' raw values.
    package mutating func choice<Choice: RawRepresentable & CaseIterable>(
        _ key: String, default fallback: Choice, _ help: String
    ) throws(SettingsError) -> Choice where Choice.RawValue == String {
        let kind = Choice.allCases.map(\.rawValue).joined(separator: ", ")
        return try value(key, kind: "one of \(kind)", fallback: fallback.rawValue, help) {
            Choice(rawValue: $0.text)
        } ?? fallback
    }

    package mutating func duration(
        _ key: String, default fallback: Duration, in range: ClosedRange<Duration>, _ help: String
    ) throws(SettingsError) -> Duration {
        let kind =
            "a duration in \(SettingValues.text(range.lowerBound))…"
            + "\(SettingValues.text(range.upperBound)) such as 500ms, 2s or 5m"
        return try value(key, kind: kind, fallback: SettingValues.text(fallback), help) {
            SettingValues.duration($0.text).flatMap { range.contains($0) ? $0 : nil }
        } ?? fallback
    }

    package mutating func bytes(
        _ key: String, default fallback: Int, in range: ClosedRange<Int>, _ help: String
    ) throws(SettingsError) -> Int {
        let kind =
            "a size in \(SettingValues.text(bytes: range.lowerBound))…"
            + "\(SettingValues.text(bytes: range.upperBound)) such as 512KiB or 64MiB"
        return try value(key, kind: kind, fallback: SettingValues.text(bytes: fallback), help) {
            SettingValues.bytes($0.text).flatMap { range.contains($0) ? $0 : nil }
        } ?? fallback
    }

    /// - Parameter fallback: nil makes the key required.
    package mutating func address(
        _ key: String, default fallback: NetworkAddress?, _ help: String
    ) throws(SettingsError) -> NetworkAddress {
        let kind = "an address such as 127.0.0.1:8080"
        let value = try value(key, kind: kind, fallback: describe(fallback), help) {
            NetworkAddress($0.text)
        }
        return try required(
            value ?? fallback, key, kind: kind, placeholder: NetworkAddress(host: "", port: 0))
    }

    /// Several addresses, separated by commas.
    package mutating func addresses(
        _ key: String, default fallback: [NetworkAddress], _ help: String
    ) throws(SettingsError) -> [NetworkAddress] {
        let kind = "addresses such as 10.0.0.1:7400,10.0.0.2:7400"
        let shown = fallback.map(\.description).joined(separator: ",")
        return try value(key, kind: kind, fallback: shown, help) { setting in
            let parts = setting.text.split(separator: ",", omittingEmptySubsequences: false)
            let addresses = parts.compactMap {
                NetworkAddress(String($0.filter { $0 != " " }))
            }
            return addresses.count == parts.count ? addresses : nil
        } ?? fallback
    }

    /// Nil if the key is not set.
    package mutating func optionalAddress(
        _ key: String, _ help: String
    ) throws(SettingsError) -> NetworkAddress? {
        try value(key, kind: "an address such as 127.0.0.1:8080", fallback: "", help) {
            NetworkAddress($0.text)
        }
    }

    /// Values separated by commas; empty if the key is not set.
    package mutating func list(
        _ key: String, default fallback: [String] = [], _ help: String
    ) throws(SettingsError) -> [String] {
        let text = fallback.joined(separator: ",")
        return try value(key, kind: "values separated by commas", fallback: text, help) {
            $0.isBare ? nil : SettingValues.list($0.text)
        } ?? fallback
    }

    private func describe(_ value: (some CustomStringConvertible)?) -> String {
        value?.description ?? ""
    }
}
