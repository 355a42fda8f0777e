import ServingTypes

/// The steps of one request.
extension GatewayMachine {
    // MARK: Deadlines

    mutating func tick(_ flight: inout GatewayFlight, now: MonotonicTime) -> [GatewayAction] {
        if now >= flight.endDeadline {
            return fail(&flight, .deadline(limits.requestDeadline))
        }
        switch flight.stage {
        case .placed, .ended:
            return []
        case .reserving(let since), .offering(_, let since):
            guard now - since >= limits.answerDeadline,
                let silent = flight.prefill ?? flight.decode
            else { return [] }
            board.limit(silent, to: 0, until: now + limits.answerDeadline)
            return restart(
                &flight, avoiding: [silent], reason: "\(silent) did not answer", now: now)
        case .waiting, .holding:
            if now >= flight.placementDeadline {
                return fail(&flight, placementFailure(flight, now))
            }
            if now >= flight.askAgainAt { flight.refused = [] }
            return advance(&flight, now: now)
        }
    }

    private func placementFailure(
        _ flight: GatewayFlight, _ now: MonotonicTime
    ) -> GenerationFailure {
        for role in [Role.prefillWorker, .decodeWorker]
        where !board.hasUsable(role, modelName: flight.job.modelName) {
            return .noWorker(role)
        }
        return .overloaded(waited: now - flight.arrived)
    }

    // MARK: Forward

    /// Takes the next step that needs no answer of others.
    mutating func advance(
        _ flight: inout GatewayFlight, now: MonotonicTime
    ) -> [GatewayAction] {
        switch flight.stage {
        case .waiting: reserve(&flight, now: now)
        case .holding: offer(&flight, now: now)
        case .reserving, .offering, .placed, .ended: []
        }
    }

    private mutating func reserve(
        _ flight: inout GatewayFlight, now: MonotonicTime
    ) -> [GatewayAction] {
        guard let chosen = chosen(.decodeWorker, for: flight),
            let target = board[chosen]?.description
        else { return failIfTooLong(&flight) }
        flight.target = target
        flight.stage = .reserving(since: now)
        board.spend(flight.neededTokens, of: chosen)
        let message = ControlMessage.reserveKV(ReserveKV(terms: flight.terms(now: now)))
        return [.send(message, to: chosen, tokens: flight.tokens)]
    }

    private mutating func offer(
        _ flight: inout GatewayFlight, now: MonotonicTime
    ) -> [GatewayAction] {
        guard let target = flight.target, let secret = flight.secret else {
            preconditionFailure("who holds a reservation knows where")
        }
        guard let chosen = chosen(.prefillWorker, for: flight) else {
            return failIfTooLong(&flight)
        }
        flight.stage = .offering(chosen, since: now)
        board.spend(1, of: chosen)
        let offer = PrefillOffer(
            terms: flight.terms(now: now), decodeInstance: target.instance,
            decodeBulkAddress: target.bulkAddress, secret: secret,
            heldTokens: flight.heldTokens)
        return [.send(.prefillOffer(offer), to: chosen, tokens: flight.tokens)]
    }

    private mutating func failIfTooLong(_ flight: inout GatewayFlight) -> [GatewayAction] {
        for role in [Role.prefillWorker, .decodeWorker] {
            if let context = board.contextTooShort(role, for: flight) {
                return fail(&flight, .tooLong(contextTokens: context))
            }
        }
        return []
    }

    // MARK: Answers

    mutating func granted(
        _ granted: ReservationGranted, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        answer(to: granted.attempt, from: instance) { machine, flight in
            guard flight.decode == instance else { return nil }
            guard case .reserving = flight.stage else { return [] }
            flight.secret = granted.secret
            flight.heldTokens = min(granted.heldTokens, flight.tokens.count)
            flight.stage = .holding
            return machine.advance(&flight, now: now)
        }
    }

    mutating func refused(
        _ refused: ReservationRefused, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        notice(of: refused.attempt) { machine, flight in
            guard case .reserving = flight.stage, let target = flight.target,
                target.instance == instance
            else { return [] }
            flight.stage = .waiting
            flight.target = nil
            switch refused.code {
            case .noKVRoom:
                // Room for it, and still no: all sequences are taken.
                let isFull = refused.freeBytes >= refused.neededBytes
                machine.board.limit(
                    instance,
                    to: isFull ? 0 : refused.freeBytes / max(1, target.kvBytesPerToken),
                    until: now + machine.limits.askAgainInterval)
            case .draining:
                machine.board.limit(
                    instance, to: 0, until: now + machine.limits.askAgainInterval)
            case .tooLong:
                flight.tooLongFor.insert(instance)
            default:
                machine.avoid(instance, &flight, now: now)
            }
            return machine.advance(&flight, now: now)
        }
    }

