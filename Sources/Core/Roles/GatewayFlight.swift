import ServingTypes

/// One request on its way through the gateway.
///
///     waiting ─reserve▶ reserving ─granted▶ holding ─offer▶ offering ─accepted▶ placed ─▶ ended
///        ▲─────refused──────┘                  ▲───rejected───┘                    │
///        └──────────────── a worker or a transfer is lost: next attempt ───────────┘
struct GatewayFlight: Sendable {
    enum Stage: Hashable, Sendable {
        /// No reservation yet.
        case waiting
        case reserving(since: MonotonicTime)
        /// Reserved; every prefill-worker said no, or none is there.
        case holding
        case offering(InstanceID, since: MonotonicTime)
        /// A prefill-worker has it; the rest comes by itself.
        case placed(InstanceID)
        /// The client has its last word.
        case ended
    }

    let job: GenerationJob
    /// Number of its arrival; who came first is served first, also after a loss.
    let order: UInt64
    let arrived: MonotonicTime
    let endDeadline: MonotonicTime
    private(set) var placementDeadline: MonotonicTime
    private(set) var attempt: UInt32 = 1
    var stage = Stage.waiting
    /// The decode-worker that is asked for room, or has promised it.
    var target: InstanceDescription?
    var secret: ReservationSecret?
    /// Leading tokens whose KV the decode-worker holds already.
    var heldTokens = 0
    /// Workers not asked until `askAgainAt`.
    var refused: Set<InstanceID> = []
    var askAgainAt: MonotonicTime
    /// Workers whose context is too short for it; never asked again.
    var tooLongFor: Set<InstanceID> = []
    /// Tokens handed to the client so far.
    private(set) var delivered: [TokenID] = []
    /// Tokens that came before their predecessors, by index; bounded by the output limit.
    private var early: [Int: TokenOutput] = [:]
    private var endLength: Int?
    private var endReason: FinishReason?
    /// Whether the decode-worker has written: from then on the prefill-worker is not needed.
    private(set) var decodeHasWritten = false

    init(job: GenerationJob, order: UInt64, now: MonotonicTime, limits: GatewayLimits) {
        self.job = job
        self.order = order
        arrived = now
        endDeadline = now + limits.requestDeadline
        placementDeadline = min(endDeadline, now + limits.placementDeadline)
        askAgainAt = now
    }

    var attemptID: AttemptID { AttemptID(request: job.request, number: attempt) }

    /// Prompt and output so far: what the next prefill reads.
    var tokens: [TokenID] { job.promptTokens + delivered }

    var remainingTokens: Int { job.maximumNewTokens - delivered.count }

    /// Tokens of KV the sequence may grow to.
    var neededTokens: Int { job.promptTokens.count + job.maximumNewTokens }

    var decode: InstanceID? { target?.instance }

    var prefill: InstanceID? {
        switch stage {
        case .offering(let instance, _), .placed(let instance): instance
        case .waiting, .reserving, .holding, .ended: nil
        }
    }

    /// Whether losing this worker ends the attempt.
    func needs(_ instance: InstanceID) -> Bool {
        decode == instance || prefill == instance && !decodeHasWritten
    }

    /// Why the output is complete; nil while tokens are to come.
    var finish: FinishReason? {
        guard let endLength, let endReason, delivered.count >= endLength else { return nil }
        return endReason
    }

    func terms(now: MonotonicTime) -> AttemptTerms {
        AttemptTerms(
            attempt: attemptID, outputTokens: delivered.count, maximumNewTokens: remainingTokens,
            sampling: job.sampling, deadline: max(.milliseconds(1), endDeadline - now))
    }

    /// Adds tokens by index and gives those whose turn it is; each index is given once.
    mutating func receive(_ batch: TokenBatch, from instance: InstanceID) -> [TokenOutput] {
        if instance == decode {
            decodeHasWritten = true
            // Its prefill-worker's word that it accepted may still be on its way.
            if case .offering(let prefill, _) = stage { stage = .placed(prefill) }
        }
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
        return ready
    }

    /// Forgets the workers and everything of the attempt that is not delivered.
    ///
    /// - Parameter avoided: workers that are not asked at once, since they may have caused it.
    mutating func startOver(
        avoiding avoided: Set<InstanceID>, now: MonotonicTime, limits: GatewayLimits
    ) {
        attempt += 1
        stage = .waiting
        target = nil
        secret = nil
        heldTokens = 0
        refused = avoided
        askAgainAt = now + limits.askAgainInterval
        early = [:]
        endLength = nil
        endReason = nil
        decodeHasWritten = false
        placementDeadline = min(endDeadline, now + limits.placementDeadline)
    }
}

/// Where one request shows up in the gateway's lists.
struct GatewayFootprint: Hashable, Sendable {
    /// The role it waits for a worker of.
    var waitsFor: Role?
    /// The next moment at which its deadlines matter.
    var timer: MonotonicTime
    /// The prefill-worker that works for it.
    var prefill: InstanceID?
    /// The decode-worker that keeps room for it, or is asked to.
    var decode: InstanceID?
    /// The worker whose answer it waits for.
    var asked: InstanceID?
    var isPlaced: Bool

    init(_ flight: GatewayFlight, limits: GatewayLimits) {
        decode = flight.decode
        prefill = flight.prefill.flatMap { flight.needs($0) ? $0 : nil }
        isPlaced = false
        switch flight.stage {
        case .waiting:
            waitsFor = .decodeWorker
            timer = min(flight.placementDeadline, flight.endDeadline)
        case .reserving(let since):
            timer = since + limits.answerDeadline
            asked = flight.decode
        case .holding:
            waitsFor = .prefillWorker
            timer = min(flight.placementDeadline, flight.endDeadline)
        case .offering(let instance, let since):
            timer = since + limits.answerDeadline
            asked = instance
        case .placed, .ended:
            isPlaced = true
            timer = flight.endDeadline
        }
        timer = min(timer, flight.endDeadline)
        if waitsFor != nil, !flight.refused.isEmpty { timer = min(timer, flight.askAgainAt) }
    }
}
