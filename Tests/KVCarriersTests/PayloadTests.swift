import InferenceEngine
import KVCarriers
import KVTransfer
import ServingTypes
import Synchronization
import Testing
import Transport
import WireProtocol

@Suite(.timeLimit(.minutes(2))) struct PayloadTests {
    private static let whole = KVTransferLimits.pieceBytes
    private static let sizes = [1, 2, 3, 1001, whole - 1, whole, whole + 1, 3 * whole + 5]

    @Test(arguments: [true, false], PieceCodec.allCases)
    func `payloads of any size arrive, whoever connected`(
        senderConnects: Bool, codec: PieceCodec
    ) async throws {
        let pair = try await onThread { try BulkPair(senderConnects: senderConnects) }
        defer { pair.close() }
        let payloads = Self.sizes.map { sampleBytes($0, seed: UInt64($0)) }
        for checksums in [false, true] {
            let (sent, received) = try await pair.run { connection in
                var writer = try KVPieceWriter.always(codec, checksumsRaw: checksums)
                return try payloads.map { try writer.send($0, on: connection) }
            } _: { connection in
                let reader = try KVPieceReader()
                return try payloads.map { _ in try reader.next(from: connection) }
            }
            for (index, payload) in payloads.enumerated() {
                let pieces = (payload.count + Self.whole - 1) / Self.whole
                let (got, bytes) = received[index]
                #expect(got.outcome == .whole && bytes == payload, "\(payload.count) bytes")
                #expect(sent[index].rawBytes == payload.count && got.rawBytes == payload.count)
                #expect(sent[index].wireBytes == got.wireBytes)
                #expect(sent[index].pieces == pieces && got.pieces == pieces)
                #expect(sent[index].compressedPieces == got.compressedPieces)
                #expect(!sent[index].isBrokenOff)
                // Byte planes need pairs; the pieces here are odd but for whole ones.
                let fits = payload.count > 100 && (codec == .zstd || payload.count >= Self.whole)
                if codec == .raw || !fits {
                    #expect(got.compressedPieces == 0)
                } else {
                    #expect(got.compressedPieces > 0)
                    #expect(got.wireBytes < payload.count * 9 / 10)
                }
            }
        }
    }

    @Test(arguments: PieceCodec.allCases)
    func `a payload breaks off before any piece and the next one arrives`(
        _ codec: PieceCodec
    ) async throws {
        let pair = try await onThread { try BulkPair() }
        defer { pair.close() }
        let payload = sampleBytes(4 * Self.whole + 10, seed: 1)
        let (sent, received) = try await pair.run { connection in
            var writer = try KVPieceWriter.always(codec)
            return try (0...5).map { index in
                var asked = 0
                return try writer.send(payload, on: connection) {
                    asked += 1
                    return asked > index
                }
            }
        } _: { connection in
            let reader = try KVPieceReader()
            return try (0...5).map { _ in try reader.next(from: connection) }
        }
        for index in 0..<5 {
            let (got, bytes) = received[index]
            #expect(sent[index].isBrokenOff && sent[index].pieces == index)
            #expect(got.outcome == .brokenOff && bytes.isEmpty)
            #expect(got.rawBytes == index * Self.whole && got.pieces == index)
            #expect(sent[index].rawBytes == got.rawBytes)
        }
        #expect(!sent[5].isBrokenOff)
        #expect(received[5].0.outcome == .whole && received[5].1 == payload)
    }

    @Test func `a raw piece without checksum is taken as it comes`() async throws {
        let payload = sampleBytes(1000, seed: 2)
        let pair = try await onThread { try BulkPair() }
        defer { pair.close() }
        let (_, got) = try await pair.run { connection in
            var pieces = try EncodedPayload(payload, .raw, checksumsRaw: false)
            pieces.pieces[0][500] ^= 1
            try pieces.send(on: connection)
        } _: { connection in
            try KVPieceReader().next(from: connection)
        }
        #expect(got.0.outcome == .whole)
        #expect(got.1 != payload)
    }

    @Test(arguments: PieceCodec.allCases)
    func `a damaged piece is noticed, the connection stays`(_ codec: PieceCodec) async throws {
        let pair = try await onThread { try BulkPair() }
        defer { pair.close() }
        let payload = sampleBytes(2 * Self.whole + 5000, seed: 3)
        let (_, received) = try await pair.run { connection in
            for index in 0..<4 {
                var pieces = try EncodedPayload(payload, codec, checksumsRaw: true)
                if index < 3 {
                    let middle = pieces.pieces[index].count / 2
                    pieces.pieces[index][middle] ^= 0x40
                }
                try pieces.send(on: connection)
            }
        } _: { connection in
            let reader = try KVPieceReader()
            return try (0..<4).map { _ in try reader.next(from: connection) }
        }
        for index in 0..<3 {
            #expect(received[index].0.outcome == .damaged(pieceIndex: index))
            #expect(received[index].0.rawBytes == payload.count)
            #expect(received[index].1.isEmpty)
        }
        #expect(received[3].0.outcome == .whole && received[3].1 == payload)
    }

    @Test func `a header without sense ends the connection`() async throws {
        for (offset, value) in [(8, UInt8(4)), (0, 1), (4, 9), (9, 1)] {
            let pair = try await onThread { try BulkPair() }
            defer { pair.close() }
            let payload = sampleBytes(5000, seed: 4)
            let expected =
                offset == 8 ? KVTransferError.unknownCodec(4) : .pieceHeaderInvalid
            let (_, error) = try await pair.run { connection in
                var pieces = try EncodedPayload(payload, .raw, checksumsRaw: true)
                pieces.pieces[0][offset] = value
                try pieces.send(on: connection)
            } _: { connection -> KVTransferError? in
                do {
                    _ = try KVPieceReader().next(from: connection)
                    return nil
                } catch { return error as? KVTransferError }
            }
            #expect(error == expected)
            try await onThread {
                #expect(throws: TransportError.shutDown) {
                    try pair.receiver.receiveFrame(deadline: .seconds(5))
                }
                #expect(throws: TransportError.self) {
                    try pair.sender.receiveFrame(deadline: .seconds(5))
                }
            }
        }
    }

    @Test(arguments: PieceCodec.allCases)
    func `payloads that nobody wants are read away`(_ codec: PieceCodec) async throws {
        let pair = try await onThread { try BulkPair() }
        defer { pair.close() }
        let payload = sampleBytes(2 * Self.whole + 7, seed: 5)
        let (_, received) = try await pair.run { connection in
            var writer = try KVPieceWriter.always(codec)
            for _ in 0..<2 { _ = try writer.send(payload, on: connection) }
        } _: { connection in
            let reader = try KVPieceReader()
            let frame = try connection.receiveFrame(deadline: BulkPair.deadline)
            let skipped = try reader.skip(
                frame.header, from: connection, deadline: BulkPair.deadline)
            return (skipped, try reader.next(from: connection))
        }
        #expect(received.0.rawBytes == payload.count)
        #expect(received.1.0.outcome == .whole && received.1.1 == payload)
    }

    @Test func `a payload that stalls ends at its deadline`() async throws {
        let pair = try await onThread { try BulkPair() }
        defer { pair.close() }
        let start = ContinuousClock.now
        let (_, error) = try await pair.run { connection in
            var pieces = try EncodedPayload(
                sampleBytes(5000, seed: 6), .raw, checksumsRaw: false)
            pieces.pieces[0].removeLast(100)
            try pieces.send(on: connection)
        } _: { connection -> TransportError? in
            let frame = try connection.receiveFrame(deadline: BulkPair.deadline)
            let buffer = KVBuffer(capacityBytes: frame.header.payloadBytes)
            do {
                _ = try KVPieceReader().receive(
                    frame.header, into: buffer, from: connection, deadline: .milliseconds(100))
                return nil
            } catch { return error as? TransportError }
        }
        #expect(error == .deadline)
        #expect(ContinuousClock.now - start < .seconds(10))
    }
}

