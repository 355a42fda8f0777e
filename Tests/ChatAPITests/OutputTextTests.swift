import ChatAPI
import ServingTypes
import Testing

@Suite struct OutputTextTests {
    /// Text and end of a whole answer given as tokens.
    private func run(_ tokens: [[UInt8]], stops: [String] = []) -> (text: [UInt8], stopped: Int?) {
        var output = OutputText(stops: stops)
        var text: [UInt8] = []
        var stopped: Int?
        for token in tokens {
            let delta = output.append(token)
            text += delta.text.utf8
            stopped = stopped ?? delta.stoppedAfterTokens
        }
        let last = output.finish()
        text += last.text.utf8
        return (text, stopped ?? last.stoppedAfterTokens)
    }

    private func split(_ bytes: [UInt8], _ generator: inout SeededGenerator) -> [[UInt8]] {
        var tokens: [[UInt8]] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = min(rest.count, Int.random(in: 0...5, using: &generator))
            tokens.append(Array(rest.prefix(count)))
            rest = rest.dropFirst(count)
        }
        return tokens
    }

    /// The specification: decode everything, cut at the stop string that begins first.
    private func naive(_ bytes: [UInt8], stops: [String]) -> (text: [UInt8], stopEnd: Int?) {
        let text = Array(String(decoding: bytes, as: UTF8.self).utf8)
        for start in text.indices {
            let found = stops.map { Array($0.utf8) }.filter { text[start...].starts(with: $0) }
            if let stop = found.min(by: { $0.count < $1.count }) {
                return (Array(text[..<start]), start + stop.count)
            }
        }
        return (text, nil)
    }

    @Test func `any split of any bytes gives the text of the whole`() {
        let seed: UInt64 = 11
        var generator = SeededGenerator(seed: seed)
        let pieces: [[UInt8]] = [
            Array("a".utf8), Array("é".utf8), Array("€".utf8), Array("😀".utf8),
            Array("👩‍👩‍👧".utf8), Array("e\u{301}".utf8), [0x80], [0xC3], [0xE2, 0x82], [0xF0, 0x9F],
            [0xF0, 0x9F, 0x98], [0xED, 0xA0, 0x80], [0xE0, 0x80], [0xF5], [0xFF], [0xC0, 0xAF],
            [0xF4, 0x90], [0],
        ]
        for round in 0..<2000 {
            let bytes = (0..<Int.random(in: 0...12, using: &generator)).flatMap { _ in
                pieces.randomElement(using: &generator) ?? []
            }
            let whole = Array(String(decoding: bytes, as: UTF8.self).utf8)
            #expect(
                run(split(bytes, &generator)).text == whole,
                "seed \(seed), round \(round): \(bytes)")
        }
    }

    @Test func `stop strings cut as if the whole text had been searched`() {
        let seed: UInt64 = 12
        var generator = SeededGenerator(seed: seed)
        let letters = ["a", "b", "ab", "é", "€", "\u{FFFD}"]
        for round in 0..<4000 {
            func word(_ range: ClosedRange<Int>) -> String {
                (0..<Int.random(in: range, using: &generator)).map { _ in
                    letters.randomElement(using: &generator) ?? ""
                }.joined()
            }
            let stops = (0..<Int.random(in: 1...3, using: &generator)).map { _ in word(1...4) }
            var bytes = Array(word(0...12).utf8)
            if round.isMultiple(of: 3), !bytes.isEmpty { bytes.removeLast() }
            let tokens = split(bytes, &generator)
            let expected = naive(bytes, stops: stops)
            let result = run(tokens, stops: stops)
            let note: Comment = "seed \(seed), round \(round): \(bytes) \(stops)"
            #expect(result.text == expected.text, note)
            #expect((result.stopped == nil) == (expected.stopEnd == nil), note)
            if let stopEnd = expected.stopEnd, let stopped = result.stopped {
                // The named token is the first after which the stop string is in the text.
                func decoded(_ count: Int) -> Int {
                    let bytes = tokens.prefix(count).flatMap { $0 }
                    let whole = String(decoding: bytes, as: UTF8.self).utf8.count
                    return whole
                }
                #expect(decoded(stopped) >= stopEnd, note)
                if stopped > 1,
                    String(
                        validating: tokens.prefix(stopped - 1).flatMap { $0 },
                        as: UTF8.self) != nil
                {
                    #expect(decoded(stopped - 1) < stopEnd, note)
                }
            }
        }
    }

    @Test func `text appears as soon as it can't be part of a stop string`() {
        var output = OutputText(stops: ["</end>"])
        #expect(output.append(Array("a<".utf8)).text == "a")
        #expect(output.append(Array("/en".utf8)).text == "")
        #expect(output.append(Array("x".utf8)).text == "</enx")
        #expect(output.append(Array("b</".utf8)).text == "b")
        let last = output.append(Array("end>rest".utf8))
        #expect(last.text == "" && last.stoppedAfterTokens == 5)
        #expect(output.append(Array("more".utf8)).isEmpty)
        #expect(output.finish().isEmpty)
    }

    @Test func `an unfinished stop string is shown at the end`() {
        var output = OutputText(stops: ["stop"])
        #expect(output.append(Array("sto".utf8)).isEmpty)
        #expect(output.finish().text == "sto")
    }

    @Test func `a shorter stop inside a longer one that fails still stops`() {
        var output = OutputText(stops: ["abcd", "b"])
        #expect(output.append(Array("ab".utf8)).isEmpty)
        let delta = output.append(Array("x".utf8))
        #expect(delta.text == "a" && delta.stoppedAfterTokens == 1)
        output = OutputText(stops: ["abcd", "b"])
        _ = output.append(Array("ab".utf8))
        let end = output.finish()
        #expect(end.text == "a" && end.stoppedAfterTokens == 1)
    }

    @Test func `characters wait until they are whole`() {
        var output = OutputText()
        let bytes = Array("😀".utf8)
        for byte in bytes.dropLast() { #expect(output.append([byte]).text == "") }
        #expect(output.append([bytes[3]]).text == "😀")
        #expect(output.append([0xE2, 0x82]).text == "")
        #expect(output.finish().text == "\u{FFFD}")
    }

    private func entry(_ bytes: [UInt8]) -> OutputLogprob {
        OutputLogprob(token: TokenText(bytes: bytes, logprob: -1))
    }

    @Test func `log-probabilities come with the text of their tokens`() {
        var output = OutputText(stops: ["stop"])
        let tokens = ["a", "é", "st", "x", "", "s"].map { Array($0.utf8) }
        var deltas = tokens.map { output.append($0, logprob: entry($0)) }
        deltas.append(output.finish())
        #expect(deltas.map(\.text) == ["a", "é", "", "stx", "", "", "s"])
        #expect(
            deltas.map { $0.logprobs.map { String(decoding: $0.token.bytes, as: UTF8.self) } }
                == [["a"], ["é"], [], ["st", "x"], [""], [], ["s"]])
        #expect(deltas.flatMap { $0.logprobs.map(\.textOffset) } == [0, 1, 2, 4, 5, 5])
    }

    @Test func `log-probabilities of a character's parts come when it is whole`() {
        var output = OutputText()
        let bytes = Array("é".utf8)
        #expect(output.append([bytes[0]], logprob: entry([bytes[0]])).isEmpty)
        let delta = output.append([bytes[1]], logprob: entry([bytes[1]]))
        #expect(delta.text == "é" && delta.logprobs.map(\.textOffset) == [0, 0])
    }

    @Test func `log-probabilities of a stop string are left out`() {
        var output = OutputText(stops: ["END"])
        var kept: [OutputLogprob] = []
        var stopped: Int?
        for token in ["one", " twoE", "N", "D!"] {
            let delta = output.append(Array(token.utf8), logprob: entry(Array(token.utf8)))
            kept += delta.logprobs
            stopped = delta.stoppedAfterTokens
        }
        #expect(kept.map { String(decoding: $0.token.bytes, as: UTF8.self) } == ["one", " twoE"])
        #expect(stopped == 4)
    }

    @Test func `no entry is lost or doubled however the bytes are cut`() {
        let seed: UInt64 = 13
        var generator = SeededGenerator(seed: seed)
        let bytes = Array("añ€😀 stop sto€".utf8) + [0xE2, 0x82, 0x41, 0xFF]
        for _ in 0..<500 {
            let tokens = split(bytes, &generator)
            var output = OutputText(stops: ["stopped"])
            var entries: [[UInt8]] = []
            for token in tokens {
                entries += output.append(token, logprob: entry(token)).logprobs.map(\.token.bytes)
            }
            entries += output.finish().logprobs.map(\.token.bytes)
            #expect(entries == tokens, "seed \(seed)")
        }
    }
}
