import Dispatch
import Foundation
import InferenceEngine
import KVCarriers
import KVTransfer
import Logging
import ServingTypes
import Synchronization
import Testing
import Transport
import WireProtocol

/// A prefill-worker's and a decode-worker's end of one bulk connection over loopback.
final class BulkPair: Sendable {
    static let chunk = ControlMessage.kvChunk(
        KVChunk(
            attempt: AttemptID(request: RequestID(high: 1, low: 2), number: 3), tokenStart: 0,
            tokenCount: 1, checksum: 0))
    static let deadline = Duration.seconds(30)

    let sender: BulkConnection
    let receiver: BulkConnection
    private let listener: BulkListener
    private let isOver = DispatchSemaphore(value: 0)

    /// Blocks until both ends have shaken hands.
    ///
    /// - Parameter senderConnects: otherwise the receiver does.
    init(senderConnects: Bool = true) throws {
        let certificates = try Self.certificates.get()
        let (near, far) =
            senderConnects
            ? (Role.prefillWorker, Role.decodeWorker) : (.decodeWorker, .prefillWorker)
        let listener = try BulkListener(
            address: NetworkAddress(host: "127.0.0.1", port: 0), context: certificates.context(far),
            hello: certificates.hello(far), allowedRoles: [near],
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let accepted = Mutex<BulkConnection?>(nil)
        let hasAccepted = DispatchSemaphore(value: 0)
        let address = try listener.start { [isOver] connection in
            accepted.withLock { $0 = connection }
            hasAccepted.signal()
            isOver.wait()
        }
        let connected = try BulkConnection.connect(
            to: address, context: certificates.context(near), hello: certificates.hello(near),
            expects: PeerExpectation(far, instance: certificates.hello(far).instance))
        _ = hasAccepted.wait(timeout: .now() + 10)
        let other = try #require(accepted.withLock { $0 })
        (sender, receiver) = senderConnects ? (connected, other) : (other, connected)
        self.listener = listener
    }

    /// Ends both ends and the threads behind them.
    func close() {
        sender.shutdown()
        receiver.shutdown()
        isOver.signal()
        listener.stop()
    }

    /// Runs one side each on a thread of its own and gives what they give.
    func run<Sent: Sendable, Received: Sendable>(
        _ send: @escaping @Sendable (BulkConnection) throws -> Sent,
        _ receive: @escaping @Sendable (BulkConnection) throws -> Received
    ) async throws -> (Sent, Received) {
        async let sent = onThread { try send(self.sender) }
        async let received = onThread { try receive(self.receiver) }
        return try await (sent, received)
    }

    private static let certificates = Result { try Certificates() }

    private struct Certificates: Sendable {
        private let contexts: [Role: TLSContext]

        init() throws {
            let folder = FileManager.default.temporaryDirectory
                .appendingPathComponent("pdserve-\(UUID().uuidString)").path
            defer { try? FileManager.default.removeItem(atPath: folder) }
            let authority = CertificateAuthority(folder: folder)
            try authority.create(cluster: "home")
            var contexts: [Role: TLSContext] = [:]
            for role in [Role.prefillWorker, .decodeWorker] {
                let peer = PeerIdentity(
                    cluster: "home", role: role, instance: InstanceID(role.name))
                try authority.issue(peer, hosts: ["127.0.0.1"])
                contexts[role] = try TLSContext(
                    TLSIdentity(authority.paths(of: peer.instance)))
            }
            self.contexts = contexts
        }

        func context(_ role: Role) throws -> TLSContext { try #require(contexts[role]) }

        func hello(_ role: Role) -> Hello {
            Hello(
                cluster: "home", role: role, instance: InstanceID(role.name), incarnation: 7,
                productVersion: "test")
        }
    }
}

/// Runs blocking work on a thread of its own.
func onThread<Value: Sendable>(
    _ body: @escaping @Sendable () throws -> Value
) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        Thread { continuation.resume(with: Result(catching: body)) }.start()
    }
}

extension KVBuffer {
    /// A buffer that holds these bytes.
    static func holding(_ bytes: [UInt8]) -> KVBuffer {
        let buffer = KVBuffer(capacityBytes: bytes.count)
        unsafe buffer.withWritableBytes { unsafe $0.copyBytes(from: bytes) }
        buffer.setUsedBytes(bytes.count)
        return buffer
    }

    var contents: [UInt8] { unsafe withBytes { unsafe Array($0) } }
}

extension KVPieceWriter {
    /// A writer with one fixed codec.
    static func always(_ codec: PieceCodec, checksumsRaw: Bool = false) throws -> KVPieceWriter {
        try KVPieceWriter(
            settings: Settings(compression: .on, codec: codec, checksumsRaw: checksumsRaw),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    }

    mutating func send(
        _ bytes: [UInt8], on connection: BulkConnection, isCancelled: () -> Bool = { false }
    ) throws -> SentPayload {
        try send(
            BulkPair.chunk, .holding(bytes), on: connection, deadline: BulkPair.deadline,
            isCancelled: isCancelled)
    }
}

extension KVPieceReader {
    /// Reads a frame and its payload; the contents are empty unless it came whole.
    func next(
        from connection: BulkConnection, deadline: Duration = BulkPair.deadline
    ) throws -> (ReceivedPayload, [UInt8]) {
        let frame = try connection.receiveFrame(deadline: deadline)
        #expect(frame.message == BulkPair.chunk)
        let buffer = KVBuffer(capacityBytes: frame.header.payloadBytes)
        let received = try receive(
            frame.header, into: buffer, from: connection, deadline: deadline)
        return (received, buffer.contents)
    }
}

/// Bytes of which all codecs can save something: those of even index are noise, the others few.
func sampleBytes(_ count: Int, seed: UInt64) -> [UInt8] {
    var random = SeededGenerator(seed: seed)
    var bytes = [UInt8](repeating: 0, count: (count + 7) / 8 * 8)
    unsafe bytes.withUnsafeMutableBytes { bytes in
        for start in stride(from: 0, to: bytes.count, by: 8) {
            let word = random.next() & 0x03ff_03ff_03ff_03ff | 0x3c00_3c00_3c00_3c00
            unsafe bytes.storeBytes(of: word.littleEndian, toByteOffset: start, as: UInt64.self)
        }
    }
    return Array(bytes.prefix(count))
}
