import InferenceEngine
import KVHandOver
import ServingTypes
import Testing
import Transport

extension WorkerServiceTests {
    /// A prefill-worker that lies, forgets or stops, against a real decode-worker.
    @Suite struct HostileSenderTests {
        /// What the gateway hears of a request whose sender does this.
        private enum Expected: Sendable {
            case right
            case failed(FailureCode)
            /// Nothing, until the request is cancelled.
            case silence
        }

        /// Something a sender can do; it runs on a thread of its own.
        private struct Conduct: Sendable {
            var name: String
            var expected: Expected
            var body: @Sendable (Hand, Impostor) throws -> Void

            init(
                _ name: String, _ expected: Expected,
                _ body: @escaping @Sendable (Hand, Impostor) throws -> Void
            ) {
                self.name = name
                self.expected = expected
                self.body = body
            }
        }

        /// Has a sender do each of these, then sees that all is free and an honest one is served.
        private func check(_ all: [Conduct]) async throws {
            var options = Bench.Options()
            options.handOver.resumeDeadline = .milliseconds(500)
            try await Bench.run(options) { bench in
                try await forEach(all) { conduct in
                    let hand = try await bench.hand()
                    let impostor = try await bench.impostor()
                    do {
                        try await onThread { try conduct.body(hand, impostor) }
                    } catch {
                        Issue.record("\(conduct.name): \(error)")
                    }
                    try await check(conduct, hand, bench)
                    impostor.connection.shutdown()
                }
                try await bench.settle()
                let hand = try await bench.hand()
                let impostor = try await bench.impostor()
                try await onThread { try hand.finish(impostor) }
                impostor.connection.shutdown()
                try await bench.expectRight(bench.outcome(of: hand.placed), to: hand.request)
                try await bench.settle()
            }
        }

