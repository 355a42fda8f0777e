package import Foundation

/// What a benchmark found, for people and for programs.
package struct Report: Sendable {
    package var name: String
    /// What it ran on and with, by name.
    package var facts: [(name: String, value: String)]
    package var tables: [ReportTable] = []
    /// What follows from the tables, a sentence each.
    package var findings: [String] = []
    /// False if it was interrupted.
    package var isComplete = true

    package init(name: String, facts: [(name: String, value: String)]) {
        self.name = name
        self.facts = facts
    }

    /// Tables for people in plain text, without empty ones.
    package var text: String {
        let head = facts.map { "\($0.name): \($0.value)" }.joined(separator: "\n")
        let state = isComplete ? "" : " (interrupted: what was measured until then)"
        let shown = tables.filter { $0.isShown && !$0.rows.isEmpty }.map(\.text)
        let end = findings.isEmpty ? [] : [findings.joined(separator: "\n")]
        return (["\(name)\(state)\n\(head)"] + shown + end).joined(separator: "\n\n")
    }

    /// The same as JSON: per table a list of objects with the columns' keys.
    package var json: Data {
        get throws {
            let object: [String: Any] = [
                "benchmark": name, "complete": isComplete,
                "facts": Dictionary(
                    facts.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 }),
                "tables": Dictionary(
                    tables.map { ($0.key, $0.objects) }, uniquingKeysWith: { $1 }),
                "findings": findings,
            ]
            return try JSONSerialization.data(
                withJSONObject: object, options: [.prettyPrinted, .sortedKeys])
        }
    }
}

/// One table of a report.
package struct ReportTable: Sendable {
    package struct Column: Sendable {
        /// Name for programs, with the unit at its end: `overhead_ms`.
        var key: String
        /// Name for people: `overhead ms`.
        var title: String { key.split(separator: "_").joined(separator: " ") }

        package init(_ key: String) { self.key = key }
    }

    package enum Cell: Sendable {
        case text(String)
        case whole(Int)
        /// A number and how many decimals people see; nil is shown as a dash.
        case number(Double?, Int)
    }

    package let key: String
    package let title: String
    package let columns: [Column]
    package private(set) var rows: [[Cell]] = []
    /// What the columns mean where their names don't say it.
    package var note = ""
    /// False for what only programs read.
    package var isShown = true

    package init(_ key: String, _ title: String, columns: [String]) {
        self.key = key
        self.title = title
        self.columns = columns.map(Column.init)
    }

    package mutating func add(_ cells: [Cell]) {
        precondition(cells.count == columns.count, "a cell for each column")
        rows.append(cells)
    }

    package var text: String {
        let cells = [columns.map(\.title)] + rows.map { $0.map(\.text) }
        let widths = columns.indices.map { column in cells.map { $0[column].count }.max() ?? 0 }
        let lines = cells.map { row in
            row.indices.map { column in
                let padding = String(repeating: " ", count: widths[column] - row[column].count)
                return isText(column) ? row[column] + padding : padding + row[column]
            }.joined(separator: "  ")
        }
        return "## \(title)\n" + lines.joined(separator: "\n") + (note.isEmpty ? "" : "\n\(note)")
    }

    /// Texts stand to the left, numbers to the right.
    private func isText(_ column: Int) -> Bool {
        if case .text? = rows.first?[column] { true } else { false }
    }

    package var objects: [[String: Any]] {
        rows.map { row in
            Dictionary(
                zip(columns.map(\.key), row.map(\.json)), uniquingKeysWith: { $1 })
        }
    }
}

extension ReportTable.Cell {
    package var text: String {
        switch self {
        case .text(let text): text
        case .whole(let number): "\(number)"
        case .number(let number?, let decimals) where number.isFinite:
            String(format: "%.\(decimals)f", number)
        case .number: "–"
        }
    }

    var json: Any {
        switch self {
        case .text(let text): text
        case .whole(let number): number
        case .number(let number?, _) where number.isFinite: number
        case .number: NSNull()
        }
    }

    /// Seconds shown as milliseconds.
    package static func milliseconds(_ seconds: Double?, _ decimals: Int = 2) -> Self {
        .number(seconds.map { $0 * 1e3 }, decimals)
    }

    package static func ratio(_ value: Double?, to other: Double?) -> Self {
        guard let value, let other, other != 0 else { return .number(nil, 2) }
        return .number(value / other, 3)
    }

    package static func difference(_ value: Double?, _ other: Double?) -> Self {
        guard let value, let other else { return .number(nil, 2) }
        return .milliseconds(value - other)
    }
}
