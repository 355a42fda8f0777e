/// A token as text and its log-probability.
package struct TokenText: Hashable, Sendable {
    /// Possibly a part of a character.
    package var bytes: [UInt8]
    package var logprob: Float

    package init(bytes: [UInt8], logprob: Float) {
        self.bytes = bytes
        self.logprob = logprob
    }

    var text: String { String(decoding: bytes, as: UTF8.self) }
}

/// What is reported about one output token when log-probabilities are wanted.
package struct OutputLogprob: Hashable, Sendable {
    package var token: TokenText
    /// Most likely first.
    package var alternatives: [TokenText]
    /// Unicode scalars of the output before the token.
    package var textOffset = 0

    package init(token: TokenText, alternatives: [TokenText] = []) {
        self.token = token
        self.alternatives = alternatives
    }
}

/// What a token adds to the visible output.
package struct OutputDelta: Hashable, Sendable {
    package var text = ""
    package var logprobs: [OutputLogprob] = []
    /// Set when a stop string was found, after which nothing follows.
    ///
    /// How many tokens were used, the one that completed the stop string included.
    package var stoppedAfterTokens: Int?

    package init() {}

    package var isEmpty: Bool { text.isEmpty && logprobs.isEmpty && stoppedAfterTokens == nil }
}

/// Turns the bytes of one answer's tokens into text: whole characters only, up to a stop string.
///
/// The text does not depend on how the bytes are cut into tokens. Bytes that are not UTF-8 become
/// U+FFFD. Text that may turn out to belong to a stop string is held back; a stop string itself is
/// never shown. Holds at most the longest stop string and one token.
package struct OutputText: Sendable {
    /// A token whose text has not been shown completely.
    private struct OpenToken {
        /// Bytes of text before the token.
        var start: Int
        /// Bytes of text up to its end; nil while its last character is incomplete.
        var end: Int?
        var logprob: OutputLogprob?
    }

    private var stops: StopStrings
    /// The bytes of an incomplete character.
    private var partialCharacter: [UInt8] = []
    /// Bytes of text that were shown.
    private var shownBytes = 0
    /// Text that was not shown yet.
    private var held: [UInt8] = []
    private var scalars = 0
    private var openTokens: [OpenToken] = []
    private var openTokensStart = 0
    private var isClosed = false

    /// - Parameter stops: none of them empty.
    package init(stops: [String] = []) { self.stops = StopStrings(stops) }

    /// Adds one token; nothing happens after a stop string or `finish`.
    package mutating func append(
        _ bytes: [UInt8], logprob: OutputLogprob? = nil
    ) -> OutputDelta {
        guard !isClosed else { return OutputDelta() }
        var token = OpenToken(start: shownBytes + held.count, logprob: logprob)
        token.logprob?.textOffset = scalars
        openTokens.append(token)
        decode(partialCharacter + bytes)
        if partialCharacter.isEmpty { closeTokens() }
        return show(isLast: false)
    }

    /// Shows what was held back; the model writes no more.
    package mutating func finish() -> OutputDelta {
        guard !isClosed else { return OutputDelta() }
        addText(partialCharacter)
        partialCharacter = []
        closeTokens()
        let delta = show(isLast: true)
        isClosed = true
        return delta
    }

    private mutating func decode(_ bytes: [UInt8]) {
        let complete = bytes.count - Self.incompleteTail(bytes)
        if complete > 0, openTokens.count > 1 {
            // The character that earlier tokens began ends in this one.
            let previous = openTokens.removeLast()
            let first = String(decoding: bytes[..<complete], as: UTF8.self).unicodeScalars.first
            let firstBytes = first.map { UTF8.encode($0)?.count ?? 0 } ?? 0
            closeTokens(at: shownBytes + held.count + firstBytes)
            openTokens.append(previous)
        }
        addText(bytes[..<complete])
        partialCharacter = Array(bytes[complete...])
    }

    private mutating func addText(_ bytes: some Collection<UInt8>) {
        guard !bytes.isEmpty else { return }
        let text = String(decoding: bytes, as: UTF8.self)
        scalars += text.unicodeScalars.count
        held.append(contentsOf: text.utf8)
    }

    private mutating func closeTokens(at end: Int? = nil) {
        let end = end ?? shownBytes + held.count
        var index = openTokens.count
        while index > 0, openTokens[index - 1].end == nil {
            index -= 1
            openTokens[index].end = end
        }
    }

    /// Moves text from `held` to the delta as far as no stop string can begin in it.
    private mutating func show(isLast: Bool) -> OutputDelta {
        var delta = OutputDelta()
        let finding = stops.search(held, isLast: isLast)
        delta.text = String(decoding: held[..<finding.shown], as: UTF8.self)
        shownBytes += finding.shown
        if let stopEnd = finding.stopEnd {
            let end = shownBytes - finding.shown + stopEnd
            let usedOpen = openTokens.firstIndex { ($0.end ?? .max) >= end } ?? openTokens.count - 1
            delta.stoppedAfterTokens = openTokensStart + usedOpen + 1
            delta.logprobs = openTokens.prefix { $0.start < shownBytes }.compactMap(\.logprob)
            isClosed = true
            held = []
            openTokens = []
            return delta
        }
        held.removeFirst(finding.shown)
        let closed = openTokens.prefix { $0.end.map { $0 <= shownBytes } ?? false }
        delta.logprobs = closed.compactMap(\.logprob)
        openTokensStart += closed.count
        openTokens.removeFirst(closed.count)
        return delta
    }

    /// How many bytes at the end are the beginning of a character that may still become valid.
    static func incompleteTail(_ bytes: [UInt8]) -> Int {
        for length in 1...3 where length <= bytes.count {
            let tail = bytes[(bytes.count - length)...]
            guard let lead = tail.first, lead & 0xC0 != 0x80 else { continue }
            guard length < expectedLength(lead) else { return 0 }
            guard let second = tail.dropFirst().first else { return length }
            return secondBytes(lead).contains(second) ? length : 0
        }
        return 0
    }

    private static func expectedLength(_ lead: UInt8) -> Int {
        switch lead {
        case 0xC2...0xDF: 2
        case 0xE0...0xEF: 3
        case 0xF0...0xF4: 4
        default: 0
        }
    }

    /// Second bytes that the Unicode standard allows after a lead byte (table 3-7).
    private static func secondBytes(_ lead: UInt8) -> ClosedRange<UInt8> {
        switch lead {
        case 0xE0: 0xA0...0xBF
        case 0xED: 0x80...0x9F
        case 0xF0: 0x90...0xBF
        case 0xF4: 0x80...0x8F
        default: 0x80...0xBF
        }
    }
}
