package import ServingTypes

/// Turns text into tokens and back, and a conversation into a prompt, for one model.
package protocol Tokenizer: Sendable {
    var modelName: String { get }
    var vocabularySize: Int { get }
    /// The model's own limit of tokens in one sequence.
    var contextTokens: Int { get }

    /// Tokens of a text.
    ///
    /// - Parameters:
    ///   - addsSpecial: adds the tokens the model wants at the start, such as BOS.
    ///   - parsesSpecial: reads the text of control tokens as these tokens.
    func tokenize(_ text: String, addsSpecial: Bool, parsesSpecial: Bool) -> [TokenID]

    /// Bytes of one token; possibly a part of a character. Empty for control tokens.
    func bytes(of token: TokenID) -> [UInt8]

    func isEndOfGeneration(_ token: TokenID) -> Bool

    /// The prompt for a conversation by the model's chat template.
    ///
    /// - Parameters:
    ///   - messages: UTF-8 JSON: the `messages` array of a chat completion request.
    func prompt(forChat messages: [UInt8]) throws(TokenizerError) -> ChatPrompt
}

/// A conversation as the model wants to read it.
package struct ChatPrompt: Sendable, Hashable {
    package var text: String
    /// Strings besides the end-of-generation tokens that end the answer.
    package var stops: [String]

    package init(text: String, stops: [String] = []) {
        self.text = text
        self.stops = stops
    }
}

/// Why a conversation could not become a prompt.
package enum TokenizerError: Error, Hashable, Sendable {
    /// The template refused the messages; the gateway answers 400 with the reason.
    case templateRefused(reason: String)
}
