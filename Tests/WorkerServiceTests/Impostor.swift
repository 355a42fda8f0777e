import InferenceEngine
import KVHandOver
import ServingTypes
import Synchronization
import Transport
import WireProtocol

@testable import WorkerService

/// The test as prefill-worker: one connection to the decode-worker, and whatever it likes to say.
///
/// Its calls block.
final class Impostor: Sendable {
    let connection: BulkConnection
    /// How long it waits for each word.
    private let patience: Duration
    private let latestRound = Mutex<UInt32>(0)

    init(_ connection: BulkConnection, patience: Duration) {
        self.connection = connection
        self.patience = patience
    }

    /// Of the grant or the resend that was heard last.
    var round: UInt32 { latestRound.withLock { $0 } }

    func say(_ message: ControlMessage) throws {
        try connection.send(message, deadline: patience)
    }

    /// Sends any bytes; they stand behind a message that changes nothing.
    func say(bytes: [UInt8]) throws {
        let nothing = KVAbort(attempt: BenchRequest(promptTokens: 1).attempt, reason: "")
        try connection.say(bytes: bytes, behind: .kvAbort(nothing), deadline: patience)
    }

    /// The next message; nil once the connection has ended.
    func hear() throws -> ControlMessage? {
        do throws(TransportError) {
            let message = try connection.receiveFrame(deadline: patience).message
            latestRound.withLock { round in
                if case .kvGrant(let grant) = message { round = grant.round }
                if case .kvResend(let resend) = message { round = resend.round }
            }
            return message
        } catch .deadline {
            throw BenchFailure("the decode-worker says nothing")
        } catch {
            return nil
        }
    }

    /// Hears until a message is as wanted; credit and other answers are passed over.
    func hear<Value>(_ wanted: (ControlMessage) -> Value?) throws -> Value {
        while let message = try hear() {
            if let value = wanted(message) { return value }
        }
        throw BenchFailure("the decode-worker has closed the connection")
    }

    func hearGrant() throws -> KVGrant {
        try hear { if case .kvGrant(let grant) = $0 { grant } else { nil } }
    }

    func hearDone() throws -> KVDone {
        try hear { if case .kvDone(let done) = $0 { done } else { nil } }
    }

    /// Hears until a transfer is done, which must have this code.
    func hearDone(_ code: FailureCode?) throws {
        let done = try hearDone()
        try require(done.code == code, "done with \(String(describing: code)), but \(done)")
    }

    func hearResend() throws -> KVResend {
        try hear { if case .kvResend(let resend) = $0 { resend } else { nil } }
    }

    /// Hears until the connection ends.
    func hearEnd() throws { while try hear() != nil {} }

    /// Waits until everything said so far was heard; gives what was answered meanwhile.
    func fence() throws -> [ControlMessage] {
        let unknown = BenchRequest(promptTokens: 1)
        try say(.kvOffer(.known(unknown, secret: ReservationSecret(high: 0, low: 0))))
        var answers: [ControlMessage] = []
        while let message = try hear() {
            if case .kvDone(let done) = message, done.attempt == unknown.attempt { return answers }
            answers.append(message)
        }
        return answers
    }

    // MARK: Chunks

    func send(_ chunk: KVChunk, _ payload: Payload) throws {
        try unsafe connection.send(
            .kvChunk(chunk), payloadBytes: payload.announcedBytes, deadline: patience
        ) { write throws(TransportError) in
            try unsafe payload.wire.span.bytes.withUnsafeBytes { bytes throws(TransportError) in
                try unsafe write(bytes)
            }
        }
    }

    func send(_ block: KVBlock, of attempt: AttemptID) throws {
        try send(block.chunk(of: attempt, round: round), Payload(block.content))
    }
}

/// A chunk's payload as it stands on the wire.
struct Payload: Sendable {
    static let pieceBytes = 1 << 20

    var announcedBytes: Int
    var wire: [UInt8]

    /// The bytes as they are, in raw pieces.
    init(_ content: [UInt8]) {
        announcedBytes = content.count
        wire = []
        for start in stride(from: 0, to: content.count, by: Self.pieceBytes) {
            let piece = content[start..<min(start + Self.pieceBytes, content.count)]
            wire += Self.header(UInt32(piece.count), UInt32(piece.count), 0) + piece
        }
    }

    init(announcedBytes: Int, wire: [UInt8]) {
        self.announcedBytes = announcedBytes
        self.wire = wire
    }

    /// What a sender writes that wants no more of it.
    static let breakOff = header(0, 0, 3)

