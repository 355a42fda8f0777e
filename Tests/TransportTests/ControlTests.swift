import Logging
import ServingTypes
import Synchronization
import Testing
import WireProtocol

@testable import Transport

@Suite(.timeLimit(.minutes(1))) struct ControlTests {
    let certificates: TestCertificates
    let log = LogLines()

    init() throws { certificates = try TestCertificates() }

    /// A decode-worker that gateways may call.
    private func listener(
        limits: ControlHandler.Limits = .init(), connectionLimit: Int = 100,
        accepts: HelloCheck? = nil, address: NetworkAddress = loopback
    ) throws -> ControlListener {
        try ControlListener(
            address: address, context: certificates.context(.decodeWorker, "decode"),
            hello: .test(.decodeWorker, "decode"), allowedRoles: [.gateway], accepts: accepts,
            limits: limits, connectionLimit: connectionLimit, logger: log.logger)
    }

    private func client(
        _ address: NetworkAddress, limits: ControlHandler.Limits = .init(),
        context: TLSContext? = nil, hello: Hello = .test(.gateway), instance: String? = nil
    ) throws -> ControlClient {
        try ControlClient(
            address: address, context: context ?? certificates.context(.gateway),
            hello: hello,
            expects: PeerExpectation(.decodeWorker, instance: instance.map { InstanceID($0) }),
            limits: limits, logger: log.logger)
    }

    /// Runs a listener around a test.
    private func serve(
        _ listener: ControlListener,
        _ onSession: @escaping @Sendable (ControlSession) async throws -> Void,
        test: (NetworkAddress) async throws -> Void
    ) async throws {
        let address = try await listener.start()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await listener.run(onSession) }
            try await test(address)
            group.cancelAll()
        }
    }

    private func ping(_ client: ControlClient, number: UInt64 = 1) async throws {
        try await client.connectOnce { session in
            try session.send(.ping(Ping(number: number)))
            for try await frame in session.inbound {
                #expect(frame.message == .pong(Pong(number: number)))
                return
            }
            Issue.record("no answer")
        }
    }

    private func error(_ client: ControlClient) async -> TransportError? {
        do {
            try await client.connectOnce { session in
                for try await _ in session.inbound {}
            }
            return nil
        } catch { return error as? TransportError }
    }

    @Test func `frames and their payload go both ways`() async throws {
        let tokens = (0..<100_000).map { TokenID($0) }
        let terms = AttemptTerms(
            attempt: .test, outputTokens: 0, maximumNewTokens: 8, sampling: .init(),
            deadline: .seconds(1))
        let answer = ControlMessage.reservationGranted(
            ReservationGranted(
                attempt: .test, secret: ReservationSecret(high: 1, low: 2), kvBytes: 3))
        let received = Mutex<[TokenID]>([])
        try await serve(listener()) { session in
            #expect(session.peer.role == .gateway && session.hello.incarnation == 7)
            for try await frame in session.inbound {
                #expect(frame.message == .reserveKV(ReserveKV(terms: terms)))
                let tokens = try TokenPayload.decode(frame.payload)
                received.withLock { $0 = tokens }
                try session.send(answer, stream: frame.header.stream, flags: .last)
            }
        } test: { address in
            try await client(address, instance: "decode").connectOnce { session in
                #expect(session.peer.description == "pdserve://home/decode-worker/decode")
                try session.send(
                    .reserveKV(ReserveKV(terms: terms)), stream: 9,
                    payload: TokenPayload.encode(tokens))
                for try await frame in session.inbound {
                    #expect(frame.message == answer)
                    #expect(frame.header.stream == 9 && frame.header.flags == .last)
                    break
                }
            }
        }
        #expect(received.withLock(\.self) == tokens)
    }

    @Test func `two sessions are served at once`() async throws {
        let arrived = Mutex<[ControlSession]>([])
        try await serve(listener()) { session in
            // Answers only once both are there.
            let both = arrived.withLock { sessions in
                sessions.append(session)
                return sessions.count == 2 ? sessions : []
            }
            for other in both { try other.send(.pong(Pong(number: 1))) }
            for try await _ in session.inbound {}
        } test: { address in
            async let first: Void = ping(client(address))
            async let second: Void = ping(
                client(
                    address, context: certificates.context(.gateway, "two"),
                    hello: .test(.gateway, "two")))
            _ = try await (first, second)
        }
    }

    @Test func `many messages keep their order under back-pressure`() async throws {
        let count = 20_000
        try await serve(listener()) { session in
            var expected: UInt64 = 0
            for try await frame in session.inbound {
                #expect(frame.message == .ping(Ping(number: expected)))
                expected += 1
                if expected == count { try session.send(.pong(Pong(number: expected))) }
            }
        } test: { address in
            try await client(address).connectOnce { session in
                for number in 0..<UInt64(count) { try session.send(.ping(Ping(number: number))) }
                for try await frame in session.inbound {
                    #expect(frame.message == .pong(Pong(number: UInt64(count))))
                    return
                }
                Issue.record("ended early")
            }
        }
    }

    @Test func `bad peers are refused with reasons and good ones served after`() async throws {
        let others = try TestCertificates()
        try await serve(listener()) { session in
            for try await _ in session.inbound { try session.send(.pong(Pong(number: 1))) }
        } test: { address in
            let expired = try await error(
                client(
                    address, context: certificates.expiredContext(.gateway),
                    hello: .test(.gateway, "old")))
            #expect(
                isTLS(expired, .certificateExpired, isReportedByPeer: true), "\(expired as Any)")
            #expect(await log.line(containing: "the peer's certificate has expired") != nil)

            let foreign = try await error(client(address, context: others.context(.gateway)))
            #expect(isTLS(foreign, .unknownAuthority, isReportedByPeer: false))
            #expect(await log.line(containing: "our certificate was issued by another") != nil)

            let role = try await error(
                client(
                    address, context: certificates.context(.healthAgent, "agent"),
                    hello: .test(.healthAgent, "agent")))
            guard case .refused(let refusal) = role, refusal.code == .role else {
                Issue.record("\(role as Any)")
                return
            }
            #expect(await log.line(containing: "a health-agent is not served") != nil)

            let cluster = try await error(
                client(
                    address, context: certificates.context(.gateway, "far", cluster: "away"),
                    hello: .test(.gateway, "far", cluster: "away")))
            #expect(cluster == .otherCluster(expected: "away", actual: "home"))
            #expect(await log.line(containing: "belongs to cluster “away”") != nil)

            let instance = try await error(client(address, instance: "decode-2"))
            #expect(
                instance
                    == .otherInstance(
                        expected: InstanceID("decode-2"), actual: InstanceID("decode")))
            #expect(await log.line(containing: "expected decode-2 but met decode") != nil)

            var hello = Hello.test(.gateway)
            hello.protocolVersion = 99
            let version = try await error(client(address, hello: hello))
            #expect(version == .otherVersion(expected: 99, actual: 1))
            #expect(version?.isPermanent == true)
            #expect(await log.line(containing: "version") != nil)

            try await ping(client(address))
        }
    }

    @Test func `speech that is not TLS 1-3 ends in a named error`() async throws {
        try await serve(listener()) { session in
            for try await _ in session.inbound { try session.send(.pong(Pong(number: 1))) }
        } test: { address in
            let alert = try await speak(ForeignSpeech.tls12, to: address)
            #expect(alert == ForeignSpeech.versionAlert)
            #expect(await log.line(containing: "TLS 1.3 is required") != nil)
            _ = try await speak(ForeignSpeech.http, to: address)
            #expect(await log.line(containing: "does not speak TLS") != nil)
            try await ping(client(address))
        }
    }

    @Test func `a caller that says nothing is closed in time`() async throws {
        try await serve(listener(limits: .init(firstBytes: .milliseconds(100)))) { _ in
            Issue.record("served")
        } test: { address in
            let answer = try await speak([], to: address)
            #expect(answer.isEmpty)
            #expect(await log.line(containing: "handshake did not end in time") != nil)
        }
    }

    @Test(arguments: [
        ControlMessage.heartbeat(Heartbeat(status: InstanceStatus())),
        .kvAbort(KVAbort(attempt: .test, reason: "x")), .hello(.test(.gateway)),
    ])
    func `a message that a role may not send ends the session`(
        message: ControlMessage
    ) async throws {
        let (errors, caught) = AsyncStream<TransportError>.makeStream()
        try await serve(listener()) { session in
            do throws(TransportError) {
                for try await _ in session.inbound { Issue.record("let through") }
            } catch { caught.yield(error) }
        } test: { address in
            let client = try client(address)
            let error = await #expect(throws: TransportError.self) {
                try await client.connectOnce { session in
                    try session.send(message)
                    for try await _ in session.inbound {}
                }
            }
            guard case .refused(let refusal) = error else {
                Issue.record("\(error as Any)")
                return
            }
            #expect(refusal.code == .role)
            for await error in errors {
                #expect(error == .messageNotAllowed(message.kind, .gateway))
                break
            }
            #expect(await log.line(containing: "may not send") != nil)
        }
    }

    @Test func `a peer that does not read loses its session at the bound`() async throws {
        let terms = AttemptTerms(
            attempt: .test, outputTokens: 0, maximumNewTokens: 8, sampling: .init(),
            deadline: .seconds(1))
        let payload = [UInt8](repeating: 0, count: 1 << 20)
        try await serve(listener()) { session in
            try await Task.sleep(for: .seconds(60))
        } test: { address in
            let client = try client(address, limits: .init(waitingBytes: 4 << 20))
            let error = await #expect(throws: TransportError.self) {
                try await client.connectOnce { session in
                    for _ in 0..<64 {
                        try session.send(.reserveKV(ReserveKV(terms: terms)), payload: payload)
                        await Task.yield()
                    }
                    for try await _ in session.inbound {}
                }
            }
            guard case .slowPeer(let waitingBytes) = error else {
                Issue.record("\(error as Any)")
                return
            }
            #expect((4 << 20...6 << 20).contains(waitingBytes))
        }
    }

    @Test func `a caller's check of Hello refuses with its own code`() async throws {
        let refusal = Refusal(code: .model, reason: "another model")
        try await serve(listener(accepts: { _ in refusal })) { _ in
            Issue.record("served")
        } test: { address in
            let error = try await error(client(address))
            #expect(error == .refused(refusal))
            #expect(error?.isPermanent == true)
        }
    }

    @Test func `a refusal given at the end reaches the peer`() async throws {
        let refusal = Refusal(code: .draining, reason: "going away")
        try await serve(listener()) { session in
            session.close(refusal: refusal)
        } test: { address in
            let client = try client(address)
            #expect(await error(client) == .refused(refusal))
        }
    }

    @Test func `what was sent before the closure returned arrives`() async throws {
        try await serve(listener()) { session in
            for number in 0..<1000 { try session.send(.pong(Pong(number: UInt64(number)))) }
        } test: { address in
            let count = try await client(address).connectOnce { session in
                // Unread messages at the closing side must not cost those on the way.
                for number in 0..<1000 { try session.send(.ping(Ping(number: UInt64(number)))) }
                var count = 0
                for try await _ in session.inbound { count += 1 }
                return count
            }
            #expect(count == 1000)
        }
    }

    @Test func `silence for the idle time ends a session`() async throws {
        let idle = Duration.milliseconds(150)
        let (errors, caught) = AsyncStream<TransportError>.makeStream()
        try await serve(listener(limits: .init(idle: idle))) { session in
            do throws(TransportError) {
                for try await _ in session.inbound {}
            } catch { caught.yield(error) }
        } test: { address in
            let client = try client(address)
            let start = ContinuousClock.now
            #expect(await error(client) == nil)
            #expect(ContinuousClock.now - start >= idle)
            for await error in errors {
                #expect(error == .idle(idle))
                break
            }
        }
    }

    @Test func `connections above the limit are closed at once`() async throws {
        try await serve(listener(connectionLimit: 1)) { session in
            for try await _ in session.inbound { try session.send(.pong(Pong(number: 1))) }
        } test: { address in
            let client = try client(address)
            try await client.connectOnce { session in
                try session.send(.ping(Ping(number: 1)))
                for try await _ in session.inbound { break }
                #expect(await error(client) != nil)
            }
            #expect(await log.line(containing: "all 1 connections are taken") != nil)
        }
    }

    @Test func `a client connects again after its server has restarted`() async throws {
        let (numbers, answered) = AsyncStream<UInt64>.makeStream()
        let answer: @Sendable (ControlSession) async throws -> Void = { session in
            for try await _ in session.inbound { try session.send(.pong(Pong(number: 1))) }
        }
        let first = try listener()
        let address = try await first.start()
        let client = try client(address)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                await client.run { session in
                    try session.send(.ping(Ping(number: 1)))
                    for try await frame in session.inbound {
                        if case .pong(let pong) = frame.message { answered.yield(pong.number) }
                    }
                }
            }
            var answers = numbers.makeAsyncIterator()
            let serving = Task { try await first.run(answer) }
            #expect(await answers.next() == 1)
            serving.cancel()
            try await serving.value
            let second = try listener(address: address)
            group.addTask { try await second.run(answer) }
            #expect(await answers.next() == 1)
            group.cancelAll()
        }
    }

    @Test func `cancelling ends listener and client promptly, sessions and all`() async throws {
        let listener = try listener()
        let address = try await listener.start()
        let client = try client(address)
        let (sessions, opened) = AsyncStream<Void>.makeStream()
        let serving = Task {
            try await listener.run { session in
                opened.yield()
                for try await _ in session.inbound {}
            }
        }
        let calling = Task {
            await client.run { session in for try await _ in session.inbound {} }
        }
        for await _ in sessions { break }
        let start = ContinuousClock.now
        serving.cancel()
        try await serving.value
        calling.cancel()
        await calling.value
        #expect(ContinuousClock.now - start < .seconds(10))
        let error = await error(client)
        guard case .connectFailed = error else {
            Issue.record("\(error as Any)")
            return
        }
    }

    @Test func `a process that calls itself otherwise than its certificate fails`() throws {
        #expect(throws: TransportError.self) {
            try client(loopback, hello: .test(.gateway, "somebody-else"))
        }
    }
}

@Suite struct PeerPolicyTests {
    private let peer = PeerIdentity(cluster: "home", role: .gateway, instance: InstanceID("g"))

    private func policy() throws -> PeerPolicy {
        try PeerPolicy(
            context: TestCertificates().context(.scheduler, "s"), hello: .test(.scheduler, "s"),
            roles: [.gateway], accepts: nil)
    }

    @Test func `Hello must say what the certificate says`() throws {
        let policy = try policy()
        #expect(try policy.check(.hello(.test(.gateway, "g")), from: peer).incarnation == 7)
        for hello in [
            Hello.test(.gateway, "h"), .test(.scheduler, "g"), .test(.gateway, "g", cluster: "c"),
        ] {
            #expect {
                try policy.check(.hello(hello), from: peer)
            } throws: { error in
                guard case .helloDiffers = error as? TransportError else { return false }
                return true
            }
        }
    }

    @Test func `anything before Hello is refused`() throws {
        #expect(throws: TransportError.helloMissing(.ping)) {
            try policy().check(.ping(Ping(number: 1)), from: peer)
        }
    }

    @Test func `a certificate without a name is refused`() throws {
        #expect(throws: TransportError.noIdentity) { try policy().check(nil) }
    }
}
