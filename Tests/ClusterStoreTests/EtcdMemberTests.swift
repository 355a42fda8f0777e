import Foundation
import Logging
import Testing

@testable import ClusterStore

/// An etcd of three members that die, and one that asks for certificates.
@Suite(.serialized, .enabled(if: EtcdServer.executable != nil, EtcdServer.absence))
struct EtcdMemberTests {
    /// Rounds in which a member is killed.
    private static let rounds = 5

    @Test func `members that are killed one after the other lose nothing`() async throws {
        try await withFolder { folder in
            var trio = try EtcdTrio(in: folder)
            defer { trio.stop() }
            var options = EtcdStore.Options()
            options.lease = .seconds(5)
            let store = try EtcdStore(
                endpoints: trio.endpoints, options: options, logger: Logger(label: "test"))
            var term = try #require(
                try await store.takeOffice(as: "one") { _ in } as? EtcdTerm)
            var terms = 1
            var keeping = Task { [term] in await term.ended() }
            var saved: [String: [UInt8]] = [:]
            /// As the scheduler does: what was not saved is saved again, also in another term.
            func save(_ key: String) async throws {
                let end = ContinuousClock.now + .seconds(30)
                while true {
                    do {
                        try await term.save(StoreBatch(records: [key: bytes(key)]))
                        saved[key] = bytes(key)
                        return
                    } catch StoreError.fenced {
                        keeping.cancel()
                        terms += 1
                        let next = try await store.takeOffice(as: "one") { _ in }
                        #expect(next.epoch > term.epoch)
                        term = try #require(next as? EtcdTerm)
                        keeping = Task { [term] in await term.ended() }
                    } catch StoreError.unavailable {
                        try #require(ContinuousClock.now < end, "nothing can be saved")
                        try await Task.sleep(for: .milliseconds(50))
                    }
                }
            }
            var longest = Duration.zero
            for round in 1...Self.rounds {
                try await save("before/\(round)")
                let used = term.calls.endpoint
                try trio.kill(used)
                let killed = ContinuousClock.now
                for number in 1...5 { try await save("without/\(round)-\(number)") }
                longest = max(longest, ContinuousClock.now - killed)
                #expect(term.calls.endpoint != used)
                try trio.start(used)
                try await trio.waitUntilWhole()
            }
            print("saved \(longest) after a member's end at the latest, in \(terms) term(s)")
            let found = try await term.load()
            #expect(found == saved)
            #expect(saved.count == Self.rounds * 6)
            keeping.cancel()
            await term.resign()
        }
    }

    @Test(.enabled(if: OpenSSL.executable != nil, "openssl is not on PATH"))
    func `etcd that asks for certificates gets one, and a wrong one is said clearly`()
        async throws
    {
        try await withFolder { folder in
            let keys = try OpenSSL(folder)
            try keys.makeAuthority("authority")
            try keys.makeAuthority("stranger")
            try keys.issue("server", by: "authority")
            try keys.issue("client", by: "authority")
            try keys.issue("wrong", by: "stranger")
            let server = try EtcdServer(
                in: folder, scheme: "https",
                arguments: [
                    "--cert-file", keys.path("server.pem"), "--key-file", keys.path("server.key"),
                    "--trusted-ca-file", keys.path("authority.pem"), "--client-cert-auth",
                ])
            defer { server.stop() }
            func store(_ authority: String?, _ certificate: String?) throws -> EtcdStore {
                try server.store { options in
                    options.authority = authority.map { keys.path("\($0).pem") }
                    options.certificate = certificate.map { keys.path("\($0).pem") }
                    options.key = certificate.map { keys.path("\($0).key") }
                }
            }
            let term = try await store("authority", "client").takeOffice(as: "one") { _ in }
            try await term.save(StoreBatch(records: ["a": [1]]))
            #expect(try await term.load() == ["a": [1]])
            await term.resign()
            let wrong: [(authority: String?, certificate: String?)] = [
                ("authority", "wrong"), ("authority", nil), ("stranger", "client"), (nil, "client"),
            ]
            for (authority, certificate) in wrong {
                let place = "\(authority ?? "-"), \(certificate ?? "-")"
                let lines = Lines()
                var options = EtcdStore.Options()
                options.lease = .seconds(2)
                options.authority = authority.map { keys.path("\($0).pem") }
                options.certificate = certificate.map { keys.path("\($0).pem") }
                options.key = certificate.map { keys.path("\($0).key") }
                let refused = try EtcdStore(
                    endpoints: [server.endpoint], options: options, logger: lines.logger)
                let waiting = Task { try await refused.takeOffice(as: "two") { _ in } }
                try await eventually("what is wrong: \(place)") {
                    lines.all.contains { $0.contains("--store-certificate") }
                }
                waiting.cancel()
                await #expect(throws: (any Error).self) { try await waiting.value }
                print(place, lines.all.first ?? "")
                #expect(lines.all.first?.contains(server.endpoint) == true)
            }
            let error = #expect(throws: StoreError.self) { try store("authority", "nothing") }
            #expect("\(try #require(error))".contains("--store-certificate"))
        }
    }
}
