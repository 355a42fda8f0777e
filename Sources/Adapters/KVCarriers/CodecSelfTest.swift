package import InferenceEngine
package import KVTransfer
import ServiceRuntime
import ServingTypes
import Transport

/// Measures once, in some 50 ms, how fast one core of this host encrypts and compresses KV.
package enum CodecSelfTest {
    /// Time for encryption, and again for the codec.
    private static let duration = Duration.milliseconds(20)

    /// - Throws: `TransportError` or `KVTransferError` if there is no memory for it.
    package static func run(_ codec: PieceCodec) throws -> TransferRates {
        let cipher = try CipherSpeed.measure(for: duration, clock: .processor)
        let (compress, decompress) = try codecRates(codec)
        return TransferRates(
            encryptBytesPerSecond: min(cipher.sealBytesPerSecond, cipher.openBytesPerSecond),
            compressBytesPerSecond: compress, decompressBytesPerSecond: decompress)
    }

    private static func codecRates(
        _ codec: PieceCodec
    ) throws(KVTransferError) -> (compress: Double, decompress: Double) {
        let encoder = try PieceEncoder()
        let decoder = try PieceDecoder()
        let raw = KVBuffer(capacityBytes: KVTransferLimits.pieceBytes)
        let place = KVBuffer(capacityBytes: KVTransferLimits.pieceBytes)
        fill(raw)
        let start = ProcessClock.now()
        var compress = Duration.seconds(1)
        var decompress = Duration.seconds(1)
        try unsafe raw.withBytes { raw throws(KVTransferError) in
            try unsafe place.withWritableBytes { place throws(KVTransferError) in
                // The best round: others touch fresh memory, or another thread had the core.
                repeat {
                    let begin = ProcessClock.now()
                    let piece = unsafe try encoder.encode(
                        raw, codec: codec, checksumsRaw: false)
                    let middle = ProcessClock.now()
                    try unsafe decoder.decode(
                        piece.header, wire: piece.wire, into: place, checksRaw: false)
                    compress = min(compress, middle - begin)
                    decompress = min(decompress, ProcessClock.now() - middle)
                } while ProcessClock.now() - start < duration
            }
        }
        let bytes = Double(KVTransferLimits.pieceBytes)
        return (bytes / max(compress.seconds, 1e-6), bytes / max(decompress.seconds, 1e-6))
    }

    /// Half-precision numbers around zero, like keys and values: the low byte is noise.
    package static func fill(_ buffer: KVBuffer) {
        var generator = SeededGenerator(seed: 1)
        unsafe buffer.withWritableBytes { bytes in
            for index in stride(from: 0, to: bytes.count, by: 2) {
                // Four numbers of 16 bits, added, come near the normal distribution.
                let random = generator.next()
                var sum: UInt64 = 0
                for part in 0..<UInt64(4) { sum += (random >> (16 * part)) & 0xffff }
                let bits = Float16(Float(sum) / 32768 - 4).bitPattern.littleEndian
                unsafe bytes.storeBytes(of: bits, toByteOffset: index, as: UInt16.self)
            }
        }
        buffer.setUsedBytes(buffer.capacityBytes)
    }
}
