import Dispatch
import InferenceEngine
import KVCarriers
import KVTransfer
import Logging
import ServiceStart
import ServingTypes
import Synchronization
import Transport
import WireProtocol

/// The product's bulk connections, certificates on both sides.
struct BulkContender: KVContender {
    let name: String
    let records: BulkRecords
    /// Each with a thread of its own on both sides.
    var connections = 1
    /// Sends compressed pieces as a prefill-worker does over a slow link; with one connection.
    var compresses = false

    var floor: KVFloorKind? { .encryptedStream }

    func openReceiver(_ place: KVPlace) throws -> any KVReceivingEnd {
        try BulkReceiver(place, self)
    }

    func openSender(_ place: KVPlace, port: Int) throws -> any KVSendingEnd {
        try BulkSender(place, self, port: port)
    }

    /// What one token of a `KVChunk` stands for here, so that a chunk says where it lands.
    fileprivate static let tokenBytes = 64 << 10
    fileprivate static let attempt = AttemptID(request: RequestID(high: 0, low: 1), number: 1)
}

/// Certificates and names of both ends.
struct KVIdentities: Sendable {
    private static let cluster = "benchmark"

    /// For one run of the benchmark.
    let folder: String

    /// Makes the authority and both certificates.
    func create() throws(TransportError) {
        let authority = CertificateAuthority(folder: folder)
        try authority.create(cluster: Self.cluster)
        for role in [Role.prefillWorker, .decodeWorker] {
            let peer = PeerIdentity(
                cluster: Self.cluster, role: role, instance: InstanceID(role.name))
            try authority.issue(peer, hosts: ["127.0.0.1"])
        }
    }

    func context(_ role: Role) throws(TransportError) -> TLSContext {
        let paths = CertificateAuthority(folder: folder).paths(of: InstanceID(role.name))
        return try TLSContext(TLSIdentity(paths))
    }

    func connect(
        port: Int, context: TLSContext, records: BulkRecords
    ) throws(TransportError) -> BulkConnection {
        try BulkConnection.connect(
            to: NetworkAddress(host: "127.0.0.1", port: port), context: context,
            hello: hello(.prefillWorker), expects: PeerExpectation(.decodeWorker),
            records: records)
    }

    func listener(records: BulkRecords) throws(TransportError) -> BulkListener {
        try BulkListener(
            address: NetworkAddress(host: "127.0.0.1", port: 0), context: context(.decodeWorker),
            hello: hello(.decodeWorker), allowedRoles: [.prefillWorker], records: records,
            logger: transferLogger)
    }

    private func hello(_ role: Role) -> Hello {
        Hello(
            cluster: Self.cluster, role: role, instance: InstanceID(role.name),
            incarnation: .random(in: 1 ... .max), productVersion: Product.version)
    }
}

/// Standard output is for the receiver's answers to the sender.
let transferLogger = Logger(label: "benchmark") { StreamLogHandler.standardError(label: $0) }

private final class BulkSender: KVSendingEnd {
    private let lanes: [BulkLane]
    private var writer: KVPieceWriter?

    init(_ place: KVPlace, _ contender: BulkContender, port: Int) throws {
        precondition(
            contender.connections == 1 || !contender.compresses, "a writer serves one connection")
        let settings = KVPieceWriter.Settings(compression: .on, codec: .bytePlanes)
        writer =
            contender.compresses
            ? try KVPieceWriter(settings: settings, logger: transferLogger) : nil
        let context = try place.identities.context(.prefillWorker)
        lanes = try (0..<contender.connections).map { _ in
            BulkLane(
                region: place.region,
                connection: try place.identities.connect(
                    port: port, context: context, records: contender.records))
        }
    }

    func transfer(_ range: Range<Int>) throws -> Int {
        if writer != nil { return try lanes[0].transfer(range, by: &writer) }
        let parts = split(range)
        if parts.count == 1 {
            try lanes[0].transfer(parts[0])
        } else {
            let failures = Mutex<[any Error]>([])
            DispatchQueue.concurrentPerform(iterations: parts.count) { [lanes] index in
                do {
                    try lanes[index].transfer(parts[index])
                } catch {
                    failures.withLock { $0.append(error) }
                }
            }
            if let failure = failures.withLock({ $0.first }) { throw failure }
        }
        return range.count
    }

