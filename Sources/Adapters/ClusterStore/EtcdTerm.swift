import Synchronization

/// A term that lasts as long as its lease is renewed.
final class EtcdTerm: ClusterTerm {
    private struct State {
        /// By this process's clock, counted from before the renewal was asked for.
        var validUntil: ContinuousClock.Instant
        var end: String?
    }

    let epoch: UInt64
    let calls: EtcdCalls
    private let keys: EtcdKeys
    private let lease: String
    private let length: Duration
    private let created: Int64
    private let state: Mutex<State>

    /// - Parameters:
    ///   - created: the revision that made the leader's key.
    ///   - asked: before the lease was granted.
    init(
        calls: EtcdCalls, keys: EtcdKeys, lease: String, length: Duration, created: Int64,
        epoch: UInt64, asked: ContinuousClock.Instant
    ) {
        self.calls = calls
        self.keys = keys
        self.lease = lease
        self.length = length
        self.created = created
        self.epoch = epoch
        state = Mutex(State(validUntil: Self.validUntil(asked, length)))
    }

    private static func validUntil(
        _ asked: ContinuousClock.Instant, _ length: Duration
    ) -> ContinuousClock.Instant { asked + length * (1 - StoreLimits.leaseMargin) }

    /// Once false it stays so: whoever asked may have let something pass.
    var isCurrent: Bool {
        state.withLock { state in
            if state.end == nil, ContinuousClock.now >= state.validUntil {
                state.end = "its lease was not renewed for \(length)"
            }
            return state.end == nil
        }
    }

    // MARK: Keeping it

    func ended() async -> String {
        while !Task.isCancelled {
            guard isCurrent else { return state.withLock { $0.end ?? "" } }
            let asked = ContinuousClock.now
            let isRenewed = await renew(asked)
            // A third of the lease leaves two more tries.
            let pause = isRenewed ? length / 3 : length / 10
            try? await Task.sleep(until: asked + pause, clock: .continuous)
        }
        return "the process ends"
    }

    private func renew(_ asked: ContinuousClock.Instant) async -> Bool {
        do {
            let answer: EtcdKeepAliveAnswer = try await calls.call(
                "/v3/lease/keepalive", EtcdLease(ID: lease), within: length / 3)
            guard let left = answer.result?.TTL.flatMap(Int.init), left > 0 else {
                _ = end("its lease has run out")
                return true
            }
            state.withLock { $0.validUntil = Self.validUntil(asked, length) }
            return true
        } catch {
            return false
        }
    }

    private func end(_ reason: String) -> String {
        state.withLock { state in
            state.end = state.end ?? reason
            return state.end ?? reason
        }
    }

    func resign() async {
        let wasCurrent = isCurrent
        _ = end("it has resigned")
        guard wasCurrent else { return }
        let _: EtcdNothing? = try? await calls.call(
            "/v3/lease/revoke", EtcdLease(ID: lease), within: length / 3)
    }

    // MARK: Reading and writing

    func load() async throws(StoreError) -> [String: [UInt8]] {
        var records: [String: [UInt8]] = [:]
        var start = keys.records
        while records.count < StoreLimits.records {
            let page: EtcdRangeAnswer = try await calls.call(
                "/v3/kv/range",
                EtcdRangeRequest(
                    key: Base64.text(start), range_end: Base64.text(EtcdKeys.end(of: keys.records)),
                    limit: StoreLimits.page), within: length)
            for entry in page.kvs ?? [] {
                records[String(entry.keyText.dropFirst(keys.records.count))] = entry.bytes
            }
            guard page.more == true, let last = page.kvs?.last else { break }
            start = last.keyText + "\0"
        }
        return records
    }

    func lastEvents(_ count: Int) async throws(StoreError) -> [StoredEvent] {
        var events: [StoredEvent] = []
        var end = EtcdKeys.end(of: keys.events)
        while events.count < count {
            let page: EtcdRangeAnswer = try await calls.call(
                "/v3/kv/range",
                EtcdRangeRequest(
                    key: Base64.text(keys.events), range_end: Base64.text(end),
                    limit: min(StoreLimits.page, count - events.count), sort_order: "DESCEND",
                    sort_target: "KEY"), within: length)
            guard let entries = page.kvs, let last = entries.last else { break }
            for entry in entries {
                let number = UInt64(entry.keyText.dropFirst(keys.events.count)) ?? 0
                events.append(StoredEvent(number: number, bytes: entry.bytes))
            }
            guard page.more == true else { break }
            end = last.keyText
        }
        return events.reversed()
    }

    func save(_ batch: StoreBatch) async throws(StoreError) {
        try batch.check()
        var part: [EtcdOperation] = []
        var bytes = 0
        for operation in operations(batch) {
            if part.count == StoreLimits.operations
                || bytes + operation.bytes > StoreLimits.transactionBytes
            {
                try await write(part)
                part = []
                bytes = 0
            }
            part.append(operation)
            bytes += operation.bytes
        }
        if !part.isEmpty { try await write(part) }
    }

    private func operations(_ batch: StoreBatch) -> [EtcdOperation] {
        var operations = batch.records.sorted { $0.key < $1.key }.map { key, value in
            value.map { EtcdOperation.put(keys.records + key, $0) }
                ?? .delete(keys.records + key)
        }
        operations += batch.events.map { .put(keys.event($0.number), $0.bytes) }
        let kept = UInt64(StoreLimits.keptEvents)
        if let last = batch.events.last?.number, last > kept {
            // Before what is put: a range and a key in it may not be in one transaction.
            operations.insert(.delete(keys.event(0), to: keys.event(last - kept + 1)), at: 0)
        }
        return operations
    }

    private func write(_ operations: [EtcdOperation]) async throws(StoreError) {
        guard isCurrent else { throw .fenced(reason: end("its lease was not renewed in time")) }
        let answer: EtcdTransactionAnswer = try await calls.call(
            "/v3/kv/txn",
            EtcdTransaction(compare: [.created(keys.leader, at: created)], success: operations),
            within: length / 2)
        guard answer.succeeded == true else {
            throw .fenced(reason: end("another has taken its place"))
        }
    }
}
