import Foundation
import ServingTypes
import Testing
import WireProtocol

@testable import Transport

/// Certificates that hold no more although their time has not come.
@Suite(.timeLimit(.minutes(1))) struct RevocationTests {
    let certificates: TestCertificates
    let log = LogLines()

    init() throws { certificates = try TestCertificates() }

    private static let now = Int64(Date().timeIntervalSince1970)

    private func watch(_ role: Role, _ name: String) throws -> CertificateWatch {
        let paths = certificates.authority.paths(of: InstanceID(name))
        if !FileManager.default.fileExists(atPath: paths.certificate) {
            _ = try certificates.identity(role, name)
        }
        return try CertificateWatch(.cluster(paths), logger: log.logger)
    }

    /// What comes of a connection from one to the other.
    ///
    /// - Parameter words: of a line that the log must get before the listener goes.
    private func connect(
        _ name: String, _ client: TLSContext, _ server: TLSContext,
        logs words: String? = nil, whileOpen body: @escaping @Sendable () throws -> Void = {}
    ) async throws -> TransportError? {
        let listener = try ControlListener(
            address: loopback, context: server, hello: .test(.decodeWorker, "decode"),
            allowedRoles: [.gateway], logger: log.logger)
        let connector = try ControlClient(
            address: try await listener.start(), context: client, hello: .test(.gateway, name),
            expects: PeerExpectation(.decodeWorker), logger: log.logger)
        return await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await listener.run { session in
                    try session.send(.pong(Pong(number: 1)))
                    for try await _ in session.inbound {}
                }
            }
            defer { group.cancelAll() }
            do {
                try await connector.connectOnce { session in
                    var inbound = session.inbound.makeAsyncIterator()
                    #expect(try await inbound.next()?.message == .pong(Pong(number: 1)))
                    try body()
                }
                return nil
            } catch {
                if let words { #expect(await log.line(containing: words) != nil) }
                return error as? TransportError
            }
        }
    }

    @Test func `a revoked peer is refused by name on both sides, others are served`() async throws {
        let server = try watch(.decodeWorker, "decode")
        let (bad, good) = (try watch(.gateway, "bad"), try watch(.gateway, "good"))
        #expect(try await connect("bad", bad.context, server.context) == nil)

        let done = try certificates.authority.revoke("bad")
        #expect(done == .init(revoked: 1, listed: 1))
        server.look()
        let error = try await connect("bad", bad.context, server.context)
        #expect(isTLS(error, .certificateRevoked, isReportedByPeer: true), "\(error as Any)")
        let reason = "\(try #require(error))"
        #expect(reason.hasPrefix("the peer says that our certificate was revoked"), "\(reason)")
        let line = await log.line(containing: "the peer's certificate was revoked")
        #expect(line?.contains("it names pdserve://home/gateway/bad") == true, "\(line ?? "")")
        #expect(try await connect("good", good.context, server.context) == nil)

        // A new certificate of the same name is another one.
        _ = try certificates.identity(.gateway, "bad")
        bad.look()
        #expect(try await connect("bad", bad.context, server.context) == nil)
    }

    @Test func `a revoked listener is refused by who connects`() async throws {
        let (server, gateway) = (try watch(.decodeWorker, "decode"), try watch(.gateway, "one"))
        try certificates.authority.revoke("decode")
        gateway.look()
        let error = try await connect(
            "one", gateway.context, server.context,
            logs: "the peer says that our certificate was revoked")
        #expect(isTLS(error, .certificateRevoked, isReportedByPeer: false), "\(error as Any)")
        #expect("\(try #require(error))".contains("pdserve://home/decode-worker/decode"))
    }

    @Test func `open connections of a revoked peer end, those of others stay`() async throws {
        let server = try watch(.decodeWorker, "decode")
        let gateway = try watch(.gateway, "one")
        let other = try watch(.gateway, "other")
        let authority = certificates.authority
        let error = try await connect("other", other.context, server.context) {
            #expect(server.context.peers.count == 1)
            try authority.revoke("one")
            server.look()
            #expect(server.context.peers.count == 1)
            try authority.revoke("other")
            server.look()
            #expect(server.context.peers.count == 0)
        }
        #expect(error == nil)
        let line = await log.line(containing: "A connection is ended")
        #expect(line?.contains("pdserve://home/gateway/other") == true, "\(line ?? "")")
        #expect(
            try await connect("one", gateway.context, server.context)
                .map { isTLS($0, .certificateRevoked, isReportedByPeer: true) } == true)
    }

    @Test func `all certificates of a name are revoked, also replaced ones`() async throws {
        let authority = certificates.authority
        let old = try watch(.gateway, "one")
        _ = try certificates.identity(.gateway, "one")
        #expect(try authority.revoke("one") == .init(revoked: 2, listed: 2))
        #expect(try authority.isRevoked(InstanceID("one")))
        #expect(try authority.revoke("one") == .init(revoked: 0, listed: 2))
        _ = try certificates.identity(.gateway, "two")
        #expect(try authority.revoke("two") == .init(revoked: 1, listed: 3))
        #expect(try authority.renewRevocations() == .init(revoked: 0, listed: 3))
        #expect(throws: TransportError.self) { try authority.revoke("nobody") }
        let error = try await connect(
            "one", old.context, watch(.decodeWorker, "decode").context)
        #expect(isTLS(error, .certificateRevoked, isReportedByPeer: true), "\(error as Any)")
        let own = #expect(throws: TransportError.self) { try watch(.gateway, "one") }
        #expect("\(try #require(own))".contains("was revoked"))
    }

    @Test func `a certificate for any name is revoked by its role`() throws {
        let authority = certificates.authority
        let any = PeerIdentity(
            cluster: "home", role: .prefillWorker, instance: PeerIdentity.anyInstance)
        try authority.issue(any, file: "prefill-worker")
        #expect(try authority.revoke("prefill-worker").revoked == 1)
        #expect(try authority.isRevoked(InstanceID("prefill-worker")))
    }

    @Test func `a list holds beyond its time, with a warning`() async throws {
        let bad = try watch(.gateway, "bad")
        try certificates.authority.revoke(
            "bad", validity: .init(start: .seconds(-7200), length: .seconds(3600)))
        let server = try watch(.decodeWorker, "decode")
        #expect(log.all.count { $0.contains("list of revocations should be renewed") } == 1)
        let error = try await connect("bad", bad.context, server.context)
        #expect(isTLS(error, .certificateRevoked, isReportedByPeer: true), "\(error as Any)")
        let good = try watch(.gateway, "good")
        #expect(try await connect("good", good.context, server.context) == nil)
    }

    @Test func `lists that are not the authority's, or gone, change nothing`() async throws {
        let (server, bad) = (try watch(.decodeWorker, "decode"), try watch(.gateway, "bad"))
        let authority = certificates.authority
        let list = URL(filePath: authority.revocationsPath)
        let others = try TestCertificates()
        _ = try others.identity(.gateway, "bad")
        try others.authority.revoke("bad")
        let foreign = try Data(contentsOf: URL(filePath: others.authority.revocationsPath))
        try foreign.write(to: list)
        server.look()
        #expect(log.all.contains { $0.contains("no list signed by an authority") })
        #expect(try await connect("bad", bad.context, server.context) == nil)

        try FileManager.default.removeItem(at: list)
        try authority.revoke("bad")
        // The lists of several authorities lie in one file.
        try (foreign + Data(contentsOf: list)).write(to: list)
        server.look()
        #expect(server.context.settings.revocations.count == 1)
        try FileManager.default.removeItem(at: list)
        server.look()
        #expect(log.all.contains { $0.contains("the file with revocations is gone") })
        let error = try await connect("bad", bad.context, server.context)
        #expect(isTLS(error, .certificateRevoked, isReportedByPeer: true), "\(error as Any)")
    }

    @Test func `one authority's list says nothing of another's certificates`() async throws {
        let others = try TestCertificates()
        _ = try others.identity(.gateway, "new")
        let server = try watch(.decodeWorker, "decode")
        let bad = try watch(.gateway, "bad")
        try certificates.authority.revoke("bad")
        let both = URL(filePath: certificates.authority.certificatePath)
        try
            (Data(contentsOf: both)
            + Data(contentsOf: URL(filePath: others.authority.certificatePath))).write(to: both)
        server.look()
        var paths = others.authority.paths(of: InstanceID("new"))
        paths.authority = both.path
        let new = try TLSContext(TLSIdentity(paths))
        #expect(try await connect("new", new, server.context) == nil)
        let error = try await connect("bad", bad.context, server.context)
        #expect(isTLS(error, .certificateRevoked, isReportedByPeer: true), "\(error as Any)")
    }
}
