import Scheduling
import ServingTypes

/// One request on its way through the gateway.
///
///     early  reserve ─granted▶ offer ─accepted▶ placed ─▶ ended
///     late   offer ─accepted▶ first token ─▶ reserve ─granted▶ placed ─▶ ended
///
/// A refusal or rejection goes back to waiting for the same thing; a lost worker or transfer means
/// the next attempt.
struct GatewayFlight: Sendable {
    /// The prefill of the current attempt.
    enum Slot: Hashable, Sendable {
        case none
        case offered(InstanceID, since: MonotonicTime)
        case accepted(InstanceID)
    }

    /// The place of its KV for decode.
    enum Room: Hashable, Sendable {
        case none
        case asked(InstanceDescription, since: MonotonicTime)
        case granted(InstanceDescription, ReservationSecret)
    }

    let job: GenerationJob
    /// Of its prompt, for the question who holds its beginning.
    let blocks: PrefixBlocks
    /// Number of its arrival.
    let order: UInt64
    let arrived: MonotonicTime
    /// When its first token is due by its own limit; decides its turn, also after a loss.
    let due: MonotonicTime
    let endDeadline: MonotonicTime
    /// Until then it may wait for what it needs next.
    var placementDeadline: MonotonicTime
    private(set) var attempt: UInt32 = 1
    /// Attempts that began anew, this one included; the others are moves.
    private(set) var tries: UInt32 = 1
    /// The highest number given to an attempt.
    private var lastNumber: UInt32 = 1
    /// Number of the attempt by which another decode-worker is to go on.
    private(set) var successor: UInt32?
    /// Decode-workers that have handed it on.
    private(set) var moves = 0
    /// The group that serves it; nil while none can.
    var group: GroupID?
    /// Of the model that has read it; KV and tokens of others do not mix.
    var fingerprint: ModelFingerprint?
    var slot = Slot.none
    var room = Room.none
    /// Leading tokens whose KV the decode-worker holds already.
    var heldTokens = 0
    /// Prefill of this attempt began without a place for its KV.
    var isLate = false
    /// A worker does this attempt's work of another role, since none of that role is left.
    var isFallback = false
    /// It was looked at whether its decode-worker should compute the prompt itself.
    var isDeflectionDecided = false
    /// The decode-worker is to compute the prompt itself.
    var isDeflected = false
    /// The client has its last word.
    var hasEnded = false
    /// Workers not asked until `askAgainAt`.
    var refused: Set<InstanceID> = []
    var askAgainAt: MonotonicTime
    /// From then on no worker is expected to be in time for it; nil: not known.
    var latestStart: MonotonicTime?
    /// The latest offer to a worker whose rate is known.
    var offer: GatewayOffer?
    /// Not all workers were looked at; it asks again at `askAgainAt`.
    var looksAgain = false
    /// Workers whose context is too short for it; never asked again.
    var tooLongFor: Set<InstanceID> = []
    /// Tokens handed to the client so far.
    private(set) var delivered: [TokenID] = []
    /// How many of them the current attempt began with.
    private(set) var deliveredBefore = 0
    /// Tokens that came before their predecessors, by index; bounded by the output limit.
    private var early: [Int: TokenOutput] = [:]
    private var endLength: Int?
    private var endReason: FinishReason?
    /// Whether the decode-worker has written: from then on the prefill-worker is not needed.
    private(set) var decodeHasWritten = false
    /// The decode-worker has all the KV.
    var isDelivered = false
    var times = GatewayTimes()

    init(
        job: GenerationJob, blocks: PrefixBlocks, order: UInt64, now: MonotonicTime,
        limits: GatewayLimits
    ) {
        self.job = job
        self.blocks = blocks
        self.order = order
        arrived = now
        endDeadline = now + limits.requestDeadline
        due = min(endDeadline, now + (job.ttftLimit ?? limits.placementDeadline))
        placementDeadline = due
        askAgainAt = now
    }

    var demand: GatewayBoard.Demand {
        GatewayBoard.Demand(scenario: job.scenario, modelName: job.modelName)
    }

    var attemptID: AttemptID { AttemptID(request: job.request, number: attempt) }

    /// Prompt and output of earlier attempts: what this attempt's prefill reads.
    var tokens: [TokenID] {
        deliveredBefore == 0 ? job.promptTokens : job.promptTokens + delivered[..<deliveredBefore]
    }

    /// Tokens of KV the sequence may grow to.
    var neededTokens: Int { job.promptTokens.count + job.maximumNewTokens }

    /// The decode-worker that is asked for room, or has promised it.
    var target: InstanceDescription? {
        switch room {
        case .none: nil
        case .asked(let description, _), .granted(let description, _): description
        }
    }

    var decode: InstanceID? { target?.instance }

    var prefill: InstanceID? {
        switch slot {
        case .none: nil
        case .offered(let instance, _), .accepted(let instance): instance
        }
    }

    /// No worker knows of this attempt.
    var isUnbound: Bool { slot == .none && room == .none }

