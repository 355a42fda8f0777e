import Foundation
import InferenceEngine
import Logging
import ServingTypes
import SharedMemory
import Testing
import Transport
import WireProtocol

@testable import WorkerService

extension WorkerServiceTests {
    /// KV between two workers of one host, which goes through memory as long as that works.
    @Suite(.enabled(if: SharedMemorySource.isSupported)) struct MemoryTests {
        /// Chunks that were sent meanwhile, by way.
        private struct Chunks: Equatable {
            var memory: Int
            var stream: Int

            static var now: Chunks {
                Chunks(
                    memory: BenchMetrics.value(
                        "prefill_kv_chunks_total", ["carrier": "memory"]),
                    stream: BenchMetrics.value(
                        "prefill_kv_chunks_total", ["carrier": "stream"]))
            }

            static func - (left: Chunks, right: Chunks) -> Chunks {
                Chunks(memory: left.memory - right.memory, stream: left.stream - right.stream)
            }
        }

        private func withFolder(_ body: (String) async throws -> Void) async throws {
            let folder = FileManager.default.temporaryDirectory
                .appendingPathComponent("kv-\(UInt32.random(in: 0 ... .max))").path
            defer { try? FileManager.default.removeItem(atPath: folder) }
            try await body(folder)
        }

        private func run(
            in folder: String, _ change: (inout Bench.Options) -> Void = { _ in },
            _ body: @escaping @Sendable (Bench) async throws -> Void
        ) async throws {
            var options = Bench.Options()
            options.localFolder = folder
            change(&options)
            try await Bench.run(options, body)
        }

        /// Answers a few requests; gives the ways of their chunks.
        private func serve(_ bench: Bench, _ count: Int = 3) async throws -> Chunks {
            let before = Chunks.now
            for _ in 0..<count {
                let request = BenchRequest()
                try await bench.expectRight(bench.answer(request), to: request)
            }
            try await bench.settle()
            return Chunks.now - before
        }

        @Test func `KV of the same host goes through memory`() async throws {
            try await withFolder { folder in
                try await run(in: folder) { bench in
                    // What is exported before the connection stands may go either way.
                    _ = try await serve(bench, 1)
                    let received = try await BenchMetrics.rise(of: "decode_kv_memory_bytes_total") {
                        let chunks = try await serve(bench)
                        #expect(chunks == Chunks(memory: 12, stream: 0))
                    }
                    #expect(received == 3 * (100 * 2048 + 4 * 32))
                }
            }
        }

        @Test func `many transfers at once go through memory`() async throws {
            try await withFolder { folder in
                try await run(in: folder) { bench in
                    let before = Chunks.now
                    try await forEach(Array(0..<40), atOnce: 8) { _ in
                        let request = BenchRequest(promptTokens: 300)
                        try await bench.expectRight(bench.answer(request), to: request)
                    }
                    try await bench.settle()
                    let chunks = Chunks.now - before
                    #expect(chunks.memory > chunks.stream)
                }
            }
        }

        @Test func `a folder that can't be used is no fault`() async throws {
            // A file is where the folder should be.
            try await run(in: "/proc/self/status") { bench in
                #expect(bench.decode.service.local == nil)
                let chunks = try await serve(bench)
                #expect(chunks == Chunks(memory: 0, stream: 12))
            }
        }

        @Test func `a socket that has gone is no fault`() async throws {
            try await withFolder { folder in
                try await run(in: folder) { bench in
                    let path = try #require(bench.decode.service.local?.path)
                    try FileManager.default.removeItem(atPath: path)
                    let chunks = try await serve(bench)
                    #expect(chunks == Chunks(memory: 0, stream: 12))
                }
            }
        }

        @Test func `a worker that takes no memory gets a stream`() async throws {
            try await withFolder { folder in
                try await run(in: folder, { $0.decodeLocalFolder = "none" }) { bench in
                    let chunks = try await serve(bench)
                    #expect(chunks == Chunks(memory: 0, stream: 12))
                }
            }
        }

        // MARK: A decode-worker against a sender of the test's

        /// The sender's end of the decode-worker's local socket.
        private func connect(_ grant: KVGrant) throws -> LocalConnection {
            guard let local = grant.local, let token = LocalToken(bytes: local.token) else {
                throw BenchFailure("the grant names no socket")
            }
            return try LocalConnection.connect(
                path: local.path, token: token, deadline: .seconds(2))
        }

        private func passed(_ content: [UInt8]) -> KVBuffer {
            let pool = KVBufferPool(maximumKeptBytes: 0, source: SharedMemorySource())
            let buffer = pool.buffer(capacityBytes: content.count)
            unsafe buffer.withWritableBytes { unsafe $0.copyBytes(from: content) }
            buffer.setUsedBytes(content.count)
            return buffer
        }

        /// Announces a block, as this number, and passes it as that one.
        private func send(
            _ block: KVBlock, of hand: Hand, _ impostor: Impostor, _ local: LocalConnection,
            announced: UInt64, passed number: UInt64? = nil, bytes: Int? = nil
        ) throws -> KVBuffer {
            let buffer = passed(block.content)
            try local.send(
                buffer: buffer, number: number ?? announced, deadline: .seconds(2))
            try impostor.say(
                .kvMemory(
                    KVMemoryChunk(
                        chunk: block.chunk(of: hand.attempt, round: impostor.round),
                        number: announced, bytes: bytes ?? block.byteCount)))
            return buffer
        }

        /// Has a sender pass its first block somehow, and see it asked for again: the rest goes
        /// through the stream.
        private func checkAskedAgain(
            _ pass: @escaping @Sendable (Hand, Impostor, LocalConnection) throws -> KVBuffer?
        ) async throws {
            try await withFolder { folder in
                try await run(in: folder) { bench in
                    let hand = try await bench.hand()
                    let impostor = try await bench.impostor()
                    try await onThread {
                        try impostor.say(.kvOffer(hand.offer))
                        let local = try connect(impostor.hearGrant())
                        let kept = try pass(hand, impostor, local)
                        let resend = try impostor.hearResend()
                        try require(resend.fromToken == 0, "from the start")
                        withExtendedLifetime(kept) {}
                        try hand.finish(impostor, from: 0)
                        local.shutdown()
                    }
                    impostor.connection.shutdown()
                    try await bench.expectRight(bench.outcome(of: hand.placed), to: hand.request)
                    try await bench.settle()
                    _ = try await serve(bench, 1)
                }
            }
        }

        @Test func `memory of a sender is imported`() async throws {
            try await withFolder { folder in
                try await run(in: folder) { bench in
                    let hand = try await bench.hand()
                    let impostor = try await bench.impostor()
                    try await onThread {
                        try impostor.say(.kvOffer(hand.offer))
                        let local = try connect(impostor.hearGrant())
                        var kept: [KVBuffer] = []
                        for (index, block) in hand.blocks.enumerated() {
                            kept.append(
                                try send(
                                    block, of: hand, impostor, local,
                                    announced: UInt64(index + 1)))
                        }
                        try impostor.say(.kvEnd(hand.end))
                        try impostor.hearDone(nil)
                        withExtendedLifetime(kept) {}
                        local.shutdown()
                    }
                    impostor.connection.shutdown()
                    try await bench.expectRight(bench.outcome(of: hand.placed), to: hand.request)
                    try await bench.settle()
                }
            }
        }

        @Test func `damaged memory is asked for again`() async throws {
            try await checkAskedAgain { hand, impostor, local in
                try send(hand.blocks[0].damaged(), of: hand, impostor, local, announced: 1)
            }
        }

        @Test func `memory under another number is asked for again`() async throws {
            try await checkAskedAgain { hand, impostor, local in
                try send(hand.blocks[0], of: hand, impostor, local, announced: 1, passed: 2)
            }
        }

        @Test func `memory that was not passed is asked for again`() async throws {
            try await checkAskedAgain { hand, impostor, local in
                local.shutdown()
                let chunk = hand.blocks[0].chunk(of: hand.attempt, round: impostor.round)
                try impostor.say(
                    .kvMemory(
                        KVMemoryChunk(chunk: chunk, number: 1, bytes: hand.blocks[0].byteCount)))
                return nil
            }
        }

        @Test func `memory smaller than announced is asked for again`() async throws {
            try await checkAskedAgain { hand, impostor, local in
                let part = Array(hand.blocks[0].content.prefix(4096))
                let buffer = passed(part)
                try local.send(buffer: buffer, number: 1, deadline: .seconds(2))
                let chunk = hand.blocks[0].chunk(of: hand.attempt, round: impostor.round)
                try impostor.say(
                    .kvMemory(
                        KVMemoryChunk(chunk: chunk, number: 1, bytes: hand.blocks[0].byteCount)))
                return buffer
            }
        }

        @Test func `announced memory without a socket is asked for again`() async throws {
            try await Bench.run { bench in
                let hand = try await bench.hand()
                let impostor = try await bench.impostor()
                try await onThread {
                    try impostor.say(.kvOffer(hand.offer))
                    try require(try impostor.hearGrant().local == nil, "no socket")
                    let chunk = hand.blocks[0].chunk(of: hand.attempt, round: impostor.round)
                    try impostor.say(
                        .kvMemory(
                            KVMemoryChunk(
                                chunk: chunk, number: 1, bytes: hand.blocks[0].byteCount)))
                    _ = try impostor.hearResend()
                    try hand.finish(impostor, from: 0)
                }
                impostor.connection.shutdown()
                try await bench.expectRight(bench.outcome(of: hand.placed), to: hand.request)
                try await bench.settle()
            }
        }

        // MARK: A prefill-worker against a receiver of the test's

        /// Has a decoy take memory until it closes the local socket; what goes on comes as a
        /// stream.
        @Test func `a socket that closes in the middle is no fault`() async throws {
            try await withFolder { folder in
                try await run(in: folder) { bench in
                    let listener = try LocalListener(
                        directory: folder, name: "decoy",
                        logger: Logger(label: "decoy") { _ in SwiftLogNoOpLogHandler() })
                    defer { listener.stop() }
                    let token = LocalToken.random()
                    try listener.expect(token)
                    let decoy = try bench.decoy("memory") { caller, _ in
                        let offer = try caller.hearOffer()
                        try caller.grant(
                            offer, credit: 65_568,
                            local: LocalCarrier(path: listener.path, token: token.bytes))
                        guard case .kvMemory(let first) = try caller.hear() else {
                            throw BenchFailure("no memory came")
                        }
                        guard let local = listener.take(token, deadline: .seconds(2)) else {
                            throw BenchFailure("nobody has connected")
                        }
                        let buffer = try local.receive(
                            number: first.number, usedBytes: first.bytes, deadline: .seconds(2))
                        let sum = unsafe buffer.withBytes { unsafe CRC32C.checksum($0) }
                        try require(sum == first.chunk.checksum, "the bytes that were exported")
                        local.shutdown()
                        try caller.say(
                            .kvCredit(KVCredit(attempt: offer.attempt, bytes: Caller.plenty)))
                        try require(try caller.hearChunks() == [32, 64, 96], "as a stream")
                        try caller.done(offer.attempt)
                    }
                    let placed = try await bench.offer(BenchRequest(), to: decoy)
                    try await bench.waitUntilEnded(placed)
                    decoy.stop()
                    #expect(decoy.problems == [])
                    try await bench.settle()
                }
            }
        }
    }
}
