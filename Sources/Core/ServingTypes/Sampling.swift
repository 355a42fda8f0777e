/// Index of a token in the model's vocabulary.
package typealias TokenID = Int32

/// How the next token is chosen from the logits.
///
/// The defaults choose the most likely token. The random number of output token `i` depends on
/// `seed` and `i` alone, so a request gives the same tokens wherever its parts run.
package struct SamplingParameters: Hashable, Sendable {
    /// 0 chooses the most likely token; range 0…2.
    package var temperature: Float = 0
    /// Keep the k most likely tokens; 0 keeps all.
    package var topK: Int32 = 0
    /// Keep the smallest set of tokens whose probabilities add up to this; range 0…1, 1 keeps all.
    package var topP: Float = 1
    /// Keep tokens at least this likely compared with the most likely one; range 0…1, 0 keeps all.
    package var minP: Float = 0
    /// Divides the logits of recent tokens; 1 is off.
    package var repeatPenalty: Float = 1
    /// How many recent tokens, prompt included, the penalties look at; 0 is off, -1 is all.
    package var penaltyWindowTokens: Int32 = 64
    /// Taken from a token's logit once per occurrence in the window; range -2…2.
    package var frequencyPenalty: Float = 0
    /// Taken from a token's logit if it occurs in the window; range -2…2.
    package var presencePenalty: Float = 0
    package var seed: UInt64 = 0
    /// Added to the logits of single tokens, sorted by token.
    package var logitBias: [LogitBias] = []
    /// How many alternatives to report per token; nil reports no log-probabilities at all.
    package var topLogprobs: Int?
    /// Go on after an end-of-generation token; for benchmarks.
    package var ignoresEndOfGeneration = false

    package init() {}

    package var isGreedy: Bool { temperature <= 0 }

    package var hasPenalties: Bool {
        penaltyWindowTokens != 0
            && (repeatPenalty != 1 || frequencyPenalty != 0 || presencePenalty != 0)
    }
}

/// A constant added to the logit of one token.
package struct LogitBias: Hashable, Sendable {
    package var token: TokenID
    package var bias: Float

    package init(token: TokenID, bias: Float) {
        self.token = token
        self.bias = bias
    }
}

/// A token and the natural logarithm of its probability under temperature 1.
package struct TokenLogprob: Hashable, Sendable {
    package var token: TokenID
    package var logprob: Float

    package init(token: TokenID, logprob: Float) {
        self.token = token
        self.logprob = logprob
    }
}

/// One sampled token.
package struct TokenOutput: Hashable, Sendable {
    package var token: TokenID
    /// Present if the request asked for log-probabilities.
    package var logprob: Float?
    /// The most likely tokens, most likely first, at most `SamplingParameters.topLogprobs`.
    package var alternatives: [TokenLogprob]

    package init(token: TokenID, logprob: Float? = nil, alternatives: [TokenLogprob] = []) {
        self.token = token
        self.logprob = logprob
        self.alternatives = alternatives
    }
}

/// Why a sequence ended.
package enum FinishReason: UInt8, Sendable {
    /// The model wrote an end-of-generation token or a stop string.
    case stop = 1
    /// The token limit was reached.
    case length = 2
}

/// A number in 0..<1 that depends on seed and output position alone (SplitMix64 finaliser).
///
/// Counter-based, so that every worker draws the same number for the same output token.
package func uniformNumber(seed: UInt64, outputIndex: Int) -> Double {
    var x = seed &+ (UInt64(truncatingIfNeeded: outputIndex) &+ 1) &* 0x9E37_79B9_7F4A_7C15
    for _ in 0..<2 {
        x = (x ^ (x >> 30)) &* 0xBF58_476D_1CE4_E5B9
        x = (x ^ (x >> 27)) &* 0x94D0_49BB_1331_11EB
        x ^= x >> 31
    }
    return Double(x >> 11) * 0x1p-53
}