    /// A worker of its attempt has sampled a token.
    var hasToken: Bool { delivered.count > deliveredBefore }

    /// What it waits for a worker to give.
    var waitsFor: GatewayNeeds {
        if hasEnded { return [] }
        switch (slot, room) {
        case (.none, .none): return isLate ? .prompts : .sequences
        case (.none, .granted): return .prompts
        case (.accepted, .none): return hasToken ? .sequences : []
        default: return []
        }
    }

    /// Whether losing this worker ends the attempt.
    func needs(_ instance: InstanceID) -> Bool {
        decode == instance || prefill == instance && !decodeHasWritten && !isDelivered
    }

    /// Why the output is complete; nil while tokens are to come.
    var finish: FinishReason? {
        guard let endLength, let endReason, delivered.count >= endLength else { return nil }
        return endReason
    }

    func terms(now: MonotonicTime) -> AttemptTerms {
        AttemptTerms(
            attempt: attemptID, outputTokens: deliveredBefore,
            maximumNewTokens: job.maximumNewTokens - deliveredBefore, sampling: job.sampling,
            deadline: max(.milliseconds(1), endDeadline - now))
    }

    /// Adds tokens by index and gives those whose turn it is; each index is given once.
    mutating func receive(
        _ batch: TokenBatch, from instance: InstanceID, now: MonotonicTime
    ) -> [TokenOutput] {
        // The worker's word that it accepted may still be on its way.
        if case .offered(let prefill, let since) = slot, instance == prefill || instance == decode {
            slot = .accepted(prefill)
            times.accepted = since
        }
        if instance == decode { decodeHasWritten = true }
        for (offset, token) in batch.tokens.enumerated() {
            let index = batch.firstIndex + offset
            if index >= delivered.count, index < job.maximumNewTokens { early[index] = token }
        }
        if let reason = batch.finish {
            endLength = min(batch.firstIndex + batch.tokens.count, job.maximumNewTokens)
            endReason = reason
        }
        var ready: [TokenOutput] = []
        while let token = early.removeValue(forKey: delivered.count) {
            delivered.append(token.token)
            ready.append(token)
        }
        if !ready.isEmpty, times.firstToken == nil { times.firstToken = now }
        return ready
    }

    /// Forgets the workers and everything of the attempt that is not delivered.
    ///
    /// - Parameter avoided: workers that are not asked at once, since they may have caused it.
    mutating func startOver(
        avoiding avoided: Set<InstanceID>, now: MonotonicTime, limits: GatewayLimits
    ) {
        lastNumber += 1
        attempt = lastNumber
        tries += 1
        successor = nil
        startAttempt(avoiding: avoided, now: now, limits: limits)
    }

    private mutating func startAttempt(
        avoiding avoided: Set<InstanceID>, now: MonotonicTime, limits: GatewayLimits
    ) {
        slot = .none
        room = .none
        heldTokens = 0
        isLate = false
        isFallback = false
        isDeflectionDecided = false
        isDeflected = false
        latestStart = nil
        offer = nil
        refused = avoided
        askAgainAt = now + limits.askAgainInterval
        looksAgain = false
        deliveredBefore = delivered.count
        early = [:]
        endLength = nil
        endReason = nil
        decodeHasWritten = false
        isDelivered = false
        placementDeadline = min(endDeadline, now + limits.placementDeadline)
    }
}

// MARK: Moves

extension GatewayFlight {
    /// Whether its decode-worker may hand it on.
    func isMovable(from instance: InstanceID, limits: GatewayLimits) -> Bool {
        decode == instance && decodeHasWritten && finish == nil && moves < limits.maximumMoves
    }

    /// The attempt's successor, on another decode-worker; the same one however often it is asked.
    mutating func nameSuccessor() -> UInt32 {
        if let successor { return successor }
        lastNumber += 1
        successor = lastNumber
        return lastNumber
    }

    /// From now on it waits for a place, and its KV with the worker that has decoded it so far.
    mutating func held(by instance: InstanceID, now: MonotonicTime, limits: GatewayLimits) {
        attempt = successor ?? attempt
        successor = nil
        moves += 1
        startAttempt(avoiding: [instance], now: now, limits: limits)
        slot = .accepted(instance)
        isLate = true
        isDeflectionDecided = true
        // The last token's KV is yet to be computed.
        deliveredBefore = delivered.count - 1
    }
}

/// What an offer was expected to take.
struct GatewayOffer: Sendable {
    var sent: MonotonicTime
    /// Until the first token, by the worker's rate alone.
    var expectedSeconds: Double
}

/// When the steps of a request happened that its traffic report needs.
struct GatewayTimes: Sendable {
    /// The offer that led to the first token was accepted.
    var accepted: MonotonicTime?
    var firstToken: MonotonicTime?
    /// Leading tokens of the prompt that need not be computed.
    var cachedTokens = 0
    /// The shell was told that it has started.
    var isStarted = false
    /// Its group's report counts it as arrived.
    var isCounted = false
}
