import Foundation
import InferenceEngine
import KVCarriers
import KVTransfer
import Logging
import ServiceRuntime
import ServingTypes
import Synchronization
import Testing
import Transport

/// The rule on real connections.
@Suite(.timeLimit(.minutes(2))) struct AdaptiveTests {
    /// Some pieces' worth, small enough that 32 of them pass quickly.
    private static let payloadBytes = 256 << 10

    private static func writer(
        _ log: LogLines, _ registry: MetricsRegistry, ignoresSameHost: Bool,
        rates: TransferRates? = nil
    ) throws -> KVPieceWriter {
        var settings = KVPieceWriter.Settings(
            compression: .auto, codec: .bytePlanes,
            rates: try rates ?? CodecSelfTest.run(.bytePlanes))
        settings.ignoresSameHost = ignoresSameHost
        return try KVPieceWriter(settings: settings, logger: log.logger, metrics: registry)
    }

    @Test func `a peer that reads slowly is sent compressed KV, and metrics say why`()
        async throws
    {
        let pair = try await onThread { try BulkPair() }
        defer { pair.close() }
        let (log, registry) = (LogLines(), MetricsRegistry())
        let payload = sampleBytes(Self.payloadBytes, seed: 7)
        let count = 128
        let (rule, received) = try await pair.run { connection in
            var writer = try Self.writer(log, registry, ignoresSameHost: true)
            for _ in 0..<count { _ = try writer.send(payload, on: connection) }
            return writer.rule
        } _: { connection in
            let reader = try KVPieceReader(metrics: registry)
            return try (0..<count).map { _ in
                let received = try reader.next(from: connection).0
                // At most 8 MB/s of what is on the wire.
                Thread.sleep(forTimeInterval: Double(received.wireBytes) / 8e6)
                return received
            }
        }
        let link = try #require(rule.linkBytesPerSecond)
        // A slow peer, not loopback's gigabytes; other tests share the cores, so no closer bound.
        #expect(link > 1e6 && link < 100e6)
        #expect(received.allSatisfy { $0.outcome == .whole })
        let peer = ["peer": Role.decodeWorker.name]
        #expect(registry.value("prefill_kv_compressing", peer) == (rule.isCompressing ? 1 : 0))
        #expect(registry.value("prefill_kv_compression_ratio", peer) == rule.ratio)
        #expect(registry.value("prefill_kv_link_bytes_per_second", peer) == link)
        for rate in ["encrypt", "compress", "decompress"] {
            let name = "prefill_kv_\(rate)_bytes_per_second"
            #expect(try #require(registry.value(name, peer)) > 1e6)
        }
        let compressed = received.reduce(0) { $0 + $1.compressedPieces }
        #expect(compressed >= CompressionRule.choicePieces)
        #expect(registry.value("prefill_kv_compressed_pieces") == Double(compressed))
        #expect(registry.value("prefill_kv_raw_pieces") == Double(count - compressed))
        #expect(registry.value("prefill_kv_probe_pieces") == Double(rule.probes))
        #expect(rule.probes > 0)
        #expect(registry.value("prefill_kv_codec_changes") == Double(log.all.count))
        #expect(registry.value("decode_kv_compressed_pieces") == Double(compressed))
        #expect(try #require(registry.recorded("prefill_kv_send_wait_seconds")).sum > 0.1)
        let line = try #require(log.all.first)
        #expect(line.contains("info KV is compressed from here on"))
        for word in ["ratio", "link_bytes_per_second", "raw_would_carry"] {
            #expect(line.contains(word))
        }
    }

    @Test func `on the same host nothing is compressed, however slow`() async throws {
        let pair = try await onThread { try BulkPair() }
        defer { pair.close() }
        #expect(pair.sender.isSameHost && pair.receiver.isSameHost)
        let (log, registry) = (LogLines(), MetricsRegistry())
        let payload = sampleBytes(Self.payloadBytes, seed: 8)
        let (_, received) = try await pair.run { connection in
            var writer = try Self.writer(
                log, registry, ignoresSameHost: false,
                rates: TransferRates(
                    encryptBytesPerSecond: 1e9, compressBytesPerSecond: 1e12,
                    decompressBytesPerSecond: 1e12))
            for _ in 0..<100 { _ = try writer.send(payload, on: connection) }
        } _: { connection in
            let reader = try KVPieceReader()
            return try (0..<100).map { _ in try reader.next(from: connection).0 }
        }
        #expect(received.allSatisfy { $0.compressedPieces == 0 && $0.outcome == .whole })
        #expect(registry.value("prefill_kv_probe_pieces") ?? 0 == 0)
        #expect(log.all.isEmpty)
    }

    @Test(arguments: [PieceCodec.bytePlanes, .zstd])
    func `the test at start gives rates of this planet`(_ codec: PieceCodec) throws {
        let start = ContinuousClock.now
        let rates = try CodecSelfTest.run(codec)
        #expect(ContinuousClock.now - start < .seconds(10))
        for rate in [
            rates.encryptBytesPerSecond, rates.compressBytesPerSecond,
            rates.decompressBytesPerSecond,
        ] {
            #expect(rate > 1e6 && rate < 1e12)
        }
        let cipher = try CipherSpeed.measure()
        #expect(cipher.sealBytesPerSecond > 1e7 && cipher.sealBytesPerSecond < 1e12)
        #expect(cipher.openBytesPerSecond > 1e7 && cipher.openBytesPerSecond < 1e12)
    }
}

/// Keeps the lines that a logger gets.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])

    var logger: Logger { Logger(label: "test") { _ in Handler(lines: self) } }
    var all: [String] { lines.withLock(\.self) }

    private struct Handler: LogHandler {
        let lines: LogLines
        var metadata = Logger.Metadata()
        var logLevel = Logger.Level.info

        subscript(metadataKey key: String) -> Logger.MetadataValue? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            lines.lines.withLock {
                $0.append("\(event.level) \(event.message) \(event.metadata ?? [:])")
            }
        }
    }
}