/// Pieces of one payload, header and wire bytes each, for damage.
struct EncodedPayload {
    var pieces: [[UInt8]]
    let rawBytes: Int
    let checksumsRaw: Bool

    init(_ payload: [UInt8], _ codec: PieceCodec, checksumsRaw: Bool) throws {
        let encoder = try PieceEncoder()
        rawBytes = payload.count
        self.checksumsRaw = checksumsRaw
        pieces = try stride(from: 0, to: payload.count, by: KVTransferLimits.pieceBytes).map {
            let end = min($0 + KVTransferLimits.pieceBytes, payload.count)
            return try unsafe Array(payload[$0..<end]).withUnsafeBytes { raw in
                let piece = try unsafe encoder.encode(
                    raw, codec: codec, checksumsRaw: checksumsRaw)
                var bytes = [UInt8](repeating: 0, count: PieceHeader.byteCount)
                unsafe bytes.withUnsafeMutableBytes { unsafe piece.header.write(into: $0) }
                unsafe bytes.append(contentsOf: piece.wire)
                return bytes
            }
        }
    }

    func send(on connection: BulkConnection) throws {
        let bytes = Array(pieces.joined())
        try unsafe bytes.withUnsafeBytes { bytes in
            try unsafe connection.send(
                BulkPair.chunk, flags: checksumsRaw ? .payloadChecksums : [],
                payloadBytes: rawBytes, payload: [bytes], deadline: BulkPair.deadline)
        }
    }
}
