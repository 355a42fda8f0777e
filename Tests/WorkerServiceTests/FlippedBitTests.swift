import InferenceEngine
import KVHandOver
import ServingTypes
import Synchronization
import Testing
import Transport
import WireProtocol

extension WorkerServiceTests {
    /// Messages with one bit changed and checksums that fit: what a peer with a defect could send.
    ///
    /// Whatever it means, no worker may end, no token may be wrong and all room must come back.
    @Suite struct FlippedBitTests {
        /// A frame with one bit changed.
        private struct Flip: Sendable {
            var kind: MessageKind
            /// Counted from the first bit behind the frame's magic, without the checksums.
            var bit: Int

            /// The changed frame; both checksums are made anew.
            func apply(to frame: [UInt8]) -> [UInt8] {
                var frame = frame
                frame[Self.offset(of: bit / 8)] ^= 1 << UInt8(bit % 8)
                store(CRC32C.checksum(Array(frame[FrameHeader.byteCount...])), at: 24, &frame)
                store(CRC32C.checksum(Array(frame[..<28])), at: 28, &frame)
                return frame
            }

            /// Kind, flags, stream and lengths, then the message.
            static func offset(of index: Int) -> Int {
                index < 20 ? 4 + index : FrameHeader.byteCount + index - 20
            }

            static func bits(of frame: [UInt8]) -> Int {
                (20 + frame.count - FrameHeader.byteCount) * 8
            }

            private func store(_ word: UInt32, at place: Int, _ frame: inout [UInt8]) {
                for index in 0..<4 {
                    frame[place + index] = UInt8(truncatingIfNeeded: word >> (8 * UInt32(index)))
                }
            }
        }

        /// Every so many bits of each message, or all.
        private static func flips(
            every step: Int, _ samples: [(ControlMessage, payloadBytes: Int)]
        ) throws -> [Flip] {
            try samples.enumerated().flatMap { index, sample in
                let frame = try encodeFrame(sample.0, payloadBytes: sample.payloadBytes)
                return stride(from: index, to: Flip.bits(of: frame), by: isLong ? 1 : step)
                    .map { Flip(kind: sample.0.kind, bit: $0) }
            }
        }

        // MARK: Against a decode-worker

        @Test func `a decode-worker survives every bit of what it is sent`() async throws {
            var options = Bench.Options()
            options.handOver.resumeDeadline = .milliseconds(300)
            try await Bench.run(options) { bench in
                let sample = try await bench.hand()
                bench.cancel(sample.attempt)
                let chunk = sample.blocks[0].chunk(of: sample.attempt)
                let bytes = sample.blocks[0].byteCount
                let flips = try Self.flips(
                    every: 13,
                    [
                        (.kvOffer(sample.offer), 0), (.kvChunk(chunk), bytes),
                        (.kvMemory(KVMemoryChunk(chunk: chunk, number: 1, bytes: bytes)), 0),
                        (.kvEnd(sample.end), 0),
                        (.kvAbort(KVAbort(attempt: sample.attempt, reason: "gone")), 0),
                    ])
                let heard = Mutex<[(Flip, Hand)]>([])
                try await forEach(flips, atOnce: 8) { flip in
                    let hand = try await bench.hand()
                    let impostor = try await bench.impostor(patience: .milliseconds(100))
                    // The decode-worker may close the connection anywhere.
                    try await onThread { try? send(hand, flip, impostor) }
                    impostor.connection.shutdown()
                    bench.cancel(hand.attempt)
                    heard.withLock { $0.append((flip, hand)) }
                }
                try await bench.settle()
                let request = BenchRequest()
                try await bench.expectRight(bench.answer(request), to: request)
                var answered = 0
                for (flip, hand) in heard.withLock({ $0 }) {
                    let tokens = await hand.placed.events.tokensAtEnd()
                    answered += tokens.isEmpty ? 0 : 1
                    // Nothing but the prefill-worker's word says what the first token is.
                    guard tokens.first == hand.exported.firstToken.token else {
                        #expect(tokens.isEmpty || flip.kind == .kvEnd, "\(flip)")
                        continue
                    }
                    let expected = try await Undivided.shared.tokens(of: hand.request)
                    #expect(expected.starts(with: tokens), "\(flip)")
                }
                // Many bits don't matter, so some of the requests were answered.
                #expect(answered > 0)
                try await bench.settle()
            }
        }