        private func check(_ conduct: Conduct, _ hand: Hand, _ bench: Bench) async throws {
            switch conduct.expected {
            case .right:
                try await bench.expectRight(
                    bench.outcome(of: hand.placed), to: hand.request, conduct.name)
            case .failed(let code):
                let answer = try await bench.outcome(of: hand.placed)
                #expect(
                    answer.failure == .init(role: .decodeWorker, code: code), "\(conduct.name)")
                #expect(answer.tokens == [], "\(conduct.name)")
            case .silence:
                bench.cancel(hand.attempt)
                await #expect(throws: BenchFailure.self, "\(conduct.name)") {
                    _ = try await hand.placed.events.next(within: .milliseconds(200))
                }
            }
        }

        @Test func `an offer that does not fit is refused, and the fitting one is taken`()
            async throws
        {
            func refused(
                _ name: String, _ code: FailureCode,
                _ change: @escaping @Sendable (inout KVOffer) -> Void
            ) -> Conduct {
                Conduct(name, .right) { hand, impostor in
                    var offer = hand.offer
                    change(&offer)
                    try impostor.say(.kvOffer(offer))
                    let done = try impostor.hearDone()
                    try require(done.code == code && done.attempt == offer.attempt, "refused")
                    try hand.finish(impostor)
                }
            }
            try await check([
                refused("wrong secret", .unknownRequest) {
                    $0.secret = ReservationSecret(high: $0.secret.high, low: $0.secret.low ^ 1)
                },
                refused("other model", .model) {
                    var bytes = $0.fingerprint.bytes
                    bytes[31] ^= 1
                    $0.fingerprint = ModelFingerprint(bytes)
                },
                refused("more tokens", .invalid) { $0.tokens += 1 },
                refused("fewer tokens", .invalid) { $0.tokens -= 1 },
                refused("later start", .invalid) { $0.startToken = 32 },
                refused("another attempt", .unknownRequest) { $0.attempt.number += 1 },
            ])
        }

        @Test func `a sender that others may not be is told apart`() async throws {
            try await Bench.run { bench in
                let hand = try await bench.hand()
                let first = try await bench.impostor("first")
                let second = try await bench.impostor("second")
                let again = try await bench.impostor("first")
                try await onThread {
                    try first.say(.kvOffer(hand.offer))
                    _ = try first.hearGrant()
                    try first.send(hand.blocks[0], of: hand.attempt)
                    // Another worker with the right secret is one too many.
                    try second.say(.kvOffer(hand.offer))
                    try second.hearDone(.unknownRequest)
                    // Its chunks and last words are nobody's.
                    try second.send(hand.blocks[1], of: hand.attempt)
                    try second.say(.kvAbort(KVAbort(attempt: hand.attempt, reason: "no")))
                    try second.say(.kvEnd(hand.end))
                    try second.hearDone(.unknownRequest)
                    // The same worker on another connection goes on where it is.
                    _ = try first.fence()
                    try again.say(.kvOffer(hand.offer))
                    let grant = try again.hearGrant()
                    try require(
                        grant.heldTokens == hand.blocks[0].tokenEnd, "from the second chunk on")
                    // Both of its connections may bring chunks of the new round.
                    try first.send(hand.blocks[2], of: hand.attempt)
                    try first.send(
                        hand.blocks[1].chunk(of: hand.attempt, round: again.round),
                        Payload(hand.blocks[1].content))
                    _ = try first.fence()
                    try hand.finish(again, from: 64)
                }
                for impostor in [first, second, again] { impostor.connection.shutdown() }
                try await bench.expectRight(bench.outcome(of: hand.placed), to: hand.request)
                try await bench.settle()
            }
        }

        @Test func `chunks that do not fit end the transfer`() async throws {
            func offered(
                _ name: String, _ body: @escaping @Sendable (Hand, Impostor) throws -> Void
            ) -> Conduct {
                Conduct(name, .failed(.transfer)) { hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    try body(hand, impostor)
                    let done = try impostor.hearDone()
                    try require(
                        done.code == .transfer && done.attempt == hand.attempt, "failed")
                }
            }
            try await check([
                offered("beyond the sequence") { hand, impostor in
                    var chunk = hand.blocks[0].chunk(of: hand.attempt)
                    chunk.tokenStart = hand.request.prompt.count - 16
                    try impostor.send(chunk, Payload(hand.blocks[0].content))
                },
                offered("far beyond the sequence") { hand, impostor in
                    var chunk = hand.blocks[0].chunk(of: hand.attempt)
                    chunk.tokenStart = 1 << 20
                    try impostor.send(chunk, Payload(hand.blocks[0].content))
                },
                offered("overlapping") { hand, impostor in
                    try impostor.send(hand.blocks[1], of: hand.attempt)
                    _ = try impostor.fence()
                    var chunk = hand.blocks[1].chunk(of: hand.attempt)
                    chunk.tokenStart = 16
                    try impostor.send(chunk, Payload(hand.blocks[1].content))
                },
                offered("larger than its tokens") { hand, impostor in
                    let chunk = KVChunk(
                        attempt: hand.attempt, tokenStart: 0, tokenCount: 1, checksum: 0,
                        round: 1)
                    try impostor.send(chunk, Payload(hand.blocks[0].content))
                },
                offered("a gigabyte that never comes") { hand, impostor in
                    let chunk = KVChunk(
                        attempt: hand.attempt, tokenStart: 0, tokenCount: 100, checksum: 0,
                        round: 1)
                    try impostor.send(chunk, Payload(announcedBytes: 1 << 30, wire: []))
                },
                Conduct("without credit", .failed(.transfer)) { hand, impostor in
                    var offer = hand.offer
                    offer.chunkTokens = 1
                    try impostor.say(.kvOffer(offer))
                    let grant = try impostor.hearGrant()
                    try require(grant.creditBytes < hand.blocks[0].byteCount, "little credit")
                    try impostor.send(hand.blocks[0], of: hand.attempt)
                    try impostor.hearDone(.transfer)
                },
                Conduct("before the offer", .right) { hand, impostor in
                    try impostor.send(hand.blocks[0], of: hand.attempt)
                    try impostor.say(.kvEnd(hand.end))
                    try impostor.hearDone(.unknownRequest)
                    try hand.finish(impostor)
                },
            ])
        }

        @Test func `order and repetition of chunks do not matter`() async throws {
            try await check([
                Conduct("backwards", .right) { hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    for block in hand.blocks.reversed() {
                        try impostor.send(block, of: hand.attempt)
                        _ = try impostor.fence()
                    }
                    try impostor.say(.kvEnd(hand.end))
                    try impostor.hearDone(nil)
                },
                Conduct("more often than there is credit for", .failed(.transfer)) {
                    hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    for _ in 0..<4 { try impostor.send(hand.blocks[0], of: hand.attempt) }
                    try impostor.hearDone(.transfer)
                },
                Conduct("the end first", .right) { hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    try impostor.say(.kvEnd(hand.end))
                    try hand.finish(impostor, from: 0)
                },
                Conduct("the end three times", .right) { hand, impostor in
                    try hand.finish(impostor)
                    for _ in 0..<2 { try impostor.say(.kvEnd(hand.end)) }
                    _ = try impostor.fence()
                },
                Conduct("broken off, and sent after all", .right) { hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    let first = hand.blocks[0]
                    try impostor.send(
                        first.chunk(of: hand.attempt),
                        Payload(
                            announcedBytes: first.byteCount, wire: Payload.breakOff))
                    _ = try impostor.fence()
                    try impostor.say(.kvOffer(hand.offer))
                    try require(try impostor.hearGrant().heldTokens == 0, "from the start")
                    try hand.finish(impostor, from: 0)
                },
            ])
        }

        @Test func `damaged KV is asked for once more, and only once`() async throws {
            try await check([
                Conduct("damaged once", .right) { hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    try impostor.send(hand.blocks[0], of: hand.attempt)
                    try impostor.send(hand.blocks[1].damaged(), of: hand.attempt)
                    let resend = try impostor.hearResend()
                    let start = hand.blocks[1].tokenStart
                    try require(resend.fromToken == start, "from the damaged chunk on")
                    try hand.finish(impostor, from: start)
                },
                Conduct("damaged, and sent to its end before it shows", .right) {
                    hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    try impostor.send(hand.blocks[0].damaged(), of: hand.attempt)
                    for block in hand.blocks.dropFirst() {
                        try impostor.send(block, of: hand.attempt)
                    }
                    try impostor.say(.kvEnd(hand.end))
                    try require(try impostor.hearResend().fromToken == 0, "from the start")
                    try hand.finish(impostor, from: 0)
                },
                Conduct("damaged twice", .failed(.transfer)) { hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    try impostor.send(hand.blocks[0].damaged(), of: hand.attempt)
                    _ = try impostor.hearResend()
                    try impostor.send(hand.blocks[0].damaged(), of: hand.attempt)
                    try impostor.hearDone(.transfer)
                },
                Conduct("KV of other tokens", .failed(.transfer)) { hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    for _ in 0..<2 {
                        // Whole, with its own checksum, at the wrong place.
                        var chunk = hand.blocks[1].chunk(
                            of: hand.attempt, round: impostor.round)
                        chunk.tokenStart = 0
                        try impostor.send(chunk, Payload(hand.blocks[1].content))
                        if case .kvDone = try impostor.hear({
                            switch $0 {
                            case .kvResend, .kvDone: $0
                            default: nil
                            }
                        }) {
                            return
                        }
                    }
                    try impostor.hearDone(.transfer)
                },
            ])
        }

        @Test func `an end that does not fit fails the transfer`() async throws {
            try await check([
                Conduct("another digest", .failed(.transfer)) { hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    for block in hand.blocks { try impostor.send(block, of: hand.attempt) }
                    var end = hand.end
                    end.digest ^= 1
                    try impostor.say(.kvEnd(end))
                    try impostor.hearDone(.transfer)
                },
                Conduct("another length at the end", .failed(.transfer)) { hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    var end = hand.end
                    end.tokens -= 1
                    try impostor.say(.kvEnd(end))
                    try impostor.hearDone(.transfer)
                },
            ])
        }

        /// What fails a transfer once it was granted.
        private func stopped(
            _ name: String, _ body: @escaping @Sendable (Hand, Impostor) throws -> Void
        ) -> Conduct {
            Conduct(name, .failed(.transfer)) { hand, impostor in
                try impostor.say(.kvOffer(hand.offer))
                _ = try impostor.hearGrant()
                try body(hand, impostor)
            }
        }

        @Test func `a sender that stops is not waited for`() async throws {
            let header = Payload.header(65_568, 65_568, 0)
            try await check([
                stopped("after the offer") { _, impostor in impostor.connection.shutdown() },
                stopped("inside a chunk") { hand, impostor in
                    try impostor.send(
                        hand.blocks[0].chunk(of: hand.attempt),
                        Payload(
                            announcedBytes: hand.blocks[0].byteCount,
                            wire: header + [UInt8](repeating: 1, count: 30_000)))
                    impostor.connection.shutdown()
                },
                stopped("inside a piece's header") { hand, impostor in
                    try impostor.send(
                        hand.blocks[0].chunk(of: hand.attempt),
                        Payload(
                            announcedBytes: hand.blocks[0].byteCount,
                            wire: Array(header.prefix(7))))
                    impostor.connection.shutdown()
                },
                stopped("between chunks, in order") { hand, impostor in
                    try impostor.send(hand.blocks[0], of: hand.attempt)
                    impostor.connection.close()
                },
                stopped("with a piece that is none") { hand, impostor in
                    try impostor.send(
                        hand.blocks[0].chunk(of: hand.attempt),
                        Payload(
                            announcedBytes: hand.blocks[0].byteCount,
                            wire: Payload.header(1 << 31, 9, 77)))
                    try impostor.hearEnd()
                },
                Conduct("before it began", .silence) { _, impostor in
                    impostor.connection.shutdown()
                },
            ])
        }

        @Test func `a sender that says what does not belong there is not heard further`()
            async throws
        {
            try await check([
                stopped("with what only a decode-worker says") { hand, impostor in
                    try impostor.say(.kvDone(KVDone(attempt: hand.attempt)))
                    try impostor.hearEnd()
                },
                stopped("with what belongs on another connection") { hand, impostor in
                    try impostor.say(.cancelRequest(CancelRequest(attempt: hand.attempt)))
                    try impostor.hearEnd()
                },
                stopped("with bytes that are no frame") { hand, impostor in
                    try impostor.say(bytes: [UInt8](repeating: 0x41, count: 64))
                    try impostor.hearEnd()
                },
                Conduct("that says so", .silence) { hand, impostor in
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    try impostor.send(hand.blocks[0], of: hand.attempt)
                    try impostor.say(.kvAbort(KVAbort(attempt: hand.attempt, reason: "no")))
                    _ = try impostor.fence()
                },
            ])
        }

        @Test func `a sender that stands inside a chunk is cut off in time`() async throws {
            var options = Bench.Options()
            options.handOver.stallDeadline = .milliseconds(400)
            try await Bench.run(options) { bench in
                let hand = try await bench.hand()
                let impostor = try await bench.impostor()
                let start = ContinuousClock.now
                try await onThread {
                    try impostor.say(.kvOffer(hand.offer))
                    _ = try impostor.hearGrant()
                    try impostor.send(
                        hand.blocks[0].chunk(of: hand.attempt),
                        Payload(announcedBytes: hand.blocks[0].byteCount, wire: []))
                }
                let answer = try await bench.outcome(of: hand.placed)
                #expect(answer.failure == .init(role: .decodeWorker, code: .deadline))
                #expect(ContinuousClock.now - start < .seconds(3))
                // All is free although the connection still stands.
                try await bench.settle()
                impostor.connection.shutdown()
            }
        }
    }
}
