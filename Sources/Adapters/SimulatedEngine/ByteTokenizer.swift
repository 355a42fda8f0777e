import Foundation
package import InferenceEngine
package import ServingTypes

/// Tokens of the simulated engine: token 0…255 is that byte, 256 ends the text.
package struct ByteTokenizer: Tokenizer {
    package static let vocabulary = 257
    package static let endOfGeneration: TokenID = 256
    package static let defaultContextTokens = 32768
    /// Bytes the simulated engine writes: letters and spaces.
    package static let writtenBytes = Array("abcdefghijklmnopqrstuvwxyz      ".utf8)
    private static let endOfGenerationText = "<|end|>"

    package let modelName: String
    package let vocabularySize = Self.vocabulary
    package let contextTokens: Int

    package init(
        modelName: String = "simulated", contextTokens: Int = ByteTokenizer.defaultContextTokens
    ) {
        self.modelName = modelName
        self.contextTokens = contextTokens
    }

    package func tokenize(
        _ text: String, addsSpecial: Bool, parsesSpecial: Bool
    ) -> [TokenID] {
        guard parsesSpecial else { return text.utf8.map { TokenID($0) } }
        let parts = text.components(separatedBy: Self.endOfGenerationText)
        let tokens = parts.map { part in part.utf8.map { TokenID($0) } }
        return Array(tokens.joined(separator: [Self.endOfGeneration]))
    }

    package func bytes(of token: TokenID) -> [UInt8] {
        UInt8(exactly: token).map { [$0] } ?? []
    }

    package func isEndOfGeneration(_ token: TokenID) -> Bool { token == Self.endOfGeneration }

    package func prompt(forChat messages: [UInt8]) throws(TokenizerError) -> ChatPrompt {
        let decoded: [Message]
        do {
            decoded = try JSONDecoder().decode([Message].self, from: Data(messages))
        } catch {
            throw .templateRefused(reason: "messages need a role and a text: \(error)")
        }
        guard !decoded.isEmpty else { throw .templateRefused(reason: "there are no messages") }
        let lines = decoded.map { "\($0.role): \($0.content)\n" }
        return ChatPrompt(text: lines.joined() + "assistant: ")
    }

    private struct Message: Decodable {
        private enum Key: CodingKey { case role, content }
        private struct Part: Decodable { var text: String }

        var role: String
        var content: String

        /// The content is a text, a list of texts, or null.
        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: Key.self)
            role = try container.decode(String.self, forKey: .role)
            if let parts = try? container.decode([Part].self, forKey: .content) {
                content = parts.map(\.text).joined(separator: "\n")
            } else {
                content = try container.decodeIfPresent(String.self, forKey: .content) ?? ""
            }
        }
    }
}
