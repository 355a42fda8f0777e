import Foundation
import InferenceEngine
import LlamaEngine
import ServingTypes
import Testing

@Suite struct TokenizerTests {
    private let tokenizer: LlamaTokenizer

    init() throws { tokenizer = try TinyModel.tokenizer.get() }

    private func text(_ tokens: [TokenID]) -> String {
        String(decoding: tokens.flatMap { tokenizer.bytes(of: $0) }, as: UTF8.self)
    }

    @Test(arguments: [
        "", "a", "Hello, world!", "naïve Grüße, 日本語 🤷🏽‍♀️", "line\nline\r\n\tend ", "a\0b\0",
        "\u{FEFF}\u{200B}\u{0}",
    ])
    func `text comes back from its tokens`(original: String) {
        let tokens = tokenizer.tokenize(original, addsSpecial: false, parsesSpecial: false)
        #expect(text(tokens) == original)
    }

    @Test func `a megabyte of text comes back, also without a space`() {
        let words = String(repeating: "generator objects yield values\n", count: 33_000)
        let word = String(repeating: "abcdefgh", count: 125_000)
        for original in [words, word] {
            let tokens = tokenizer.tokenize(original, addsSpecial: true, parsesSpecial: true)
            #expect(tokens.count > 10_000)
            #expect(text(tokens) == original)
        }
    }

    @Test func `control tokens are read only when asked and have no text`() throws {
        let name = "<|im_end|>"
        let parsed = tokenizer.tokenize(name, addsSpecial: false, parsesSpecial: true)
        let token = try #require(parsed.first)
        #expect(parsed.count == 1)
        #expect(tokenizer.bytes(of: token).isEmpty)
        #expect(tokenizer.isEndOfGeneration(token))
        let plain = tokenizer.tokenize(name, addsSpecial: false, parsesSpecial: false)
        #expect(plain.count > 1)
        #expect(text(plain) == name)
    }

    @Test func `tokens outside the vocabulary are harmless`() {
        for token: TokenID in [-1, 2048, .max, .min] {
            #expect(tokenizer.bytes(of: token).isEmpty)
            #expect(!tokenizer.isEndOfGeneration(token))
        }
    }

    @Test func `the model's numbers are known without its weights`() {
        #expect(tokenizer.modelName == "tiny-pydoc-chat")
        #expect(tokenizer.vocabularySize == 2048)
        #expect(tokenizer.contextTokens == 2048)
    }

    @Test func `a conversation becomes a prompt by the model's template`() throws {
        let messages = """
            [{"role": "system", "content": "Be brief."},
             {"role": "user", "content": [{"type": "text", "text": "Explain\\u0000 generators."}]}]
            """
        let prompt = try tokenizer.prompt(forChat: Array(messages.utf8))
        #expect(
            prompt.text == """
                <|im_start|>system
                Be brief.<|im_end|>
                <|im_start|>user
                Explain\0 generators.<|im_end|>
                <|im_start|>assistant

                """)
    }

    @Test(arguments: [
        "", "{}", "[]", "[1]", "[{}]", #"[{"role": 1, "content": "x"}]"#, "[{\"role\": \"us",
        #"[{"role": "user"}]"#, "null", "[{\"role\":\"user\",\"content\":\"\u{0}\"}]",
        String(repeating: "[", count: 100_000),
    ])
    func `messages that can't be read are refused`(messages: String) {
        let error = #expect(throws: TokenizerError.self) {
            _ = try tokenizer.prompt(forChat: Array(messages.utf8))
        }
        guard case .templateRefused(let reason) = error else { return }
        #expect(!reason.isEmpty)
    }

    @Test func `bytes that are not UTF-8 are refused`() {
        var messages = Array(#"[{"role": "user", "content": "x"}]"#.utf8)
        messages[messages.count - 4] = 0xff
        #expect(throws: TokenizerError.self) { _ = try tokenizer.prompt(forChat: messages) }
    }

    @Test func `many threads tokenise at once`() async {
        let text = "The yield statement is only used when defining a generator function."
        let expected = tokenizer.tokenize(text, addsSpecial: false, parsesSpecial: false)
        let message = Array(#"[{"role": "user", "content": "Hi"}]"#.utf8)
        await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    (0..<20).allSatisfy { _ in
                        tokenizer.tokenize(text, addsSpecial: false, parsesSpecial: false)
                            == expected && (try? tokenizer.prompt(forChat: message)) != nil
                    }
                }
            }
            for await isEqual in group { #expect(isEqual) }
        }
    }

    @Test func `the host's devices are known`() throws {
        let devices = readDevices()
        let processor = try #require(devices.first { $0.kind == "CPU" })
        #expect(!processor.name.isEmpty)
        #expect(processor.totalMemoryBytes > 0)
    }
}
