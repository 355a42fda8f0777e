import InferenceEngine
import ServingTypes
import SharedMemory
import Synchronization
import Transport
import WireProtocol

/// Memory passed to a process of the same host.
///
/// What counts is one copy and the hand-over: the sender copies into memory that it passes, as an
/// engine exports KV, and the receiver takes that over and may read it in place. As from a
/// prefill-worker's pool, the same memory files come again and again; each is passed once before
/// time counts.
struct MemoryContender: KVContender {
    let name: String
    /// Instead, the bytes are in the passed memory before time counts, and the receiver copies
    /// them out.
    let receiverCopies: Bool

    init(name: String = "memory", receiverCopies: Bool = false) {
        self.name = name
        self.receiverCopies = receiverCopies
    }

    var floor: KVFloorKind? { .copy }
    var isSupported: Bool { SharedMemorySource.isSupported }

    func openReceiver(_ place: KVPlace) throws -> any KVReceivingEnd {
        try MemoryReceiver(place, self)
    }

    func openSender(_ place: KVPlace, port: Int) throws -> any KVSendingEnd {
        try MemorySender(place, self, port: port)
    }

    /// In the folder of the run.
    fileprivate var socketName: String { "\(name).socket" }
    /// Both ends are this benchmark's, and the socket lets in no other user.
    fileprivate static let tokenBytes = [UInt8](repeating: 1, count: LocalToken.byteCount)
}

private final class MemorySender: KVSendingEnd {
    private let region: TransferRegion
    private let connection: BulkConnection
    private let local: LocalConnection
    private let pool = KVBufferPool(
        maximumKeptBytes: KVMeasurementLimits.keptMemoryBytes, source: SharedMemorySource())
    private let copies: Bool
    private var buffers: [Range<Int>: KVBuffer] = [:]
    private var passed: UInt64 = 0

    init(_ place: KVPlace, _ contender: MemoryContender, port: Int) throws {
        guard let token = LocalToken(bytes: MemoryContender.tokenBytes) else {
            preconditionFailure("a token has so many bytes")
        }
        region = place.region
        copies = !contender.receiverCopies
        local = try LocalConnection.connect(
            path: "\(place.identities.folder)/\(contender.socketName)", token: token,
            deadline: KVMeasurementLimits.transferDeadline)
        connection = try place.identities.connect(
            port: port, context: place.identities.context(.prefillWorker), records: .tls)
    }

    func prepare(_ ranges: [Range<Int>]) throws {
        buffers = [:]
        for range in ranges where buffers[range] == nil {
            let buffer = pool.buffer(capacityBytes: range.count)
            buffer.setUsedBytes(range.count)
            try pass(buffer, range)
            if !copies { copy(range, into: buffer) }
            buffers[range] = buffer
        }
    }

    func transfer(_ range: Range<Int>) throws -> Int {
        guard let buffer = buffers[range] else {
            preconditionFailure("transfers are prepared")
        }
        if copies { copy(range, into: buffer) }
        try pass(buffer, range)
        return range.count
    }

    private func copy(_ range: Range<Int>, into buffer: KVBuffer) {
        unsafe region.withBytes(range) { bytes in
            unsafe buffer.withWritableBytes {
                unsafe $0.copyMemory(from: UnsafeRawBufferPointer(bytes))
            }
        }
    }

    /// Until the receiver says that it has it.
    private func pass(_ buffer: KVBuffer, _ range: Range<Int>) throws {
        passed += 1
        try local.send(
            buffer: buffer, number: passed, deadline: KVMeasurementLimits.transferDeadline)
        let message = ControlMessage.kvMemory(
            KVMemoryChunk(chunk: BulkContender.chunk(range), number: passed, bytes: range.count))
        try connection.send(message, deadline: KVMeasurementLimits.transferDeadline)
        try connection.awaitDone()
    }

    func close() {
        local.shutdown()
        connection.close()
    }
}

private final class MemoryReceiver: KVReceivingEnd {
    let port: Int
    private let region: TransferRegion
    private let listener: BulkListener
    private let local: LocalListener
    private let latest: LatestBuffer

    init(_ place: KVPlace, _ contender: MemoryContender) throws {
        guard let token = LocalToken(bytes: MemoryContender.tokenBytes) else {
            preconditionFailure("a token has so many bytes")
        }
        let local = try LocalListener(
            directory: place.identities.folder, name: contender.socketName,
            logger: transferLogger)
        try local.expect(token)
        self.local = local
        listener = try place.identities.listener(records: .tls)
        let region = place.region
        self.region = region
        let latest = LatestBuffer()
        self.latest = latest
        port = try listener.start { connection in
            guard
                let passing = local.take(token, deadline: KVMeasurementLimits.transferDeadline)
            else { return }
            connection.serve { frame in
                latest.take(try Self.receive(frame, from: passing, region))
                if contender.receiverCopies { latest.copyOut(into: region) }
            }
        }.port
    }

    private static func receive(
        _ frame: Frame, from passing: LocalConnection, _ region: TransferRegion
    ) throws -> LatestBuffer.Arrival {
        guard case .kvMemory(let message) = frame.message,
            let range = BulkContender.range(
                of: message.chunk, payloadBytes: message.bytes, in: region)
        else { throw MeasurementError.transferFailed("unexpected: \(frame.message)") }
        let buffer = try passing.receive(
            number: message.number, usedBytes: message.bytes,
            deadline: KVMeasurementLimits.transferDeadline)
        return LatestBuffer.Arrival(range: range, buffer: buffer)
    }

    func copyOut() { latest.copyOut(into: region) }

    func close() {
        local.stop()
        listener.stop()
    }
}

/// What arrived last.
private final class LatestBuffer: Sendable {
    struct Arrival: Sendable {
        let range: Range<Int>
        let buffer: KVBuffer
    }

    private let arrival = Mutex<Arrival?>(nil)

    func take(_ new: Arrival) { arrival.withLock { $0 = new } }

    /// Copies it to where it belongs and lets go of it.
    func copyOut(into region: TransferRegion) {
        let last = arrival.withLock { arrival in
            defer { arrival = nil }
            return arrival
        }
        guard let last else { return }
        unsafe region.withBytes(last.range) { place in
            unsafe last.buffer.withBytes { unsafe place.copyMemory(from: $0) }
        }
    }
}
