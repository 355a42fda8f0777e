/// Rules about how long things are.
let sizeRules: [Rule] = [
    Rule(
        description: "lines have at most \(Sizes.columns) columns",
        check: { file, _ in
            guard !file.isGenerated else { return [] }
            return file.lines.indices.compactMap { index in
                let columns = file.lines[index].count
                return columns > Sizes.columns
                    ? file.finding(line: index, "\(columns) columns") : nil
            }
        },
        bad: [.init(text: "let a = 1\n" + String(repeating: "x", count: Sizes.columns + 1))],
        good: [.init(text: String(repeating: "é", count: Sizes.columns))]),
    Rule(
        description: "files have at most \(Sizes.fileLines) lines",
        check: { file, _ in
            guard !file.isGenerated, file.lines.count > Sizes.fileLines else { return [] }
            return [file.finding(line: Sizes.fileLines, "\(file.lines.count) lines")]
        },
        bad: [.init(text: String(repeating: "\n", count: Sizes.fileLines + 1))],
        good: [
            .init(text: String(repeating: "\n", count: Sizes.fileLines)),
            .init(
                path: "Sources/CLibraries/CWireMessages/pdserve.pb-c.c",
                text: String(repeating: "\n", count: Sizes.fileLines + 1)),
        ]),
    Rule(
        description: "functions have at most \(Sizes.functionLines) lines",
        check: { file, _ in
            guard file.isSwift else { return [] }
            return functions(in: file.code).filter { $0.lineCount > Sizes.functionLines }
                .map { file.finding(line: $0.line, "\($0.lineCount) lines from here on") }
        },
        bad: [
            .init(text: functionSample("func long()", lines: Sizes.functionLines + 1)),
            .init(text: functionSample("init?(_ x: [Int])", lines: Sizes.functionLines + 1)),
            .init(
                text: functionSample(
                    "func long(\n_ body: () -> Void = { }\n) -> [Int]",
                    lines: Sizes.functionLines + 1)),
        ],
        good: [
            .init(text: functionSample("func long()", lines: Sizes.functionLines)),
            .init(
                text: "protocol P {\nfunc a()\nvar b: Int { get }\n}\n"
                    + "struct S {\n" + String(repeating: "\n", count: Sizes.functionLines) + "}"),
        ]),
]

/// How long things may be.
private enum Sizes {
    static let columns = 100
    static let fileLines = 500
    static let functionLines = 60
}

private func functionSample(_ head: String, lines: Int) -> String {
    let headLines = head.split(separator: "\n").count
    return head + " {\n" + String(repeating: "print(\"}\")\n", count: lines - headLines - 1) + "}"
}

/// Where a function starts, counted from 0, and how many lines it has, both ends included.
private struct FunctionExtent {
    var line: Int
    var lineCount: Int
}

/// Functions with a body, found by counting braces.
private func functions(in code: [String]) -> [FunctionExtent] {
    let lines = code.map { Array($0.utf8) }
    var extents: [FunctionExtent] = []
    for line in lines.indices {
        for keyword in ["func", "init", "deinit", "subscript"]
        where Word(text: keyword, asMember: false).occurs(in: code[line]) {
            guard let last = lastLine(ofFunctionAt: line, in: lines) else { continue }
            extents.append(FunctionExtent(line: line, lineCount: last - line + 1))
            break
        }
    }
    return extents
}

/// The line with the brace that ends a function's body; nil if it has no body.
private func lastLine(ofFunctionAt first: Int, in lines: [[UInt8]]) -> Int? {
    var parentheses = 0
    var braces = 0
    for line in first..<lines.count {
        // A requirement of a protocol ends where the next line does not go on with it.
        if line > first, braces == 0, parentheses == 0, !goesOn(lines[line]) { return nil }
        for byte in lines[line] {
            switch byte {
            case UInt8(ascii: "("), UInt8(ascii: "["): parentheses += braces == 0 ? 1 : 0
            case UInt8(ascii: ")"), UInt8(ascii: "]"): parentheses -= braces == 0 ? 1 : 0
            case UInt8(ascii: "{") where parentheses == 0: braces += 1
            case UInt8(ascii: "}") where parentheses == 0:
                braces -= 1
                if braces == 0 { return line }
                if braces < 0 { return nil }
            default: break
            }
        }
    }
    return nil
}

/// Whether a line can be a later part of a function's head.
private func goesOn(_ line: [UInt8]) -> Bool {
    let text = String(decoding: line.drop { $0 == UInt8(ascii: " ") }, as: UTF8.self)
    return ["{", ")", "->", "throws", "async", "where", "rethrows"].contains(where: text.hasPrefix)
}
