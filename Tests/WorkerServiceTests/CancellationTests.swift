import Foundation
import ServingTypes
import SharedMemory
import Testing

extension WorkerServiceTests {
    /// Requests that are cancelled at any moment, many in a row.
    @Suite struct CancellationTests {
        private static let count =
            ProcessInfo.processInfo.environment["KV_CANCELLATIONS"].flatMap { Int($0) } ?? 1000

        @Test(arguments: ["stream", "memory"])
        func `cancelled transfers leave nothing behind`(carrier: String) async throws {
            let seed = UInt64.random(in: 0 ... .max)
            let folder = FileManager.default.temporaryDirectory
                .appendingPathComponent("kv-\(UInt32(truncatingIfNeeded: seed))").path
            defer { try? FileManager.default.removeItem(atPath: folder) }
            var options = Bench.Options()
            options.localFolder = carrier == "memory" ? folder : "none"
            try await Bench.run(options) { bench in
                // Once round: pools are filled, connections stand.
                try await cancel(200, seed, bench)
                let ports: Set<Int> = [
                    bench.prefill.controlAddress.port, bench.decode.controlAddress.port,
                    bench.decode.bulkAddress.port,
                ]
                let (before, memory) = try (Footprint.now(ports: ports), Footprint.residentBytes())
                let files = try Footprint.descriptors()
                let start = ContinuousClock.now
                try await cancel(Self.count, seed &+ 1, bench)
                let time = ContinuousClock.now - start
                try await Footprint.wait(ports: ports, toBe: before, within: .seconds(5))
                let growth = try Footprint.residentBytes() - memory
                let opened = try Footprint.descriptors() - files
                print(
                    "\(Self.count) cancelled transfers over \(carrier) in \(time): memory grew by "
                        + "\(growth >> 10) KiB, descriptors by \(opened), seed \(seed)")
                // Beside the short sweeps other tests run in this process.
                #expect(growth < (isLong ? 32 : 256) << 20)
                // Memory that is kept for reuse has a descriptor.
                #expect(!isLong || opened <= SharedMemoryLimits.memoryFiles)
                let request = BenchRequest()
                try await bench.expectRight(bench.answer(request), to: request)
                try await bench.settle()
            }
        }

        private func cancel(_ count: Int, _ seed: UInt64, _ bench: Bench) async throws {
            try await forEach(Array(0..<count), atOnce: 6) { number in
                var generator = SeededGenerator(seed: seed &+ UInt64(number))
                let tokens = Int.random(in: 1...400, using: &generator)
                let request = BenchRequest(promptTokens: tokens, newTokens: 40)
                let placed = try await bench.reserve(request)
                if Int.random(in: 0..<10, using: &generator) > 0 {
                    try await bench.offer(placed)
                }
                let pause = Double.random(in: 0...6, using: &generator)
                try await Task.sleep(for: .milliseconds(pause))
                bench.cancel(request.attempt)
                bench.gateway.forget(request.attempt)
            }
            try await bench.settle(within: .seconds(20))
        }
    }
}
