import InferenceEngine
import KVHandOver
import ServingTypes

/// Taking KV in.
extension DecodeMachine {
    // MARK: Offers

    mutating func offered(
        _ offer: KVOffer, from sender: InstanceID, fingerprint: ModelFingerprint,
        on link: KVLinkID, now: MonotonicTime
    ) -> [WorkerAction] {
        func refuse(_ code: FailureCode, _ reason: String) -> [WorkerAction] {
            let done = KVDone(attempt: offer.attempt, code: code, reason: reason)
            return [.sendKV(.kvDone(done), to: link)]
        }
        guard var reservation = reservations[offer.attempt], reservation.secret == offer.secret,
            reservation.stage != .closing, !reservation.isLocal
        else {
            return refuse(
                .unknownRequest, "there is no such reservation; it was cancelled or has ended")
        }
        if let defect = defect(of: offer, fingerprint, reservation) {
            return refuse(defect.code, defect.reason)
        }
        // The same sender, after its connection was lost; from anybody else it comes twice.
        guard reservation.sender == nil || reservation.sender == sender else {
            return refuse(.unknownRequest, "the reservation was used by another worker")
        }
        reservation.sender = sender
        reservation.link = link
        reservation.chunkTokens = offer.chunkTokens
        reservation.lostAt = nil
        reservation.lastProgress = now
        if reservation.stage == .reserved { reservation.stage = .receiving }
        reservations[offer.attempt] = reservation
        if reservation.assembly.isImported {
            return [.sendKV(.kvDone(KVDone(attempt: offer.attempt)), to: link)]
        }
        let isFirst = reservation.assembly.round == 0
        reservations[offer.attempt]?.assembly.beginRound()
        let (credit, others) = openLanding(offer.attempt)
        let grant = KVGrant(
            attempt: offer.attempt, heldTokens: reservation.assembly.submittedTokens,
            maximumChunkBytes: limits.chunkBytes(tokens: offer.chunkTokens),
            creditBytes: credit, round: reservation.assembly.round + 1)
        return (isFirst ? [] : [.dropChunks(offer.attempt)])
            + [.sendKV(.kvGrant(grant), to: link)] + answers(others)
    }

    private func defect(
        of offer: KVOffer, _ fingerprint: ModelFingerprint, _ reservation: Reservation
    ) -> (code: FailureCode, reason: String)? {
        let tokens = reservation.tokens.count
        if offer.fingerprint != fingerprint {
            return (
                .model, "the KV is of model \(offer.fingerprint), this worker has \(fingerprint)"
            )
        }
        if offer.tokens != tokens {
            return (.invalid, "\(offer.tokens) tokens offered, \(tokens) reserved")
        }
        if offer.startToken != reservation.heldTokens {
            return (
                .invalid,
                "KV from token \(offer.startToken) on offered, \(reservation.heldTokens) held"
            )
        }
        let chunkBytes = limits.chunkBytes(tokens: min(offer.chunkTokens, tokens))
        if !landing.canHold(chunkBytes: chunkBytes) {
            return (
                .tooLong,
                "chunks of \(chunkBytes) bytes; this worker lands \(landing.capacityBytes)"
            )
        }
        return nil
    }

    /// Credit for the chunks of a round.
    private mutating func openLanding(
        _ attempt: AttemptID
    ) -> (creditBytes: Int, others: [KVCredit]) {
        guard let reservation = reservations[attempt] else { return (0, []) }
        let tokens = reservation.tokens.count - reservation.assembly.submittedTokens
        // Every token in a chunk of its own is the most that can come.
        let total = tokens * limits.chunkBytes(tokens: 1)
        return landing.open(
            attempt, totalBytes: total,
            chunkBytes: limits.chunkBytes(tokens: min(reservation.chunkTokens, max(1, tokens))),
            importingBytes: reservation.assembly.pendingBytes)
    }

    // MARK: Chunks

    /// The frame of a chunk has come; says whether to keep its payload.
    mutating func begins(
        _ chunk: ChunkFacts, of attempt: AttemptID, from sender: InstanceID, on link: KVLinkID,
        now: MonotonicTime
    ) -> (isWanted: Bool, actions: [WorkerAction]) {
        guard var reservation = reservations[attempt],
            reservation.stage == .receiving || reservation.stage == .running,
            reservation.sender == sender, reservation.assembly.round == chunk.round,
            !reservation.assembly.isImported
        else { return (false, []) }
        let most = limits.chunkBytes(tokens: max(0, min(chunk.tokenCount, limits.contextTokens)))
        guard chunk.bytes <= most, landing.land(attempt, bytes: chunk.bytes) else {
            return (
                false,
                fail(
                    attempt, code: .transfer,
                    reason: "a chunk of \(chunk.bytes) bytes for \(chunk.tokenCount) tokens; at "
                        + "most \(most), within the credit, were expected")
            )
        }
        reservation.lastProgress = now
        let reception = reservation.assembly.begins(chunk, on: link)
        reservations[attempt] = reservation
        switch reception {
        case .land: return (true, answers(landing.widen(attempt)))
        case .discard: return (false, answers(landing.leave(attempt, bytes: chunk.bytes)))
        case .refuse(let reason):
            return (false, fail(attempt, code: .transfer, reason: reason))
        }
    }

