import Foundation
import LlamaEngine
import ServingTypes

/// Prompts without meaning: tokens by chance, so that no prompt begins like another.
struct HandOverPrompts: Sendable {
    private let tokens: [TokenID]
    private var generator: SeededGenerator

    /// - Parameter seed: equal seeds give equal prompts.
    init(_ tokenizer: LlamaTokenizer, seed: UInt64) throws(MeasurementError) {
        let all = (0..<TokenID(clamping: tokenizer.vocabularySize)).filter { token in
            let bytes = tokenizer.bytes(of: token)
            return !bytes.isEmpty && bytes.allSatisfy { (0x20..<0x7f).contains($0) }
        }
        guard !all.isEmpty else {
            throw .unexpectedAnswer(status: 0, body: "the vocabulary has no plain text")
        }
        tokens = all
        generator = SeededGenerator(seed: seed)
    }

    /// The token of every answer: it has text of its own, so that each one is seen at once.
    var answer: TokenID { tokens[0] }

    mutating func next(_ count: Int) -> [TokenID] {
        (0..<count).map { _ in tokens[Int.random(in: 0..<tokens.count, using: &generator)] }
    }
}

extension CompletionClient {
    private struct Event: Decodable {
        struct Choice: Decodable {
            var text: String
        }
        var choices: [Choice]
    }

    /// When each token of an answer of the same token all over was there.
    func tokenTimes(
        _ prompt: [TokenID], answer token: TokenID, newTokens: Int
    ) async throws -> [Duration] {
        let body = Self.body(prompt, newTokens: newTokens, isStreamed: true, always: token)
        let answer = try await connection.call("POST", Self.path, body: body)
        guard answer.status == 200 else { throw Self.unexpected(answer) }
        var times: [Duration] = []
        for (data, time) in answer.events where data.first == UInt8(ascii: "{") {
            let event = try? JSONDecoder().decode(Event.self, from: Data(data))
            guard let choice = event?.choices.first else { throw Self.unexpected(answer) }
            if !choice.text.isEmpty { times.append(time) }
        }
        return times
    }
}
