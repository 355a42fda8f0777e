/// What may stand in a cluster file, from the tables that read it.
extension ClusterFile {
    /// All keys in the order of the tables.
    package static var keys: [KeyDescription] { ClusterKeys.file.flatMap(\.rows) }

    /// For a terminal.
    package static var reference: String {
        keys.map { row in
            let without =
                row.isRequired
                ? " (required)" : row.fallback.isEmpty ? "" : " [\(row.fallback)]"
            return "\(row.path)\n    \(row.help)\n    \(row.kind)\(without)"
        }.joined(separator: "\n")
    }

    /// For the documentation: a table in Markdown.
    package static var referenceMarkdown: String {
        let head = ["| Key | Value | Without it | What it is |", "|---|---|---|---|"]
        let rows = keys.map { row in
            let without = row.isRequired ? "required" : row.fallback
            return "| `\(row.path)` | \(row.kind) | \(without) | \(row.help) |"
        }
        return (head + rows).joined(separator: "\n") + "\n"
    }
}
