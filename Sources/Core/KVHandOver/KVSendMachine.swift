package import ServingTypes

/// Decides what is sent to one decode-worker: all transfers to it, over its connections.
///
///     open ─▶ connecting ─connected─▶ offered ─grant─▶ granted ─all sent─▶ ended ─done─▶ gone
///                 ▲                      └──────connection lost, once────────┘
///                 └──────────────────────────────────┘
///
/// A connection carries one chunk at a time, of the transfers in turn, so transfers share a link
/// fairly and an abort waits for one chunk at most. Chunks stay with the sender until the receiver
/// says that all is imported: then they can be sent again.
package struct KVSendMachine: Sendable {
    package enum Action: Sendable, Hashable {
        case connect(Int)
        /// Shut the connection down, whatever it does; `lost` is not expected after it.
        case disconnect(Int, reason: String)
        /// A frame without payload.
        case send(ControlMessage, connection: Int)
        /// Send the chunk that begins at this token; `sent` or `lost` follows.
        case sendChunk(AttemptID, ChunkFacts, connection: Int)
        /// The chunk that is being sent of this attempt is not wanted any more.
        case breakOff(AttemptID)
        /// The transfer is over and its chunks can go; `failure` is nil if the receiver has
        /// everything, or if this side gave the transfer up.
        case ended(AttemptID, failure: KVDone?, TransferSummary)
    }

    private enum Connection: Sendable, Hashable {
        case closed(retryAt: MonotonicTime?)
        case connecting
        case open(sending: AttemptID?, idleSince: MonotonicTime)

        var isOpen: Bool { if case .open = self { true } else { false } }
        var isFree: Bool { if case .open(nil, _) = self { true } else { false } }
    }

    private let limits: KVHandOverLimits
    private var connections: [Connection]
    var transfers: [AttemptID: SendingTransfer] = [:]
    /// The number of the transfer that was served last.
    private var lastServed: UInt64 = 0
    private var opened: UInt64 = 0

    package init(limits: KVHandOverLimits) {
        precondition(limits.connections > 0, "a sender without connections")
        self.limits = limits
        connections = Array(repeating: .closed(retryAt: nil), count: limits.connections)
    }

    package var isEmpty: Bool { transfers.isEmpty }
    package func isOpen(_ attempt: AttemptID) -> Bool { transfers[attempt] != nil }
    /// Raw bytes of chunks that are kept until the receiver has imported them.
    package var heldBytes: Int { transfers.values.reduce(0) { $0 + $1.bytes } }

    /// Transfers that stand still although nobody computes for them.
    package func stranded(now: MonotonicTime) -> StrandedKV {
        StrandedKV(
            transfers.values.filter {
                $0.isWaitingForPeer && now - $0.lastProgress >= limits.strandedAfter
            }.map { (bytes: $0.bytes, age: now - $0.lastProgress) })
    }

    // MARK: The worker

    package mutating func open(_ plan: SendingPlan, now: MonotonicTime) -> [Action] {
        guard transfers[plan.attempt] == nil else { return [] }
        opened += 1
        transfers[plan.attempt] = SendingTransfer(plan: plan, number: opened, now: now)
        return offerWaiting(now: now)
    }

    /// A chunk was exported; chunks of a transfer come in order of tokens.
    package mutating func exported(
        _ attempt: AttemptID, _ chunk: ChunkFacts, now: MonotonicTime
    ) -> [Action] {
        guard var transfer = transfers[attempt] else { return [] }
        // The sender's own pause is over: the peer's begins.
        if transfer.isAllSent { transfer.lastProgress = now }
        transfer.chunks.append((chunk, .waiting))
        transfers[attempt] = transfer
        return pump(now: now)
    }

    /// All chunks were exported; the digest is made here.
    package mutating func finish(_ end: KVEnd, now: MonotonicTime) -> [Action] {
        guard var transfer = transfers[end.attempt] else { return [] }
        transfer.end = end
        transfer.end?.digest = PayloadDigest(transfer.chunks.map(\.facts)).value
        transfer.exported = now
        transfer.lastProgress = now
        transfers[end.attempt] = transfer
        return pump(now: now)
    }

    /// The worker gives the transfer up; the receiver is told.
    package mutating func abort(
        _ attempt: AttemptID, reason: String, now: MonotonicTime
    ) -> [Action] {
        close(attempt, failure: nil, telling: reason, now: now) + pump(now: now)
    }

    /// Fails everything, because the worker stops.
    package mutating func shutDown(reason: String, now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        for attempt in inOrder.map(\.plan.attempt) {
            let failure = KVDone(attempt: attempt, code: .transfer, reason: reason)
            actions += close(attempt, failure: failure, telling: reason, now: now)
        }
        for index in connections.indices where connections[index].isOpen {
            connections[index] = .closed(retryAt: nil)
            actions.append(.disconnect(index, reason: reason))
        }
        return actions
    }

    // MARK: Connections

    package mutating func connected(_ index: Int, now: MonotonicTime) -> [Action] {
        guard connections[index] == .connecting else { return [] }
        connections[index] = .open(sending: nil, idleSince: now)
        return offerWaiting(now: now) + pump(now: now)
    }

    /// The connection could not be made, or has broken.
    package mutating func lost(
        _ index: Int, reason: String, now: MonotonicTime
    ) -> [Action] {
        if case .closed = connections[index] { return [] }
        connections[index] = .closed(retryAt: now + limits.reconnectPause)
        var actions: [Action] = []
        for var transfer in inOrder {
            let attempt = transfer.plan.attempt
            let mayMissSome = transfer.lost(connection: index)
            let isConcerned =
                transfer.stage == .connecting
                ? !connections.contains(where: \.isOpen) : mayMissSome
            guard isConcerned else {
                transfers[attempt] = transfer
                continue
            }
            // A cut between two hosts takes all connections.
            guard transfer.reconnects < limits.reconnects * limits.connections else {
                let failure = KVDone(attempt: attempt, code: .transfer, reason: reason)
                actions += close(attempt, failure: failure, telling: reason, now: now)
                continue
            }
            transfer.reconnects += 1
            transfer.stage = .connecting
            transfer.home = nil
            transfer.used = []
            transfer.lastProgress = now
            transfers[attempt] = transfer
        }
        return actions + offerWaiting(now: now) + pump(now: now)
    }

    /// The chunk on this connection has been sent, whole or up to where it was broken off.
    package mutating func sent(
        _ attempt: AttemptID, _ chunk: ChunkFacts, connection index: Int, isWhole: Bool,
        now: MonotonicTime
    ) -> [Action] {
        if case .open = connections[index] {
            connections[index] = .open(sending: nil, idleSince: now)
        }
        transfers[attempt]?.lastProgress = now
        transfers[attempt]?.left(chunk.tokenStart, connection: index, isWhole: isWhole)
        return pump(now: now)
    }

    /// A piece of the chunk on this connection has left.
    package mutating func progressed(_ index: Int, now: MonotonicTime) {
        guard case .open(let attempt?, _) = connections[index] else { return }
        transfers[attempt]?.lastProgress = now
    }

    // MARK: The receiver

    package mutating func received(
        _ message: ControlMessage, now: MonotonicTime
    ) -> [Action] {
        switch message {
        case .kvGrant(let grant): granted(grant, now: now)
        case .kvCredit(let credit): credited(credit, now: now)
        case .kvResend(let resend): askedAgain(resend, now: now)
        case .kvDone(let done): ended(done, now: now)
        default: []
        }
    }

    private mutating func ended(_ done: KVDone, now: MonotonicTime) -> [Action] {
        if done.code == nil, let transfer = transfers[done.attempt], transfer.end == nil {
            return fail(
                done.attempt, "the receiver says it has KV that was not computed yet", now: now)
        }
        return close(
            done.attempt, failure: done.code == nil ? nil : done, telling: nil, now: now)
            + pump(now: now)
    }

    private mutating func granted(_ grant: KVGrant, now: MonotonicTime) -> [Action] {
        guard var transfer = transfers[grant.attempt], transfer.stage == .offered else { return [] }
        guard
            transfer.begin(
                round: grant.round, from: grant.heldTokens, credit: grant.creditBytes)
        else {
            return fail(
                grant.attempt,
                "the receiver holds \(grant.heldTokens) tokens, the KV here begins at "
                    + "\(transfer.plan.startToken)", now: now)
        }
        transfer.lastProgress = now
        transfers[grant.attempt] = transfer
        return pump(now: now)
    }

    private mutating func credited(_ credit: KVCredit, now: MonotonicTime) -> [Action] {
        guard let transfer = transfers[credit.attempt], transfer.stage == .granted else {
            return []
        }
        transfers[credit.attempt]?.credit = transfer.credit + credit.bytes
        transfers[credit.attempt]?.lastProgress = now
        return pump(now: now)
    }

    private mutating func askedAgain(_ resend: KVResend, now: MonotonicTime) -> [Action] {
        guard var transfer = transfers[resend.attempt],
            transfer.stage == .granted || transfer.stage == .ended
        else { return [] }
        guard transfer.resends < limits.resends,
            transfer.begin(
                round: resend.round, from: resend.fromToken, credit: resend.creditBytes)
        else {
            return fail(
                resend.attempt, "the KV was damaged again: \(resend.reason)", now: now)
        }
        transfer.resends += 1
        transfer.lastProgress = now
        transfers[resend.attempt] = transfer
        return pump(now: now)
    }

    // MARK: Time

    /// Ends what stands still or has expired; called a few times a second.
    package mutating func tick(now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        for attempt in inOrder.map(\.plan.attempt) {
            // What ended before it may have cut its connection.
            guard let transfer = transfers[attempt] else { continue }
            let isStalled =
                transfer.isWaitingForPeer && now - transfer.lastProgress >= limits.stallDeadline
            guard isStalled || now >= transfer.plan.expires else { continue }
            let reason = isStalled ? "the KV transfer stands still" : "the time is over"
            let failure = KVDone(attempt: attempt, code: .deadline, reason: reason)
            // A connection inside a chunk that does not move is of no more use.
            for (index, connection) in connections.enumerated() {
                guard isStalled, case .open(attempt, _) = connection else { continue }
                actions += cut(index, reason: reason, now: now)
            }
            actions += close(attempt, failure: failure, telling: reason, now: now)
        }
        for (index, connection) in connections.enumerated() {
            guard case .open(nil, let idleSince) = connection, transfers.isEmpty,
                now - idleSince >= limits.idleDeadline
            else { continue }
            connections[index] = .closed(retryAt: nil)
            actions.append(.disconnect(index, reason: "idle"))
        }
        return actions + offerWaiting(now: now) + pump(now: now)
    }

    // MARK: Helpers

    /// Transfers by age.
    private var inOrder: [SendingTransfer] {
        transfers.values.sorted { $0.number < $1.number }
    }

    private mutating func cut(_ index: Int, reason: String, now: MonotonicTime) -> [Action] {
        let others = lost(index, reason: reason, now: now)
        return [.disconnect(index, reason: reason)] + others
    }

    /// Offers what waits for a connection, on the open one with the least to do.
    private mutating func offerWaiting(now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        for transfer in inOrder where transfer.stage == .connecting {
            let open = connections.indices.filter { connections[$0].isOpen }
            let homes = transfers.values.compactMap(\.home)
            guard
                let home = open.min(by: { one, other in
                    homes.count { $0 == one } < homes.count { $0 == other }
                })
            else { return actions + connectFirst(now: now) }
            let plan = transfer.plan
            transfers[plan.attempt]?.stage = .offered
            transfers[plan.attempt]?.home = home
            transfers[plan.attempt]?.lastProgress = now
            let offer = KVOffer(
                attempt: plan.attempt, secret: plan.secret, fingerprint: plan.fingerprint,
                tokens: plan.tokens, startToken: plan.startToken, chunkTokens: plan.chunkTokens)
            actions.append(.send(.kvOffer(offer), connection: home))
        }
        return actions
    }

    private mutating func connectFirst(now: MonotonicTime) -> [Action] {
        guard !connections.contains(.connecting) else { return [] }
        let ready = connections.indices.first { index in
            if case .closed(let retryAt) = connections[index] {
                return retryAt.map { $0 <= now } ?? true
            }
            return false
        }
        guard let ready else { return [] }
        connections[ready] = .connecting
        return [.connect(ready)]
    }

    /// Gives every free connection a chunk, the transfers in turn, and ends what is all sent.
    private mutating func pump(now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        var isBlocked = false
        while let attempt = nextInTurn() {
            guard let index = connections.indices.first(where: { connections[$0].isFree }) else {
                isBlocked = true
                break
            }
            actions += send(attempt, on: index, now: now)
        }
        // Chunks wait for a free connection: one more helps, if there may be one more.
        if isBlocked { actions += connectFirst(now: now) }
        for transfer in inOrder where transfer.stage == .granted && transfer.isAllSent {
            guard let end = transfer.end, let home = transfer.home else { continue }
            transfers[end.attempt]?.stage = .ended
            transfers[end.attempt]?.lastProgress = now
            actions.append(.send(.kvEnd(end), connection: home))
        }
        return actions
    }

    /// The transfer after the one that was served last, among those that can send.
    private func nextInTurn() -> AttemptID? {
        let ready = inOrder.filter { $0.nextChunk != nil }
        return (ready.first { $0.number > lastServed } ?? ready.first)?.plan.attempt
    }

    private mutating func send(
        _ attempt: AttemptID, on index: Int, now: MonotonicTime
    ) -> [Action] {
        guard var transfer = transfers[attempt], let place = transfer.nextChunk else { return [] }
        transfer.chunks[place].facts.round = transfer.round
        transfer.chunks[place].progress = .sending(connection: index)
        let facts = transfer.chunks[place].facts
        transfer.credit -= facts.bytes
        transfer.used.insert(index)
        transfer.lastProgress = now
        transfers[attempt] = transfer
        lastServed = transfer.number
        connections[index] = .open(sending: attempt, idleSince: now)
        return [.sendChunk(attempt, facts, connection: index)]
    }

    private mutating func fail(
        _ attempt: AttemptID, _ reason: String, now: MonotonicTime
    ) -> [Action] {
        let failure = KVDone(attempt: attempt, code: .transfer, reason: reason)
        return close(attempt, failure: failure, telling: reason, now: now) + pump(now: now)
    }

    /// - Parameter reason: told to the receiver; nil if it knows.
    private mutating func close(
        _ attempt: AttemptID, failure: KVDone?, telling reason: String?, now: MonotonicTime
    ) -> [Action] {
        guard let transfer = transfers.removeValue(forKey: attempt) else { return [] }
        var actions: [Action] = []
        if connections.contains(where: { if case .open(attempt, _) = $0 { true } else { false } }) {
            actions.append(.breakOff(attempt))
        }
        if let reason, let home = transfer.home, connections[home].isOpen {
            let abort = KVAbort(attempt: attempt, reason: reason)
            actions.append(.send(.kvAbort(abort), connection: home))
        }
        return actions + [.ended(attempt, failure: failure, transfer.summary(now: now))]
    }
}

/// KV that is held and makes no progress.
package struct StrandedKV: Sendable, Hashable {
    package var transfers: Int
    package var bytes: Int
    /// Since the last progress of the one that stands longest.
    package var oldest: Duration

    package init(_ held: [(bytes: Int, age: Duration)]) {
        transfers = held.count
        bytes = held.reduce(0) { $0 + $1.bytes }
        oldest = held.map(\.age).max() ?? .zero
    }
}
