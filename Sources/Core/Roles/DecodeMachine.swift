import InferenceEngine
import KVHandOver
import ServingTypes

/// The decode side of a worker: promises room, takes KV in, decodes.
///
///     reserve ─▶ reserved ─offer▶ receiving ─whole▶ running ─last token▶ gone (room free)
///                    │                ▲─refused block─┘  │
///                    └──────── cancel, loss, deadline, failure ─────────▲
///
/// Room is counted for prompt and longest output together, so KV is never over-committed. KV of
/// ended sequences is kept as long as nobody needs the room. A prompt may also be computed here,
/// or have been computed here: from `reserved` to `running` without a transfer.
struct DecodeMachine: Sendable {
    enum Stage { case reserved, receiving, running, closing }

    struct Reservation: Sendable {
        let terms: AttemptTerms
        let gateway: LinkID
        let secret: ReservationSecret
        var sequence: SequenceID
        /// Prompt and output of earlier attempts.
        let tokens: [TokenID]
        /// Leading tokens whose KV was here before.
        let heldTokens: Int
        /// The kept sequence that it begins with.
        var hit: KeptSequences.Hit?
        let isFallback: Bool
        let expires: MonotonicTime
        var stage = Stage.reserved
        /// The prompt is computed here.
        var isLocal = false
        var assembly: KVAssembly
        /// Who brings the KV, and on which connection it was offered last.
        var sender: InstanceID?
        var link: KVLinkID?
        /// Most tokens in one of its chunks.
        var chunkTokens = 1
        /// When that connection was lost; nil while it stands.
        var lostAt: MonotonicTime?
        var lastProgress: MonotonicTime
        /// Sampled here so far.
        var sampled: [TokenID] = []
        /// The latest of them.
        var lastOutput: TokenOutput?
        /// When its gateway was last asked for another place.
        var askedToMove: MonotonicTime?
        /// The attempt it becomes when the engine holds it.
        var successor: AttemptID?
        /// Sampled by the prefill-worker; sent once more with the first tokens of this worker.
        var firstToken: TokenOutput?

        /// The engine has some of the KV, or may still open the sequence.
        var isWithEngine: Bool { isLocal || assembly.isWithEngine }
        /// Its first token is yet to come from here.
        var isPrefilling: Bool { isLocal && sampled.isEmpty && stage == .running }
        /// Longest the sequence can get.
        var neededTokens: Int { tokens.count + terms.maximumNewTokens }
        /// Prompt and output whose KV the engine has: all but the last sampled token.
        var knownTokens: [TokenID] {
            tokens + [assembly.end?.firstToken.token].compactMap { $0 } + sampled.dropLast()
        }
    }

    let limits: WorkerLimits
    var reservations: [AttemptID: Reservation] = [:]
    var attempts: [SequenceID: AttemptID] = [:]
    private(set) var reservedTokens = 0
    /// Tokens of KV that prompts of the prefill side take.
    var otherTokens = 0
    /// Sequences that were decoded here and have not left yet.
    var otherSequences = 0
    var landing: LandingArea
    /// A gateway was turned away since all room was free last; it is called whenever some is freed.
    private var hasRefused = false
    /// Takes no new reservations, and calls nobody, unless it helps.
    var isClosed = false
    /// Takes them though it is closed, from whoever finds no other worker.
    var helps = false

    init(limits: WorkerLimits) {
        self.limits = limits
        landing = LandingArea(
            capacityBytes: limits.landingBytes, windowBytes: limits.landingWindowBytes)
    }

    var isEmpty: Bool { reservations.isEmpty }
    /// Has reservations that were not taken because others could not.
    var hasOwnWork: Bool { reservations.values.contains { !$0.isFallback } }
    /// Prompts being computed here.
    var localPrefills: Int { reservations.values.count { $0.isPrefilling } }
    var freeKVBytes: Int {
        (limits.kvCapacityTokens - reservedTokens - otherTokens) * limits.kvBytesPerToken
    }
    var reservedKVBytes: Int { reservedTokens * limits.kvBytesPerToken }
    var landedBytes: Int { landing.landedBytes }
    var runningSequences: Int {
        reservations.values.count { $0.stage == .running }
    }

