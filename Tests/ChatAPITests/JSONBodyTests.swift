import ChatAPI
import ServingTypes
import Testing

/// What counts as JSON, seen through the only door that bytes come in by.
@Suite struct JSONBodyTests {
    private func error(_ body: String) -> APIError? { error(Array(body.utf8)) }

    private func error(_ body: [UInt8]) -> APIError? {
        failure { () throws(APIError) in
            try GenerationRequest(parsing: body, endpoint: .completion)
        }
    }

    @Test(arguments: [
        "", " ", "{", "}", "{]", "[", "nul", "truefalse", "{\"prompt\"}", "{\"prompt\":}",
        "{\"prompt\":\"x\",}", "{\"prompt\":\"x\"} x", "{prompt:1}", "{'prompt':1}",
        "{\"prompt\":[1,]}", "{\"prompt\":[,1]}", "{\"prompt\":[1 2]}", "{\"prompt\":01}",
        "{\"prompt\":[01]}", "{\"prompt\":1.}", "{\"prompt\":.5}", "{\"prompt\":-}",
        "{\"prompt\":[-]}", "{\"prompt\":1e}", "{\"prompt\":+1}", "{\"prompt\":1e999}",
        "{\"prompt\":NaN}", "{\"prompt\":Infinity}", "{\"prompt\":\"\u{1}\"}",
        "{\"prompt\":\"a\nb\"}", "{\"prompt\":\"\\x\"}", "{\"prompt\":\"\\u12\"}",
        "{\"prompt\":\"\\u12G4\"}", "{\"prompt\":\"\\ud83d\"}", "{\"prompt\":\"\\ude00\"}",
        "{\"prompt\":\"\\ud83d\\u0041\"}", "{\"prompt\":\"x", "{\"prompt\":\"x\\",
        "{\"prompt\":\"x\",\"prompt\":\"y\"}", "{\"a\":1,\"\\u0061\":2,\"prompt\":\"x\"}",
        "/* c */ {}", "{\"prompt\":\"x\"}\u{0}",
    ]) func `text that is not JSON is refused`(body: String) {
        #expect(error(body)?.code == "invalid_json", "\(body)")
    }

    @Test func `bytes that are not UTF-8 are refused`() {
        let tails: [[UInt8]] = [
            [0x80], [0xC0, 0x80], [0xE0, 0x80, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80],
            [0xE2, 0x82],
        ]
        for tail in tails {
            let body = Array("{\"prompt\":\"".utf8) + tail + Array("\"}".utf8)
            #expect(error(body)?.code == "invalid_json", "\(tail)")
        }
        let key = Array("{\"".utf8) + [0xFF] + Array("\":1}".utf8)
        #expect(error(key)?.code == "invalid_json")
    }

    @Test func `the place of a mistake is told`() {
        #expect(
            error("{\"prompt\": nope}")?.message
                == "The body is not valid JSON: a value was expected, at byte 11.")
        #expect(
            error("{\"prompt\": ")?.message
                == "The body is not valid JSON: the text ends too early, at byte 11.")
    }

    @Test func `anything but an object is refused`() {
        for body in ["[]", "1", "\"x\"", "null", "[1,2]", "true"] {
            #expect(error(body)?.code == "invalid_type", "\(body)")
        }
    }

    @Test func `deep nesting neither crashes nor passes`() {
        for opening in ["[", "{\"a\":", "[[1],"] {
            let body = String(repeating: opening, count: 100_000)
            #expect(error(body)?.code == "invalid_json")
            #expect(error("{\"prompt\":\"x\",\"y\":" + body)?.code == "invalid_json")
        }
    }

    @Test func `nesting within the bound passes`() {
        let deep = String(repeating: "[", count: 63) + String(repeating: "]", count: 63)
        #expect(error("{\"prompt\":\"x\",\"y\":\(deep)}") == nil)
        #expect(error("{\"prompt\":\"x\",\"y\":[\(deep)]}")?.code == "invalid_json")
    }

    @Test func `too many values are refused, many tokens are not`() throws {
        let strings = Array(repeating: "\"\"", count: APILimits.values).joined(separator: ",")
        #expect(error("{\"prompt\":\"x\",\"y\":[\(strings)]}")?.code == "invalid_json")
        let tokens = Array(repeating: "7", count: 300_000).joined(separator: ",")
        #expect(
            try completion("\"prompt\":[\(tokens)]").input
                == .prompts([.tokens(Array(repeating: 7, count: 300_000))]))
    }

    @Test func `escapes and all planes are read`() throws {
        let json = #""\"\\\/\b\f\n\r\t\u0041\u00e9\u20ac\ud83d\ude00\u0000é€😀\uFFFF""#
        #expect(
            try completion("\"prompt\":\(json)").input
                == .prompts([
                    .text("\"\\/\u{8}\u{c}\n\r\tAé€😀\u{0}é€😀\u{FFFF}")
                ]))
    }

    @Test func `white space and a byte order mark are skipped`() {
        #expect(error("\u{FEFF} \t\r\n{ \"prompt\" : \"x\" } \n") == nil)
    }

    @Test func `a damaged body gives an error or a request, never a crash`() {
        let seed: UInt64 = 0x5EED
        var generator = SeededGenerator(seed: seed)
        let body = Array(
            #"{"prompt":[[1,2],"a\u00e9😀"],"stop":["x"],"logit_bias":{"1":-1.5e1},"n":2}"#.utf8)
        for _ in 0..<3000 {
            var damaged = body
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let index = Int.random(in: damaged.indices, using: &generator)
                switch Int.random(in: 0..<3, using: &generator) {
                case 0: damaged[index] = UInt8.random(in: 0...255, using: &generator)
                case 1: damaged.remove(at: index)
                default: damaged.insert(damaged[index], at: index)
                }
            }
            if let error = error(damaged) { #expect(error.status == 400, "seed \(seed)") }
        }
    }
}
