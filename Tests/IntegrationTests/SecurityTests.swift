import Foundation
import HTTPClient
import LocalCluster
import Logging
import ServiceStart
import ServingTypes
import Synchronization
import Testing
import Transport

/// Certificates that change, peers that are refused, and who asked for what, with real processes.
@Suite(.serialized) struct SecurityTests {
    private final class Tally: Sendable {
        let served = Mutex(0)
        let failures = Mutex<[String]>([])
    }

    // MARK: Another authority

    @Test func `an authority is rolled over while requests are served`() async throws {
        try await TestCluster.run(engine: "simulated") { cluster in
            let tally = Tally()
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    while !Task.isCancelled {
                        let (status, answer) = try await cluster.post(
                            "/v1/completions", #"{"prompt":"Lists are","max_tokens":8}"#)
                        tally.served.withLock { $0 += 1 }
                        if status != 200 { tally.failures.withLock { $0.append("\(answer)") } }
                    }
                }
                try await rollOver(cluster)
                let before = tally.served.withLock { $0 }
                while tally.served.withLock({ $0 }) < before + 5 {
                    try await Task.sleep(for: .milliseconds(10))
                }
                group.cancelAll()
                // The call that is cancelled ends with an error of its own.
                while await group.nextResult() != nil {}
            }
            #expect(tally.failures.withLock { $0 } == [])
        }
    }

    private func rollOver(_ cluster: TestCluster) async throws {
        let old = cluster.authority
        let new = CertificateAuthority(
            folder: cluster.cluster.settings.folder.appending(path: "new").path)
        let years = CertificateValidity(length: .seconds(7300 * 86_400))
        try new.create(cluster: cluster.cluster.settings.cluster, validity: years)
        let first = try Data(contentsOf: URL(filePath: old.certificatePath))
        let second = try Data(contentsOf: URL(filePath: new.certificatePath))
        let rogue = try Rogue(cluster, .gateway, "one")

        // Both authorities are trusted, then all have certificates of the new one, then only it.
        try (first + second).write(to: URL(filePath: old.certificatePath), options: .atomic)
        try await cluster.reload { try await cluster.reloads($0) >= 1 }
        for role in Role.allCases {
            try new.issue(
                PeerIdentity(
                    cluster: cluster.cluster.settings.cluster, role: role,
                    instance: PeerIdentity.anyInstance),
                file: role.name, validity: .init(length: .seconds(100 * 86_400)))
            let (from, to) = (new.paths(of: .init(role.name)), old.paths(of: .init(role.name)))
            for (from, to) in [(from.key, to.key), (from.certificate, to.certificate)] {
                try Data(contentsOf: URL(filePath: from)).write(
                    to: URL(filePath: to), options: .atomic)
            }
        }
        try await cluster.reload { process in
            try await cluster.metric(.left("certificate"), of: process) ?? .infinity < 101 * 86_400
        }
        #expect(await rogue.refusal(from: cluster) == nil)
        try second.write(to: URL(filePath: old.certificatePath), options: .atomic)
        try await cluster.reload { process in
            try await cluster.metric(.left("authority"), of: process) ?? 0 > 7000 * 86_400
        }

        let error = await rogue.refusal(from: cluster)
        guard case .tls(.unknownAuthority, isReportedByPeer: true, _) = error else {
            throw TestFailure("a certificate of the old authority: \(error as Any)")
        }
        let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
        try await cluster.wait(for: .refused("unknown-authority"), of: scheduler, toBe: 1)
        // New processes and people come with the new authority.
        try await cluster.cluster.startWorker(.decodeWorker, number: 2, arguments: [])
        try await cluster.waitForOutput(of: "status") { $0.contains("decode-worker-2") }
    }

    // MARK: Revoked and refused

    @Test func `who may not be here is refused, counted and named, and what is asked is kept`()
        async throws
    {
        try await TestCluster.run(engine: "simulated") { cluster in
            let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
            try await refusals(cluster, scheduler)
            try await audit(cluster, scheduler)
            try await revocation(cluster, scheduler)
            #expect(
                try await cluster.post("/v1/completions", #"{"prompt":"a","max_tokens":2}"#).status
                    == 200)
        }
    }

    private func refusals(_ cluster: TestCluster, _ scheduler: ManagedProcess) async throws {
        let worker = try #require(cluster.cluster.processes(of: .decodeWorker).first)
        let expired = try Rogue(
            cluster, .gateway, "old",
            validity: .init(start: .seconds(-3600), length: .seconds(3602)))
        let end = ContinuousClock.now + .seconds(3)
        let far = try Rogue(cluster, .gateway, "far", certificateCluster: "away")
        #expect(await far.refusal(from: cluster) != nil)
        try await cluster.wait(for: .refused("other-cluster"), of: scheduler, toBe: 1)

        let scheduling = try Rogue(cluster, .scheduler, "second")
        #expect(await scheduling.refusal(from: cluster) != nil)
        try await cluster.wait(for: .refused("role"), of: scheduler, toBe: 1)

        let future = try Rogue(cluster, .gateway, "future", version: 99)
        #expect(await future.refusal(from: cluster) != nil)
        try await cluster.wait(for: .refused("version"), of: scheduler, toBe: 1)

        while ContinuousClock.now < end { try await Task.sleep(for: .milliseconds(50)) }
        #expect(await expired.refusal(from: cluster) != nil)
        try await cluster.wait(for: .refused("expired"), of: scheduler, toBe: 1)

        // A gateway may talk to the scheduler, but not ask what people may ask.
        let asking = try Rogue(cluster, .gateway, "asking")
        let request = ControlMessage.adminRequest(AdminRequest(command: "scale", arguments: []))
        guard case .refused(let refusal) = await asking.refusal(from: cluster, saying: request)
        else {
            throw TestFailure("a gateway may ask for anything")
        }
        #expect(refusal.code == .role)
        try await cluster.wait(for: .refused("message"), of: scheduler, toBe: 1)

        let agent = try Rogue(cluster, .prefillWorker, "p")
        let control = try #require(worker.announcement.control)
        #expect(await agent.refusal(at: control, .decodeWorker) != nil)
        try await cluster.wait(for: .refused("role"), of: worker, toBe: 1)
        let log = scheduler.logTail(lines: 10_000)
        for name in ["away/gateway/far", "scheduler/second", "gateway/future", "gateway/old"] {
            #expect(
                log.split(separator: "\n").contains {
                    $0.contains(name) && $0.contains("127.0.0.1")
                })
        }
    }

    private func audit(_ cluster: TestCluster, _ scheduler: ManagedProcess) async throws {
        #expect(try await cluster.pdserve("scale", "default", "--decode", "1").status == 0)
        #expect(try await cluster.pdserve("assign", "nobody", "prefill").status != 0)
        let events = try await cluster.pdserve("events").output.split(separator: "\n")
        for words in [
            "scale scenario=default decode=1: done", "assign worker=nobody role=prefill: refused",
        ] {
            let event = events.first { $0.contains(words) }
            #expect(
                event?.contains("asked by pdserve://local/administrator/* from 127.0.0.1:")
                    == true, "\(words): \(events)")
        }
        #expect(
            events.contains {
                $0.contains("a gateway may ask for nothing")
                    && $0.contains("asked by pdserve://local/gateway/asking from 127.0.0.1:")
            }, "\(events)")
    }

    private func revocation(_ cluster: TestCluster, _ scheduler: ManagedProcess) async throws {
        let agent = try #require(cluster.cluster.processes(of: .healthAgent).first)
        let folder = cluster.authority.folder
        let revoked = try await cluster.tool([
            "certificates", "--folder", folder, "--revoke", "health-agent",
        ])
        #expect(revoked.status == 0, "\(revoked.output)")
        // By the regular look: nobody is told.
        try await cluster.wait(
            for: #"connections_ended_total{reason="revoked"}"#, of: scheduler, toBe: 1,
            within: .seconds(30))
        let end = ContinuousClock.now + .seconds(30)
        while try await cluster.metric(.refused("revoked"), of: scheduler) ?? 0 < 1 {
            guard ContinuousClock.now < end else { throw TestFailure("it is let in") }
            try await Task.sleep(for: .milliseconds(50))
        }
        #expect(scheduler.logTail(lines: 1000).contains("it names pdserve://local/health-agent/*"))
        while !agent.logTail(lines: 1000).contains("the peer says that our certificate was revoked")
        {
            guard ContinuousClock.now < end else { throw TestFailure("it is told nothing") }
            try await Task.sleep(for: .milliseconds(50))
        }
        let renewed = try await cluster.tool([
            "certificates", "--folder", folder, "--cluster", cluster.cluster.settings.cluster,
            "--role", "health-agent", "--name", "health-agent", "--any-name", "--renew",
        ])
        #expect(renewed.status == 0, "\(renewed.output)")
        while ContinuousClock.now < end + .seconds(30) {
            let admin = try #require(agent.announcement.admin)
            let (head, _) = try await HTTPCall("GET", admin, "/health").collect()
            if head.status == 200 { return }
            agent.signal(SIGHUP)
            try await Task.sleep(for: .milliseconds(200))
        }
        throw TestFailure("the renewed health-agent does not come back: \(agent.logTail())")
    }
}