    /// A piece's header: raw bytes, wire bytes, codec, checksum.
    static func header(
        _ raw: UInt32, _ wire: UInt32, _ codec: UInt32, checksum: UInt32 = 0
    ) -> [UInt8] {
        [raw, wire, codec, checksum].flatMap { word in
            (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * UInt32($0))) }
        }
    }
}

extension KVBlock {
    var byteCount: Int { bytes.usedBytes }
    var tokenEnd: Int { tokenStart + tokenCount }
    var content: [UInt8] { unsafe bytes.withBytes { unsafe Array($0) } }

    func chunk(of attempt: AttemptID, round: UInt32 = 1) -> KVChunk {
        KVChunk(
            attempt: attempt, tokenStart: tokenStart, tokenCount: tokenCount, checksum: checksum,
            round: round)
    }

    var facts: ChunkFacts {
        ChunkFacts(
            tokenStart: tokenStart, tokenCount: tokenCount, bytes: bytes.usedBytes,
            checksum: checksum)
    }

    /// Another block with one bit of its bytes changed; the checksum stays.
    func damaged() -> KVBlock {
        let copy = KVBuffer(capacityBytes: bytes.usedBytes)
        let content = content
        unsafe copy.withWritableBytes { memory in
            unsafe memory.copyBytes(from: content)
            unsafe memory[content.count / 2] ^= 4
        }
        copy.setUsedBytes(content.count)
        return KVBlock(
            tokenStart: tokenStart, tokenCount: tokenCount, bytes: copy, checksum: checksum)
    }
}

/// Ends a conduct that is not what it should be.
func require(_ isSo: Bool, _ what: String) throws {
    if !isSo { throw BenchFailure("not so: \(what)") }
}

extension KVOffer {
    /// The offer that fits the request, but for what the caller changes.
    static func known(
        _ request: BenchRequest, secret: ReservationSecret, fingerprint: ModelFingerprint? = nil
    ) -> KVOffer {
        let none = ModelFingerprint(Array(repeating: 0, count: ModelFingerprint.byteCount))
        return KVOffer(
            attempt: request.attempt, secret: secret, fingerprint: fingerprint ?? none,
            tokens: request.prompt.count, chunkTokens: 64)
    }
}

extension KVEnd {
    /// The end that fits the blocks.
    init(_ request: BenchRequest, _ exported: Undivided.Exported) {
        self.init(
            attempt: request.attempt, tokens: request.prompt.count,
            firstToken: exported.firstToken,
            digest: PayloadDigest(exported.blocks.map(\.facts)).value)
    }
}

/// What an impostor has in hand: a request with room, and the KV that belongs to it.
struct Hand: Sendable {
    let placed: Bench.Placed
    let exported: Undivided.Exported
    let fingerprint: ModelFingerprint

    var request: BenchRequest { placed.request }
    var attempt: AttemptID { placed.request.attempt }
    var blocks: [KVBlock] { exported.blocks }
    var end: KVEnd { KVEnd(request, exported) }
    var offer: KVOffer {
        .known(request, secret: placed.granted.secret, fingerprint: fingerprint)
    }

    /// Says and hears what an honest sender would, from the offer on.
    func finish(_ impostor: Impostor) throws {
        try impostor.say(.kvOffer(offer))
        try finish(impostor, from: impostor.hearGrant().heldTokens)
    }

    /// Sends all chunks from a token on, and the end.
    func finish(_ impostor: Impostor, from token: Int) throws {
        for block in blocks where block.tokenStart >= token {
            try impostor.send(block, of: attempt)
        }
        try impostor.say(.kvEnd(end))
        try impostor.hearDone(nil)
    }
}

extension Bench {
    /// Connects to the decode-worker as a prefill-worker of this name.
    func impostor(
        _ name: String = "impostor", to address: NetworkAddress? = nil,
        patience: Duration = .seconds(5)
    ) async throws -> Impostor {
        let instance = InstanceID(name)
        let context = try certificates.context(.prefillWorker, instance)
        let hello = certificates.hello(.prefillWorker, instance)
        let address = address ?? decode.bulkAddress
        let expectation = PeerExpectation(.decodeWorker, instance: decode.instance)
        return try await onThread {
            Impostor(
                try BulkConnection.connect(
                    to: address, context: context, hello: hello, expects: expectation),
                patience: patience)
        }
    }

    /// Makes room for a request and computes its KV.
    func hand(_ request: BenchRequest = BenchRequest()) async throws -> Hand {
        Hand(
            placed: try await reserve(request),
            exported: try await Undivided.shared.prefill(request),
            fingerprint: decode.service.description.fingerprint)
    }
}