    mutating func accepted(
        _ accepted: PrefillAccepted, from instance: InstanceID
    ) -> [GatewayAction] {
        answer(to: accepted.attempt, from: instance) { _, flight in
            guard flight.prefill == instance else { return nil }
            flight.stage = .placed(instance)
            return []
        }
    }

    mutating func rejected(
        _ rejected: PrefillRejected, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        notice(of: rejected.attempt) { machine, flight in
            guard case .offering(instance, _) = flight.stage else { return [] }
            flight.stage = .holding
            switch rejected.code {
            case .busy, .draining:
                machine.board.limit(
                    instance, to: 0, until: now + machine.limits.askAgainInterval)
            case .tooLong:
                flight.tooLongFor.insert(instance)
            default:
                machine.avoid(instance, &flight, now: now)
            }
            return machine.advance(&flight, now: now)
        }
    }

    mutating func received(
        _ batch: TokenBatch, from instance: InstanceID
    ) -> [GatewayAction] {
        answer(to: batch.attempt, from: instance) { machine, flight in
            guard flight.decode == instance || flight.prefill == instance else { return nil }
            let request = flight.job.request
            let ready = flight.receive(batch, from: instance)
            var actions: [GatewayAction] = ready.isEmpty ? [] : [.deliver(request, ready)]
            if let reason = flight.finish {
                // The prefill-worker may end the request; then the reservation is not needed.
                if flight.decode != instance { actions += machine.cancellations(of: flight) }
                actions.append(.finish(request, reason))
                flight.stage = .ended
            }
            return actions
        }
    }

    mutating func failed(
        _ failed: RequestFailed, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        notice(of: failed.attempt) { machine, flight in
            guard flight.needs(instance) else { return [] }
            // A failed transfer may be the fault of either side.
            let suspects: Set<InstanceID> =
                failed.code == .transfer
                ? Set([flight.prefill, flight.decode].compactMap { $0 }) : [instance]
            return machine.restart(
                &flight, avoiding: suspects, reason: "\(instance): \(failed.reason)", now: now)
        }
    }

    /// Applies an answer by which the worker goes on working for the attempt.
    ///
    /// If the request is gone, or on another attempt, or does not expect this answer (`body` gives
    /// nil), the worker is told to stop, so it keeps nothing.
    private mutating func answer(
        to attempt: AttemptID, from instance: InstanceID,
        _ body: (inout GatewayMachine, inout GatewayFlight) -> [GatewayAction]?
    ) -> [GatewayAction] {
        var isWanted = false
        var actions: [GatewayAction] = []
        if let request = currentRequest(attempt) {
            actions = change(request) { machine, flight in
                let actions = body(&machine, &flight)
                isWanted = actions != nil
                return actions ?? []
            }
        }
        return isWanted
            ? actions : [.send(.cancelRequest(CancelRequest(attempt: attempt)), to: instance)]
    }

    /// Applies an answer after which the worker keeps nothing of the attempt.
    private mutating func notice(
        of attempt: AttemptID,
        _ body: (inout GatewayMachine, inout GatewayFlight) -> [GatewayAction]
    ) -> [GatewayAction] {
        currentRequest(attempt).map { change($0, body) } ?? []
    }

    // MARK: Calls

    mutating func opened(
        _ instance: InstanceID, freeSlots: Int, now: MonotonicTime
    ) -> [GatewayAction] {
        board.open(instance, to: freeSlots, until: now + limits.askAgainInterval)
        return []
    }

    mutating func opened(
        _ instance: InstanceID, freeBytes: Int, now: MonotonicTime
    ) -> [GatewayAction] {
        guard let worker = board[instance] else { return [] }
        let bytesPerToken = max(1, worker.description.kvBytesPerToken)
        let freeTokens = freeBytes / bytesPerToken
        let isIdle = freeTokens >= worker.description.kvCapacityBytes / bytesPerToken
        board.open(
            instance, to: isIdle ? .max : freeTokens, until: now + limits.askAgainInterval)
        return []
    }

    // MARK: Backward

    private func avoid(
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
        guard flight.attempt < limits.maximumAttempts else {
            return fail(
                &flight, .attemptsExhausted(attempts: flight.attempt, reason: reason))
        }
        let cancellations = cancellations(of: flight)
        flight.startOver(avoiding: suspects, now: now, limits: limits)
        return cancellations
            + [.restarted(flight.job.request, attempt: flight.attempt, reason: reason)]
            + advance(&flight, now: now)
    }

    private func fail(
        _ flight: inout GatewayFlight, _ failure: GenerationFailure
    ) -> [GatewayAction] {
        let cancellations = cancellations(of: flight)
        flight.stage = .ended
        return cancellations + [.fail(flight.job.request, failure)]
    }
}