/// Somebody with a certificate who may not do what they do.
private struct Rogue {
    private let context: TLSContext
    private let hello: Hello
    private let cluster: String

    /// - Parameter certificateCluster: that of the certificate; default: the right one.
    init(
        _ cluster: TestCluster, _ role: Role, _ name: String, certificateCluster: String? = nil,
        version: UInt32? = nil, validity: CertificateValidity = .process
    ) throws {
        self.cluster = certificateCluster ?? cluster.cluster.settings.cluster
        let authority = cluster.authority
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-rogue-\(UInt32.random(in: 0 ... .max))")
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let peer = PeerIdentity(cluster: self.cluster, role: role, instance: InstanceID(name))
        try authority.issue(peer, file: "rogue-\(name)", validity: validity)
        var paths = authority.paths(of: InstanceID("rogue-\(name)"))
        // Whoever it is trusts the authorities of later, too.
        let bundle = folder.appending(path: "ca.pem")
        var trusted = try Data(contentsOf: URL(filePath: authority.certificatePath))
        let next = URL(filePath: authority.folder).deletingLastPathComponent()
            .appending(path: "new/ca.pem")
        trusted += (try? Data(contentsOf: next)) ?? Data()
        try trusted.write(to: bundle)
        paths.authority = bundle.path
        context = try TLSContext(TLSIdentity(paths))
        var hello = Hello(
            cluster: self.cluster, role: role, instance: InstanceID(name), incarnation: 1,
            productVersion: "test")
        if let version { hello.protocolVersion = version }
        self.hello = hello
    }

