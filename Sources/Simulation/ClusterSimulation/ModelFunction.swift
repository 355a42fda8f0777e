package import ServingTypes

/// A language model whose next token is a hash of everything before it.
///
/// So the right answer is known beforehand, and one wrong, lost or doubled token changes all that
/// follow.
package enum ModelFunction {
    /// Ends an answer.
    package static let endToken: TokenID = 0

    /// One answer in sixteen tokens ends, on average.
    package static func nextToken(after tokens: [TokenID], seed: UInt64) -> TokenID {
        let hash = hash(of: tokens, seed: seed)
        return hash >> 60 == 0 ? endToken : TokenID(1 + (hash >> 8) % 30_000)
    }

    /// A number that depends on every token and its place.
    static func hash(of tokens: [TokenID], seed: UInt64 = 0) -> UInt64 {
        var hash = seed ^ 0xcbf2_9ce4_8422_2325
        for token in tokens {
            hash = (hash ^ UInt64(truncatingIfNeeded: token)) &* 0x0000_0100_0000_01b3
            hash ^= hash >> 29
        }
        return hash
    }

    /// The whole answer to a prompt and why it ends.
    package static func answer(
        to prompt: [TokenID], maximumNewTokens: Int, seed: UInt64
    ) -> (tokens: [TokenID], finish: FinishReason) {
        var tokens = prompt
        while tokens.count - prompt.count < maximumNewTokens {
            let token = nextToken(after: tokens, seed: seed)
            tokens.append(token)
            if token == endToken { return (Array(tokens[prompt.count...]), .stop) }
        }
        return (Array(tokens[prompt.count...]), .length)
    }
}