    /// The payload of a wanted chunk is here; says whether to keep it.
    ///
    /// The shell stores it before it performs the actions.
    mutating func landed(
        _ chunk: ChunkFacts, of attempt: AttemptID, on link: KVLinkID, now: MonotonicTime
    ) -> (isKept: Bool, actions: [WorkerAction]) {
        guard var reservation = reservations[attempt], reservation.stage != .closing else {
            return (false, [])
        }
        reservation.lastProgress = now
        let outcome = reservation.assembly.landed(at: chunk.tokenStart, on: link)
        reservations[attempt] = reservation
        guard outcome != .drop else { return (false, []) }
        return (true, follow(outcome, of: attempt) + startIfWhole(attempt))
    }

    /// The payload of a wanted chunk broke off, or is damaged.
    mutating func missed(
        _ chunk: ChunkFacts, of attempt: AttemptID, on link: KVLinkID, isDamaged: Bool,
        reason: String, now: MonotonicTime
    ) -> [WorkerAction] {
        guard var reservation = reservations[attempt], reservation.stage != .closing else {
            return []
        }
        reservation.lastProgress = now
        let outcome = reservation.assembly.missed(
            at: chunk.tokenStart, on: link, isDamaged: isDamaged, reason: reason)
        reservations[attempt] = reservation
        guard outcome != .drop else { return [] }
        // A resend makes credit void that was given before it.
        return answers(landing.leave(attempt, bytes: chunk.bytes)) + follow(outcome, of: attempt)
    }

    /// A part of a payload has come.
    mutating func progressed(_ attempt: AttemptID, now: MonotonicTime) {
        reservations[attempt]?.lastProgress = now
    }

    /// The sender has sent everything.
    mutating func ended(
        _ end: KVEnd, from sender: InstanceID, on link: KVLinkID, now: MonotonicTime
    ) -> [WorkerAction] {
        guard let reservation = reservations[end.attempt], reservation.sender == sender,
            reservation.stage == .receiving || reservation.stage == .running
        else {
            let done = KVDone(
                attempt: end.attempt, code: .unknownRequest, reason: "no transfer is open")
            return [.sendKV(.kvDone(done), to: link)]
        }
        reservations[end.attempt]?.lastProgress = now
        // It comes again after a connection was lost behind the first one.
        guard reservation.stage == .receiving else { return doneIfImported(end.attempt) }
        let outcome = reservations[end.attempt]?.assembly.ended(end) ?? .none
        return follow(outcome, of: end.attempt) + startIfWhole(end.attempt)
    }

    /// The sender gave up and has told the gateway why, perhaps that the answer is complete.
    ///
    /// A failure report from here could overtake its word, so this side only frees the room.
    mutating func transferAborted(
        _ attempt: AttemptID, by sender: InstanceID
    ) -> [WorkerAction] {
        guard let reservation = reservations[attempt], reservation.stage == .receiving,
            reservation.sender == sender
        else { return [] }
        return close(attempt, transferAnswer: nil)
    }

