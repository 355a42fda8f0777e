import ServiceRuntime
import ServingTypes

/// One key of the file: what it may be, what it is without being written, and how it is read.
struct ClusterKey<Target>: Sendable {
    typealias Field<Value> = any WritableKeyPath<Target, Value> & Sendable
    typealias Read = @Sendable (FileValue, inout Target, inout ProblemList) -> Void

    var name: String
    /// What is allowed, as the end of "write …".
    var kind: String
    /// What holds when the key is left out; empty if it must be there or there is no such thing.
    var fallback = ""
    var help: String
    var isRequired = false
    /// Rows of the keys within, with paths that begin after this key.
    var parts: [KeyDescription] = []
    var read: Read

    var rows: [KeyDescription] {
        let own = KeyDescription(
            path: name, kind: kind, fallback: fallback, help: help, isRequired: isRequired)
        return [own] + parts.map { $0.below(name) }
    }

    /// A key with a single value.
    static func value<Value: Sendable>(
        _ name: String, _ path: Field<Value>, kind: String,
        fallback: String, _ help: String, parse: @escaping @Sendable (String) -> Value?
    ) -> ClusterKey {
        ClusterKey(name: name, kind: kind, fallback: fallback, help: help) {
            value, target, problems in
            if let parsed = value.text.flatMap(parse) {
                target[keyPath: path] = parsed
            } else {
                let without = fallback.isEmpty ? "" : " (without the key: \(fallback))"
                problems.add(value, "\(value.shown) is not allowed; write \(kind)\(without)")
            }
        }
    }

    func required() -> ClusterKey {
        var key = self
        key.isRequired = true
        return key
    }
}

// MARK: - Single values

extension ClusterKey {
    static func text(
        _ name: String, _ path: Field<String>,
        fallback: String = "", _ help: String
    ) -> ClusterKey {
        let limit = ClusterFile.Limits.textBytes
        return value(
            name, path, kind: "a text of at most \(limit) bytes", fallback: fallback, help
        ) { $0.utf8.count <= limit ? $0 : nil }
    }

    /// A name that may stand in ids, logs and metrics.
    static func name(
        _ name: String, _ path: Field<String>, _ help: String
    ) -> ClusterKey {
        let limit = ClusterFile.Limits.nameBytes
        return value(
            name, path, kind: "1 to \(limit) letters, digits, '-', '_' or '.'", fallback: "", help
        ) { text in
            let isPlain = text.utf8.allSatisfy { byte in
                UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte
                    || UInt8(ascii: "A")...UInt8(ascii: "Z") ~= byte
                    || UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte || "-_.".utf8.contains(byte)
            }
            return isPlain && (1...limit).contains(text.utf8.count) ? text : nil
        }
    }

    static func integer(
        _ name: String, _ path: Field<Int>,
        in range: ClosedRange<Int>, default fallback: String, _ help: String
    ) -> ClusterKey {
        value(
            name, path, kind: "a whole number in \(range.lowerBound)…\(range.upperBound)",
            fallback: fallback, help
        ) { Int($0).flatMap { range.contains($0) ? $0 : nil } }
    }

    static func optionalInteger(
        _ name: String, _ path: Field<Int?>,
        in range: ClosedRange<Int>, default fallback: String, _ help: String
    ) -> ClusterKey {
        value(
            name, path, kind: "a whole number in \(range.lowerBound)…\(range.upperBound)",
            fallback: fallback, help
        ) { text in Int(text).flatMap { range.contains($0) ? .some(.some($0)) : nil } }
    }

    static func duration(
        _ name: String, _ path: Field<Duration>,
        in range: ClosedRange<Duration>, default fallback: Duration, _ help: String
    ) -> ClusterKey {
        let kind =
            "a duration in \(SettingValues.text(range.lowerBound))…"
            + "\(SettingValues.text(range.upperBound)) such as 500ms, 2s or 1m"
        return value(name, path, kind: kind, fallback: SettingValues.text(fallback), help) {
            SettingValues.duration($0).flatMap { range.contains($0) ? $0 : nil }
        }
    }

    static func bool(
        _ name: String, _ path: Field<Bool>,
        default fallback: Bool, _ help: String
    ) -> ClusterKey {
        value(name, path, kind: "true or false", fallback: "\(fallback)", help) {
            SettingValues.bool($0)
        }
    }

