import Dispatch
import InferenceEngine
import KVCarriers
import KVHandOver
import KVTransfer
import Logging
import ServiceRuntime
import ServingTypes
import SharedMemory
import Synchronization
import Transport
import WireProtocol

/// One connection that brings KV: what is heard on the connection's thread, and a thread that
/// answers.
final class KVInbound: Sendable {
    let link: KVLinkID
    let connection: BulkConnection
    /// What the sender shows on the local socket; nil if memory is not taken.
    let localToken: LocalToken?
    private let answers = WorkQueue<ControlMessage?>()

    init(link: KVLinkID, connection: BulkConnection, localToken: LocalToken?) {
        self.link = link
        self.connection = connection
        self.localToken = localToken
    }

    /// Sends the answer, later and in order.
    func post(_ message: ControlMessage) { answers.add(message) }

    /// Ends the answering thread.
    func stop() { answers.add(nil) }

    /// Sends what is posted until the connection ends.
    func answer() {
        while true {
            guard let next = answers.next(within: .seconds(60)) else { continue }
            guard let message = next else { return }
            do {
                try connection.send(message, deadline: WorkerTransferLimits.answerDeadline)
            } catch {
                // The hearing thread sees the same end and reports it.
                connection.shutdown()
                return
            }
        }
    }
}

/// The hearing side of one connection; runs on the connection's own thread.
struct KVReceiver {
    private let service: WorkerService
    private let inbound: KVInbound
    private let logger: Logger
    private let reader: KVPieceReader
    private var local: LocalConnection?

    init(
        service: WorkerService, inbound: KVInbound, logger: Logger
    ) throws(KVTransferError) {
        reader = try KVPieceReader()
        self.service = service
        self.inbound = inbound
        self.logger = logger
    }

    private var connection: BulkConnection { inbound.connection }

    /// Serves the connection until it ends.
    mutating func run() {
        defer { local?.shutdown() }
        do {
            while true {
                if let frame = try nextFrame() { try receive(frame) }
            }
        } catch {
            let isOrderly = (error as? TransportError) == .closedByPeer
            logger.log(
                level: isOrderly ? .debug : .info, "a KV connection has ended",
                metadata: ["peer": "\(connection.peer)", "reason": "\(error)"])
        }
    }

    /// Nil after a while of rest, which is no fault between frames.
    private func nextFrame() throws(TransportError) -> Frame? {
        do throws(TransportError) {
            return try connection.receiveFrame(
                deadline: WorkerTransferLimits.hearingInterval)
        } catch .deadline {
            return nil
        }
    }

    private mutating func receive(_ frame: Frame) throws {
        switch frame.message {
        case .kvOffer(let offer): service.kvOffered(offer, inbound)
        case .kvChunk(let chunk):
            try receive(chunk, frame.header)
        case .kvMemory(let memory): receive(memory)
        case .kvEnd(let end): service.kvEnded(end, inbound)
        case .kvAbort(let abort): service.kvAborted(abort.attempt, inbound)
        default:
            // A worker may say it, but to whom it sends KV.
            throw TransportError.messageNotAllowed(frame.message.kind, connection.peer.role)
        }
    }

    private func receive(_ chunk: KVChunk, _ header: FrameHeader) throws {
        let facts = ChunkFacts(chunk, bytes: header.payloadBytes)
        guard service.kvBegins(facts, of: chunk.attempt, inbound) else {
            _ = try reader.skip(
                header, from: connection, deadline: WorkerTransferLimits.chunkDeadline)
            return
        }
        let started = ProcessClock.now()
        let buffer = service.kvBuffer(bytes: header.payloadBytes)
        let received = try reader.receive(
            header, into: buffer, from: connection,
            deadline: WorkerTransferLimits.chunkDeadline
        ) { service.kvProgressed(chunk.attempt) }
        switch received.outcome {
        case .whole:
            KVMetrics.received(
                bytes: header.payloadBytes, in: ProcessClock.now() - started)
            service.kvLanded(facts, of: chunk.attempt, buffer, inbound)
        case .brokenOff:
            service.kvMissed(
                facts, of: chunk.attempt, inbound, isDamaged: false, reason: "it was broken off")
        case .damaged(let piece):
            KVMetrics.damaged()
            service.kvMissed(
                facts, of: chunk.attempt, inbound, isDamaged: true,
                reason: "piece \(piece) of tokens \(chunk.tokenStart)… was damaged on the way")
        }
    }

    private mutating func receive(_ memory: KVMemoryChunk) {
        let facts = ChunkFacts(memory.chunk, bytes: memory.bytes)
        let attempt = memory.chunk.attempt
        let isWanted = service.kvBegins(facts, of: attempt, inbound)
        do throws(LocalTransferError) {
            // Taken from the socket even if nobody wants it, so that the next number fits.
            let buffer = try localConnection().receive(
                number: memory.number, usedBytes: memory.bytes,
                deadline: WorkerTransferLimits.localReceiveDeadline)
            guard isWanted else { return }
            KVMetrics.tookMemory(bytes: memory.bytes)
            service.kvLanded(facts, of: attempt, buffer, inbound)
        } catch {
            logger.warning(
                "memory can't be taken over; KV comes through the network",
                metadata: ["peer": "\(connection.peer)", "reason": "\(error)"])
            // The sender notices with its next chunk, and sends this one again when asked.
            local?.shutdown()
            local = nil
            guard isWanted else { return }
            service.kvMissed(facts, of: attempt, inbound, isDamaged: true, reason: "\(error)")
        }
    }

    private mutating func localConnection() throws(LocalTransferError) -> LocalConnection {
        if let local { return local }
        guard
            let new = service.takeLocalConnection(
                inbound, deadline: WorkerTransferLimits.localReceiveDeadline)
        else { throw .closedByPeer }
        local = new
        return new
    }
}
