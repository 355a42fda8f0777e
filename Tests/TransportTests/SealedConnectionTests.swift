import Foundation
import ServingTypes
import Synchronization
import Testing
import WireProtocol

@testable import Transport

/// Sealed records between two ends of a connection that shook hands.
@Suite(.timeLimit(.minutes(1))) struct SealedConnectionTests {
    private static let chunk = ControlMessage.kvChunk(
        KVChunk(attempt: .test, tokenStart: 0, tokenCount: 1, checksum: 0))
    private static let done = ControlMessage.kvDone(KVDone(attempt: .test))

    let certificates: TestCertificates

    init() throws { certificates = try TestCertificates() }

    private func listener(_ records: BulkRecords = .sealed) throws -> BulkListener {
        try BulkListener(
            address: loopback, context: certificates.context(.decodeWorker, "decode"),
            hello: .test(.decodeWorker, "decode"), allowedRoles: [.prefillWorker],
            records: records, logger: LogLines().logger)
    }

    private func connect(
        _ address: NetworkAddress, _ records: BulkRecords = .sealed
    ) async throws -> BulkConnection {
        let context = try certificates.context(.prefillWorker)
        return try await onThread {
            try BulkConnection.connect(
                to: address, context: context, hello: .test(.prefillWorker),
                expects: PeerExpectation(.decodeWorker), records: records)
        }
    }

    /// Sends a frame with this payload.
    private static func send(_ bytes: [UInt8], on connection: BulkConnection) throws {
        try unsafe bytes.withUnsafeBytes { bytes in
            try unsafe connection.send(
                chunk, payloadBytes: bytes.count, payload: [bytes], deadline: .seconds(10))
        }
    }

    @Test(arguments: BulkRecords.allCases, BulkRecords.allCases)
    func `either side can keep the connection in TLS`(
        client: BulkRecords, server: BulkRecords
    ) async throws {
        let agreed = client == .sealed ? server : client
        let listener = try listener(server)
        let address = try listener.start { connection in
            #expect(connection.records == agreed)
            var target = [UInt8](repeating: 0, count: 3)
            _ = failure {
                while true {
                    _ = try connection.receiveFrame(deadline: .seconds(5))
                    try unsafe target.withUnsafeMutableBytes {
                        try unsafe connection.receive(into: $0, deadline: .seconds(5))
                    }
                    #expect(target == [1, 2, 3])
                    try connection.send(Self.done, deadline: .seconds(5))
                }
            }
        }
        defer { listener.stop() }
        let connection = try await connect(address, client)
        #expect(connection.records == agreed)
        try await onThread {
            for _ in 0..<3 {
                try Self.send([1, 2, 3], on: connection)
                #expect(try connection.receiveFrame(deadline: .seconds(5)).message == Self.done)
            }
        }
    }

    @Test(arguments: BulkRecords.allCases)
    func `payloads of all sizes arrive, however memory lies and is cut`(
        records: BulkRecords
    ) async throws {
        let (left, right) = try await BulkPair.make(
            certificates, records, recordsPerSealedKey: 5)
        let longest = TransportLimits.sealedRecordBytes
        let sizes = [
            1, 2, 3, 15, 16, 17, 4075, 4076, 4077, 4095, 4096, 4097, 65_521, longest - 1, longest,
            longest + 1, (1 << 20) + 7, 3 << 20,
        ]
        let bytes = patternBytes((3 << 20) + 64)
        async let sent: Void = onThread {
            let deadline = Deadline(after: .seconds(30))
            for (number, size) in sizes.enumerated() {
                let start = number % 9
                try unsafe bytes.withUnsafeBytes { bytes in
                    let region = unsafe UnsafeRawBufferPointer(
                        rebasing: bytes[start..<start + size])
                    // Short ones wait for what follows, some are sent at once.
                    try unsafe left.write(region, deadline, isMore: number % 3 != 0)
                }
            }
            try left.flush(deadline)
        }
        let isEqual = try await onThread {
            let deadline = Deadline(after: .seconds(30))
            for (number, size) in sizes.enumerated() {
                // One byte more or less than was written in one go, too.
                let cut = [size, 1, size - 1, size / 2][number % 4]
                let offset = (number * 5) % 8
                var target = [UInt8](repeating: 0, count: size + 8)
                try unsafe target.withUnsafeMutableBytes { target in
                    let place = unsafe UnsafeMutableRawBufferPointer(
                        rebasing: target[offset..<offset + size])
                    let (head, tail) = unsafe (place[..<cut], place[cut...])
                    try unsafe right.read(
                        into: UnsafeMutableRawBufferPointer(rebasing: head), deadline)
                    try unsafe right.read(
                        into: UnsafeMutableRawBufferPointer(rebasing: tail), deadline)
                }
                let start = number % 9
                guard target[offset..<offset + size] == bytes[start..<start + size] else {
                    return false
                }
            }
            return true
        }
        try await sent
        #expect(isEqual)
    }

    @Test(arguments: [100, 5_000, 400_000])
    func `a byte changed on the way ends the connection and is not handed out`(
        payloadBytes: Int
    ) async throws {
        let listener = try listener()
        let (outcomes, outcome) = AsyncStream<(TransportError?, Bool)>.makeStream()
        let (ready, started) = AsyncStream<Void>.makeStream()
        let address = try listener.start { connection in
            started.yield()
            var target = [UInt8](repeating: 0, count: payloadBytes)
            let error = failure {
                _ = try connection.receiveFrame(deadline: .seconds(5))
                try unsafe target.withUnsafeMutableBytes {
                    try unsafe connection.receive(into: $0, deadline: .seconds(5))
                }
            }
            // Whole records before the changed one are genuine.
            let genuine = TransportLimits.sealedRecordBytes
            outcome.yield((error, target.dropFirst(genuine).allSatisfy { $0 == 0 }))
        }
        defer { listener.stop() }
        let last = Mutex(Int.max)
        let forwarder = try TamperingForwarder(to: address) { bytes, position in
            // The last byte of the frame lies in the tag of its last record.
            let index = last.withLock(\.self) - position
            if bytes.indices.contains(index) { bytes[index] ^= 0x10 }
            return true
        }
        let connection = try await connect(forwarder.address)
        let frame = try encodeFrame(Self.chunk, payloadBytes: payloadBytes).count
        let records = 1 + (payloadBytes - 1) / TransportLimits.sealedRecordBytes
        for await _ in ready { break }
        let before = forwarder.forwardedBytes
        last.withLock { $0 = before + frame + payloadBytes + 20 * (records + 1) - 1 }
        try await onThread { try Self.send(patternBytes(payloadBytes), on: connection) }
        for await (error, isWiped) in outcomes {
            #expect(error == .recordRejected(.notAuthentic))
            #expect(isWiped)
            break
        }
        try await onThread {
            #expect(failure { _ = try connection.receiveFrame(deadline: .seconds(5)) } != .deadline)
        }
    }

    @Test func `nobody between the two can talk them out of sealed records`() async throws {
        let listener = try listener()
        let address = try listener.start { _ in Issue.record("accepted") }
        defer { listener.stop() }
        let sealed = Array(ApplicationProtocol.sealedRecords.rawValue.utf8)
        let didTamper = Mutex(false)
        let forwarder = try TamperingForwarder(to: address) { bytes, _ in
            guard let found = bytes.firstRange(of: sealed) else { return true }
            didTamper.withLock { $0 = true }
            bytes[found.upperBound - 1] ^= 1
            return true
        }
        do {
            _ = try await connect(forwarder.address)
            Issue.record("connected")
        } catch let error as TransportError {
            guard case .tls = error else {
                Issue.record("\(error)")
                return
            }
        }
        #expect(didTamper.withLock { $0 })
    }

    @Test(arguments: [true, false])
    func `an end between frames is the peer's or it is an error`(isCut: Bool) async throws {
        let listener = try listener()
        let (errors, caught) = AsyncStream<TransportError?>.makeStream()
        let (ready, started) = AsyncStream<Void>.makeStream()
        let address = try listener.start { connection in
            started.yield()
            caught.yield(failure { _ = try connection.receiveFrame(deadline: .seconds(5)) })
        }
        defer { listener.stop() }
        let forwarder = try TamperingForwarder(to: address) { bytes, position in
            // The last record is the shortest.
            !(isCut && bytes.count == RecordHeader.end.wireBytes)
        }
        let connection = try await connect(forwarder.address)
        for await _ in ready { break }
        try await onThread { connection.close() }
        for await error in errors {
            #expect(error == (isCut ? RecordOpener.cutOff : .closedByPeer))
            break
        }
    }

    @Test func `nothing may follow the first frame inside TLS`() async throws {
        let (left, right) = try await BulkPair.make(certificates, .sealed, isSealed: false)
        try await onThread {
            let deadline = Deadline(after: .seconds(5))
            try left.write(encodeFrame(.hello(.test(.prefillWorker))) + [1, 2, 3], deadline)
            _ = try right.readFrame(from: nil, deadline)
            #expect(failure { try right.sealReading() } == .recordRejected(.afterTLS))
        }
    }
}
