/// A report as one HTML page without scripts that needs no other file.
package struct HTMLPage: Sendable {
    package var report: Report
    package var plots: [LinePlot]

    package init(report: Report, plots: [LinePlot]) {
        self.report = report
        self.plots = plots
    }

    private static let style = """
        body { font-family: sans-serif; color: #222; background: #fff; max-width: 60rem;
          margin: 2rem auto; padding: 0 1rem; line-height: 1.4 }
        table { border-collapse: collapse; margin: 0.5rem 0 }
        th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ccc; text-align: right }
        th:first-child, td:first-child, .text { text-align: left }
        svg { width: 100%; height: auto; margin: 1rem 0 }
        .note { color: #555 }
        """

    package var html: String {
        let name = report.name.markupEscaped
        let state = report.isComplete ? "" : "<p><b>Interrupted: what there was until then.</b></p>"
        let facts = report.facts.map { fact in
            "<tr><td>\(fact.name.markupEscaped)</td>"
                + "<td class=\"text\">\(fact.value.markupEscaped)</td></tr>"
        }
        let findings = report.findings.map { "<li>\($0.markupEscaped)</li>" }
        let tables = report.tables.filter { $0.isShown && !$0.rows.isEmpty }.map(\.html)
        let parts =
            [
                "<!DOCTYPE html>", "<html lang=\"en\"><head><meta charset=\"utf-8\">",
                "<title>\(name)</title>", "<style>\(Self.style)</style></head><body>",
                "<h1>\(name)</h1>", state, "<table>\(facts.joined())</table>",
                findings.isEmpty ? "" : "<ul>\(findings.joined())</ul>",
            ] + tables + plots.map(\.element) + ["</body></html>"]
        return parts.filter { !$0.isEmpty }.joined(separator: "\n") + "\n"
    }
}

extension ReportTable {
    var html: String {
        let head = columns.map { "<th>\($0.title.markupEscaped)</th>" }.joined()
        let body = rows.map { row in
            let cells = row.map { cell in
                let style = if case .text = cell { " class=\"text\"" } else { "" }
                return "<td\(style)>\(cell.text.markupEscaped)</td>"
            }
            return "<tr>\(cells.joined())</tr>"
        }
        return "<h2>\(title.markupEscaped)</h2>\n<table><thead><tr>\(head)</tr></thead><tbody>"
            + "\(body.joined(separator: "\n"))</tbody></table>"
            + (note.isEmpty ? "" : "\n<p class=\"note\">\(note.markupEscaped)</p>")
    }
}

extension String {
    /// With nothing that a browser would take for markup.
    var markupEscaped: String {
        var escaped = ""
        for character in self {
            switch character {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            default: escaped.append(character)
            }
        }
        return escaped
    }
}
