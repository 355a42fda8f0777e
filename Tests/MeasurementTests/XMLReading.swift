/// Whether a text is well-formed XML, as far as plots need it.
///
/// Foundation's parser repairs what is wrong instead of refusing it.
enum XMLReading {
    /// What is wrong with tags, quotes and references; nil if nothing is.
    static func problem(of text: String) -> String? {
        var open: [Substring] = []
        var hadRoot = false
        for (index, part) in text.split(separator: "<", omittingEmptySubsequences: false)
            .enumerated()
        {
            if index == 0 {
                if !part.isEmpty { return "text before the first tag" }
                continue
            }
            guard let end = part.firstIndex(of: ">") else { return "no end: <\(part)" }
            let tag = part[..<end]
            let content = part[part.index(after: end)...]
            if content.contains(">") { return "a bare >: \(content)" }
            for reference in content.split(separator: "&", omittingEmptySubsequences: false)
                .dropFirst()
            where !["amp;", "lt;", "gt;"].contains(where: reference.hasPrefix) {
                return "a bare &: \(content)"
            }
            if tag.hasPrefix("?") { continue }
            if tag.count(where: { $0 == "\"" }) % 2 == 1 { return "an open quote: \(tag)" }
            let name = tag.drop { $0 == "/" }.prefix { $0 != " " && $0 != "/" }
            if tag.hasPrefix("/") {
                guard open.popLast() == name else { return "\(tag) ends another element" }
            } else {
                if open.isEmpty, hadRoot { return "a second root: \(tag)" }
                hadRoot = true
                if !tag.hasSuffix("/") { open.append(name) }
            }
        }
        return open.isEmpty && hadRoot ? nil : "not closed: \(open)"
    }
}
