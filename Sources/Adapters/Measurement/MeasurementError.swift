/// Why a benchmark could not go on; the person reads it.
package enum MeasurementError: Error, Sendable, CustomStringConvertible {
    case answerTooLarge(limitBytes: Int)
    /// An answer with another status, or that was not complete.
    case unexpectedAnswer(status: Int, body: String)
    /// The workers' metrics don't show one transfer, and nothing else, for one request.
    case notOneTransfer(String)
    case connectionLost(request: String, String)
    case promptTooLong(tokens: Int, contextTokens: Int)
    /// Real KV that is repeated within what a codec looks at would be compressed too well.
    case kvTooSmall(bytes: Int, neededBytes: Int)
    /// The second process of `benchmark kv` does not do its part.
    case receiverLost(String)
    case transferFailed(String)
    /// A cluster of this size does not do what it should.
    case notReached(instances: Int, String)
    case peerArgument(String, problem: String)
    /// Another program's line that looks like a result.
    case peerOutput(String)

    package var description: String {
        switch self {
        case .answerTooLarge(let limit): "an answer has more than \(limit) bytes"
        case .unexpectedAnswer(let status, let body): "the gateway answered \(status): \(body)"
        case .notOneTransfer(let found):
            "one request should have made one KV transfer: \(found)"
        case .connectionLost(let request, let reason):
            "the connection was lost during \(request): \(reason)"
        case .promptTooLong(let tokens, let context):
            "\(tokens) tokens of prompt and output exceed the model's context of \(context)"
        case .kvTooSmall(let bytes, let needed):
            "the prompt's KV has \(bytes) of the \(needed) bytes needed; take a longer prompt"
        case .receiverLost(let reason): "the receiving process failed: \(reason)"
        case .transferFailed(let reason): "a transfer failed: \(reason)"
        case .notReached(let instances, let what): "\(instances) instances: \(what)"
        case .peerArgument(let argument, let problem): "the peer '\(argument)' \(problem)"
        case .peerOutput(let reason): "its output: \(reason)"
        }
    }
}