    /// One part per connection, each of whole tokens.
    private func split(_ range: Range<Int>) -> [Range<Int>] {
        let tokens = range.count / BulkContender.tokenBytes
        return lanes.indices.map { index in
            let edges = [index, index + 1].map {
                range.lowerBound + tokens * $0 / lanes.count * BulkContender.tokenBytes
            }
            return edges[0]..<edges[1]
        }
    }

    func close() { for lane in lanes { lane.connection.close() } }
}

/// One connection of a sender, used by one thread at a time.
private struct BulkLane: Sendable {
    let region: TransferRegion
    let connection: BulkConnection

    /// Sends the bytes as they are and waits for the receiver's word.
    func transfer(_ range: Range<Int>) throws {
        try unsafe region.withBytes(range) { bytes in
            try unsafe connection.send(
                .kvChunk(BulkContender.chunk(range)), payloadBytes: range.count,
                payload: [UnsafeRawBufferPointer(bytes)],
                deadline: KVMeasurementLimits.transferDeadline)
        }
        try connection.awaitDone()
    }

    /// Sends the bytes in pieces; gives the pieces' bytes on the wire.
    func transfer(_ range: Range<Int>, by writer: inout KVPieceWriter?) throws -> Int {
        let sent = try writer?.send(
            .kvChunk(BulkContender.chunk(range)), region.buffer(range), on: connection,
            deadline: KVMeasurementLimits.transferDeadline)
        try connection.awaitDone()
        return sent?.wireBytes ?? 0
    }
}

extension BulkContender {
    /// Without checksum: engines make and check it, which takes part in no transfer.
    static func chunk(_ range: Range<Int>) -> KVChunk {
        KVChunk(
            attempt: attempt, tokenStart: range.lowerBound / tokenBytes,
            tokenCount: range.count / tokenBytes, checksum: 0)
    }

    /// Where a chunk lands; nil if that is outside the memory.
    static func range(
        of chunk: KVChunk, payloadBytes: Int, in region: TransferRegion
    ) -> Range<Int>? {
        let start = chunk.tokenStart * tokenBytes
        let range = start..<start + payloadBytes
        return region.contains(range) ? range : nil
    }

    static let done = ControlMessage.kvDone(KVDone(attempt: attempt))
}

extension BulkConnection {
    /// Waits until the receiver says that a transfer has arrived.
    func awaitDone() throws {
        let frame = try receiveFrame(deadline: KVMeasurementLimits.transferDeadline)
        guard case .kvDone(let done) = frame.message, done.code == nil else {
            throw MeasurementError.transferFailed("the receiver answered \(frame.message)")
        }
    }

    /// Calls the body for each frame until the connection ends; says why unless in an orderly way.
    func serve(_ body: (Frame) throws -> Void) {
        do {
            while true {
                try body(receiveFrame(deadline: KVMeasurementLimits.restDeadline))
                try send(
                    BulkContender.done, deadline: KVMeasurementLimits.transferDeadline)
            }
        } catch TransportError.closedByPeer, TransportError.shutDown {
            return
        } catch {
            // The sender sees only that the connection has ended.
            transferLogger.error("receiving: \(error)")
        }
    }
}

private final class BulkReceiver: KVReceivingEnd {
    let port: Int
    private let listener: BulkListener

    init(_ place: KVPlace, _ contender: BulkContender) throws {
        listener = try place.identities.listener(records: contender.records)
        let region = place.region
        let readsPieces = contender.compresses
        port = try listener.start { connection in
            let reader = readsPieces ? try? KVPieceReader() : nil
            connection.serve { frame in
                try Self.receive(frame, from: connection, into: region, reader)
            }
        }.port
    }

    private static func receive(
        _ frame: Frame, from connection: BulkConnection, into region: TransferRegion,
        _ reader: KVPieceReader?
    ) throws {
        guard case .kvChunk(let chunk) = frame.message,
            let range = BulkContender.range(
                of: chunk, payloadBytes: frame.header.payloadBytes, in: region)
        else { throw MeasurementError.transferFailed("unexpected: \(frame.message)") }
        let deadline = KVMeasurementLimits.transferDeadline
        if let reader {
            let received = try reader.receive(
                frame.header, into: region.buffer(range), from: connection, deadline: deadline)
            guard received.outcome == .whole else {
                throw MeasurementError.transferFailed("\(received.outcome)")
            }
        } else {
            try unsafe region.withBytes(range) { bytes in
                try unsafe connection.receive(into: bytes, deadline: deadline)
            }
        }
    }

    func close() { listener.stop() }
}
