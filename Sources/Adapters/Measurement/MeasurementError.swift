/// Why a benchmark could not go on; the person reads it.
package enum MeasurementError: Error, Sendable, CustomStringConvertible {
    case answerTooLarge(limitBytes: Int)
    /// An answer with another status, or that was not complete.
    case unexpectedAnswer(status: Int, body: String)
    case connectionLost(request: String, String)
    case promptTooLong(tokens: Int, contextTokens: Int)

    package var description: String {
        switch self {
        case .answerTooLarge(let limit): "an answer has more than \(limit) bytes"
        case .unexpectedAnswer(let status, let body): "the gateway answered \(status): \(body)"
        case .connectionLost(let request, let reason):
            "the connection was lost during \(request): \(reason)"
        case .promptTooLong(let tokens, let context):
            "\(tokens) tokens of prompt and output exceed the model's context of \(context)"
        }
    }
}
