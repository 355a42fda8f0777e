/// One rule of the tree, with samples that show what breaks it.
struct Rule: Sendable, CustomStringConvertible {
    struct Sample: Sendable {
        var path = "Sources/Services/GatewayService/Sample.swift"
        var text: String
    }

    /// What holds in the whole tree.
    let description: String
    let check: @Sendable (SourceFile, Manifest) -> [Finding]
    /// Each of these breaks the rule.
    let bad: [Sample]
    /// None of these breaks it.
    let good: [Sample]

    static let all = sizeRules + wordRules + importRules
}

/// A piece of code that must not occur.
struct Word: Sendable {
    let text: String
    /// Whether it counts after a dot, as a member of something else.
    var asMember = true

    /// Whether the line has it, not as a part of a longer name.
    func occurs(in line: String) -> Bool {
        let line = Array(line.utf8)
        let word = Array(text.utf8)
        guard let first = word.first, let last = word.last, line.count >= word.count else {
            return false
        }
        return line.indices.dropLast(word.count - 1).contains { start in
            guard line[start] == first, line[start..<(start + word.count)].elementsEqual(word)
            else { return false }
            let before = start > 0 ? line[start - 1] : 0
            let after = start + word.count < line.count ? line[start + word.count] : 0
            if first.isNameByte, before.isNameByte { return false }
            if last.isNameByte, after.isNameByte { return false }
            return asMember || before != UInt8(ascii: ".")
        }
    }
}

extension UInt8 {
    /// Whether it can be a byte of a Swift name.
    var isNameByte: Bool {
        switch self {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), 0x80...:
            true
        default: false
        }
    }
}
