import Foundation
import Synchronization

@testable import Transport

/// Keys known to all, and a list of those that were asked for.
final class FixedKeys: RecordKeys {
    private let seed: Int
    private let epochs = Mutex<[UInt32]>([])

    init(seed: Int = 0) { self.seed = seed }

    var exported: [UInt32] { epochs.withLock(\.self) }

    func export(
        _ direction: StreamDirection, epoch: UInt32, into material: UnsafeMutableRawBufferPointer
    ) {
        epochs.withLock { $0.append(epoch) }
        for index in material.indices {
            let number = index * 7 + Int(epoch) * 31 + Int(direction.rawValue) * 101 + seed + 1
            unsafe material[index] = UInt8(truncatingIfNeeded: number)
        }
    }
}

/// Two connected sockets of this process.
struct SocketPair {
    let sender: StreamSocket
    let receiver: StreamSocket

    init() throws {
        var files: [Int32] = [-1, -1]
        guard unsafe socketpair(AF_UNIX, Platform.streamSocket, 0, &files) == 0 else {
            throw SystemError()
        }
        for file in files { _ = fcntl(file, F_SETFL, fcntl(file, F_GETFL) | O_NONBLOCK) }
        sender = StreamSocket(file: files[0])
        receiver = StreamSocket(file: files[1])
    }

    /// Sends bytes that fit into the socket's buffer.
    func send(_ bytes: [UInt8]) {
        let count = unsafe bytes.withUnsafeBytes { unsafe Platform.write(sender.file, $0) }
        precondition(count == bytes.count)
    }

    func opener(
        _ direction: StreamDirection = .clientToServer, keys: FixedKeys = FixedKeys(),
        recordsPerKey: UInt64 = TransportLimits.sealedRecordsPerKey
    ) throws -> RecordOpener {
        RecordOpener(
            socket: receiver,
            cipher: try RecordCipher(.open, direction, keys: keys, recordsPerKey: recordsPerKey))
    }
}

/// Sealed records of a client as bytes.
enum SealedStream {
    struct Outcome: Equatable {
        var bytes: [UInt8] = []
        var error: TransportError?
        /// Whether the memory offered last held nothing of a record that was refused.
        var untouchedOrZero = true
    }

    /// One record for each payload and the last one, which ends the stream.
    static func records(
        of payloads: [[UInt8]], keys: FixedKeys = FixedKeys(),
        recordsPerKey: UInt64 = TransportLimits.sealedRecordsPerKey
    ) throws -> [[UInt8]] {
        let pair = try SocketPair()
        let sealer = RecordSealer(
            socket: pair.sender,
            cipher: try RecordCipher(
                .seal, .clientToServer, keys: keys, recordsPerKey: recordsPerKey))
        var records: [[UInt8]] = []
        func take() throws {
            var record = [UInt8](repeating: 0, count: 1 << 20)
            let count = unsafe record.withUnsafeMutableBytes {
                unsafe Platform.read(pair.receiver.file, $0)
            }
            records.append(Array(record.prefix(count)))
        }
        let deadline = Deadline(after: .seconds(5))
        for payload in payloads {
            try unsafe payload.withUnsafeBytes { try unsafe sealer.write($0, deadline) }
            try sealer.flush(deadline)
            try take()
        }
        try sealer.end(deadline)
        try take()
        return records
    }

    /// What a receiver is given of these bytes, and how it ends.
    static func open(
        _ records: [[UInt8]], direction: StreamDirection = .clientToServer,
        keys: FixedKeys = FixedKeys(),
        recordsPerKey: UInt64 = TransportLimits.sealedRecordsPerKey
    ) throws -> Outcome {
        let pair = try SocketPair()
        pair.send(Array(records.joined()))
        Platform.shutdown(pair.sender.file, .sending)
        let opener = try pair.opener(direction, keys: keys, recordsPerKey: recordsPerKey)
        var outcome = Outcome()
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while outcome.error == nil {
            for index in buffer.indices { buffer[index] = 0 }
            do throws(TransportError) {
                let count = try read(opener, into: &buffer, .seconds(5))
                outcome.bytes += buffer.prefix(count)
            } catch {
                outcome.error = error
                outcome.untouchedOrZero = buffer.allSatisfy { $0 == 0 }
            }
        }
        return outcome
    }

    static func read(
        _ opener: RecordOpener, count: Int, _ deadline: Duration = .seconds(5)
    ) throws -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: count)
        let count = try read(opener, into: &buffer, deadline)
        return Array(buffer.prefix(count))
    }

    private static func read(
        _ opener: RecordOpener, into buffer: inout [UInt8], _ deadline: Duration
    ) throws(TransportError) -> Int {
        var span = buffer.mutableSpan
        var raw = unsafe span.mutableBytes
        return try unsafe raw.withUnsafeMutableBytes { bytes throws(TransportError) in
            try unsafe opener.read(into: bytes, Deadline(after: deadline))
        }
    }
}
