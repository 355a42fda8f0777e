import KVTransfer
import ServingTypes
import Testing

@Suite struct KVAssemblyTests {
    private static let attempt = AttemptID(request: RequestID(high: 1, low: 2), number: 1)
    private static let other = AttemptID(request: RequestID(high: 1, low: 2), number: 2)
    private let firstToken = TokenOutput(token: 42)

    @Test func `chunks in order complete the sequence`() throws {
        var assembly = try assembly(tokens: 700)
        #expect(
            assembly.chunkBegins(chunk(0, 512), payloadBytes: 5120) == .receivePayload(bytes: 5120))
        #expect(assembly.chunkEnds() == .importBlock(tokenStart: 0, tokenCount: 512))
        #expect(
            assembly.chunkBegins(chunk(512, 188), payloadBytes: 1880)
                == .receivePayload(bytes: 1880))
        #expect(assembly.chunkEnds() == .importBlock(tokenStart: 512, tokenCount: 188))
        #expect(assembly.ended(end(700)) == .complete(firstToken: firstToken))
        #expect(assembly.isClosed)
        #expect(assembly.receivedBytes == 7000)
    }

    @Test func `held tokens are not awaited`() throws {
        var assembly = try assembly(tokens: 100, heldTokens: 60)
        #expect(
            assembly.chunkBegins(chunk(60, 40), payloadBytes: 400) == .receivePayload(bytes: 400))
        #expect(assembly.chunkEnds() == .importBlock(tokenStart: 60, tokenCount: 40))
        #expect(assembly.ended(end(100)) == .complete(firstToken: firstToken))
    }

    @Test func `an offer for other tokens than reserved is refused`() {
        #expect(
            throws: KVTransferError.offerDisagrees(reservedTokens: 100, offeredTokens: 101)
        ) {
            try KVAssembly(
                offer: offer(tokens: 101), reservedTokens: 100, reservedBytes: 1000,
                heldTokens: 0, maximumChunkBytes: 1000, deadline: .start)
        }
    }

    @Test func `a gap abandons the transfer`() throws {
        var assembly = try received(10)
        #expect(
            assembly.chunkBegins(chunk(11, 1), payloadBytes: 10)
                == .abandon(.gap(expectedToken: 10, receivedToken: 11)))
        expectClosed(&assembly)
    }

    @Test func `an overlap abandons the transfer`() throws {
        for start in [0, 9] {
            var assembly = try received(10)
            #expect(
                assembly.chunkBegins(chunk(start, 5), payloadBytes: 10)
                    == .abandon(.overlap(expectedToken: 10, receivedToken: start)))
            expectClosed(&assembly)
        }
    }

    @Test func `more tokens than offered abandon the transfer`() throws {
        for count in [91, Int.max] {
            var assembly = try received(10)
            let sum = count == .max ? Int.max : 10 + count
            #expect(
                assembly.chunkBegins(chunk(10, count), payloadBytes: 10)
                    == .abandon(.tooManyTokens(offeredTokens: 100, receivedTokens: sum)))
            expectClosed(&assembly)
        }
    }

    @Test func `a chunk longer than granted abandons the transfer`() throws {
        var assembly = try assembly(tokens: 100, maximumChunkBytes: 99)
        #expect(
            assembly.chunkBegins(chunk(0, 10), payloadBytes: 100)
                == .abandon(.tooManyBytes(limitBytes: 99, receivedBytes: 100)))
    }

    @Test func `all chunks together stay within the reservation`() throws {
        var assembly = try assembly(tokens: 100, reservedBytes: 150)
        #expect(
            assembly.chunkBegins(chunk(0, 10), payloadBytes: 100) == .receivePayload(bytes: 100))
        _ = assembly.chunkEnds()
        #expect(
            assembly.chunkBegins(chunk(10, 10), payloadBytes: 51)
                == .abandon(.tooManyBytes(limitBytes: 50, receivedBytes: 51)))
    }

    @Test func `an early end abandons the transfer`() throws {
        var assembly = try received(99)
        #expect(
            assembly.ended(end(100))
                == .abandon(.endedEarly(offeredTokens: 100, receivedTokens: 99)))
        var shorter = try received(100)
        #expect(
            shorter.ended(end(99))
                == .abandon(.endedEarly(offeredTokens: 100, receivedTokens: 99)))
    }

    @Test func `messages out of place abandon the transfer`() throws {
        var foreign = try assembly(tokens: 100)
        #expect(
            foreign.chunkBegins(
                KVChunk(attempt: Self.other, tokenStart: 0, tokenCount: 1), payloadBytes: 10)
                == .abandon(.unexpectedMessage))
        var twice = try assembly(tokens: 100)
        _ = twice.chunkBegins(chunk(0, 1), payloadBytes: 10)
        #expect(
            twice.chunkBegins(chunk(1, 1), payloadBytes: 10) == .abandon(.unexpectedMessage))
        var endInside = try assembly(tokens: 1)
        _ = endInside.chunkBegins(chunk(0, 1), payloadBytes: 10)
        #expect(endInside.ended(end(1)) == .abandon(.unexpectedMessage))
        var nothingBegun = try assembly(tokens: 1)
        #expect(nothingBegun.chunkEnds() == .abandon(.unexpectedMessage))
        var empty = try assembly(tokens: 1)
        #expect(empty.chunkBegins(chunk(0, 1), payloadBytes: 0) == .abandon(.unexpectedMessage))
    }

    @Test func `the deadline abandons the transfer, also inside a payload`() throws {
        var waiting = try assembly(tokens: 100)
        #expect(waiting.tick(now: .start + .milliseconds(999)) == .await)
        #expect(waiting.tick(now: .start + .seconds(1)) == .abandon(.timedOut))
        expectClosed(&waiting)
        var receiving = try assembly(tokens: 100)
        _ = receiving.chunkBegins(chunk(0, 1), payloadBytes: 10)
        #expect(receiving.tick(now: .start + .seconds(2)) == .abandon(.timedOut))
        expectClosed(&receiving)
    }

    @Test func `a failure abandons the transfer once`() throws {
        var assembly = try received(10)
        #expect(assembly.failed(.pieceDamaged) == .abandon(.pieceDamaged))
        #expect(assembly.failed(.connectionLost) == .ignore)
    }

    /// Any events in any order end in one last action and never in more KV than reserved.
    @Test func `random events close at most once and stay within bounds`() throws {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            var assembly = try assembly(tokens: 20, reservedBytes: 200)
            var lastActions = 0
            for _ in 0..<30 {
                let action: KVAssembly.Action
                switch random.below(12) {
                case 0..<5:
                    action = assembly.chunkBegins(
                        chunk(assembly.receivedTokens, 1 + random.below(9)),
                        payloadBytes: 1 + random.below(60))
                case 5..<9: action = assembly.chunkEnds()
                case 9: action = assembly.ended(end(20))
                case 10: action = assembly.tick(now: .start)
                default: action = assembly.chunkBegins(chunk(random.below(22), 1), payloadBytes: 1)
                }
                switch action {
                case .complete:
                    #expect(assembly.receivedTokens == 20, "seed \(seed)")
                    lastActions += 1
                case .abandon: lastActions += 1
                default: break
                }
                #expect(assembly.receivedTokens <= 20 && assembly.receivedBytes <= 200)
                #expect((lastActions == 1) == assembly.isClosed, "seed \(seed)")
            }
        }
    }

    private func offer(tokens: Int) -> KVOffer {
        KVOffer(
            attempt: Self.attempt, secret: ReservationSecret(high: 1, low: 2),
            fingerprint: ModelFingerprint([UInt8](repeating: 0, count: 32)), tokens: tokens)
    }

    private func assembly(
        tokens: Int, reservedBytes: Int = 1 << 20, heldTokens: Int = 0,
        maximumChunkBytes: Int = 1 << 20
    ) throws(KVTransferError) -> KVAssembly {
        try KVAssembly(
            offer: offer(tokens: tokens), reservedTokens: tokens, reservedBytes: reservedBytes,
            heldTokens: heldTokens, maximumChunkBytes: maximumChunkBytes,
            deadline: .start + .seconds(1))
    }

    /// An assembly of 100 tokens that has `tokens` of them.
    private func received(_ tokens: Int) throws -> KVAssembly {
        var assembly = try assembly(tokens: 100)
        _ = assembly.chunkBegins(chunk(0, tokens), payloadBytes: 10 * tokens)
        #expect(assembly.chunkEnds() == .importBlock(tokenStart: 0, tokenCount: tokens))
        return assembly
    }

    private func chunk(_ start: Int, _ count: Int) -> KVChunk {
        KVChunk(attempt: Self.attempt, tokenStart: start, tokenCount: count)
    }

    private func end(_ tokens: Int) -> KVEnd {
        KVEnd(attempt: Self.attempt, tokens: tokens, firstToken: firstToken)
    }

    private func expectClosed(_ assembly: inout KVAssembly) {
        #expect(assembly.isClosed)
        #expect(assembly.chunkBegins(chunk(0, 1), payloadBytes: 1) == .ignore)
        #expect(assembly.chunkEnds() == .ignore)
        #expect(assembly.ended(end(100)) == .ignore)
        #expect(assembly.tick(now: .start + .seconds(5)) == .ignore)
    }
}
