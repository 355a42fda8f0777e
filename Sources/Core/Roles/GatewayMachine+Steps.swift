import ServingTypes

/// The steps of one request.
extension GatewayMachine {
    // MARK: Deadlines

    mutating func tick(_ flight: inout GatewayFlight, now: MonotonicTime) -> [GatewayAction] {
        if now >= flight.endDeadline {
            return fail(&flight, .deadline(limits.requestDeadline))
        }
        if let silent = silentWorker(flight, now: now) {
            for need in GatewayNeed.allCases {
                board.apply(.limit(0, until: now + limits.answerDeadline), to: silent, need)
            }
            return lost(silent, of: &flight, reason: "\(silent) did not answer", now: now)
        }
        if now >= flight.askAgainAt {
            flight.refused = []
            flight.looksAgain = false
        }
        return advance(&flight, now: now)
    }

    /// The worker that should have answered by now.
    private func silentWorker(_ flight: GatewayFlight, now: MonotonicTime) -> InstanceID? {
        if case .asked(let target, let since) = flight.room {
            return now - since >= limits.answerDeadline ? target.instance : nil
        }
        if case .offered(let instance, let since) = flight.slot {
            return now - since >= limits.answerDeadline ? instance : nil
        }
        return nil
    }

    private func placementFailure(
        _ flight: GatewayFlight, _ now: MonotonicTime
    ) -> GenerationFailure {
        let groups = board.groups(for: flight.demand).compactMap { board.groups[$0] }
        guard !groups.contains(where: { $0.canServe(settings(of: flight.job.scenario)) }) else {
            return .overloaded(waited: now - flight.arrived)
        }
        let hasPrompts = groups.contains { $0.hasUsable(.prompts) }
        return .noWorker(hasPrompts ? .decodeWorker : .prefillWorker)
    }

    // MARK: Forward

    /// Takes the next step that needs no answer of others; whose time is over goes nowhere.
    ///
    /// - Parameter opening: position of the worker whose call woke it.
    mutating func advance(
        _ flight: inout GatewayFlight, now: MonotonicTime, opening: Int? = nil
    ) -> [GatewayAction] {
        guard !flight.waitsFor.isEmpty else { return [] }
        guard now < flight.placementDeadline else {
            if flight.slot == .none { counts.expired += 1 }
            return fail(&flight, placementFailure(flight, now))
        }
        if flight.isUnbound {
            let failure = assign(&flight)
            noteArrival(of: &flight)
            if let failure { return fail(&flight, failure) }
        }
        guard let group = flight.group else { return [] }
        guard board.groups[group] != nil else {
            return restart(
                &flight, avoiding: [], reason: "its group \(group) is no more", now: now)
        }
        if flight.isUnbound {
            let shed = shedIfLate(&flight, in: group, now: now)
            guard !flight.hasEnded else { return shed }
        }
        let actions: [GatewayAction] =
            switch (flight.slot, flight.room) {
            case (.none, .none): begin(&flight, in: group, now: now, opening: opening)
            case (.none, .granted(let target, let secret)):
                offer(&flight, target, secret, in: group, now: now, opening: opening)
            default: reserve(&flight, in: group, now: now, opening: opening)
            }
        return flight.hasEnded || flight.waitsFor.isEmpty
            ? actions : actions + shedIfLate(&flight, in: group, now: now)
    }

    private mutating func noteArrival(of flight: inout GatewayFlight) {
        guard flight.group != nil, !flight.times.isCounted else { return }
        flight.times.isCounted = true
        traffic.note(flight) { $0.arrived += 1 }
    }

    private mutating func begin(
        _ flight: inout GatewayFlight, in group: GroupID, now: MonotonicTime, opening: Int?
    ) -> [GatewayAction] {
        let isWhole = board.hasUsable(.prompts, in: group) && board.hasUsable(.sequences, in: group)
        flight.isLate = settings(of: flight.job.scenario).isLate && isWhole
        if !flight.isLate {
            let actions = reserve(&flight, in: group, now: now, opening: opening)
            guard flight.isUnbound, !flight.hasEnded, limits.beginsWithoutRoom, isWhole else {
                return actions
            }
            flight.isLate = true
        }
        let chosen = choose(.prompts, of: group, for: &flight, opening: opening, now: now)
        let actions = sendOffer(&flight, nil, to: chosen, in: group, now: now)
        // Whoever may begin either way looks for room first the next time, too.
        if flight.isUnbound, limits.beginsWithoutRoom { flight.isLate = false }
        return actions
    }

    private mutating func reserve(
        _ flight: inout GatewayFlight, in group: GroupID, now: MonotonicTime, opening: Int?
    ) -> [GatewayAction] {
        let isFallback = !board.hasUsable(.sequences, in: group)
        if isFallback {
            guard settings(of: flight.job.scenario).prefillOnlyFallback else { return [] }
            guard flight.slot == .none else {
                return restart(
                    &flight, avoiding: [], reason: "no decode-worker is left to take its KV",
                    now: now)
            }
        }
        let list: GatewayGroup.List = isFallback ? .fallback : .sequences
        guard let chosen = choose(list, of: group, for: &flight, opening: opening, now: now) else {
            return failIfTooLong(&flight, in: group, now: now)
        }
        let target = board.workers[chosen].description
        flight.room = .asked(target, since: now)
        flight.isFallback = isFallback
        board.apply(
            .spend(flight.neededTokens, until: now + limits.askAgainInterval),
            to: chosen, .sequences)
        let message = ReserveKV(terms: flight.terms(now: now), isFallback: isFallback)
        return [.send(.reserveKV(message), to: target.instance, tokens: flight.tokens)]
    }