    /// What the scheduler says; nil if it lets the caller stay.
    func refusal(
        from cluster: TestCluster, saying message: ControlMessage = .ping(Ping(number: 1))
    ) async -> TransportError? {
        guard let address = cluster.cluster.schedulerAddress else { return .shutDown }
        return await refusal(at: address, .scheduler, saying: message)
    }

    func refusal(
        at address: NetworkAddress, _ role: Role,
        saying message: ControlMessage = .ping(Ping(number: 1))
    ) async -> TransportError? {
        do {
            // Of another cluster it meets nobody it expects, but tells who it is before.
            let client = try ControlClient(
                address: address, context: context, hello: hello,
                expects: PeerExpectation(role), logger: Logger(label: "rogue"))
            try await client.connectOnce { session in
                try session.send(message)
                var inbound = session.inbound.makeAsyncIterator()
                _ = try await inbound.next()
            }
            return nil
        } catch { return error as? TransportError }
    }
}

extension String {
    fileprivate static func refused(_ reason: String) -> String {
        #"connections_refused_total{reason="\#(reason)"}"#
    }

    fileprivate static func left(_ certificate: String) -> String {
        #"certificate_expires_seconds{certificate="\#(certificate)"}"#
    }
}

extension TestCluster {
    fileprivate var authority: CertificateAuthority {
        CertificateAuthority(folder: cluster.settings.folder.appending(path: "certificates").path)
    }

    fileprivate func reloads(_ process: ManagedProcess) async throws -> Double {
        try await metric(
            #"certificate_reloads_total{certificates="cluster",outcome="done"}"#, of: process) ?? 0
    }

    /// Tells all processes to read their files, until they have.
    fileprivate func reload(
        until isDone: (ManagedProcess) async throws -> Bool
    ) async throws {
        let end = ContinuousClock.now + .seconds(60)
        for process in cluster.all {
            process.signal(SIGHUP)
            while try await !isDone(process) {
                guard ContinuousClock.now < end else {
                    throw TestFailure("\(process.name) reads nothing: \(process.logTail())")
                }
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }
}
