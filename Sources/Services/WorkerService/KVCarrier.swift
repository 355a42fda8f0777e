import InferenceEngine
import KVTransfer
import Logging
import Metrics
import Roles
import ServiceRuntime
import ServingTypes
import Transport
import WireProtocol

/// One bulk connection to a decode-worker, used by one thread: offer, chunks, end.
///
/// Any error ends the connection and every transfer on it; the next offer connects again.
struct KVCarrier {
    private let address: NetworkAddress
    private let settings: KVSender.Settings
    private let logger: Logger
    private let onEnd: @Sendable (AttemptID, KVDone?) -> Void
    private var connection: BulkConnection?
    private var open: [AttemptID: MonotonicTime] = [:]
    private var writer: KVPieceWriter

    init(
        address: NetworkAddress, settings: KVSender.Settings, logger: Logger,
        onEnd: @escaping @Sendable (AttemptID, KVDone?) -> Void
    ) throws {
        writer = try KVPieceWriter(
            rates: settings.compressionRates, isSameHost: address.isLoopback)
        self.address = address
        self.settings = settings
        self.logger = logger
        self.onEnd = onEnd
    }

    mutating func open(_ plan: TransferPlan) {
        open[plan.attempt] = ProcessClock.now()
        do {
            let connection = try connected(to: plan.decodeInstance)
            let offer = KVOffer(
                attempt: plan.attempt, secret: plan.secret, fingerprint: settings.fingerprint,
                tokens: plan.tokens)
            try connection.send(.kvOffer(offer), deadline: WorkerTransferLimits.answerDeadline)
            try awaitAnswer(for: plan.attempt, on: connection)
        } catch {
            lost(error)
        }
    }

    mutating func send(_ block: KVBlock, of attempt: AttemptID) {
        guard open[attempt] != nil, let connection else { return }
        do {
            let chunk = KVChunk(
                attempt: attempt, tokenStart: block.tokenStart, tokenCount: block.tokenCount)
            let wireBytes = try writer.send(
                chunk, block.bytes, on: connection,
                deadline: WorkerTransferLimits.chunkDeadline)
            Counter(label: "prefill_kv_raw_bytes_total").increment(by: block.bytes.usedBytes)
            Counter(label: "prefill_kv_wire_bytes_total").increment(by: wireBytes)
        } catch {
            lost(error)
        }
    }

    mutating func end(_ end: KVEnd) {
        guard let started = open[end.attempt], let connection else { return }
        do {
            try connection.send(.kvEnd(end), deadline: WorkerTransferLimits.answerDeadline)
            try awaitAnswer(for: end.attempt, on: connection)
            Timer(label: "prefill_kv_transfer_seconds")
                .recordNanoseconds((ProcessClock.now() - started).nanoseconds)
        } catch {
            lost(error)
        }
    }

    mutating func abort(_ attempt: AttemptID, reason: String) {
        guard open.removeValue(forKey: attempt) != nil else { return }
        defer { onEnd(attempt, nil) }
        guard let connection else { return }
        do {
            try connection.send(
                .kvAbort(KVAbort(attempt: attempt, reason: reason)),
                deadline: WorkerTransferLimits.answerDeadline)
        } catch {
            lost(error)
        }
    }

    mutating func closeIfIdle() {
        if open.isEmpty { close(reason: "idle") }
    }

    mutating func close(reason: String) {
        connection?.shutdown()
        connection = nil
        for attempt in open.keys { fail(attempt, code: .transfer, reason: reason) }
    }

    // MARK: Helpers

    private mutating func connected(to instance: InstanceID) throws -> BulkConnection {
        if let connection { return connection }
        let new = try BulkConnection.connect(
            to: address, context: settings.context, hello: settings.hello,
            expects: PeerExpectation(.decodeWorker, instance: instance),
            records: settings.records, deadline: WorkerTransferLimits.connectDeadline)
        connection = new
        return new
    }

    /// Reads until the receiver's word on this attempt: a grant, or the end of its transfer.
    private mutating func awaitAnswer(
        for attempt: AttemptID, on connection: BulkConnection
    ) throws {
        while open[attempt] != nil {
            let frame = try connection.receiveFrame(deadline: WorkerTransferLimits.answerDeadline)
            switch frame.message {
            case .kvGrant(let grant) where grant.attempt == attempt:
                return
            case .kvDone(let done):
                // An answer to an aborted attempt may still be on its way.
                guard open.removeValue(forKey: done.attempt) != nil else { continue }
                onEnd(done.attempt, done.code == nil ? nil : done)
            default:
                continue
            }
        }
    }

    private mutating func lost(_ error: any Error) {
        logger.warning(
            "a connection for KV is lost",
            metadata: ["address": "\(address)", "reason": "\(error)"])
        close(reason: "the connection to \(address) is lost: \(error)")
    }

    private mutating func fail(_ attempt: AttemptID, code: FailureCode, reason: String) {
        guard open.removeValue(forKey: attempt) != nil else { return }
        Counter(label: "prefill_kv_failures_total").increment()
        onEnd(attempt, KVDone(attempt: attempt, code: code, reason: reason))
    }
}