    /// A connection is lost; its sender may come again for a while.
    mutating func linkLost(_ link: KVLinkID, now: MonotonicTime) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        for attempt in attemptsInOrder(where: { $0.stage != .closing }) {
            if reservations[attempt]?.link == link { reservations[attempt]?.lostAt = now }
            let bytes = reservations[attempt]?.assembly.forget(link) ?? 0
            if bytes > 0 { actions += answers(landing.leave(attempt, bytes: bytes)) }
        }
        return actions
    }

    // MARK: Engine

    mutating func imported(
        _ sequence: SequenceID, tokens: Int
    ) -> [WorkerAction] {
        guard let attempt = attempt(of: sequence),
            var reservation = reservations[attempt]
        else { return [] }
        let chunk = reservation.assembly.imported(tokens: tokens)
        reservations[attempt] = reservation
        let credits = chunk.map { landing.leave(attempt, bytes: $0.bytes) } ?? []
        return answers(credits) + doneIfImported(attempt)
    }

    mutating func blockRefused(
        _ sequence: SequenceID, reason: String, room: inout KVRoom, now: MonotonicTime
    ) -> [WorkerAction] {
        guard let attempt = attempt(of: sequence),
            var reservation = reservations[attempt]
        else { return [] }
        if reservation.isLocal {
            return room.forget(reservation.hit?.sequence) + localForkRefused(attempt)
        }
        // Nothing was there yet: it is the kept KV that is of no use.
        let forgotten =
            reservation.assembly.importedTokens == 0 ? room.forget(reservation.hit?.sequence) : []
        let (chunk, outcome) = reservation.assembly.refused(reason: reason)
        if case .resend = outcome, reservation.stage == .running {
            // The engine has dropped the job, too; it follows the KV once more.
            reservation.stage = .receiving
        }
        reservations[attempt] = reservation
        guard reservation.stage != .closing else {
            // Nobody cancels in the engine what it never opened.
            return forgotten + (reservation.assembly.isWithEngine ? [] : free(attempt))
        }
        let credits = chunk.map { landing.leave(attempt, bytes: $0.bytes) } ?? []
        return forgotten + answers(credits) + follow(outcome, of: attempt)
    }

    // MARK: Time

    /// Ends what has waited too long; called a few times a second.
    mutating func tick(now: MonotonicTime) -> [WorkerAction] {
        var actions: [WorkerAction] = []
        for attempt in attemptsInOrder(where: { $0.stage != .closing }) {
            guard let reservation = reservations[attempt] else { continue }
            if now >= reservation.expires {
                actions += fail(attempt, code: .deadline, reason: "the time is over")
            } else if isStalled(reservation, now: now) {
                actions += fail(
                    attempt, code: .deadline, reason: "the KV transfer stands still")
            } else if isForsaken(reservation, now: now) {
                actions += fail(
                    attempt, code: .transfer,
                    reason: "the connection of \(reservation.sender?.name ?? "nobody") is lost")
            }
        }
        return actions
    }

    /// In the middle of a chunk the sender must go on; before it, it may have to compute.
    private func isStalled(_ reservation: Reservation, now: MonotonicTime) -> Bool {
        reservation.stage == .receiving && reservation.assembly.isArriving
            && now - reservation.lastProgress >= limits.handOver.stallDeadline
    }

    private func isForsaken(_ reservation: Reservation, now: MonotonicTime) -> Bool {
        guard reservation.stage == .receiving, let lostAt = reservation.lostAt else {
            return false
        }
        return now - lostAt >= limits.handOver.resumeDeadline
    }

    /// KV that is here and makes no progress: its sender is gone, or stands inside a chunk.
    func stranded(now: MonotonicTime) -> StrandedKV {
        StrandedKV(
            reservations.values.compactMap { reservation in
                let since =
                    reservation.stage == .receiving && reservation.assembly.isArriving
                    ? reservation.lastProgress : reservation.lostAt
                let isHeld = reservation.stage == .receiving || reservation.stage == .closing
                guard isHeld, let since, now - since >= limits.handOver.strandedAfter else {
                    return nil
                }
                let bytes =
                    reservation.assembly.submittedTokens * limits.kvBytesPerToken
                    + reservation.assembly.landedBytes
                return (bytes: bytes, age: now - since)
            })
    }

    // MARK: Helpers

    private mutating func follow(
        _ outcome: KVAssembly.Outcome, of attempt: AttemptID
    ) -> [WorkerAction] {
        guard let reservation = reservations[attempt] else { return [] }
        switch outcome {
        case .none, .drop: return []
        case .importChunks(let starts):
            return [.importChunks(reservation.sequence, attempt, tokenStarts: starts)]
        case .resend(let fromToken, let reason):
            let (credit, others) = openLanding(attempt)
            let resend = KVResend(
                attempt: attempt, fromToken: fromToken, creditBytes: credit,
                round: reservation.assembly.round, reason: reason)
            return [.dropChunks(attempt)] + answer(reservation, .kvResend(resend))
                + answers(others)
        case .fail(let reason):
            return fail(attempt, code: .transfer, reason: reason)
        }
    }

    /// Starts decoding once the engine has been given everything.
    mutating func startIfWhole(_ attempt: AttemptID) -> [WorkerAction] {
        guard var reservation = reservations[attempt], reservation.stage == .receiving,
            reservation.assembly.isWhole, let end = reservation.assembly.end
        else { return [] }
        guard reservation.terms.maximumNewTokens > 1 else {
            return fail(attempt, code: .invalid, reason: "nothing is left to decode")
        }
        reservation.stage = .running
        reservation.firstToken = end.firstToken
        reservations[attempt] = reservation
        var job = SequenceJob(
            sequence: reservation.sequence, tokens: reservation.tokens + [end.firstToken.token],
            outputTokens: reservation.terms.outputTokens + 1,
            importedTokens: reservation.tokens.count, sampling: reservation.terms.sampling,
            maximumNewTokens: reservation.terms.maximumNewTokens - 1)
        job.retainsKV = limits.keptSequences > 0
        return [.run(job)] + doneIfImported(attempt)
    }

    private mutating func doneIfImported(_ attempt: AttemptID) -> [WorkerAction] {
        guard let reservation = reservations[attempt], reservation.stage == .running,
            reservation.assembly.isImported
        else { return [] }
        // Credit that was not needed would be held as long as the sequence runs.
        return answer(reservation, .kvDone(KVDone(attempt: attempt)))
            + answers(landing.close(attempt))
    }
}
