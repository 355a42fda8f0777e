import Foundation
package import Logging

/// A store in etcd (3.4 or newer), for schedulers of several hosts.
///
/// The leader has created a key with a lease. Each write is a transaction that compares that key's
/// creation, so it fails once the lease is over, whatever the writer believes.
package struct EtcdStore: ClusterStore {
    package struct Options: Sendable, Hashable {
        /// What all keys begin with.
        package var prefix = "/pdserve/pdserve"
        /// The leader is followed by another when it has not been heard for so long.
        package var lease = StoreLimits.lease
        /// PEM files.
        package var authority: String?
        package var certificate: String?
        package var key: String?

        package init() {}
    }

    private let calls: EtcdCalls
    private let options: Options
    private let keys: EtcdKeys
    private let logger: Logger

    package init(
        endpoints: [String], options: Options = Options(), logger: Logger
    ) throws(StoreError) {
        calls = try EtcdCalls(endpoints: endpoints, options: options)
        keys = EtcdKeys(prefix: options.prefix)
        self.options = options
        self.logger = logger
    }

    package func takeOffice(
        as name: String, waiting: @escaping @Sendable (String) -> Void
    ) async throws -> any ClusterTerm {
        var leader: String?
        var problem: String?
        while true {
            try Task.checkCancellation()
            do {
                let present = try await present()
                problem = nil
                if let key = present.leader {
                    let owner = String(decoding: key.bytes, as: UTF8.self)
                    if owner != leader { waiting(owner) }
                    leader = owner
                    await waitForEnd(after: present.revision)
                } else if let term = try await stand(as: name, present) {
                    return term
                }
            } catch let error as StoreError {
                guard case .unavailable = error else { throw error }
                // A store that is away comes back; until then nobody leads.
                if error.description != problem {
                    logger.warning("waiting for the store", metadata: ["reason": "\(error)"])
                }
                problem = error.description
                try await Task.sleep(for: options.lease / 5)
            }
        }
    }

    private struct Present {
        var leader: EtcdKeyValue?
        var revision: Int64
        var epoch: Int64
        var epochRevision: Int64
    }

    private func present() async throws(StoreError) -> Present {
        let leader: EtcdRangeAnswer = try await calls.call(
            "/v3/kv/range", EtcdRangeRequest(key: Base64.text(keys.leader)),
            within: options.lease)
        let epoch: EtcdRangeAnswer = try await calls.call(
            "/v3/kv/range", EtcdRangeRequest(key: Base64.text(keys.epoch)),
            within: options.lease)
        let last = epoch.kvs?.first
        return Present(
            leader: leader.kvs?.first, revision: leader.header?.revision.flatMap(Int64.init) ?? 0,
            epoch: last.flatMap { Int64(String(decoding: $0.bytes, as: UTF8.self)) } ?? 0,
            epochRevision: last?.modRevision.flatMap(Int64.init) ?? 0)
    }

    /// A watch tells at once; a look now and then finds what a broken watch misses.
    private func waitForEnd(after revision: Int64) async {
        do {
            try await calls.watchDeletion(
                of: keys.leader, after: revision, within: options.lease)
        } catch {
            // Its end by time is the usual case; it may also be the member that is away.
            calls.next()
            try? await Task.sleep(for: StoreLimits.lockPoll)
        }
    }

    /// Nil if another was quicker.
    private func stand(as name: String, _ present: Present) async throws -> EtcdTerm? {
        let asked = ContinuousClock.now
        let seconds = max(1, Int(options.lease.components.seconds))
        let lease: EtcdLease = try await calls.call(
            "/v3/lease/grant", EtcdLeaseGrant(TTL: "\(seconds)"), within: options.lease / 2)
        let now = Int64(Date().timeIntervalSince1970 * 1000)
        let epoch = max(1, now, present.epoch + 1)
        let answer: EtcdTransactionAnswer = try await calls.call(
            "/v3/kv/txn",
            EtcdTransaction(
                compare: [
                    .created(keys.leader, at: 0),
                    .modified(keys.epoch, at: present.epochRevision),
                ],
                success: [
                    .put(keys.leader, Array(name.utf8), lease: lease.ID),
                    .put(keys.epoch, Array("\(epoch)".utf8)),
                ]), within: options.lease / 2)
        guard answer.succeeded == true,
            let revision = answer.header?.revision.flatMap(Int64.init)
        else {
            let _: EtcdNothing? = try? await calls.call(
                "/v3/lease/revoke", EtcdLease(ID: lease.ID), within: options.lease / 2)
            return nil
        }
        return EtcdTerm(
            calls: calls, keys: keys, lease: lease.ID, length: .seconds(seconds),
            created: revision, epoch: UInt64(epoch), asked: asked)
    }
}

/// Names under the prefix.
struct EtcdKeys: Sendable {
    let leader: String
    let epoch: String
    let records: String
    let events: String

    init(prefix: String) {
        let folder = prefix.hasSuffix("/") ? prefix : prefix + "/"
        leader = folder + "leader"
        epoch = folder + "epoch"
        records = folder + "records/"
        events = folder + "events/"
    }

    func event(_ number: UInt64) -> String {
        let digits = String(number)
        return events + String(repeating: "0", count: 20 - digits.count) + digits
    }

    /// The end of the range of all keys that begin with the text, which ends in `/`.
    static func end(of folder: String) -> String { folder.dropLast() + "0" }
}
