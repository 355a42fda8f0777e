import Foundation
import ServingTypes
import SharedMemory
import Testing

@testable import WorkerService

extension WorkerServiceTests {
    /// Faults with the KV of a real model: its blocks are larger, checked by libllama and dense.
    @Suite struct ModelTests {
        private static let model = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "Models/tiny.gguf").path

        private var options: Bench.Options {
            var options = Bench.Options()
            options.arguments = [
                "--engine", "llama", "--model", Self.model, "--micro-batch", "64", "--threads",
                "1", "--kv-tokens", "2048", "--calibrate", "never",
            ]
            options.prefillSlots = 2
            options.decodeSequences = 4
            return options
        }

        private func request(_ number: Int) -> BenchRequest {
            var request = BenchRequest(promptTokens: 0, newTokens: 8)
            request.prompt = (0..<300).map { TokenID(40 + ($0 * 7 + $0 / 11 + number) % 1800) }
            request.sampling.ignoresEndOfGeneration = true
            request.sampling.seed = 1
            return request
        }

        @Test func `a cut, a flipped bit and a slow link change no token of a model`()
            async throws
        {
            try await Bench.run(options) { bench in
                let expected = try await bench.answer(request(0))
                #expect(expected.failure == nil && expected.tokens.count == 8)
                let carried = try await carried(bench, expected)
                let damages: [Forwarder.Damage] = [.reset, .close, .flip]
                for index in 0..<(isLong ? 60 : 6) {
                    let fault = Forwarder.Fault(
                        damage: damages[index % damages.count], direction: .up,
                        position: carried.up * (index + 1) / (isLong ? 62 : 8))
                    let forwarder = try Forwarder(to: bench.decode.bulkAddress, faults: [fault])
                    defer { forwarder.stop() }
                    let answer = try await bench.answer(request(0), through: forwarder.address)
                    #expect(answer == expected, "\(fault)")
                    #expect(forwarder.carried.count == 2, "\(fault)")
                }
                let slow = try Forwarder(
                    to: bench.decode.bulkAddress,
                    Forwarder.Conduct(bytesPerSecond: Double(carried.up) * 2))
                defer { slow.stop() }
                let answer = try await bench.answer(request(0), through: slow.address)
                #expect(answer == expected)
                try await bench.settle()
            }
        }

        @Test func `known beginnings, late places and own prompts change no token of a model`()
            async throws
        {
            var options = options
            options.prefillKeptSequences = 3
            options.prefill = ["--prefix-block", "64"]
            try await Bench.run(options) { bench in
                let expected = try await bench.answer(request(2))
                #expect(expected.failure == nil && expected.tokens.count == 8)
                for way in 0..<3 {
                    let request = request(2).again
                    let placed = try await bench.reserve(request)
                    let target = KVTarget(
                        instance: bench.decode.instance, bulkAddress: bench.decode.bulkAddress,
                        secret: placed.granted.secret)
                    let offer = PrefillOffer(
                        terms: request.terms, target: way == 1 ? nil : target)
                    bench.gateway.send(
                        .prefillOffer(offer), request.prompt,
                        to: way == 2 ? .decodeWorker : .prefillWorker)
                    let event = try await placed.events.next(within: .seconds(10))
                    guard case .accepted(let accepted) = event else {
                        throw BenchFailure("an offer was answered by \(event)")
                    }
                    #expect(accepted.cachedTokens == (way == 2 ? 0 : 256))
                    if way == 1 {
                        let place = PlaceKV(attempt: request.attempt, target: target)
                        bench.gateway.send(.placeKV(place), to: .prefillWorker)
                    }
                    #expect(try await bench.outcome(of: placed) == expected, "way \(way)")
                    try await bench.settle()
                }
            }
        }

        /// Bytes of one transfer on a fresh connection.
        private func carried(
            _ bench: Bench, _ expected: Answer
        ) async throws -> Forwarder.Carried {
            let forwarder = try Forwarder(to: bench.decode.bulkAddress)
            defer { forwarder.stop() }
            let answer = try await bench.answer(request(0), through: forwarder.address)
            #expect(answer == expected)
            return try #require(forwarder.carried.first)
        }

        @Test(.enabled(if: SharedMemorySource.isSupported))
        func `memory and stream give a model's tokens alike`() async throws {
            let folder = FileManager.default.temporaryDirectory
                .appendingPathComponent("kv-\(UInt32.random(in: 0 ... .max))").path
            defer { try? FileManager.default.removeItem(atPath: folder) }
            var options = options
            options.localFolder = folder
            try await Bench.run(options) { bench in
                let first = try await bench.answer(request(1))
                let passed = try await BenchMetrics.rise(
                    of: "prefill_kv_chunks_total", ["carrier": "memory"]
                ) {
                    let second = try await bench.answer(request(1))
                    #expect(second == first)
                }
                #expect(passed > 3)
                let path = try #require(bench.decode.service.local?.path)
                try FileManager.default.removeItem(atPath: path)
                // Another address is another connection, which finds no socket.
                let forwarder = try Forwarder(to: bench.decode.bulkAddress)
                defer { forwarder.stop() }
                let streamed = try await bench.answer(request(1), through: forwarder.address)
                #expect(streamed == first)
                #expect(forwarder.carried.first?.up ?? 0 > 100_000)
                try await bench.settle()
            }
        }
    }
}
