package import InferenceEngine
package import ServingTypes

/// The decode side of a worker: promises room, takes KV in, decodes.
///
///     reserve ─▶ reserved ─offer▶ receiving ─end▶ running ─last token▶ gone (room free)
///                    └──────── cancel, loss, deadline, failure ─────────▲
///
/// Room is counted for prompt and longest output together, so KV is never over-committed.
package struct DecodeMachine: Sendable {
    private enum Stage { case reserved, receiving, running, closing }

    private struct Reservation: Sendable {
        let terms: AttemptTerms
        let gateway: LinkID
        let secret: ReservationSecret
        let sequence: SequenceID
        /// Prompt and output of earlier attempts.
        let tokens: [TokenID]
        let expires: MonotonicTime
        var stage = Stage.reserved
        var receivedTokens = 0
        var lastProgress: MonotonicTime
        var sentTokens = 0
        /// Sampled by the prefill-worker; sent once more with the first tokens of this worker.
        var firstToken: TokenOutput?

        /// Longest the sequence can get.
        var neededTokens: Int { tokens.count + terms.maximumNewTokens }
        /// Whether the engine knows the sequence.
        var isInEngine: Bool { receivedTokens > 0 }
    }

    private let limits: WorkerLimits
    private var reservations: [AttemptID: Reservation] = [:]
    private var attempts: [SequenceID: AttemptID] = [:]
    private var reservedTokens = 0
    /// A gateway was turned away since all room was free last; it is called whenever some is freed.
    private var hasRefused = false
    private var isDraining = false

    package init(limits: WorkerLimits) { self.limits = limits }

    package var isEmpty: Bool { reservations.isEmpty }
    package var freeKVBytes: Int {
        (limits.kvCapacityTokens - reservedTokens) * limits.kvBytesPerToken
    }
    package var reservedKVBytes: Int { reservedTokens * limits.kvBytesPerToken }
    package var runningSequences: Int {
        reservations.values.count { $0.stage == .running }
    }
    /// Reservations whose KV is still to come.
    package var awaitingSequences: Int {
        reservations.values.count { $0.stage == .reserved || $0.stage == .receiving }
    }

    // MARK: Gateway

    package mutating func reserve(
        _ terms: AttemptTerms, tokens: [TokenID], from gateway: LinkID, sequence: SequenceID,
        secret: ReservationSecret, now: MonotonicTime
    ) -> [WorkerAction] {
        let neededTokens = tokens.count + terms.maximumNewTokens
        func refuse(_ code: FailureCode) -> [WorkerAction] {
            let refused = ReservationRefused(
                attempt: terms.attempt, code: code,
                neededBytes: neededTokens * limits.kvBytesPerToken,
                freeBytes: max(0, freeKVBytes))
            return [.send(.reservationRefused(refused), to: gateway)]
        }
        guard !tokens.isEmpty, terms.maximumNewTokens >= 1, terms.outputTokens < tokens.count,
            reservations[terms.attempt] == nil
        else { return refuse(.invalid) }
        guard !isDraining else { return refuse(.draining) }
        guard neededTokens <= min(limits.contextTokens, limits.kvCapacityTokens) else {
            return refuse(.tooLong)
        }
        guard reservations.count < limits.decodeSequences,
            reservedTokens + neededTokens <= limits.kvCapacityTokens
        else {
            hasRefused = true
            return refuse(.noKVRoom)
        }
        reservations[terms.attempt] = Reservation(
            terms: terms, gateway: gateway, secret: secret, sequence: sequence, tokens: tokens,
            expires: now + terms.deadline, lastProgress: now)
        attempts[sequence] = terms.attempt
        reservedTokens += neededTokens
        let granted = ReservationGranted(
            attempt: terms.attempt, secret: secret,
            kvBytes: neededTokens * limits.kvBytesPerToken)
        return [.send(.reservationGranted(granted), to: gateway)]
    }

    package mutating func cancel(_ attempt: AttemptID) -> [WorkerAction] {
        close(attempt, transferAnswer: .cancelled)
    }

    /// A gateway's connection is gone: nobody reads the results of its requests.
    package mutating func lost(_ gateway: LinkID) -> [WorkerAction] {
        attemptsInOrder { $0.gateway == gateway }
            .flatMap { close($0, transferAnswer: .cancelled) }
    }

    package mutating func drain() { isDraining = true }

    // MARK: Transfer

    /// Checks an offer of KV; nil means that chunks may come.
    package mutating func offered(
        _ offer: KVOffer, fingerprint: ModelFingerprint, now: MonotonicTime
    ) -> KVDone? {
        guard var reservation = reservations[offer.attempt], reservation.stage == .reserved,
            reservation.secret == offer.secret
        else {
            return KVDone(
                attempt: offer.attempt, code: .unknownRequest,
                reason: "there is no such reservation; it was cancelled, used or has ended")
        }
        guard offer.fingerprint == fingerprint else {
            return KVDone(
                attempt: offer.attempt, code: .model,
                reason: "the KV is of model \(offer.fingerprint), this worker has \(fingerprint)")
        }
        guard offer.tokens == reservation.tokens.count else {
            return KVDone(
                attempt: offer.attempt, code: .invalid,
                reason: "\(offer.tokens) tokens offered, \(reservation.tokens.count) reserved")
        }
        reservation.stage = .receiving
        reservation.lastProgress = now
        reservations[offer.attempt] = reservation
        return nil
    }

    /// Checks a chunk before its payload is read; nil means read it.
    package func refusal(of chunk: KVChunk) -> KVDone? {
        guard let reservation = reservations[chunk.attempt], reservation.stage == .receiving else {
            return KVDone(
                attempt: chunk.attempt, code: .unknownRequest, reason: "no transfer is open")
        }
        guard chunk.tokenStart == reservation.receivedTokens, chunk.tokenCount > 0,
            chunk.tokenStart + chunk.tokenCount <= reservation.tokens.count
        else {
            return KVDone(
                attempt: chunk.attempt, code: .transfer,
                reason: "tokens \(chunk.tokenStart)+\(chunk.tokenCount) do not follow "
                    + "\(reservation.receivedTokens) of \(reservation.tokens.count)")
        }
        return nil
    }

    /// A chunk has arrived whole.
    ///
    /// Gives the sequence to import it to; nil if nobody wants it.
    package mutating func landed(_ chunk: KVChunk, now: MonotonicTime) -> SequenceID? {
        guard refusal(of: chunk) == nil, let sequence = reservations[chunk.attempt]?.sequence
        else { return nil }
        reservations[chunk.attempt]?.receivedTokens += chunk.tokenCount
        reservations[chunk.attempt]?.lastProgress = now
        return sequence
    }

    /// The sender has sent everything.
    package mutating func ended(_ end: KVEnd, now: MonotonicTime) -> [WorkerAction] {
        guard var reservation = reservations[end.attempt], reservation.stage == .receiving else {
            return [
                .answerTransfer(
                    KVDone(
                        attempt: end.attempt, code: .unknownRequest,
                        reason: "no transfer is open"))
            ]
        }
        guard end.tokens == reservation.tokens.count, reservation.receivedTokens == end.tokens,
            reservation.terms.maximumNewTokens > 1
        else {
            return fail(
                end.attempt, code: .transfer,
                reason: "KV of \(reservation.receivedTokens) tokens arrived, "
                    + "\(reservation.tokens.count) were expected")
        }
        reservation.stage = .running
        reservation.firstToken = end.firstToken
        reservation.lastProgress = now
        reservations[end.attempt] = reservation
        let job = SequenceJob(
            sequence: reservation.sequence, tokens: reservation.tokens + [end.firstToken.token],
            outputTokens: reservation.terms.outputTokens + 1,
            importedTokens: reservation.tokens.count, sampling: reservation.terms.sampling,
            maximumNewTokens: reservation.terms.maximumNewTokens - 1)
        return [.answerTransfer(KVDone(attempt: end.attempt)), .run(job)]
    }

    /// The sender gave up and has told the gateway why, perhaps that the answer is complete.
    ///
    /// A failure report from here could overtake its word, so this side only frees the room.
    package mutating func transferAborted(_ attempt: AttemptID) -> [WorkerAction] {
        guard reservations[attempt]?.stage == .receiving else { return [] }
        return close(attempt, transferAnswer: nil)
    }

    /// The sender's connection is lost.
    package mutating func transferLost(
        _ attempt: AttemptID, reason: String
    ) -> [WorkerAction] {
        guard reservations[attempt]?.stage == .receiving else { return [] }
        return fail(attempt, code: .transfer, reason: reason)
    }

    // MARK: Engine

    package mutating func sampled(
        _ sequence: SequenceID, _ token: TokenOutput, finish: FinishReason?
    ) -> [WorkerAction] {
        guard let attempt = attempts[sequence], var reservation = reservations[attempt] else {
            return []
        }
        var tokens = [token]
        var firstIndex = reservation.terms.outputTokens + 1 + reservation.sentTokens
        if let first = reservation.firstToken {
            tokens.insert(first, at: 0)
            firstIndex -= 1
            reservation.firstToken = nil
        }
        reservation.sentTokens += 1
        let isWanted = reservation.stage == .running
        reservations[attempt] = reservation
        let batch = TokenBatch(
            attempt: attempt, firstIndex: firstIndex, tokens: tokens, finish: finish)
        var actions: [WorkerAction] =
            isWanted ? [.send(.tokenBatch(batch), to: reservation.gateway)] : []
        if finish != nil { actions += free(attempt) }
        return actions
    }

    package mutating func failed(
        _ sequence: SequenceID, _ error: EngineError
    ) -> [WorkerAction] {
        guard let attempt = attempts[sequence], let reservation = reservations[attempt] else {
            return []
        }
        let isDamaged = if case .blockRefused = error { true } else { false }
        var actions: [WorkerAction] = []
        if reservation.stage != .closing {
            let failure = RequestFailed(
                attempt: attempt, code: isDamaged ? .transfer : .engine, reason: "\(error)")
            actions.append(.send(.requestFailed(failure), to: reservation.gateway))
            if reservation.stage == .receiving {
                actions.append(
                    .answerTransfer(
                        KVDone(attempt: attempt, code: .transfer, reason: "\(error)")))
            }
        }
        return actions + free(attempt)
    }

    package mutating func cancelled(_ sequence: SequenceID) -> [WorkerAction] {
        guard let attempt = attempts[sequence], let reservation = reservations[attempt] else {
            return []
        }
        return reservation.stage == .closing ? free(attempt) : failed(sequence, .shutDown)
    }

    /// The engine can't go on: nothing is in it any more.
    package mutating func engineLost(_ error: EngineError) -> [WorkerAction] {
        isDraining = true
        return attemptsInOrder { _ in true }
            .flatMap { attempt in reservations[attempt].map { failed($0.sequence, error) } ?? [] }
    }

    // MARK: Time

    /// Ends what has waited too long; called a few times a second.
    package mutating func tick(now: MonotonicTime) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        for attempt in attemptsInOrder(where: { $0.stage != .closing }) {
            guard let reservation = reservations[attempt] else { continue }
            let isStalled =
                reservation.stage == .receiving
                && now - reservation.lastProgress >= limits.transferStallDeadline
            if now >= reservation.expires || isStalled {
                actions += fail(
                    attempt, code: .deadline,
                    reason: isStalled ? "the KV transfer stands still" : "the time is over")
            }
        }
        return actions
    }

    // MARK: Helpers

    /// Attempts by age, so that equal inputs give equal actions.
    private func attemptsInOrder(where isWanted: (Reservation) -> Bool) -> [AttemptID] {
        reservations.values.filter(isWanted).sorted { $0.sequence.value < $1.sequence.value }
            .map(\.terms.attempt)
    }

    private mutating func fail(
        _ attempt: AttemptID, code: FailureCode, reason: String
    ) -> [WorkerAction] {
        guard let reservation = reservations[attempt] else { return [] }
        let failure = RequestFailed(attempt: attempt, code: code, reason: reason)
        return [.send(.requestFailed(failure), to: reservation.gateway)]
            + close(attempt, transferAnswer: code, reason: reason)
    }

    /// Stops what runs for the attempt; its room is free when the engine has let go.
    ///
    /// - Parameter transferAnswer: the last word on an open transfer; nil if nobody waits for one.
    private mutating func close(
        _ attempt: AttemptID, transferAnswer: FailureCode?,
        reason: String = "the request was cancelled"
    ) -> [WorkerAction] {
        guard let reservation = reservations[attempt], reservation.stage != .closing else {
            return []
        }
        var actions: [WorkerAction] = []
        if reservation.stage == .receiving, let transferAnswer {
            let answer = KVDone(attempt: attempt, code: transferAnswer, reason: reason)
            actions.append(.answerTransfer(answer))
        }
        guard reservation.isInEngine else { return actions + free(attempt) }
        reservations[attempt]?.stage = .closing
        return actions + [.cancelSequence(reservation.sequence)]
    }

    private mutating func free(_ attempt: AttemptID) -> [WorkerAction] {
        guard let reservation = reservations.removeValue(forKey: attempt) else { return [] }
        attempts[reservation.sequence] = nil
        reservedTokens -= reservation.neededTokens
        var actions: [WorkerAction] = []
        if hasRefused, !isDraining {
            hasRefused = !reservations.isEmpty
            actions.append(.broadcast(.kvRoomOpen(KVRoomOpen(freeKVBytes: freeKVBytes))))
        }
        if isDraining, reservations.isEmpty { actions.append(.drained) }
        return actions
    }
}
