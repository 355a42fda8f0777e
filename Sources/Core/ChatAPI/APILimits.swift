/// Bounds of what a client may ask for; whatever lies outside is answered with 400.
package enum APILimits {
    /// Arrays and objects inside each other.
    package static let nestingDepth = 64
    /// Values in one body, arrays of whole numbers not counted.
    package static let values = 262_144
    /// Whole numbers in one array: the longest prompt given as tokens.
    package static let integersPerArray = 2_097_152
    /// Bytes of one number's text.
    package static let numberBytes = 64

    package static let choicesPerPrompt = 16
    package static let promptsPerRequest = 64
    /// Prompts times choices.
    package static let choicesPerRequest = 128
    package static let messages = 16_384
    package static let stopStrings = 16
    package static let stopStringBytes = 256
    package static let logitBiasEntries = 1024
    package static let topLogprobs = 20
    package static let modelNameBytes = 256
    /// Characters of a request's text that a scenario's rule may look at.
    package static let beginningCharacters = 512
    /// Bytes of a client's value that an error message repeats.
    package static let quotedBytes = 64
}

/// Values for what a client leaves out, as OpenAI documents them.
package enum APIDefaults {
    package static let temperature: Float = 1
    package static let topP: Float = 1
    package static let minP: Float = 0
    package static let topK: Int32 = 0
}