    // MARK: Gateway

    mutating func reserve(
        _ reserve: ReserveKV, tokens: [TokenID], from gateway: LinkID, sequence: SequenceID,
        secret: ReservationSecret, isComputedHere: Bool, room: inout KVRoom, now: MonotonicTime
    ) -> [WorkerAction] {
        let terms = reserve.terms
        let neededTokens = tokens.count + terms.maximumNewTokens
        if let code = objection(to: terms, tokens: tokens) {
            let refused = ReservationRefused(
                attempt: terms.attempt, code: code,
                neededBytes: neededTokens * limits.kvBytesPerToken,
                freeBytes: max(0, freeKVBytes))
            return [.send(.reservationRefused(refused), to: gateway)]
        }
        // An answer of one token needs no KV here; a prompt that is computed here is taken over
        // whole, and a beginning from elsewhere would take room beside it.
        let hit = terms.maximumNewTokens > 1 && !isComputedHere ? room.find(for: tokens) : nil
        let heldTokens = hit?.tokens ?? 0
        let actions = room.begin(
            sequence, neededTokens: neededTokens, usedTokens: reservedTokens + otherTokens,
            with: hit)
        reservations[terms.attempt] = Reservation(
            terms: terms, gateway: gateway, secret: secret, sequence: sequence, tokens: tokens,
            heldTokens: heldTokens, hit: hit, isFallback: reserve.isFallback,
            expires: now + terms.deadline,
            assembly: KVAssembly(
                tokens: tokens.count, heldTokens: heldTokens,
                allowedResends: limits.handOver.resends), lastProgress: now)
        attempts[sequence] = terms.attempt
        reservedTokens += neededTokens
        let granted = ReservationGranted(
            attempt: terms.attempt, secret: secret,
            kvBytes: neededTokens * limits.kvBytesPerToken, heldTokens: heldTokens)
        return actions + [.send(.reservationGranted(granted), to: gateway)]
    }

    private mutating func objection(to terms: AttemptTerms, tokens: [TokenID]) -> FailureCode? {
        let neededTokens = tokens.count + terms.maximumNewTokens
        guard !tokens.isEmpty, terms.maximumNewTokens >= 1, terms.outputTokens < tokens.count,
            reservations[terms.attempt] == nil
        else { return .invalid }
        guard neededTokens <= min(limits.contextTokens, limits.kvCapacityTokens) else {
            return .tooLong
        }
        guard reservations.count + otherSequences < limits.decodeSequences,
            reservedTokens + otherTokens + neededTokens <= limits.kvCapacityTokens
        else {
            hasRefused = true
            return .noKVRoom
        }
        return nil
    }

    /// Calls the gateways if one was turned away: room was freed.
    mutating func callFreeRoom() -> [WorkerAction] {
        guard hasRefused, !isClosed || helps else { return [] }
        hasRefused = !reservations.isEmpty || otherTokens > 0
        return [.broadcast(.kvRoomOpen(KVRoomOpen(freeKVBytes: freeKVBytes)))]
    }

    mutating func cancel(_ attempt: AttemptID) -> [WorkerAction] {
        close(attempt, transferAnswer: .cancelled)
    }

    /// A gateway's connection is gone: nobody reads the results of its requests.
    mutating func lost(_ gateway: LinkID) -> [WorkerAction] {
        attemptsInOrder { $0.gateway == gateway }
            .flatMap { close($0, transferAnswer: .cancelled) }
    }

    // MARK: Engine

