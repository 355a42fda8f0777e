/// Rows of text in columns that are as wide as their widest entry.
func table(_ rows: [[String]]) -> String {
    let widths = (rows.first ?? []).indices.map { column in
        rows.map { $0[column].count }.max() ?? 0
    }
    return rows.map { row in
        let line = zip(row, widths).map { text, width in
            text + String(repeating: " ", count: width - text.count)
        }.joined(separator: "  ")
        return String(line.reversed().drop { $0 == " " }.reversed())
    }.joined(separator: "\n")
}
