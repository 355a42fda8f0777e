import KVCarriers
import Logging
import ServingTypes
import Synchronization
import Transport
import WireProtocol

@testable import WorkerService

/// The test as decode-worker: a listener, and whatever it likes to answer.
final class Decoy: Sendable {
    /// What is done on a connection, by its number, on the connection's own thread.
    typealias Conduct = @Sendable (Caller, Int) throws -> Void

    let instance: InstanceID
    let address: NetworkAddress
    private let listener: BulkListener
    private let notes: Notes

    fileprivate final class Notes: Sendable {
        let calls = Mutex(0)
        let ended = Mutex(0)
        let problems = Mutex<[String]>([])
    }

    init(
        _ instance: InstanceID, _ certificates: BenchCertificates, _ conduct: @escaping Conduct
    ) throws {
        self.instance = instance
        let notes = Notes()
        self.notes = notes
        listener = try BulkListener(
            address: NetworkAddress(host: "127.0.0.1", port: 0),
            context: certificates.context(.decodeWorker, instance),
            hello: certificates.hello(.decodeWorker, instance), allowedRoles: [.prefillWorker],
            logger: Logger(label: "decoy") { _ in SwiftLogNoOpLogHandler() })
        address = try listener.start { connection in
            let number = notes.calls.withLock { calls in
                calls += 1
                return calls - 1
            }
            do {
                try conduct(Caller(connection), number)
            } catch {
                notes.problems.withLock { $0.append("\(error)") }
            }
            notes.ended.withLock { $0 += 1 }
        }
    }

    /// Connections that were served.
    var calls: Int { notes.calls.withLock { $0 } }
    /// Connections on which everything was done.
    var ended: Int { notes.ended.withLock { $0 } }
    /// What was not as the conduct expected.
    var problems: [String] { notes.problems.withLock { $0 } }

    /// Ends all connections and waits for their threads.
    func stop() { listener.stop() }
}

/// A connection of the prefill-worker to a decoy; its calls block.
struct Caller: Sendable {
    static let plenty = 1 << 30

    let connection: BulkConnection
    var patience = Duration.seconds(5)

    init(_ connection: BulkConnection) { self.connection = connection }

    func say(_ message: ControlMessage) throws {
        try connection.send(message, deadline: patience)
    }

    /// Sends any bytes; they stand behind a message that changes nothing.
    func say(bytes: [UInt8]) throws {
        let nothing = KVCredit(attempt: BenchRequest(promptTokens: 1).attempt, bytes: 0)
        try connection.say(bytes: bytes, behind: .kvCredit(nothing), deadline: patience)
    }

    /// The next message, with its payload read away; nil once the connection has ended.
    func hear() throws -> ControlMessage? {
        do throws(TransportError) {
            let frame = try connection.receiveFrame(deadline: patience)
            if frame.header.payloadBytes > 0 {
                _ = try? KVPieceReader().skip(
                    frame.header, from: connection, deadline: patience)
            }
            return frame.message
        } catch .deadline {
            throw BenchFailure("the prefill-worker says nothing")
        } catch {
            return nil
        }
    }

    func hearOffer() throws -> KVOffer {
        guard case .kvOffer(let offer) = try hear() else {
            throw BenchFailure("no offer came first")
        }
        return offer
    }

    func grant(
        _ offer: KVOffer, held: Int? = nil, credit: Int = plenty, round: UInt32 = 1,
        local: LocalCarrier? = nil
    ) throws {
        try say(
            .kvGrant(
                KVGrant(
                    attempt: offer.attempt, heldTokens: held ?? offer.startToken,
                    maximumChunkBytes: 1 << 20, creditBytes: credit, round: round,
                    local: local)))
    }

    func done(_ attempt: AttemptID, _ code: FailureCode? = nil) throws {
        try say(.kvDone(KVDone(attempt: attempt, code: code)))
    }

    func resend(_ attempt: AttemptID, from token: Int, round: UInt32 = 2) throws {
        try say(
            .kvResend(
                KVResend(
                    attempt: attempt, fromToken: token, creditBytes: Self.plenty, round: round,
                    reason: "damaged")))
    }

    /// Hears one chunk.
    func hearChunk() throws -> KVChunk {
        guard case .kvChunk(let chunk) = try hear() else { throw BenchFailure("no chunk came") }
        return chunk
    }

    /// Hears everything up to the end; gives the first tokens of the chunks.
    func hearChunks() throws -> [Int] {
        var starts: [Int] = []
        while let message = try hear() {
            switch message {
            case .kvChunk(let chunk): starts.append(chunk.tokenStart)
            case .kvEnd: return starts
            default: throw BenchFailure("neither chunk nor end: \(message.kind)")
            }
        }
        throw BenchFailure("the prefill-worker has closed the connection")
    }

    /// Hears until the prefill-worker gives the transfer up, or ends the connection.
    func hearAbort() throws {
        while let message = try hear() {
            if case .kvAbort = message { return }
        }
    }

    /// Hears until the connection ends.
    func hearEnd() throws { while try hear() != nil {} }

    /// Takes one transfer as a decode-worker would.
    func takeAll() throws {
        let offer = try hearOffer()
        try grant(offer)
        _ = try hearChunks()
        try done(offer.attempt)
    }
}

extension BulkConnection {
    /// Sends any bytes behind a message that has no payload.
    func say(
        bytes: [UInt8], behind nothing: ControlMessage, deadline: Duration
    ) throws(TransportError) {
        try unsafe send(nothing, payloadBytes: 0, deadline: deadline) {
            write throws(TransportError) in
            try unsafe bytes.span.bytes.withUnsafeBytes { bytes throws(TransportError) in
                try unsafe write(bytes)
            }
        }
    }
}

extension Bench {
    /// Listens as a decode-worker of this name.
    func decoy(_ name: String, _ conduct: @escaping Decoy.Conduct) throws -> Decoy {
        let name = String(name.map { $0.isLetter ? $0 : "-" })
        return try Decoy(InstanceID("decoy-\(name)"), certificates, conduct)
    }

    /// Has the prompt computed for a decoy, which has made no reservation.
    func offer(
        _ request: BenchRequest, heldTokens: Int = 0, to decoy: Decoy,
        through address: NetworkAddress? = nil
    ) async throws -> Placed {
        let granted = ReservationGranted(
            attempt: request.attempt, secret: ReservationSecret(high: 1, low: 2), kvBytes: 0,
            heldTokens: heldTokens)
        let placed = Placed(
            request: request, granted: granted, events: gateway.listen(to: request.attempt))
        try await offer(placed, to: address ?? decoy.address, instance: decoy.instance)
        return placed
    }

    /// Waits until the prefill-worker's transfer has ended, in whatever way.
    func waitUntilEnded(_ placed: Placed, within deadline: Duration = .seconds(10)) async throws {
        let end = ContinuousClock.now + deadline
        while prefill.service.sender.isOpen(placed.request.attempt) {
            guard ContinuousClock.now < end else {
                throw BenchFailure("a transfer is still open after \(deadline)")
            }
            try await Task.sleep(for: .milliseconds(5))
        }
        gateway.forget(placed.request.attempt)
    }

    /// Why the prefill-worker gave the request up; nil if it did not, as far as was heard.
    func failure(of placed: Placed) async -> FailureCode? {
        gateway.forget(placed.request.attempt)
        for await event in placed.events.rest {
            if case .failed(let failed, _) = event { return failed.code }
        }
        return nil
    }
}
