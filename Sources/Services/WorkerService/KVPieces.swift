import InferenceEngine
import KVTransfer
import ServiceRuntime
import ServingTypes
import Transport

/// Writes KV payloads to one bulk connection, piece by piece.
struct KVPieceWriter {
    private let encoder: PieceEncoder
    private var rule: CompressionRule

    /// - Parameter rates: nil never compresses.
    init(rates: TransferRates?, isSameHost: Bool) throws(KVTransferError) {
        encoder = try PieceEncoder()
        let none = TransferRates(
            encryptBytesPerSecond: 1, compressBytesPerSecond: 1, decompressBytesPerSecond: 1)
        rule = CompressionRule(
            codec: rates == nil ? .raw : .bytePlanes, rates: rates ?? none, spareCores: 0,
            isSameHost: isSameHost)
    }

    /// Sends a chunk; gives its bytes on the wire.
    mutating func send(
        _ chunk: KVChunk, _ buffer: KVBuffer, on connection: BulkConnection, deadline: Duration
    ) throws(TransportError) -> Int {
        let started = ProcessClock.now()
        var rule = rule
        var wireBytes = 0
        try unsafe buffer.withBytes { bytes throws(TransportError) in
            try unsafe connection.send(
                .kvChunk(chunk), payloadBytes: bytes.count, deadline: deadline
            ) { write throws(TransportError) in
                var start = 0
                while start < bytes.count {
                    let end = min(start + KVTransferLimits.pieceBytes, bytes.count)
                    let raw = unsafe UnsafeRawBufferPointer(rebasing: bytes[start..<end])
                    let piece = unsafe try encode(raw, rule.nextCodec())
                    if let tried = unsafe piece.triedWireBytes {
                        rule.compressed(rawBytes: raw.count, wireBytes: tried)
                    }
                    try unsafe withUnsafeTemporaryAllocation(
                        byteCount: PieceHeader.byteCount, alignment: 4
                    ) { header throws(TransportError) in
                        unsafe piece.header.write(into: header)
                        try unsafe write(UnsafeRawBufferPointer(header))
                    }
                    try unsafe write(piece.wire)
                    unsafe wireBytes += PieceHeader.byteCount + piece.wire.count
                    start = end
                }
            }
        }
        rule.sent(wireBytes: wireBytes, in: ProcessClock.now() - started)
        self.rule = rule
        return wireBytes
    }

    private func encode(
        _ raw: UnsafeRawBufferPointer, _ codec: PieceCodec
    ) throws(TransportError) -> EncodedPiece {
        do throws(KVTransferError) {
            return unsafe try encoder.encode(raw, codec: codec, checksumsRaw: false)
        } catch {
            throw .library("KV can't be encoded: \(error)")
        }
    }
}

/// Reads KV payloads from one bulk connection into their place.
struct KVPieceReader {
    private let decoder: PieceDecoder

    init() throws(KVTransferError) { decoder = try PieceDecoder() }

    /// Reads a whole payload into the buffer.
    ///
    /// - Parameter payloadBytes: raw bytes; at most the buffer's capacity.
    /// - Throws: `KVTransferError` if a piece is damaged, `TransportError` if the connection ends;
    ///   after both the connection is of no more use.
    func receive(
        _ payloadBytes: Int, into buffer: KVBuffer, from connection: BulkConnection,
        deadline: Duration
    ) throws {
        let end = ProcessClock.now() + deadline
        try unsafe buffer.withWritableBytes { memory in
            try unsafe withUnsafeTemporaryAllocation(
                byteCount: PieceHeader.byteCount, alignment: 4
            ) { head in
                var start = 0
                while start < payloadBytes {
                    let left = max(.milliseconds(1), end - ProcessClock.now())
                    try unsafe connection.receive(into: head, deadline: left)
                    let header = unsafe try PieceHeader(
                        bytes: UnsafeRawBufferPointer(head),
                        remainingBytes: payloadBytes - start)
                    let place = unsafe UnsafeMutableRawBufferPointer(
                        rebasing: memory[start..<start + header.rawBytes])
                    try unsafe connection.receive(
                        into: decoder.landing(for: header, in: place), deadline: left)
                    try unsafe decoder.finish(header, in: place, checksRaw: false)
                    start += header.rawBytes
                }
            }
        }
        buffer.setUsedBytes(payloadBytes)
    }
}

/// Measures once how fast one core of this host compresses and decompresses KV.
enum CodecSelfTest {
    /// Pieces per direction: some ten milliseconds.
    private static let pieces = 8
    /// TLS of one core on the slower side; measured for AES-128-GCM with AES instructions.
    private static let encryptBytesPerSecond = 1.5e9

    static func run() throws(KVTransferError) -> TransferRates {
        let encoder = try PieceEncoder()
        let decoder = try PieceDecoder()
        let raw = KVBuffer(capacityBytes: KVTransferLimits.pieceBytes)
        let place = KVBuffer(capacityBytes: KVTransferLimits.pieceBytes)
        fill(raw)
        var compress = Duration.zero
        var decompress = Duration.zero
        try unsafe raw.withBytes { raw throws(KVTransferError) in
            try unsafe place.withWritableBytes { place throws(KVTransferError) in
                for _ in 0..<pieces {
                    let start = ProcessClock.now()
                    let piece = unsafe try encoder.encode(
                        raw, codec: .bytePlanes, checksumsRaw: false)
                    let middle = ProcessClock.now()
                    try unsafe decoder.decode(
                        piece.header, wire: piece.wire, into: place, checksRaw: false)
                    compress += middle - start
                    decompress += ProcessClock.now() - middle
                }
            }
        }
        let bytes = Double(pieces * KVTransferLimits.pieceBytes)
        return TransferRates(
            encryptBytesPerSecond: encryptBytesPerSecond,
            compressBytesPerSecond: bytes / max(compress.seconds, 1e-6),
            decompressBytesPerSecond: bytes / max(decompress.seconds, 1e-6))
    }

    /// Half-precision numbers around zero, like keys and values: the low byte is noise.
    private static func fill(_ buffer: KVBuffer) {
        var generator = SeededGenerator(seed: 1)
        unsafe buffer.withWritableBytes { bytes in
            for index in stride(from: 0, to: bytes.count, by: 2) {
                var sum: Float = 0
                for _ in 0..<4 { sum += Float.random(in: -1...1, using: &generator) }
                let bits = Float16(sum).bitPattern.littleEndian
                unsafe bytes.storeBytes(of: bits, toByteOffset: index, as: UInt16.self)
            }
        }
        buffer.setUsedBytes(buffer.capacityBytes)
    }
}
