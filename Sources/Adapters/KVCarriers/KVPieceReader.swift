package import InferenceEngine
package import KVTransfer
package import Metrics
import ServiceRuntime
import ServingTypes
package import Transport
package import WireProtocol

/// Reads KV payloads from bulk connections into their place, for one thread at a time.
package struct KVPieceReader {
    /// What is read before it is summed: it is still in the cache then.
    private static let summedBytes = 64 << 10

    private let decoder: PieceDecoder
    private let metrics: KVReaderMetrics

    /// Throws if there is no memory for the codec.
    package init(
        metrics: any MetricsFactory = MetricsSystem.factory
    ) throws(KVTransferError) {
        decoder = try PieceDecoder()
        self.metrics = KVReaderMetrics(factory: metrics)
    }

    /// Reads a payload into the buffer.
    ///
    /// - Parameters:
    ///   - frame: header of the frame whose message was read last; its payload must fit into the
    ///     buffer.
    ///   - deadline: for all of it.
    ///   - onPiece: called when a piece begins.
    /// - Throws: `KVTransferError` if a piece's header makes no sense, `TransportError` if the
    ///   connection ends. It is shut down after both.
    package func receive(
        _ frame: FrameHeader, into buffer: KVBuffer, from connection: BulkConnection,
        deadline: Duration, onPiece: () -> Void = {}
    ) throws -> ReceivedPayload {
        precondition(frame.payloadBytes <= buffer.capacityBytes, "the buffer is too small")
        let checksRaw = frame.flags.contains(.payloadChecksums)
        let received = try unsafe buffer.withWritableBytes { memory in
            try walk(frame, connection, deadline) { header, start, left, received in
                onPiece()
                let place = unsafe UnsafeMutableRawBufferPointer(
                    rebasing: memory[start..<start + header.rawBytes])
                guard received.outcome == .whole else {
                    return try unsafe connection.receive(
                        into: decoder.landing(for: header, in: place), deadline: left())
                }
                let isGood =
                    header.codec == .raw
                    ? try unsafe landRaw(header, place, checksRaw, connection, left)
                    : try unsafe decode(header, place, connection, left(), &received)
                if !isGood { received.outcome = .damaged(pieceIndex: received.pieces) }
            }
        }
        buffer.setUsedBytes(received.outcome == .whole ? frame.payloadBytes : 0)
        return received
    }

    /// Reads a payload that nobody wants, without memory of its size; errors as of `receive`.
    package func skip(
        _ frame: FrameHeader, from connection: BulkConnection, deadline: Duration
    ) throws -> ReceivedPayload {
        try walk(frame, connection, deadline) { header, _, left, _ in
            try unsafe connection.receive(into: decoder.scrap(for: header), deadline: left())
        }
    }

    /// Reads one header after the other; `body` reads what follows each.
    private func walk(
        _ frame: FrameHeader, _ connection: BulkConnection, _ deadline: Duration,
        _ body: (PieceHeader, Int, () -> Duration, inout ReceivedPayload) throws -> Void
    ) throws -> ReceivedPayload {
        let end = ProcessClock.now() + deadline
        let left = { max(.milliseconds(1), end - ProcessClock.now()) }
        var received = ReceivedPayload()
        defer { metrics.record(received) }
        while received.rawBytes < frame.payloadBytes {
            let remaining = frame.payloadBytes - received.rawBytes
            received.wireBytes += PieceHeader.byteCount
            guard let header = try nextHeader(connection, remaining, left()) else {
                received.outcome = .brokenOff
                return received
            }
            try body(header, received.rawBytes, left, &received)
            received.pieces += 1
            if header.codec != .raw { received.compressedPieces += 1 }
            received.rawBytes += header.rawBytes
            received.wireBytes += header.wireBytes
        }
        return received
    }

    private func nextHeader(
        _ connection: BulkConnection, _ remainingBytes: Int, _ left: Duration
    ) throws -> PieceHeader? {
        try unsafe withUnsafeTemporaryAllocation(
            byteCount: PieceHeader.byteCount, alignment: 4
        ) { bytes in
            try unsafe connection.receive(into: bytes, deadline: left)
            do {
                return unsafe try PieceHeader(
                    bytes: UnsafeRawBufferPointer(bytes), remainingBytes: remainingBytes)
            } catch {
                // Nobody knows where the next frame begins.
                connection.shutdown()
                throw error
            }
        }
    }

    /// Whether the piece is as it was sent.
    private func landRaw(
        _ header: PieceHeader, _ place: UnsafeMutableRawBufferPointer, _ checks: Bool,
        _ connection: BulkConnection, _ left: () -> Duration
    ) throws(TransportError) -> Bool {
        guard checks else {
            try unsafe connection.receive(into: place, deadline: left())
            return true
        }
        var checksum: UInt32 = 0
        for start in stride(from: 0, to: place.count, by: Self.summedBytes) {
            let part = unsafe UnsafeMutableRawBufferPointer(
                rebasing: place[start..<min(start + Self.summedBytes, place.count)])
            try unsafe connection.receive(into: part, deadline: left())
            checksum = unsafe CRC32C.checksum(UnsafeRawBufferPointer(part), seed: checksum)
        }
        return checksum == header.checksum
    }

    /// Whether the piece is as it was sent.
    private func decode(
        _ header: PieceHeader, _ place: UnsafeMutableRawBufferPointer,
        _ connection: BulkConnection, _ left: Duration, _ received: inout ReceivedPayload
    ) throws(TransportError) -> Bool {
        try unsafe connection.receive(
            into: decoder.landing(for: header, in: place), deadline: left)
        let start = ProcessClock.now()
        defer { received.codecTime += ProcessClock.now() - start }
        do throws(KVTransferError) {
            try unsafe decoder.finish(header, in: place, checksRaw: false)
            return true
        } catch { return false }
    }
}