    private mutating func offer(
        _ flight: inout GatewayFlight, _ target: InstanceDescription, _ secret: ReservationSecret,
        in group: GroupID, now: MonotonicTime, opening: Int?
    ) -> [GatewayAction] {
        let place = KVTarget(
            instance: target.instance, bulkAddress: target.bulkAddress, secret: secret,
            heldTokens: flight.heldTokens)
        let settings = settings(of: flight.job.scenario)
        let isAlone = settings.decodeOnlyFallback && !board.hasUsable(.prompts, in: group)
        if flight.isFallback || isAlone {
            return offerLocally(&flight, place, isFallback: true, now: now)
        }
        let chosen = choose(.prompts, of: group, for: &flight, opening: opening, now: now)
        if settings.deflects, !flight.isDeflectionDecided {
            flight.isDeflectionDecided = true
            flight.isDeflected = isSoonerLocally(
                flight, target.instance, insteadOf: chosen, in: group)
        }
        return flight.isDeflected
            ? offerLocally(&flight, place, isFallback: false, now: now)
            : sendOffer(&flight, place, to: chosen, in: group, now: now)
    }

    /// Asks the worker that keeps room to compute the prompt, too.
    private mutating func offerLocally(
        _ flight: inout GatewayFlight, _ place: KVTarget, isFallback: Bool, now: MonotonicTime
    ) -> [GatewayAction] {
        guard !flight.refused.contains(place.instance),
            let position = board.positions[place.instance]
        else { return [] }
        return sendOffer(&flight, place, to: position, isFallback: isFallback, now: now)
    }

    private mutating func sendOffer(
        _ flight: inout GatewayFlight, _ place: KVTarget?, to chosen: Int?,
        in group: GroupID, now: MonotonicTime
    ) -> [GatewayAction] {
        guard let chosen else { return failIfTooLong(&flight, in: group, now: now) }
        return sendOffer(&flight, place, to: chosen, isFallback: false, now: now)
    }

    private mutating func sendOffer(
        _ flight: inout GatewayFlight, _ place: KVTarget?, to position: Int, isFallback: Bool,
        now: MonotonicTime
    ) -> [GatewayAction] {
        let instance = board.workers[position].instance
        flight.slot = .offered(instance, since: now)
        noteOffer(of: &flight, to: position, isLocal: place?.instance == instance, now: now)
        board.apply(.spend(1, until: now + limits.askAgainInterval), to: position, .prompts)
        let offer = PrefillOffer(
            terms: flight.terms(now: now), target: place, isFallback: isFallback)
        return [.send(.prefillOffer(offer), to: instance, tokens: flight.tokens)]
    }

    /// Ends what no worker of its group is long enough for; another group may still be.
    private mutating func failIfTooLong(
        _ flight: inout GatewayFlight, in group: GroupID, now: MonotonicTime
    ) -> [GatewayAction] {
        guard
            let context = board.groups[group].flatMap({
                board.contextTooShort(of: $0, for: flight)
            })
        else { return [] }
        guard flight.isUnbound else { return fail(&flight, .tooLong(contextTokens: context)) }
        flight.group = nil
        return advance(&flight, now: now)
    }

    // MARK: Backward

    /// A worker that the request needs is gone or silent.
    mutating func lost(
        _ instance: InstanceID, of flight: inout GatewayFlight, reason: String, now: MonotonicTime
    ) -> [GatewayAction] {
        // Its prompt is computed and its KV kept: somebody else is asked for room.
        if case .asked(let target, _) = flight.room, target.instance == instance,
            case .accepted(let prefill) = flight.slot, prefill != instance
        {
            let cancellations = cancellations(of: flight, at: [instance])
            flight.room = .none
            avoid(instance, &flight, now: now)
            return cancellations + advance(&flight, now: now)
        }
        return restart(&flight, avoiding: [instance], reason: reason, now: now)
    }

    func avoid(
        _ instance: InstanceID, _ flight: inout GatewayFlight, now: MonotonicTime
    ) {
        flight.refused.insert(instance)
        flight.askAgainAt = now + limits.askAgainInterval
    }

    /// Starts the request again on other workers, or gives up.
    mutating func restart(
        _ flight: inout GatewayFlight, avoiding suspects: Set<InstanceID>, reason: String,
        now: MonotonicTime
    ) -> [GatewayAction] {
        guard flight.tries < limits.maximumAttempts else {
            return fail(
                &flight, .attemptsExhausted(attempts: flight.tries, reason: reason))
        }
        let cancellations = cancellations(of: flight)
        flight.startOver(avoiding: suspects, now: now, limits: limits)
        return cancellations
            + [.restarted(flight.job.request, attempt: flight.attempt, reason: reason)]
            + advance(&flight, now: now)
    }

    mutating func fail(
        _ flight: inout GatewayFlight, _ failure: GenerationFailure
    ) -> [GatewayAction] {
        let cancellations = cancellations(of: flight)
        flight.hasEnded = true
        traffic.note(flight) { $0.failed += 1 }
        return cancellations + [.fail(flight.job.request, failure)]
    }

    func cancellations(
        of flight: GatewayFlight, at workers: [InstanceID]? = nil
    ) -> [GatewayAction] {
        let message = ControlMessage.cancelRequest(CancelRequest(attempt: flight.attemptID))
        let decode = flight.decode == flight.prefill ? nil : flight.decode
        return (workers ?? [flight.prefill, decode].compactMap { $0 })
            .filter { board.isConnected($0) }
            .map { .send(message, to: $0) }
    }
}
