import InferenceEngine
import KVTransfer
import Logging
import Metrics
import ServiceRuntime
import ServingTypes
import Transport
import WireProtocol

/// The decode side of one bulk connection; runs on the connection's own thread.
struct KVReceiver {
    let service: WorkerService
    let connection: BulkConnection
    let logger: Logger
    /// Transfers that this connection has begun and not ended.
    private var open: Set<AttemptID> = []
    private let reader: KVPieceReader

    init(
        service: WorkerService, connection: BulkConnection, logger: Logger
    ) throws(KVTransferError) {
        reader = try KVPieceReader()
        self.service = service
        self.connection = connection
        self.logger = logger
    }

    /// Serves the connection until it ends.
    mutating func run() {
        do {
            // Between frames a connection may rest for long; inside one it may not.
            while true {
                try receive(
                    connection.receiveFrame(
                        deadline: WorkerTransferLimits.idleDeadline + .seconds(60)))
            }
        } catch {
            guard !open.isEmpty else { return }
            logger.warning(
                "a KV connection ended in the middle of transfers",
                metadata: ["peer": "\(connection.peer)", "reason": "\(error)"])
            for attempt in open { service.kvLost(attempt, reason: "\(error)") }
        }
    }

    private mutating func receive(_ frame: Frame) throws {
        switch frame.message {
        case .kvOffer(let offer):
            if let refusal = service.kvOffered(offer) { return try answer(.kvDone(refusal)) }
            open.insert(offer.attempt)
            let grant = KVGrant(
                attempt: offer.attempt, heldTokens: 0,
                maximumChunkBytes: service.maximumChunkBytes)
            try answer(.kvGrant(grant))
        case .kvChunk(let chunk):
            try receive(chunk, payloadBytes: frame.header.payloadBytes)
        case .kvEnd(let end):
            open.remove(end.attempt)
            try answer(.kvDone(service.kvEnded(end)))
        case .kvAbort(let abort):
            open.remove(abort.attempt)
            service.kvAborted(abort.attempt)
        default:
            break
        }
    }

    private mutating func receive(
        _ chunk: KVChunk, payloadBytes: Int
    ) throws {
        var refusal = service.kvRefusal(of: chunk)
        let buffer = refusal == nil ? service.kvBuffer(for: chunk) : nil
        if let buffer, payloadBytes > buffer.capacityBytes {
            refusal = KVDone(
                attempt: chunk.attempt, code: .transfer,
                reason: "\(payloadBytes) bytes for \(chunk.tokenCount) tokens; at most "
                    + "\(buffer.capacityBytes) were expected")
        }
        guard refusal == nil, let buffer else {
            // The sender hears why with its next question; until then its chunks are read away.
            return try skip(payloadBytes)
        }
        try reader.receive(
            payloadBytes, into: buffer, from: connection,
            deadline: WorkerTransferLimits.chunkDeadline)
        Counter(label: "decode_kv_raw_bytes_total").increment(by: payloadBytes)
        service.kvLanded(chunk, buffer)
    }

    /// Reads a payload that nobody wants.
    private func skip(_ payloadBytes: Int) throws {
        guard payloadBytes <= service.maximumChunkBytes else {
            throw TransportError.connectionLost("a chunk of \(payloadBytes) bytes nobody asked for")
        }
        let scratch = KVBuffer(capacityBytes: payloadBytes)
        try reader.receive(
            payloadBytes, into: scratch, from: connection,
            deadline: WorkerTransferLimits.chunkDeadline)
    }

    private func answer(_ message: ControlMessage) throws(TransportError) {
        try connection.send(message, deadline: WorkerTransferLimits.answerDeadline)
    }
}
