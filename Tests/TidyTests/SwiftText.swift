/// Replaces what is no code in Swift text by spaces, so that rules see code only.
///
/// Strings, extended regular expressions and names in backticks lose their contents; code inside
/// string interpolations stays. Lines and columns stay where they are.
struct SwiftText {
    private static let newline = UInt8(ascii: "\n")
    private static let space = UInt8(ascii: " ")
    private static let quote = UInt8(ascii: "\"")
    private static let backslash = UInt8(ascii: "\\")
    private static let hash = UInt8(ascii: "#")
    private static let slash = UInt8(ascii: "/")
    private static let star = UInt8(ascii: "*")
    private static let backtick = UInt8(ascii: "`")

    private let bytes: [UInt8]
    private let keepsComments: Bool
    private var output: [UInt8]
    private var position = 0

    private init(_ text: String, keepsComments: Bool) {
        bytes = Array(text.utf8)
        self.keepsComments = keepsComments
        output = bytes
    }

    static func code(of text: String, keepingComments: Bool = false) -> String {
        var scanner = SwiftText(text, keepsComments: keepingComments)
        while scanner.position < scanner.bytes.count { scanner.scanCode() }
        return String(decoding: scanner.output, as: UTF8.self)
    }

    /// Goes over code up to the end, or over the closing parenthesis that nothing here opened.
    private mutating func scanCode() {
        var depth = 0
        while position < bytes.count {
            switch bytes[position] {
            case Self.slash where byte(at: 1) == Self.slash: scanLineComment()
            case Self.slash where byte(at: 1) == Self.star: scanBlockComment()
            case Self.quote, Self.hash: scanLiteral()
            case Self.backtick: scanBackticks()
            case UInt8(ascii: "("):
                depth += 1
                position += 1
            case UInt8(ascii: ")"):
                position += 1
                guard depth > 0 else { return }
                depth -= 1
            default: position += 1
            }
        }
    }

    private func byte(at offset: Int) -> UInt8 {
        position + offset < bytes.count ? bytes[position + offset] : 0
    }

    /// Steps over bytes that are no code.
    private mutating func skip(_ count: Int = 1, isComment: Bool = false) {
        for _ in 0..<count where position < bytes.count {
            if bytes[position] != Self.newline, !(isComment && keepsComments) {
                output[position] = Self.space
            }
            position += 1
        }
    }

    private mutating func scanLineComment() {
        while position < bytes.count, bytes[position] != Self.newline { skip(isComment: true) }
    }

    private mutating func scanBlockComment() {
        var depth = 0
        repeat {
            if bytes[position] == Self.slash, byte(at: 1) == Self.star {
                depth += 1
                skip(2, isComment: true)
            } else if bytes[position] == Self.star, byte(at: 1) == Self.slash {
                depth -= 1
                skip(2, isComment: true)
            } else {
                skip(isComment: true)
            }
        } while depth > 0 && position < bytes.count
    }

    private mutating func scanBackticks() {
        position += 1
        while position < bytes.count, bytes[position] != Self.backtick,
            bytes[position] != Self.newline
        { skip() }
        position += 1
    }

    /// A string or an extended regular expression; anything else after `#` is code.
    private mutating func scanLiteral() {
        var hashes = 0
        while byte(at: hashes) == Self.hash { hashes += 1 }
        let mark = byte(at: hashes)
        guard mark == Self.quote || hashes > 0 && mark == Self.slash else {
            position += max(hashes, 1)
            return
        }
        position += hashes
        let isLong = mark == Self.quote && byte(at: 1) == mark && byte(at: 2) == mark
        let marks = isLong ? 3 : 1
        position += marks
        while position < bytes.count, !closes(mark, marks: marks, hashes: hashes) {
            if mark == Self.quote, !isLong, bytes[position] == Self.newline { return }
            let isEscape =
                bytes[position] == Self.backslash
                && (1..<(1 + hashes)).allSatisfy { byte(at: $0) == Self.hash }
            if mark == Self.quote, isEscape, byte(at: 1 + hashes) == UInt8(ascii: "(") {
                position += 2 + hashes
                scanCode()
            } else {
                skip(isEscape && hashes == 0 ? 2 : 1)
            }
        }
        position += marks + hashes
    }

    private func closes(_ mark: UInt8, marks: Int, hashes: Int) -> Bool {
        (0..<marks).allSatisfy { byte(at: $0) == mark }
            && (marks..<(marks + hashes)).allSatisfy { byte(at: $0) == Self.hash }
    }
}
