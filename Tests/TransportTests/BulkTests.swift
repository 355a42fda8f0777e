import Foundation
import ServingTypes
import Synchronization
import Testing
import WireProtocol

@testable import Transport

@Suite(.timeLimit(.minutes(1))) struct BulkTests {
    let certificates: TestCertificates
    let log = LogLines()

    init() throws { certificates = try TestCertificates() }

    /// A decode-worker that prefill-workers may call.
    private func listener(
        _ records: BulkRecords, connectionLimit: Int = 10,
        handshake: Duration = TransportLimits.handshake
    ) throws -> BulkListener {
        try BulkListener(
            address: loopback, context: certificates.context(.decodeWorker, "decode"),
            hello: .test(.decodeWorker, "decode"), allowedRoles: [.prefillWorker],
            records: records, connectionLimit: connectionLimit, handshakeDeadline: handshake,
            logger: log.logger)
    }

    private func connect(
        _ address: NetworkAddress, context: TLSContext? = nil,
        hello: Hello = .test(.prefillWorker), instance: String = "decode"
    ) async throws -> BulkConnection {
        let context = try context ?? certificates.context(.prefillWorker)
        return try await onThread {
            try BulkConnection.connect(
                to: address, context: context, hello: hello,
                expects: PeerExpectation(.decodeWorker, instance: InstanceID(instance)))
        }
    }

    private func error(_ body: () async throws -> Void) async -> TransportError? {
        do {
            try await body()
            return nil
        } catch { return error as? TransportError }
    }

    private static let done = ControlMessage.kvDone(KVDone(attempt: .test))
    private static let chunk = ControlMessage.kvChunk(
        KVChunk(attempt: .test, tokenStart: 0, tokenCount: 1, checksum: 0))

    /// Answers each message with `KVDone` until the peer goes.
    private static let answering: @Sendable (BulkConnection) -> Void = { connection in
        while (try? connection.receiveFrame(deadline: .seconds(5))) != nil {
            try? connection.send(done, deadline: .seconds(5))
        }
    }

    private func exchange(_ connection: BulkConnection) async throws {
        try await onThread {
            try connection.send(
                .kvEnd(KVEnd(attempt: .test, tokens: 1, firstToken: TokenOutput(token: 1))),
                deadline: .seconds(5))
            #expect(try connection.receiveFrame(deadline: .seconds(5)).message == Self.done)
        }
    }

    @Test(arguments: BulkRecords.allCases)
    func `a payload lands in the receiver's memory as it left the sender's`(records: BulkRecords)
        async throws
    {
        let bytes = patternBytes(16 << 20)
        let listener = try listener(records)
        let (results, received) = AsyncStream<[UInt8]>.makeStream()
        let address = try listener.start { connection in
            #expect(connection.peer.role == .prefillWorker && connection.hello.incarnation == 7)
            guard let frame = try? connection.receiveFrame(deadline: .seconds(5)) else { return }
            #expect(frame.message == Self.chunk && frame.header.stream == 5)
            var target = [UInt8](repeating: 0, count: frame.header.payloadBytes)
            unsafe target.withUnsafeMutableBytes {
                try? unsafe connection.receive(into: $0, deadline: .seconds(5))
            }
            received.yield(target)
            try? connection.send(Self.done, deadline: .seconds(5))
        }
        defer { listener.stop() }
        let connection = try await connect(address)
        try await onThread {
            try unsafe bytes.withUnsafeBytes { all in
                let (head, tail) = unsafe (
                    UnsafeRawBufferPointer(rebasing: all[..<100]),
                    UnsafeRawBufferPointer(rebasing: all[100...])
                )
                try unsafe connection.send(
                    Self.chunk, stream: 5, payloadBytes: all.count, payload: [head, tail],
                    deadline: .seconds(5))
            }
            #expect(try connection.receiveFrame(deadline: .seconds(5)).message == Self.done)
            #expect(
                failure { _ = try connection.receiveFrame(deadline: .seconds(5)) }
                    == .closedByPeer)
        }
        for await target in results {
            #expect(target == bytes)
            break
        }
    }

    @Test(arguments: BulkRecords.allCases)
    func `64 MB go both ways at once, over renewed keys`(records: BulkRecords) async throws {
        let (left, right) = try await BulkPair.make(
            certificates, records, recordsPerKey: 500, recordsPerSealedKey: 30)
        let bytes = patternBytes(64 << 20)
        @Sendable func send(_ socket: BulkSocket) throws {
            try socket.write(bytes, Deadline(after: .seconds(30)))
        }
        @Sendable func receive(_ socket: BulkSocket) throws -> Bool {
            var target = [UInt8](repeating: 0, count: bytes.count)
            try unsafe target.withUnsafeMutableBytes {
                try unsafe socket.read(into: $0, Deadline(after: .seconds(30)))
            }
            return target == bytes
        }
        async let sentLeft: Void = onThread { try send(left) }
        async let sentRight: Void = onThread { try send(right) }
        async let isLeftEqual = onThread { try receive(left) }
        async let isRightEqual = onThread { try receive(right) }
        _ = try await (sentLeft, sentRight)
        #expect(try await isLeftEqual)
        #expect(try await isRightEqual)
    }

    @Test(arguments: BulkRecords.allCases)
    func `a deadline between frames leaves the connection usable`(records: BulkRecords) async throws
    {
        let listener = try listener(records)
        let address = try listener.start(onConnection: Self.answering)
        defer { listener.stop() }
        let connection = try await connect(address)
        try await onThread {
            let start = ContinuousClock.now
            #expect(
                failure { _ = try connection.receiveFrame(deadline: .milliseconds(50)) }
                    == .deadline)
            let waited = ContinuousClock.now - start
            #expect(waited >= .milliseconds(50) && waited < .seconds(10))
        }
        try await exchange(connection)
    }

    @Test(arguments: BulkRecords.allCases)
    func `a peer that does not read ends the writer at its deadline`(records: BulkRecords)
        async throws
    {
        let listener = try listener(records)
        let release = DispatchSemaphore(value: 0)
        let address = try listener.start { _ in release.wait() }
        defer { listener.stop() }
        let connection = try await connect(address)
        try await onThread {
            defer { release.signal() }
            let bytes = [UInt8](repeating: 0, count: 32 << 20)
            let late = failure {
                try unsafe bytes.withUnsafeBytes { all in
                    try unsafe connection.send(
                        Self.chunk, payloadBytes: all.count, payload: [all],
                        deadline: .milliseconds(100))
                }
            }
            #expect(late == .deadline)
            #expect(
                failure { try connection.send(Self.done, deadline: .seconds(1)) } == .shutDown)
        }
    }

    @Test(arguments: BulkRecords.allCases)
    func `shutdown wakes a blocked reader`(records: BulkRecords) async throws {
        let listener = try listener(records)
        let address = try listener.start(onConnection: Self.answering)
        defer { listener.stop() }
        let connection = try await connect(address)
        let (ready, started) = AsyncStream<Void>.makeStream()
        async let reading = onThread {
            started.yield()
            return failure { _ = try connection.receiveFrame(deadline: .seconds(20)) }
        }
        for await _ in ready { break }
        let start = ContinuousClock.now
        connection.shutdown()
        #expect(try await reading == .shutDown)
        #expect(ContinuousClock.now - start < .seconds(10))
    }

    @Test(arguments: BulkRecords.allCases)
    func `stop ends connections and threads in a moment`(records: BulkRecords) async throws {
        let listener = try listener(records)
        let (ready, started) = AsyncStream<Void>.makeStream()
        let address = try listener.start { connection in
            started.yield()
            #expect(
                failure { _ = try connection.receiveFrame(deadline: .seconds(20)) } == .shutDown)
        }
        let connection = try await connect(address)
        for await _ in ready { break }
        let start = ContinuousClock.now
        try await onThread { listener.stop() }
        #expect(ContinuousClock.now - start < .seconds(10))
        _ = connection
        let error = await error { _ = try await connect(address) }
        guard case .connectFailed = error else {
            Issue.record("\(error as Any)")
            return
        }
    }

    @Test(arguments: BulkRecords.allCases)
    func `a payload cut short is noticed`(records: BulkRecords) async throws {
        let listener = try listener(records)
        let (errors, caught) = AsyncStream<TransportError>.makeStream()
        let address = try listener.start { connection in
            do throws(TransportError) {
                let frame = try connection.receiveFrame(deadline: .seconds(5))
                var target = [UInt8](repeating: 0, count: frame.header.payloadBytes)
                var span = target.mutableSpan
                var bytes = unsafe span.mutableBytes
                try unsafe bytes.withUnsafeMutableBytes { target throws(TransportError) in
                    try unsafe connection.receive(into: target, deadline: .seconds(5))
                }
            } catch { caught.yield(error) }
        }
        defer { listener.stop() }
        let connection = try await connect(address)
        try await onThread {
            let part = [UInt8](repeating: 1, count: 1000)
            try unsafe part.withUnsafeBytes { part in
                try unsafe connection.send(
                    Self.chunk, payloadBytes: 5000, payload: [part], deadline: .seconds(5))
            }
            connection.close()
        }
        for await error in errors {
            #expect(error == .truncated(receivedBytes: 1000, expectedBytes: 5000))
            break
        }
    }

    @Test(arguments: BulkRecords.allCases)
    func `bad peers are refused with reasons and good ones served after`(records: BulkRecords)
        async throws
    {
        let listener = try listener(records)
        let address = try listener.start(onConnection: Self.answering)
        defer { listener.stop() }

        let role = await error {
            _ = try await connect(
                address, context: certificates.context(.gateway, "g"), hello: .test(.gateway, "g"))
        }
        guard case .refused(let refusal) = role, refusal.code == .role else {
            Issue.record("\(role as Any)")
            return
        }
        #expect(await log.line(containing: "a gateway is not served") != nil)

        let instance = await error { _ = try await connect(address, instance: "other") }
        #expect(
            instance
                == .otherInstance(expected: InstanceID("other"), actual: InstanceID("decode")))
        #expect(await log.line(containing: "expected other but met decode") != nil)

        let expired = await error {
            _ = try await connect(
                address, context: certificates.expiredContext(.prefillWorker),
                hello: .test(.prefillWorker, "old"))
        }
        #expect(isTLS(expired, .certificateExpired, isReportedByPeer: true), "\(expired as Any)")
        #expect(await log.line(containing: "the peer's certificate has expired") != nil)

        let alert = try await speak(ForeignSpeech.tls12, to: address)
        #expect(alert == ForeignSpeech.versionAlert)
        #expect(await log.line(containing: "TLS 1.3 is required") != nil)
        _ = try await speak(ForeignSpeech.http, to: address)
        #expect(await log.line(containing: "does not speak TLS") != nil)

        try await exchange(connect(address))
    }

    @Test(arguments: BulkRecords.allCases)
    func `a caller that says nothing is closed after the handshake time`(records: BulkRecords)
        async throws
    {
        let listener = try listener(records, handshake: .milliseconds(100))
        let address = try listener.start(onConnection: Self.answering)
        defer { listener.stop() }
        #expect(try await speak([], to: address).isEmpty)
        #expect(await log.line(containing: "handshake did not end in time") != nil)
    }

    @Test(
        arguments: [
            ControlMessage.ping(Ping(number: 1)), .clusterStatusRequest(ClusterStatusRequest()),
        ], BulkRecords.allCases)
    func `a message that does not belong here ends the connection`(
        message: ControlMessage, records: BulkRecords
    ) async throws {
        let listener = try listener(records)
        let (errors, caught) = AsyncStream<TransportError>.makeStream()
        let address = try listener.start { connection in
            do throws(TransportError) {
                _ = try connection.receiveFrame(deadline: .seconds(5))
            } catch { caught.yield(error) }
        }
        defer { listener.stop() }
        let connection = try await connect(address)
        let error = await error {
            try await onThread {
                try connection.send(message, deadline: .seconds(5))
                _ = try connection.receiveFrame(deadline: .seconds(5))
            }
        }
        guard case .refused(let refusal) = error, refusal.code == .role else {
            Issue.record("\(error as Any)")
            return
        }
        for await error in errors {
            #expect(error == .messageNotAllowed(message.kind, .prefillWorker))
            break
        }
    }
}