        /// Sends a whole transfer in which one frame has a flipped bit.
        private func send(_ hand: Hand, _ flip: Flip, _ impostor: Impostor) throws {
            func say(_ message: ControlMessage) throws {
                guard message.kind == flip.kind else { return try impostor.say(message) }
                try impostor.say(bytes: flip.apply(to: encodeFrame(message)))
            }
            try say(.kvOffer(hand.offer))
            if flip.kind == .kvOffer, try impostor.fence().contains(where: \.isLastWord) {
                return
            }
            for (index, block) in hand.blocks.enumerated() {
                let chunk = block.chunk(of: hand.attempt)
                let payload = Payload(block.content)
                switch flip.kind {
                case .kvChunk where index == 1:
                    let frame = try encodeFrame(
                        .kvChunk(chunk), payloadBytes: payload.announcedBytes)
                    try impostor.say(bytes: flip.apply(to: frame) + payload.wire)
                case .kvMemory where index == 1:
                    let memory = KVMemoryChunk(chunk: chunk, number: 1, bytes: block.byteCount)
                    try say(.kvMemory(memory))
                case .kvAbort where index == 1:
                    try say(.kvAbort(KVAbort(attempt: hand.attempt, reason: "gone")))
                    try impostor.send(chunk, payload)
                default: try impostor.send(chunk, payload)
                }
            }
            try say(.kvEnd(hand.end))
            // The engine takes it in, and answers, unless something is missing now.
            if !(try impostor.fence().contains(where: \.isLastWord)) {
                _ = try impostor.hearDone()
            }
            pause(.milliseconds(20))
        }

        // MARK: Against a prefill-worker

        @Test func `a prefill-worker survives every bit of what it is answered`() async throws {
            var options = Bench.Options()
            options.handOver.stallDeadline = .milliseconds(1500)
            try await Bench.run(options) { bench in
                let attempt = BenchRequest(promptTokens: 1).attempt
                let local = LocalCarrier(
                    path: "/nowhere/at/all", token: [UInt8](repeating: 3, count: 32))
                let flips = try Self.flips(
                    every: 29,
                    [
                        (.kvGrant(grant(attempt, local)), 0),
                        (.kvCredit(KVCredit(attempt: attempt, bytes: Caller.plenty)), 0),
                        (
                            .kvResend(
                                KVResend(
                                    attempt: attempt, fromToken: 0, creditBytes: Caller.plenty,
                                    round: 2, reason: "damaged")), 0
                        ),
                        (.kvDone(KVDone(attempt: attempt, code: .transfer, reason: "no")), 0),
                    ])
                try await forEach(flips, atOnce: 6) { flip in
                    try await offer(flip, local, bench)
                }
                try await bench.settle()
                let request = BenchRequest()
                try await bench.expectRight(bench.answer(request), to: request)
                try await bench.settle()
            }
        }

        /// Has a decoy answer a transfer with one bit changed, and give up when that is not
        /// understood.
        private func offer(_ flip: Flip, _ local: LocalCarrier, _ bench: Bench) async throws {
            let decoy = try bench.decoy("\(flip.kind)-\(flip.bit)") { caller, number in
                if number > 0 { return try caller.takeAll() }
                var caller = caller
                caller.patience = .milliseconds(100)
                try? answer(caller, flip, local)
            }
            defer { decoy.stop() }
            let placed = try await bench.offer(BenchRequest(), to: decoy)
            try await bench.waitUntilEnded(placed)
        }

        private func grant(_ attempt: AttemptID, _ local: LocalCarrier? = nil) -> KVGrant {
            KVGrant(
                attempt: attempt, heldTokens: 0, maximumChunkBytes: 1 << 20,
                creditBytes: Caller.plenty, round: 1, local: local)
        }

        /// Answers a whole transfer; one frame has a flipped bit.
        private func answer(_ caller: Caller, _ flip: Flip, _ local: LocalCarrier) throws {
            func say(_ message: ControlMessage) throws {
                guard message.kind == flip.kind else { return try caller.say(message) }
                try caller.say(bytes: flip.apply(to: encodeFrame(message)))
            }
            let offer = try caller.hearOffer()
            try say(.kvGrant(grant(offer.attempt, local)))
            if flip.kind == .kvCredit {
                try say(.kvCredit(KVCredit(attempt: offer.attempt, bytes: Caller.plenty)))
            }
            _ = try caller.hearChunks()
            if flip.kind == .kvResend {
                try say(
                    .kvResend(
                        KVResend(
                            attempt: offer.attempt, fromToken: 0, creditBytes: Caller.plenty,
                            round: 2, reason: "damaged")))
                _ = try caller.hearChunks()
            }
            if flip.kind == .kvDone {
                try say(.kvDone(KVDone(attempt: offer.attempt, code: .transfer, reason: "no")))
            }
            try caller.done(offer.attempt)
        }
    }
}

extension ControlMessage {
    /// Whether it ends a transfer.
    fileprivate var isLastWord: Bool {
        if case .kvDone = self { true } else { false }
    }
}
