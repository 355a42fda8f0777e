import Foundation
import InferenceEngine
import KVCarriers
import KVHandOver
import Logging
import ServiceRuntime
import ServingTypes
import SharedMemory
import Synchronization
import Transport
import Waiting
import WireProtocol

/// One connection to a decode-worker: a thread that sends and one that hears.
final class KVLane: Sendable {
    enum Job: Sendable {
        case frame(ControlMessage)
        case chunk(AttemptID, ChunkFacts, KVBlock)
        case connectLocal(LocalCarrier)
        case stop
    }

    let index: Int
    private let destination: KVDestination
    private let settings: KVSender.Settings
    private let logger: Logger
    private let jobs = WorkQueue<Job>()
    private let connection = Mutex<BulkConnection?>(nil)
    private let isStopped = Atomic(false)
    /// The one chunk that is queued or being sent, or was sent last.
    private let current = Mutex<(attempt: AttemptID, isWanted: Bool)?>(nil)

    init(index: Int, destination: KVDestination, settings: KVSender.Settings, logger: Logger) {
        self.index = index
        self.destination = destination
        self.settings = settings
        self.logger = logger
    }

    /// A chunk comes only after the one before it was reported as sent.
    func add(_ job: Job) {
        if case .chunk(let attempt, _, _) = job { current.withLock { $0 = (attempt, true) } }
        jobs.add(job)
    }

    func breakOff(_ attempt: AttemptID) {
        current.withLock { if $0?.attempt == attempt { $0?.isWanted = false } }
    }

    /// Ends both threads, whatever they do.
    func stop() {
        isStopped.store(true, ordering: .releasing)
        connection.withLock { $0?.shutdown() }
        jobs.add(.stop)
    }

    func start() {
        do {
            try startThread("kv-send") {
                do {
                    try self.send()
                } catch {
                    self.lost("\(error)")
                }
                self.stop()
            }
        } catch {
            // The caller may hold what is told of it.
            Task { self.lost("\(error)") }
        }
    }

    private func lost(_ reason: String) {
        guard !isStopped.load(ordering: .acquiring) else { return }
        logger.warning(
            "a KV connection is lost",
            metadata: ["address": "\(destination.address)", "reason": "\(reason)"])
        destination.lost(
            self, reason: "the connection to \(destination.address) is lost: \(reason)")
    }

    // MARK: Sending

    private func send() throws {
        let connection = try connect()
        var writer = try KVPieceWriter(settings: settings.pieces, logger: logger)
        var carrier = MemoryCarrier()
        defer { carrier.close() }
        destination.connected(self)
        try startThread("kv-hear") { self.hear(connection) }
        while !isStopped.load(ordering: .acquiring) {
            guard let job = jobs.next(within: .seconds(60)) else { continue }
            switch job {
            case .frame(let message):
                try connection.send(message, deadline: settings.limits.stallDeadline)
            case .connectLocal(let local):
                carrier.connect(local, logger: logger)
            case .chunk(let attempt, let facts, let block):
                let isWhole = try send(
                    facts, of: attempt, block, on: connection, &writer, &carrier)
                destination.sent(self, attempt, facts, isWhole: isWhole)
            case .stop:
                return
            }
        }
    }

    private func connect() throws(TransportError) -> BulkConnection {
        let new = try BulkConnection.connect(
            to: destination.address, context: settings.context, hello: settings.hello,
            expects: PeerExpectation(
                anyOf: [.decodeWorker, .prefillWorker], instance: destination.instance),
            records: settings.records,
            deadline: WorkerTransferLimits.connectDeadline)
        connection.withLock { $0 = new }
        // `stop` may have come before there was something to shut down.
        if isStopped.load(ordering: .acquiring) { new.shutdown() }
        return new
    }

    /// Sends one chunk; false if it was broken off.
    private func send(
        _ facts: ChunkFacts, of attempt: AttemptID, _ block: KVBlock,
        on connection: BulkConnection, _ writer: inout KVPieceWriter,
        _ carrier: inout MemoryCarrier
    ) throws -> Bool {
        if isBrokenOff(attempt) { return false }
        let chunk = facts.chunk(of: attempt)
        if let number = carrier.pass(block.bytes, logger: logger) {
            let message = KVMemoryChunk(chunk: chunk, number: number, bytes: facts.bytes)
            try connection.send(.kvMemory(message), deadline: settings.limits.stallDeadline)
            KVMetrics.passed(bytes: facts.bytes)
            return true
        }
        let sent = try writer.send(
            .kvChunk(chunk), block.bytes, on: connection,
            deadline: WorkerTransferLimits.chunkDeadline
        ) {
            self.destination.progressed(self)
            return self.isBrokenOff(attempt)
        }
        KVMetrics.sent(sent)
        return !sent.isBrokenOff
    }

    private func isBrokenOff(_ attempt: AttemptID) -> Bool {
        current.withLock { $0?.attempt == attempt && $0?.isWanted == false }
    }

    // MARK: Hearing

    private func hear(_ connection: BulkConnection) {
        var hasLocal = false
        do {
            while true {
                let message: ControlMessage
                do throws(TransportError) {
                    message = try connection.receiveFrame(
                        deadline: WorkerTransferLimits.hearingInterval
                    ).message
                } catch .deadline {
                    continue
                }
                if case .kvGrant(let grant) = message, let local = grant.local, !hasLocal,
                    settings.usesLocalMemory
                {
                    hasLocal = true
                    jobs.add(.connectLocal(local))
                }
                switch message {
                case .kvGrant, .kvCredit, .kvResend, .kvDone:
                    destination.received(message, on: self)
                default:
                    // A worker may say it, but to whom it brings KV.
                    throw TransportError.messageNotAllowed(message.kind, connection.peer.role)
                }
            }
        } catch {
            lost("\(error)")
            stop()
        }
    }
}

/// Memory handed over to a receiver on the same host, as long as that works.
private struct MemoryCarrier {
    private var connection: LocalConnection?
    private var passed: UInt64 = 0

    mutating func connect(_ local: LocalCarrier, logger: Logger) {
        guard let token = LocalToken(bytes: local.token) else { return }
        do throws(LocalTransferError) {
            connection = try LocalConnection.connect(
                path: local.path, token: token,
                deadline: WorkerTransferLimits.localConnectDeadline)
            logger.info("KV goes through memory", metadata: ["path": "\(local.path)"])
        } catch {
            // The rule, not a fault, when the receiver is on another host.
            logger.debug(
                "KV goes through the network",
                metadata: ["path": "\(local.path)", "reason": "\(error)"])
        }
    }

    /// Passes the buffer; nil if it has to go through the network.
    mutating func pass(_ buffer: KVBuffer, logger: Logger) -> UInt64? {
        guard let connection, buffer.sharedFile != nil else { return nil }
        do throws(LocalTransferError) {
            passed += 1
            try connection.send(
                buffer: buffer, number: passed,
                deadline: WorkerTransferLimits.localConnectDeadline)
            return passed
        } catch {
            logger.warning(
                "memory can't be handed over any more; KV goes through the network",
                metadata: ["reason": "\(error)"])
            close()
            return nil
        }
    }

    mutating func close() {
        connection?.shutdown()
        connection = nil
    }
}
