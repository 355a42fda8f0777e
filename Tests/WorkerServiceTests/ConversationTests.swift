import ServingTypes
import Testing

extension WorkerServiceTests {
    /// The second turn of a conversation: the decode-worker still has the first one's KV.
    @Suite struct ConversationTests {
        private static let sentBytes = "prefill_kv_raw_bytes_total"

        /// The conversation so far and what the client says next.
        private func next(after request: BenchRequest, _ answer: Answer) -> BenchRequest {
            var next = BenchRequest(promptTokens: 60)
            next.prompt = request.prompt + answer.tokens + next.prompt
            return next
        }

        @Test func `only the KV of what is new travels`() async throws {
            var options = Bench.Options()
            options.keptSequences = 4
            try await Bench.run(options) { bench in
                let first = BenchRequest(promptTokens: 200)
                let answer = try await bench.answer(first)
                try await bench.expectRight(answer, to: first)
                try await bench.settle()
                let second = next(after: first, answer)
                let bytes = try await BenchMetrics.rise(of: Self.sentBytes) {
                    let placed = try await bench.reserve(second)
                    // All but the last token, whose KV nobody has computed.
                    #expect(placed.granted.heldTokens == 205)
                    try await bench.offer(placed)
                    try await bench.expectRight(bench.outcome(of: placed), to: second)
                    try await bench.settle()
                }
                // 61 tokens of 2 KiB; each chunk has 32 bytes more.
                #expect((61 * 2048..<61 * 2048 + 200).contains(bytes))
            }
        }

        @Test func `a turn whose KV was lost on the way keeps what is held`() async throws {
            var options = Bench.Options()
            options.keptSequences = 4
            try await Bench.run(options) { bench in
                let first = BenchRequest(promptTokens: 200)
                let answer = try await bench.answer(first)
                try await bench.settle()
                let second = next(after: first, answer)
                let placed = try await bench.reserve(second)
                #expect(placed.granted.heldTokens == 205)
                let cut = Forwarder.Fault(damage: .reset, direction: .up, position: 60_000)
                let forwarder = try Forwarder(to: bench.decode.bulkAddress, faults: [cut])
                defer { forwarder.stop() }
                try await bench.offer(placed, to: forwarder.address)
                try await bench.expectRight(bench.outcome(of: placed), to: second)
                try await bench.settle()
                #expect(forwarder.carried.count == 2)
            }
        }

        @Test func `a turn that is cancelled leaves nothing behind`() async throws {
            var options = Bench.Options()
            options.keptSequences = 4
            try await Bench.run(options) { bench in
                let first = BenchRequest(promptTokens: 200)
                let answer = try await bench.answer(first)
                try await bench.settle()
                let second = next(after: first, answer)
                let placed = try await bench.reserve(second)
                bench.cancel(second.attempt)
                bench.gateway.forget(second.attempt)
                #expect(placed.granted.heldTokens == 205)
                try await bench.settle()
                // What it began with is still there for the next one.
                try await bench.expectRight(bench.answer(second.again), to: second)
                try await bench.settle()
            }
        }
    }
}