    mutating func sampled(
        _ sequence: SequenceID, _ token: TokenOutput, finish: FinishReason?, room: inout KVRoom
    ) -> [WorkerAction] {
        guard let attempt = attempts[sequence], var reservation = reservations[attempt] else {
            return []
        }
        var tokens = [token]
        var firstIndex = reservation.terms.outputTokens + reservation.sampled.count
        if !reservation.isLocal { firstIndex += 1 }
        if let first = reservation.firstToken {
            tokens.insert(first, at: 0)
            firstIndex -= 1
            reservation.firstToken = nil
        }
        reservation.sampled.append(token.token)
        reservation.lastOutput = token
        let isWanted = reservation.stage == .running
        reservations[attempt] = reservation
        let batch = TokenBatch(
            attempt: attempt, firstIndex: firstIndex, tokens: tokens, finish: finish)
        var actions: [WorkerAction] =
            isWanted ? [.send(.tokenBatch(batch), to: reservation.gateway)] : []
        guard finish != nil else { return actions }
        actions += free(attempt)
        // What is not wanted any more is already being cancelled, and so freed.
        if isWanted, limits.keptSequences > 0 {
            actions += room.keep(
                sequence, tokens: reservation.knownTokens, begunWith: reservation.hit)
        }
        return actions
    }

    mutating func failed(
        _ sequence: SequenceID, _ error: EngineError
    ) -> [WorkerAction] {
        guard let attempt = attempts[sequence], let reservation = reservations[attempt] else {
            return []
        }
        var actions: [WorkerAction] = []
        if reservation.stage != .closing {
            let failure = RequestFailed(attempt: attempt, code: .engine, reason: "\(error)")
            actions.append(.send(.requestFailed(failure), to: reservation.gateway))
            let done = KVDone(attempt: attempt, code: .transfer, reason: "\(error)")
            actions += answer(reservation, .kvDone(done)) + [.dropChunks(attempt)]
        }
        return actions + free(attempt)
    }

    mutating func cancelled(_ sequence: SequenceID) -> [WorkerAction] {
        guard let attempt = attempts[sequence], let reservation = reservations[attempt] else {
            return []
        }
        return reservation.stage == .closing ? free(attempt) : failed(sequence, .shutDown)
    }

    /// The engine can't go on: nothing is in it any more.
    mutating func engineLost(_ error: EngineError) -> [WorkerAction] {
        attemptsInOrder { _ in true }
            .flatMap { attempt in reservations[attempt].map { failed($0.sequence, error) } ?? [] }
    }

    func attempt(of sequence: SequenceID) -> AttemptID? { attempts[sequence] }

    // MARK: Helpers

    /// Attempts by age, so that equal inputs give equal actions.
    func attemptsInOrder(where isWanted: (Reservation) -> Bool) -> [AttemptID] {
        reservations.values.filter(isWanted).sorted { $0.sequence.value < $1.sequence.value }
            .map(\.terms.attempt)
    }

    /// Sends to whoever brings the KV, if a transfer is open.
    func answer(_ reservation: Reservation, _ message: ControlMessage) -> [WorkerAction] {
        guard let link = reservation.link, reservation.lostAt == nil else { return [] }
        return [.sendKV(message, to: link)]
    }

    mutating func fail(
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
    mutating func close(
        _ attempt: AttemptID, transferAnswer: FailureCode?,
        reason: String = "the request was cancelled"
    ) -> [WorkerAction] {
        guard let reservation = reservations[attempt], reservation.stage != .closing else {
            return []
        }
        var actions: [WorkerAction] = []
        let isInTransfer = reservation.link != nil && !reservation.assembly.isImported
        if isInTransfer {
            if let transferAnswer {
                let done = KVDone(attempt: attempt, code: transferAnswer, reason: reason)
                actions += answer(reservation, .kvDone(done))
            }
            actions.append(.dropChunks(attempt))
        }
        guard reservation.isWithEngine else { return actions + free(attempt) }
        reservations[attempt]?.stage = .closing
        return actions + [.cancelSequence(reservation.sequence)]
            + answers(landing.close(attempt))
    }

    mutating func free(_ attempt: AttemptID) -> [WorkerAction] {
        guard let reservation = reservations.removeValue(forKey: attempt) else { return [] }
        attempts[reservation.sequence] = nil
        reservedTokens -= reservation.neededTokens
        return answers(landing.close(attempt)) + callFreeRoom()
    }

    /// Carries credit to the senders it belongs to.
    func answers(_ credits: [KVCredit]) -> [WorkerAction] {
        credits.flatMap { credit in
            reservations[credit.attempt].map { answer($0, .kvCredit(credit)) } ?? []
        }
    }
}
