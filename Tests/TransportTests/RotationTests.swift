import Foundation
import ServingTypes
import Synchronization
import Testing
import WireProtocol

@testable import Transport

/// Certificates that change while connections are made and open.
@Suite(.timeLimit(.minutes(1))) struct RotationTests {
    let certificates: TestCertificates
    let log = LogLines()

    init() throws { certificates = try TestCertificates() }

    private static let now = Int64(Date().timeIntervalSince1970)
    private static let short = CertificateValidity(
        start: .seconds(-3600), length: .seconds(3 * 3600))

    /// The files of a process as they are on its host.
    private func watch(
        _ role: Role, _ name: String, validity: CertificateValidity = .process
    ) throws -> CertificateWatch {
        _ = try certificates.identity(role, name, validity: validity)
        return try CertificateWatch(
            .cluster(certificates.authority.paths(of: InstanceID(name))), logger: log.logger)
    }

    private func decode() throws -> CertificateWatch { try watch(.decodeWorker, "decode") }

    private func shown(by watch: CertificateWatch) -> Int64? {
        watch.context.settings.expiries.first?.time
    }

    /// Runs a listener that answers pings, and an open session to it.
    private func session(
        _ server: CertificateWatch, _ client: CertificateWatch, name: String = "one",
        _ body: (ControlSession, NetworkAddress) async throws -> Void
    ) async throws {
        let listener = try ControlListener(
            address: loopback, context: server.context, hello: .test(.decodeWorker, "decode"),
            allowedRoles: [.gateway], logger: log.logger)
        let address = try await listener.start()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await listener.run { session in
                    for try await frame in session.inbound {
                        guard case .ping(let ping) = frame.message else { continue }
                        try session.send(.pong(Pong(number: ping.number)))
                    }
                }
            }
            let (sessions, opened) = AsyncStream<ControlSession>.makeStream()
            let (ends, end) = AsyncStream<Void>.makeStream()
            let connector = try self.client(address, client, name)
            group.addTask {
                // What ends it is what the body looks at.
                try? await connector.connectOnce { session in
                    opened.yield(session)
                    for await _ in ends { break }
                }
            }
            for await session in sessions {
                try await body(session, address)
                break
            }
            end.finish()
            group.cancelAll()
        }
    }

    private func client(
        _ address: NetworkAddress, _ watch: CertificateWatch, _ name: String
    ) throws -> ControlClient {
        try ControlClient(
            address: address, context: watch.context, hello: .test(.gateway, name),
            expects: PeerExpectation(.decodeWorker), logger: log.logger)
    }

    private func ping(_ session: ControlSession, _ number: UInt64) async throws {
        try session.send(.ping(Ping(number: number)))
        var inbound = session.inbound.makeAsyncIterator()
        #expect(try await inbound.next()?.message == .pong(Pong(number: number)))
    }

    private func connect(
        _ address: NetworkAddress, _ watch: CertificateWatch, _ name: String
    ) async -> TransportError? {
        do {
            try await client(address, watch, name).connectOnce { try await ping($0, 1) }
            return nil
        } catch { return error as? TransportError }
    }

    @Test func `new connections use new certificates, open ones go on`() async throws {
        let (server, gateway) = (try decode(), try watch(.gateway, "one"))
        try await session(server, gateway) { session, address in
            try await ping(session, 1)
            for (watch, role, name) in [
                (server, Role.decodeWorker, "decode"), (gateway, .gateway, "one"),
            ] {
                let before = shown(by: watch)
                watch.look()
                #expect(shown(by: watch) == before)
                _ = try certificates.identity(role, name, validity: Self.short)
                watch.look()
                #expect(try #require(shown(by: watch)) < #require(before))
            }
            try await ping(session, 2)
            #expect(await connect(address, gateway, "one") == nil)
        }
        #expect(log.all.count { $0.contains("New certificates are in use") } == 2)
        // Whoever has gone is looked after no more.
        while server.context.peers.count + gateway.context.peers.count > 0 {
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    /// What can be wrong with files, and what the log says of it.
    enum Fault: CaseIterable {
        case otherKey, expired, otherIdentity, otherCluster, halfWritten, missing, otherAuthority

        var words: String {
            switch self {
            case .otherKey: "is not the key of"
            case .expired: "has expired"
            case .otherIdentity, .otherCluster: "but this process is set up as"
            case .halfWritten: "holds no PEM certificate"
            case .missing: "cannot be read"
            case .otherAuthority: "was not issued by the authority"
            }
        }
    }

    private func put(_ fault: Fault, into paths: TLSIdentity.Paths) throws {
        func copy(_ other: TLSIdentity.Paths) throws {
            for (from, to) in [(other.certificate, paths.certificate), (other.key, paths.key)] {
                try Data(contentsOf: URL(filePath: from)).write(
                    to: URL(filePath: to), options: .atomic)
            }
        }
        let authority = certificates.authority
        switch fault {
        case .otherKey:
            _ = try certificates.identity(.gateway, "two")
            let other = authority.paths(of: InstanceID("two"))
            try Data(contentsOf: URL(filePath: other.key)).write(to: URL(filePath: paths.key))
        case .expired:
            let peer = PeerIdentity(cluster: "home", role: .gateway, instance: InstanceID("one"))
            try authority.issue(
                peer, validity: .init(start: .seconds(-7200), length: .seconds(3600)))
        case .otherIdentity:
            _ = try certificates.identity(.gateway, "two")
            try copy(authority.paths(of: InstanceID("two")))
        case .otherCluster:
            _ = try certificates.identity(.gateway, "one", cluster: "away")
        case .halfWritten:
            let whole = try Data(contentsOf: URL(filePath: paths.certificate))
            try whole.prefix(whole.count / 2).write(to: URL(filePath: paths.certificate))
        case .missing:
            try FileManager.default.removeItem(atPath: paths.key)
        case .otherAuthority:
            let others = try TestCertificates()
            _ = try others.identity(.gateway, "one")
            try copy(others.authority.paths(of: InstanceID("one")))
        }
    }

    @Test(arguments: Fault.allCases)
    func `wrong files change nothing and better ones are taken up`(fault: Fault) async throws {
        let (server, gateway) = (try decode(), try watch(.gateway, "one"))
        let paths = certificates.authority.paths(of: InstanceID("one"))
        let before = shown(by: gateway)
        try put(fault, into: paths)
        gateway.look()
        gateway.look()
        let lines = log.all.filter { $0.contains("New certificates can't be used") }
        #expect(lines.count == 1 && lines[0].hasPrefix("error"), "\(lines)")
        #expect(lines[0].contains(fault.words), "\(lines)")
        #expect(shown(by: gateway) == before)
        try await session(server, gateway) { session, _ in try await ping(session, 1) }

        _ = try certificates.identity(.gateway, "one", validity: Self.short)
        gateway.look()
        #expect(try #require(shown(by: gateway)) < #require(before))
        try await session(server, gateway) { session, _ in try await ping(session, 1) }
    }

    @Test func `a connection ends when the peer's certificate expires`() async throws {
        let (server, gateway) = (
            try decode(), try watch(.gateway, "one", validity: Self.short)
        )
        try await session(server, gateway) { session, _ in
            server.look(now: Self.now + 3600)
            try await ping(session, 1)
            server.look(now: Self.now + 3 * 3600)
            var inbound = session.inbound.makeAsyncIterator()
            #expect(try await inbound.next() == nil)
        }
        let line = await log.line(containing: "A connection is ended")
        #expect(line?.contains("pdserve://home/gateway/one") == true, "\(line ?? "")")
        #expect(line?.contains("has expired") == true)
        #expect(server.context.peers.count == 0)
    }

    @Test(arguments: BulkRecords.allCases)
    func `a bulk connection ends when the peer's certificate expires`(records: BulkRecords)
        async throws
    {
        let server = try decode()
        let sender = try watch(.prefillWorker, "one", validity: Self.short)
        let listener = try BulkListener(
            address: loopback, context: server.context, hello: .test(.decodeWorker, "decode"),
            allowedRoles: [.prefillWorker], records: records, logger: log.logger)
        let (errors, caught) = AsyncStream<TransportError>.makeStream()
        let (starts, started) = AsyncStream<Void>.makeStream()
        let address = try listener.start { connection in
            started.yield()
            do throws(TransportError) {
                _ = try connection.receiveFrame(deadline: .seconds(30))
            } catch { caught.yield(error) }
        }
        defer { listener.stop() }
        let connection = try await onThread {
            try BulkConnection.connect(
                to: address, context: sender.context, hello: .test(.prefillWorker),
                expects: PeerExpectation(.decodeWorker))
        }
        for await _ in starts { break }
        server.look(now: Self.now + 3600)
        #expect(server.context.peers.count == 1)
        server.look(now: Self.now + 3 * 3600)
        for await error in errors {
            #expect(error == .tls(.certificateExpired, isReportedByPeer: false, details: ""))
            break
        }
        try await onThread {
            #expect(
                failure { _ = try connection.receiveFrame(deadline: .seconds(30)) } != .deadline)
        }
        #expect(await log.line(containing: "A connection is ended") != nil)
    }

    @Test func `what soon ends is warned of once a day`() throws {
        let gateway = try watch(.gateway, "one")
        let days: (Int64) -> Int64 = { Self.now + $0 * 86_400 }
        gateway.look(now: days(340))
        #expect(!log.all.contains { $0.contains("must be renewed") })
        gateway.look(now: days(352))
        gateway.look(now: days(352) + 3600)
        #expect(log.all.count { $0.contains("warning The certificate must be renewed") } == 1)
        gateway.look(now: days(353) + 60)
        #expect(log.all.count { $0.contains("warning The certificate must be renewed") } == 2)
        gateway.look(now: days(366))
        #expect(log.all.count { $0.contains("error The certificate must be renewed") } == 1)
        // One that never lives long is warned of near its own end.
        let brief = try watch(
            .gateway, "brief", validity: .init(start: .zero, length: .seconds(86_400)))
        let lines = log.all.count
        brief.look(now: Self.now + 3600)
        #expect(log.all.count == lines)
    }

    @Test func `HTTPS shows a new certificate as soon as it is there`() throws {
        _ = try certificates.identity(.gateway, "web")
        let paths = certificates.authority.paths(of: InstanceID("web"))
        let watch = try CertificateWatch(
            .https(certificate: paths.certificate, key: paths.key), logger: log.logger)
        let before = watch.context.settings.expiries.map(\.time)
        _ = try certificates.identity(.gateway, "web", validity: Self.short)
        watch.look()
        #expect(watch.context.settings.expiries.map(\.time) != before)
        let client = try TLSSession(
            context: .client(authorityPath: paths.authority),
            side: .client(serverName: "localhost"))
        let server = try TLSSession(context: watch.context, side: .server)
        while !client.isEstablished || !server.isEstablished {
            try client.handshake()
            try server.receive(client.takeCiphertext())
            try server.handshake()
            try client.receive(server.takeCiphertext())
        }
        #expect(client.peerCertificate?.notAfter == watch.context.settings.expiries[0].time)
    }
}
