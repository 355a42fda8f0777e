package import InferenceEngine
package import KVHandOver
package import ServingTypes

/// A worker's decisions: the prefill and the decode side over one engine.
///
/// Its role says which side takes new work. The scheduler assigns it and may change it at any time;
/// both sides finish what they have.
package struct WorkerMachine: Sendable {
    package let instance: InstanceID
    /// What it does; stays the old role until the last work of that role has ended.
    package internal(set) var role: ServingRole
    /// The assignment that is not carried out yet, and when it came.
    var pending: Assign?
    package internal(set) var assignedAt: MonotonicTime?
    /// Numbers of the latest assignment that came and of the one that was carried out.
    var latestAssignment: UInt64 = 0
    var assignment: UInt64 = 0
    var stepLimit: Duration?
    /// The model file that is loaded; empty if nobody said.
    var modelPath: String
    /// The shell has been told to load another model.
    var isLoading = false
    let limits: WorkerLimits
    var prefill: PrefillMachine
    var decode: DecodeMachine
    var room: KVRoom
    private var sequences: UInt64 = 0
    /// The health-agent's test that runs now; only while there is no work.
    var canary: OpenCanary?
    var isDraining = false
    /// While it drains: when whatever is left is given up.
    var drainEnd = MonotonicTime.start
    /// Handed on, with their KV, since the start.
    package internal(set) var movedSequences = 0
    private var hasDrained = false

    package init(
        instance: InstanceID, role: ServingRole, limits: WorkerLimits, modelPath: String = ""
    ) {
        self.instance = instance
        self.role = role
        self.limits = limits
        self.modelPath = modelPath
        prefill = PrefillMachine(limits: limits)
        decode = DecodeMachine(limits: limits)
        room = KVRoom(limits: limits)
        closeSides()
    }

    package var isIdle: Bool { prefill.isEmpty && decode.isEmpty }

    /// - Parameter rates: measured so far.
    package func status(
        _ progress: EngineProgress, rates: EngineRates = EngineRates()
    ) -> InstanceStatus {
        var status = InstanceStatus()
        status.freePrefillSlots = prefill.isClosed ? 0 : max(0, prefill.freeSlots)
        status.runningSequences = decode.runningSequences
        status.computingPrompts = prefill.computingPrompts
        status.freeKVBytes = role.takesSequences ? decode.freeKVBytes : 0
        status.reservedKVBytes = decode.reservedKVBytes
        status.engineSteps = progress.steps
        status.stepAgeMilliseconds = UInt64(max(0, progress.stepAge?.milliseconds ?? 0))
        status.isDraining = isDraining
        status.role = role
        status.assignment = assignment
        status.localPrefills = decode.localPrefills + prefill.fallbackPrompts
        status.prefillTokensPerSecond = rates.prefillTokensPerSecond
        status.decodeStepMilliseconds = rates.decodeStepMilliseconds
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
            return follow { $0.offered(offer, tokens: tokens, from: link, now: now) }
        case .placeKV(let place):
            return follow { machine in
                let isHere = place.target.instance == machine.instance
                return machine.prefill.place(place, from: link, isHere: isHere, room: &machine.room)
            }
        case .reserveKV(let reserve):
            return follow {
                $0.reserve(reserve, tokens: tokens, from: link, secret: secret, now: now)
            }
        case .cancelRequest(let cancel):
            return follow {
                $0.prefill.cancel(cancel.attempt, room: &$0.room)
                    + $0.decode.cancel(cancel.attempt)
            }
        case .holdSequence(let hold): return follow { $0.decode.hold(hold, from: link) }
        case .canary(let canary): return begin(canary, from: link)
        default:
            return []
        }
    }

    private mutating func offered(
        _ offer: PrefillOffer, tokens: [TokenID], from link: LinkID, now: MonotonicTime
    ) -> [WorkerAction] {
        func reject(_ code: FailureCode, _ reason: String) -> [WorkerAction] {
            let rejected = PrefillRejected(
                attempt: offer.terms.attempt, code: code, reason: reason)
            return [.send(.prefillRejected(rejected), to: link)]
        }
        guard !isDraining else { return reject(.draining, "the worker is draining") }
        if offer.target?.instance == instance {
            return decode.prefillHere(
                offer, tokens: tokens, from: link, isOpen: !decode.isClosed)
        }
        var offer = offer
        offer.isFallback = offer.isFallback && !role.takesPrompts
        guard !prefill.isClosed || offer.isFallback && canHelp(limits.prefillSlots) else {
            return reject(.role, "this worker does not prefill; its role is \(role.name)")
        }
        return prefill.offer(
            offer, tokens: tokens, from: link, sequence: nextSequence(), room: &room, now: now)
    }

    private mutating func reserve(
        _ reserve: ReserveKV, tokens: [TokenID], from link: LinkID, secret: ReservationSecret,
        now: MonotonicTime
    ) -> [WorkerAction] {
        func refuse(_ code: FailureCode) -> [WorkerAction] {
            let refused = ReservationRefused(
                attempt: reserve.terms.attempt, code: code, neededBytes: 0, freeBytes: 0)
            return [.send(.reservationRefused(refused), to: link)]
        }
        guard !isDraining else { return refuse(.draining) }
        var reserve = reserve
        reserve.isFallback = reserve.isFallback && !role.takesSequences
        guard !decode.isClosed || reserve.isFallback && decode.helps else {
            return refuse(.role)
        }
        // The same prompt may be computed here already: its KV takes room once.
        let attempt = reserve.terms.attempt
        let computedTokens = prefill.engineTokens(of: attempt)
        decode.otherTokens = prefill.engineTokens - computedTokens
        let hadReservation = decode.reservations[attempt] != nil
        defer {
            if !hadReservation, decode.reservations[attempt] != nil { prefill.covered(attempt) }
        }
        return decode.reserve(
            reserve, tokens: tokens, from: link, sequence: nextSequence(), secret: secret,
            isComputedHere: computedTokens > 0, room: &room, now: now)
    }

    /// Lets the decode side go on with prompts that were computed here.
    private mutating func takeOver() -> [WorkerAction] {
        prefill.takeStaying().flatMap { attempt, staying in
            let begun = decode.takeOver(attempt, staying, as: nextSequence())
            guard let begun else {
                let reason = "there is no such reservation; it was cancelled or has ended"
                let failure = RequestFailed(
                    attempt: attempt, code: .unknownRequest, reason: reason)
                return [.send(.requestFailed(failure), to: staying.gateway)]
                    + prefill.cancel(attempt, room: &room)
            }
            let freed = prefill.takenOver(attempt, room: &room)
            // What is kept of it was covered by the reservation until now.
            let promised = prefill.engineTokens + decode.reservedTokens
            return begun + freed + room.makeWay(keepable: limits.kvCapacityTokens - promised)
        }
    }

    /// Whether it takes work of another role because nobody else can.
    private func canHelp(_ capacity: Int) -> Bool {
        role != .spare && pending == nil && capacity > 0
    }

    package mutating func gatewayLost(_ link: LinkID) -> [WorkerAction] {
        follow { $0.prefill.lost(link, room: &$0.room) + $0.decode.lost(link) }
    }

    // MARK: Engine

    package mutating func engine(
        _ event: EngineEvent, now: MonotonicTime
    ) -> [WorkerAction] {
        follow { $0.canaryHappened(event) ?? $0.happened(event, now: now) }
    }

    private mutating func happened(_ event: EngineEvent, now: MonotonicTime) -> [WorkerAction] {
        switch event {
        case .exported: []
        case .exportEnded(let sequence): prefill.exportEnded(sequence, room: &room)
        case .held(let sequence): held(sequence)
        case .imported(let sequence, let tokens): decode.imported(sequence, tokens: tokens)
        case .blockRefused(let sequence, _, let reason):
            prefill.forkRefused(sequence, room: &room)
                + decode.blockRefused(sequence, reason: reason, room: &room, now: now)
        case .token(let sequence, let token, let finish):
            prefill.sampled(sequence, token, finish: finish, room: &room)
                + decode.sampled(sequence, token, finish: finish, room: &room)
        case .failed(let sequence, let error):
            prefill.failed(sequence, error, room: &room) + decode.failed(sequence, error)
        case .cancelled(let sequence):
            prefill.cancelled(sequence, room: &room) + decode.cancelled(sequence)
        case .engineLost(let error):
            engineLost(error)
        }
    }

    // MARK: Transfers

    package mutating func transferEnded(
        _ attempt: AttemptID, failure: KVDone?
    ) -> [WorkerAction] {
        follow { $0.prefill.transferEnded(attempt, failure: failure, room: &$0.room) }
    }

    package mutating func kvOffered(
        _ offer: KVOffer, from sender: InstanceID, fingerprint: ModelFingerprint,
        on link: KVLinkID, now: MonotonicTime
    ) -> [WorkerAction] {
        follow {
            $0.decode.offered(offer, from: sender, fingerprint: fingerprint, on: link, now: now)
        }
    }

    /// The frame of a chunk has come; says whether to keep its payload.
    package mutating func kvBegins(
        _ chunk: ChunkFacts, of attempt: AttemptID, from sender: InstanceID, on link: KVLinkID,
        now: MonotonicTime
    ) -> (isWanted: Bool, actions: [WorkerAction]) {
        var isWanted = false
        let actions = follow {
            let begins = $0.decode.begins(chunk, of: attempt, from: sender, on: link, now: now)
            isWanted = begins.isWanted
            return begins.actions
        }
        return (isWanted, actions)
    }

    /// The payload of a wanted chunk is here; says whether to keep it.
    ///
    /// The shell stores it before it performs the actions.
    package mutating func kvLanded(
        _ chunk: ChunkFacts, of attempt: AttemptID, on link: KVLinkID, now: MonotonicTime
    ) -> (isKept: Bool, actions: [WorkerAction]) {
        var isKept = false
        let actions = follow {
            let landed = $0.decode.landed(chunk, of: attempt, on: link, now: now)
            isKept = landed.isKept
            return landed.actions
        }
        return (isKept, actions)
    }

    /// The payload of a wanted chunk broke off, or is damaged.
    package mutating func kvMissed(
        _ chunk: ChunkFacts, of attempt: AttemptID, on link: KVLinkID, isDamaged: Bool,
        reason: String, now: MonotonicTime
    ) -> [WorkerAction] {
        follow {
            $0.decode.missed(
                chunk, of: attempt, on: link, isDamaged: isDamaged, reason: reason, now: now)
        }
    }

    /// A part of a payload has come.
    package mutating func kvProgressed(_ attempt: AttemptID, now: MonotonicTime) {
        decode.progressed(attempt, now: now)
    }

    package mutating func kvEnded(
        _ end: KVEnd, from sender: InstanceID, on link: KVLinkID, now: MonotonicTime
    ) -> [WorkerAction] {
        follow { $0.decode.ended(end, from: sender, on: link, now: now) }
    }

    /// The sender gave up by `KVAbort`.
    package mutating func kvAborted(
        _ attempt: AttemptID, by sender: InstanceID
    ) -> [WorkerAction] {
        follow { $0.decode.transferAborted(attempt, by: sender) }
    }

    /// A connection that may have brought KV is lost.
    package mutating func kvLinkLost(_ link: KVLinkID, now: MonotonicTime) -> [WorkerAction] {
        follow { $0.decode.linkLost(link, now: now) }
    }

    /// KV received here that makes no progress.
    package func strandedKV(now: MonotonicTime) -> StrandedKV { decode.stranded(now: now) }
    package var landedKVBytes: Int { decode.landedBytes }
    package var keptKVTokens: Int { room.keptTokens }
    /// Tokens of KV that running prompts and sequences may take.
    package var promisedKVTokens: Int {
        prefill.engineTokens + decode.reservedTokens
            + (canary == nil ? 0 : OpenCanary.neededTokens)
    }
    package var keptSequences: Int { room.kept.count }

    // MARK: Time and leaving

    /// Called a few times a second.
    ///
    /// - Parameter stepMilliseconds: how long a token takes at present; 0: nobody knows.
    package mutating func tick(
        now: MonotonicTime, stepMilliseconds: Double = 0
    ) -> [WorkerAction] {
        follow {
            $0.prefill.tick(now: now, room: &$0.room) + $0.decode.tick(now: now)
                + $0.askForPlaces(stepMilliseconds: stepMilliseconds, now: now)
        }
    }

    /// Fails everything; the worker drains, since another process has to take its place.
    private mutating func engineLost(_ error: EngineError) -> [WorkerAction] {
        isDraining = true
        closeSides()
        // Nothing is in the engine that could be cancelled.
        _ = room.close()
        return endCanary(.failed, reason: "the engine is lost: \(error)")
            + prefill.engineLost(error, room: &room) + decode.engineLost(error)
    }

    /// Handles an event and what follows for both sides: freed room, an assignment, the end.
    mutating func follow(
        _ event: (inout WorkerMachine) -> [WorkerAction]
    ) -> [WorkerAction] {
        let (prompts, reserved) = (prefill.engineTokens, decode.reservedTokens)
        var actions = event(&self)
        if prefill.hasStaying { actions += takeOver() }
        // Work goes first: its commands follow those that end the test.
        if !isIdle || isDraining { actions = endCanary(.busy) + actions }
        closeSides()
        prefill.uncover { decode.reservations[$0] == nil }
        prefill.otherTokens = decode.reservedTokens
        decode.otherTokens = prefill.engineTokens
        decode.otherSequences = prefill.adoptedSequences
        // Each side calls for its own; here is room that the other one has freed.
        if decode.reservedTokens < reserved { actions += prefill.callFreeSlots() }
        if prefill.engineTokens < prompts { actions += decode.callFreeRoom() }
        actions += carryOutAssignment()
        guard isDraining, isIdle, !hasDrained else { return actions }
        hasDrained = true
        return actions + [.drained]
    }

    /// Takes new work only of what it does, and goes on doing.
    func takes(_ kind: (ServingRole) -> Bool) -> Bool {
        !isDraining && kind(role) && pending.map { kind($0.role) && !changesModel($0) } ?? true
    }

    mutating func closeSides() {
        prefill.isClosed = !takes(\.takesPrompts)
        decode.isClosed = !takes(\.takesSequences)
        decode.helps = !isDraining && canHelp(limits.decodeSequences)
    }

    mutating func nextSequence() -> SequenceID {
        sequences += 1
        return SequenceID(sequences)
    }
}
