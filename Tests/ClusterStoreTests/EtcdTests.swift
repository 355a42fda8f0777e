import Foundation
import Logging
import Testing

@testable import ClusterStore

@Suite(.serialized, .enabled(if: EtcdServer.executable != nil, EtcdServer.absence))
struct EtcdTests {
    @Test func `records and events outlive a term`() async throws {
        try await EtcdServer.run { server in
            try await Promises.recordsAndEventsOutliveATerm(try server.store())
        }
    }

    @Test func `one leads at a time`() async throws {
        try await EtcdServer.run { server in
            try await Promises.oneLeadsAtATime(try server.store())
        }
    }

    @Test func `a record has a bound`() async throws {
        try await EtcdServer.run { server in
            try await Promises.aRecordHasABound(try server.store())
        }
    }

    @Test func `a leader that renews stays, one that does not is fenced`() async throws {
        try await EtcdServer.run { server in
            let store = try server.store()
            let first = try await store.takeOffice(as: "one") { _ in }
            let keeping = Task { await first.ended() }
            try await Task.sleep(for: .seconds(5))
            #expect(first.isCurrent)
            try await first.save(StoreBatch(records: ["a": [1]]))
            keeping.cancel()
            // Nobody renews: by its own clock it knows before another can lead.
            let start = ContinuousClock.now
            let second = Task { try await store.takeOffice(as: "two") { _ in } }
            try await eventually("the end of the term") { !first.isCurrent }
            let known = ContinuousClock.now
            let term = try await second.value
            #expect(known <= ContinuousClock.now)
            #expect(ContinuousClock.now - start < .seconds(8))
            #expect(term.epoch > first.epoch)
            let error = await #expect(throws: StoreError.self) {
                try await first.save(StoreBatch(records: ["a": [2]]))
            }
            guard case .fenced = error else {
                Issue.record("not fenced: \(String(describing: error))")
                return
            }
            #expect(try await term.load() == ["a": [1]])
            await term.resign()
        }
    }

    @Test func `etcd itself refuses the writes of an old leader`() async throws {
        try await EtcdServer.run { server in
            let store = try server.store()
            // A clock that stands still: it believes in its lease for a minute.
            let calls = try EtcdCalls(
                endpoints: [server.endpoint], options: EtcdStore.Options())
            let real = try await store.takeOffice(as: "one") { _ in }
            await real.resign()
            let stale = EtcdTerm(
                calls: calls, keys: EtcdKeys(prefix: EtcdStore.Options().prefix), lease: "1",
                length: .seconds(60), created: 2, epoch: real.epoch, asked: .now)
            let next = try await store.takeOffice(as: "two") { _ in }
            #expect(stale.isCurrent)
            let error = await #expect(throws: StoreError.self) {
                try await stale.save(StoreBatch(records: ["a": [2]]))
            }
            #expect(error == .fenced(reason: "another has taken its place"))
            #expect(!stale.isCurrent)
            #expect(try await next.load().isEmpty)
            await next.resign()
        }
    }

    @Test func `a store that is away ends the term in time, and is waited for`() async throws {
        try await EtcdServer.run { server in
            let store = try server.store()
            let first = try await store.takeOffice(as: "one") { _ in }
            server.signal(SIGSTOP)
            let start = ContinuousClock.now
            #expect(await first.ended().contains("not renewed"))
            #expect(ContinuousClock.now - start < .seconds(3))
            let second = Task { try await store.takeOffice(as: "two") { _ in } }
            try await Task.sleep(for: .seconds(1))
            server.signal(SIGCONT)
            let term = try await second.value
            #expect(term.epoch > first.epoch)
            await term.resign()
        }
    }

    @Test func `members that are away are passed over`() async throws {
        try await EtcdServer.run { server in
            let store = try EtcdStore(
                endpoints: ["http://127.0.0.1:1", server.endpoint],
                logger: Logger(label: "test"))
            let term = try await store.takeOffice(as: "one") { _ in }
            try await term.save(StoreBatch(records: ["a": [1]]))
            await term.resign()
        }
    }
}