    static func choice<Choice: RawRepresentable & CaseIterable & Sendable>(
        _ name: String, _ path: Field<Choice>,
        default fallback: Choice, _ help: String
    ) -> ClusterKey where Choice.RawValue == String {
        let names = Choice.allCases.map(\.rawValue)
        let kind = names.dropLast().joined(separator: ", ") + " or \(names.last ?? "")"
        return value(name, path, kind: kind, fallback: fallback.rawValue, help) {
            Choice(rawValue: $0)
        }
    }
}

// MARK: - Tables and lists

extension ClusterKey {
    /// A table with keys of its own.
    ///
    /// - Parameter check: looks at the table as a whole.
    static func table<Part: Sendable>(
        _ name: String, _ path: Field<Part>,
        _ keys: [ClusterKey<Part>], fallback: String = "", _ help: String,
        check: @escaping @Sendable (FileValue, Part, inout ProblemList) -> Void = { _, _, _ in }
    ) -> ClusterKey {
        ClusterKey(
            name: name, kind: "a table", fallback: fallback, help: help, parts: keys.flatMap(\.rows)
        ) { value, target, problems in
            guard value.read(keys, into: &target[keyPath: path], &problems) else { return }
            check(value, target[keyPath: path], &problems)
        }
    }

    /// A table that may be left out as a whole.
    static func optionalTable<Part: Sendable>(
        _ name: String, _ path: Field<Part?>,
        _ keys: [ClusterKey<Part>], empty: Part, fallback: String, _ help: String,
        check: @escaping @Sendable (FileValue, Part, inout ProblemList) -> Void
    ) -> ClusterKey {
        ClusterKey(
            name: name, kind: "a table", fallback: fallback, help: help, parts: keys.flatMap(\.rows)
        ) { value, target, problems in
            var part = empty
            guard value.read(keys, into: &part, &problems) else { return }
            target[keyPath: path] = part
            check(value, part, &problems)
        }
    }

    /// A list of tables.
    ///
    /// - Parameter check: looks at the list as a whole.
    static func tables<Element: Sendable>(
        _ name: String, _ path: Field<[Element]>,
        _ keys: [ClusterKey<Element>], empty: Element, in range: ClosedRange<Int>,
        fallback: String, _ help: String,
        check: @escaping @Sendable (FileValue, [Element], inout ProblemList) -> Void
    ) -> ClusterKey {
        let kind = "a list of \(range.lowerBound) to \(range.upperBound) tables"
        let parts = keys.flatMap(\.rows).map { $0.below("") }
        return ClusterKey(name: name, kind: kind, fallback: fallback, help: help, parts: parts) {
            value, target, problems in
            guard let elements = value.elements, range.contains(elements.count) else {
                problems.add(value, "\(value.shown) is not allowed; write \(kind)")
                return
            }
            target[keyPath: path] = elements.map { element in
                var part = empty
                element.read(keys, into: &part, &problems)
                return part
            }
            check(value, target[keyPath: path], &problems)
        }
    }

    /// A list of texts, or one text.
    static func texts(
        _ name: String, _ path: Field<[String]>,
        fallback: String, _ help: String
    ) -> ClusterKey {
        let limits = (entries: ClusterFile.Limits.matchEntries, bytes: ClusterFile.Limits.textBytes)
        let kind = "a text, or a list of at most \(limits.entries) texts"
        return ClusterKey(name: name, kind: kind, fallback: fallback, help: help) {
            value, target, problems in
            let texts = value.text.map { [$0] } ?? value.elements?.compactMap(\.text) ?? []
            let isWhole = value.elements.map { $0.count == texts.count } ?? !texts.isEmpty
            guard isWhole, texts.count <= limits.entries,
                texts.allSatisfy({ 1...limits.bytes ~= $0.utf8.count })
            else {
                problems.add(
                    value,
                    "\(value.shown) is not allowed; write \(kind) of 1 to \(limits.bytes) bytes")
                return
            }
            target[keyPath: path] = texts
        }
    }
}

/// What a reader of the documentation wants to know of one key.
package struct KeyDescription: Hashable, Sendable {
    /// For example `scenarios[].limits.ttft`.
    package var path: String
    package var kind: String
    /// Empty if there is none.
    package var fallback: String
    package var help: String
    package var isRequired: Bool

    /// - Parameter name: of the key it stands in; empty for an element of a list.
    func below(_ name: String) -> KeyDescription {
        var row = self
        row.path =
            name.isEmpty ? "[].\(path)" : path.hasPrefix("[]") ? name + path : "\(name).\(path)"
        return row
    }
}
