import ChatAPI
import ServiceRuntime
import ServingTypes
import WireProtocol

/// What the gateway must do for a request at the least, done here one after the other.
struct MessageCosts: Sendable {
    /// Repetitions per sample.
    private static let repetitions = 20

    /// JSON of the request, read and checked.
    var parse = Samples()
    /// Reservation and offer with the prompt, written and read; their answers are small.
    var frames = Samples()
    /// One token's frame, written and read.
    var tokenFrame = Samples()
    /// JSON of the whole answer.
    var response = Samples()

    mutating func measure(_ prompt: [TokenID]) throws {
        let body = CompletionClient.body(prompt, newTokens: 1, isStreamed: false)
        let request = try GenerationRequest(parsing: body, endpoint: .completion)
        var generator = SystemRandomNumberGenerator()
        let id = RequestID(using: &generator)
        let attempt = AttemptID(request: id, number: 1)
        let terms = AttemptTerms(
            attempt: attempt, outputTokens: 0, maximumNewTokens: 1, sampling: request.sampling,
            deadline: .seconds(600))
        let offer = PrefillOffer(
            terms: terms, decodeInstance: InstanceID("decode-worker-1"),
            decodeBulkAddress: NetworkAddress(host: "127.0.0.1", port: 7422),
            secret: ReservationSecret(using: &generator))
        let batch = TokenBatch(
            attempt: attempt, firstIndex: 0, tokens: [TokenOutput(token: 7)], finish: .length)
        let writer = CompletionWriter(
            request: request, id: id, createdSeconds: 0, model: "model")
        let choice = FinishedChoice(text: " word", finish: .length, logprobs: [])
        parse.add(
            try time { _ = try GenerationRequest(parsing: body, endpoint: .completion) })
        frames.add(
            try time {
                try carry(.reserveKV(ReserveKV(terms: terms)), prompt)
                try carry(.prefillOffer(offer), prompt)
            })
        tokenFrame.add(try time { try carry(.tokenBatch(batch), []) })
        let usage = TokenUsage(promptTokens: prompt.count, completionTokens: 1)
        response.add(time { _ = writer.response([choice], usage: usage) })
    }

    private func time(_ body: () throws -> Void) rethrows -> Duration {
        let start = ProcessClock.now()
        for _ in 0..<Self.repetitions { try body() }
        return (ProcessClock.now() - start) / Self.repetitions
    }

    /// Writes a frame and reads it again.
    private func carry(_ message: ControlMessage, _ tokens: [TokenID]) throws {
        let payload = TokenPayload.encode(tokens)
        var parser = FrameParser()
        parser.append(try encodeFrame(message, payloadBytes: payload.count))
        parser.append(payload)
        guard let frame = try parser.next() else { preconditionFailure("a whole frame was given") }
        _ = try TokenPayload.decode(frame.payload)
    }
}
