package import InferenceEngine
package import KVHandOver
package import ServingTypes

/// A worker's decisions: the prefill and the decode side over one engine.
///
/// Its role says which side takes new work; both sides finish what they have, so a role can change.
package struct WorkerMachine: Sendable {
    package let role: Role
    private var prefill: PrefillMachine
    private var decode: DecodeMachine
    private var sequences: UInt64 = 0
    private var isDraining = false

    package init(role: Role, limits: WorkerLimits) {
        precondition(role.isWorker, "only workers compute")
        self.role = role
        prefill = PrefillMachine(limits: limits)
        decode = DecodeMachine(limits: limits)
    }

    package var isIdle: Bool { prefill.isEmpty && decode.isEmpty }

    package func status(_ progress: EngineProgress) -> InstanceStatus {
        var status = InstanceStatus()
        status.freePrefillSlots = role == .prefillWorker && !isDraining ? prefill.freeSlots : 0
        status.runningSequences = decode.runningSequences
        status.freeKVBytes = role == .decodeWorker ? decode.freeKVBytes : 0
        status.reservedKVBytes = decode.reservedKVBytes
        status.engineSteps = progress.steps
        status.stepAgeMilliseconds = UInt64(max(0, progress.stepAge?.milliseconds ?? 0))
        status.isDraining = isDraining
        return status
    }

    /// The request whose KV the engine exports under this sequence.
    package func exportingAttempt(_ sequence: SequenceID) -> AttemptID? {
        prefill.attempt(of: sequence)
    }

    // MARK: Gateways

    /// - Parameters:
    ///   - secret: fresh random bits, used if the message makes a reservation.
    package mutating func received(
        _ message: ControlMessage, tokens: [TokenID], from link: LinkID,
        secret: ReservationSecret, now: MonotonicTime
    ) -> [WorkerAction] {
        switch message {
        case .prefillOffer(let offer):
            guard role == .prefillWorker else {
                let rejected = PrefillRejected(
                    attempt: offer.terms.attempt, code: .role, reason: "this is a \(role.name)")
                return [.send(.prefillRejected(rejected), to: link)]
            }
            return prefill.offer(
                offer, tokens: tokens, from: link, sequence: nextSequence(), now: now)
        case .reserveKV(let reserve):
            guard role == .decodeWorker else {
                let refused = ReservationRefused(
                    attempt: reserve.terms.attempt, code: .role, neededBytes: 0, freeBytes: 0)
                return [.send(.reservationRefused(refused), to: link)]
            }
            return decode.reserve(
                reserve.terms, tokens: tokens, from: link, sequence: nextSequence(),
                secret: secret, now: now)
        case .cancelRequest(let cancel):
            return prefill.cancel(cancel.attempt) + decode.cancel(cancel.attempt)
        default:
            return []
        }
    }

    package mutating func gatewayLost(_ link: LinkID) -> [WorkerAction] {
        prefill.lost(link) + decode.lost(link)
    }

    // MARK: Engine

    package mutating func engine(
        _ event: EngineEvent, now: MonotonicTime
    ) -> [WorkerAction] {
        switch event {
        case .exported: []
        case .imported(let sequence, let tokens): decode.imported(sequence, tokens: tokens)
        case .blockRefused(let sequence, _, let reason):
            decode.blockRefused(sequence, reason: reason, now: now)
        case .token(let sequence, let token, let finish):
            prefill.sampled(sequence, token, finish: finish)
                + decode.sampled(sequence, token, finish: finish)
        case .failed(let sequence, let error):
            prefill.failed(sequence, error) + decode.failed(sequence, error)
        case .cancelled(let sequence):
            prefill.cancelled(sequence) + decode.cancelled(sequence)
        case .engineLost(let error):
            engineLost(error)
        }
    }

    // MARK: Transfers

    package mutating func transferEnded(
        _ attempt: AttemptID, failure: KVDone?
    ) -> [WorkerAction] {
        prefill.transferEnded(attempt, failure: failure)
    }

    package mutating func kvOffered(
        _ offer: KVOffer, from sender: InstanceID, fingerprint: ModelFingerprint,
        on link: KVLinkID, now: MonotonicTime
    ) -> [WorkerAction] {
        decode.offered(offer, from: sender, fingerprint: fingerprint, on: link, now: now)
    }

    /// The frame of a chunk has come; says whether to keep its payload.
    package mutating func kvBegins(
        _ chunk: ChunkFacts, of attempt: AttemptID, from sender: InstanceID, on link: KVLinkID,
        now: MonotonicTime
    ) -> (isWanted: Bool, actions: [WorkerAction]) {
        decode.begins(chunk, of: attempt, from: sender, on: link, now: now)
    }

    /// The payload of a wanted chunk is here; says whether to keep it.
    ///
    /// The shell stores it before it performs the actions.
    package mutating func kvLanded(
        _ chunk: ChunkFacts, of attempt: AttemptID, on link: KVLinkID, now: MonotonicTime
    ) -> (isKept: Bool, actions: [WorkerAction]) {
        decode.landed(chunk, of: attempt, on: link, now: now)
    }

    /// The payload of a wanted chunk broke off, or is damaged.
    package mutating func kvMissed(
        _ chunk: ChunkFacts, of attempt: AttemptID, on link: KVLinkID, isDamaged: Bool,
        reason: String, now: MonotonicTime
    ) -> [WorkerAction] {
        decode.missed(
            chunk, of: attempt, on: link, isDamaged: isDamaged, reason: reason, now: now)
    }

    /// A part of a payload has come.
    package mutating func kvProgressed(_ attempt: AttemptID, now: MonotonicTime) {
        decode.progressed(attempt, now: now)
    }

    package mutating func kvEnded(
        _ end: KVEnd, from sender: InstanceID, on link: KVLinkID, now: MonotonicTime
    ) -> [WorkerAction] {
        decode.ended(end, from: sender, on: link, now: now)
    }

    /// The sender gave up by `KVAbort`.
    package mutating func kvAborted(
        _ attempt: AttemptID, by sender: InstanceID
    ) -> [WorkerAction] {
        decode.transferAborted(attempt, by: sender)
    }

    /// A connection that may have brought KV is lost.
    package mutating func kvLinkLost(_ link: KVLinkID, now: MonotonicTime) -> [WorkerAction] {
        decode.linkLost(link, now: now)
    }

    /// KV received here that makes no progress.
    package func strandedKV(now: MonotonicTime) -> StrandedKV { decode.stranded(now: now) }
    package var landedKVBytes: Int { decode.landedBytes }
    package var keptKVTokens: Int { decode.keptKVTokens }
    package var keptSequences: Int { decode.keptSequences }

    // MARK: Time and leaving

    package mutating func tick(now: MonotonicTime) -> [WorkerAction] {
        prefill.tick(now: now) + decode.tick(now: now)
    }

    /// Takes no new work; `drained` follows when nothing is left.
    package mutating func drain() -> [WorkerAction] {
        isDraining = true
        prefill.drain()
        return decode.drain() + (isIdle ? [.drained] : [])
    }

    /// Fails everything; the worker drains, since another process has to take its place.
    private mutating func engineLost(_ error: EngineError) -> [WorkerAction] {
        isDraining = true
        let actions = prefill.engineLost(error) + decode.engineLost(error)
        return actions.contains(.drained) || !isIdle ? actions : actions + [.drained]
    }

    private mutating func nextSequence() -> SequenceID {
        sequences += 1
        return SequenceID(sequences)
    }
}
