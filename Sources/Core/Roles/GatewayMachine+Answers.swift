import Scheduling
import ServingTypes

/// What workers say.
extension GatewayMachine {
    mutating func granted(
        _ granted: ReservationGranted, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        answer(to: granted.attempt, from: instance) { machine, flight in
            guard flight.decode == instance else { return nil }
            guard case .asked(let target, _) = flight.room else { return [] }
            flight.room = .granted(target, granted.secret)
            flight.heldTokens = min(granted.heldTokens, flight.tokens.count)
            machine.conversationIndex.correct(
                instance, flight.blocks, hitTokens: granted.heldTokens)
            guard case .accepted(let prefill) = flight.slot else {
                return machine.advance(&flight, now: now)
            }
            let place = KVTarget(
                instance: instance, bulkAddress: target.bulkAddress, secret: granted.secret,
                heldTokens: flight.heldTokens)
            return [.send(.placeKV(PlaceKV(attempt: granted.attempt, target: place)), to: prefill)]
        }
    }

    mutating func refused(
        _ refused: ReservationRefused, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        notice(of: refused.attempt) { machine, flight in
            guard case .asked(let target, _) = flight.room, target.instance == instance else {
                return []
            }
            flight.room = .none
            machine.counts.refused += 1
            machine.traffic.note(flight) { $0.refused += 1 }
            let askAgainAt = now + machine.limits.askAgainInterval
            switch refused.code {
            case .noKVRoom:
                // Room for it, and still no: all sequences are taken.
                let isFull = refused.freeBytes >= refused.neededBytes
                let tokens = isFull ? 0 : refused.freeBytes / max(1, target.kvBytesPerToken)
                machine.board.apply(.limit(tokens, until: askAgainAt), to: instance, .sequences)
            case .draining:
                machine.board.apply(.limit(0, until: askAgainAt), to: instance, .sequences)
            case .tooLong:
                flight.tooLongFor.insert(instance)
            default:
                machine.avoid(instance, &flight, now: now)
            }
            return machine.advance(&flight, now: now)
        }
    }

    mutating func accepted(
        _ accepted: PrefillAccepted, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        answer(to: accepted.attempt, from: instance) { machine, flight in
            guard flight.prefill == instance else { return nil }
            if case .offered = flight.slot {
                flight.slot = .accepted(instance)
                if flight.times.firstToken == nil { flight.times.accepted = now }
                machine.noteStart(of: &flight, at: instance)
            }
            machine.learn(accepted, of: flight, at: instance)
            guard !flight.times.isStarted else { return [] }
            flight.times.isStarted = true
            flight.times.cachedTokens = min(
                max(0, accepted.cachedTokens), flight.job.promptTokens.count)
            return [
                .started(flight.job.request, cachedTokens: flight.times.cachedTokens)
            ]
        }
    }

    /// From here on its tokens are those of one revision.
    private mutating func noteStart(of flight: inout GatewayFlight, at instance: InstanceID) {
        flight.fingerprint = board[instance]?.description.fingerprint ?? flight.fingerprint
        switch (flight.room, flight.isFallback) {
        case (.none, _): counts.late += 1
        case (_, true): counts.prefillOnly += 1
        default:
            if flight.decode != instance {
                counts.early += 1
            } else if flight.isDeflected || board[instance]?.standing.serves(.prompts) == true {
                counts.deflected += 1
            } else {
                counts.decodeOnly += 1
            }
        }
    }

    /// The worker keeps the prompt's KV for a while; and what it held before it has said.
    private mutating func learn(
        _ accepted: PrefillAccepted, of flight: GatewayFlight, at instance: InstanceID
    ) {
        guard flight.decode != instance, let worker = board[instance] else { return }
        promptIndex.correct(instance, flight.blocks, hitTokens: accepted.cachedTokens)
        promptIndex.insert(
            flight.blocks, at: instance, incarnation: worker.description.incarnation)
    }

    mutating func rejected(
        _ rejected: PrefillRejected, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        notice(of: rejected.attempt) { machine, flight in
            guard case .offered(instance, _) = flight.slot else { return [] }
            flight.slot = .none
            machine.counts.rejected += 1
            machine.traffic.note(flight) { $0.rejected += 1 }
            let isLocal = flight.decode == instance
            let isBusy = rejected.code == .busy || rejected.code == .draining
            // What it computes for itself says nothing of the slots it has for others.
            let hasSlots = isLocal && machine.board[instance]?.standing.serves(.prompts) == true
            if isBusy, !hasSlots {
                machine.board.apply(
                    .limit(0, until: now + machine.limits.askAgainInterval), to: instance,
                    .prompts)
            }
            if isLocal {
                return machine.rejectedLocally(rejected, by: instance, &flight, now: now)
            }
            if rejected.code == .tooLong {
                flight.tooLongFor.insert(instance)
            } else if !isBusy {
                machine.avoid(instance, &flight, now: now)
            }
            return machine.advance(&flight, now: now)
        }
    }

    /// The worker that keeps room does not compute the prompt itself: another one does, or, if
    /// there is none, it is asked again later.
    private mutating func rejectedLocally(
        _ rejected: PrefillRejected, by instance: InstanceID, _ flight: inout GatewayFlight,
        now: MonotonicTime
    ) -> [GatewayAction] {
        let isTooLong = rejected.code == .tooLong && !flight.isDeflected
        if isTooLong { flight.tooLongFor.insert(instance) }
        // The room is gone, or there is nobody else who could compute it.
        if isTooLong || rejected.code == .unknownRequest {
            return restart(&flight, avoiding: [instance], reason: rejected.reason, now: now)
        }
        avoid(instance, &flight, now: now)
        flight.isDeflected = false
        return advance(&flight, now: now)
    }

    mutating func received(
        _ batch: TokenBatch, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        answer(to: batch.attempt, from: instance) { machine, flight in
            guard flight.decode == instance || flight.prefill == instance else { return nil }
            let couldWait = !flight.waitsFor.isEmpty
            let isFirst = flight.times.firstToken == nil
            let wasOffered = if case .offered = flight.slot { true } else { false }
            let ready = flight.receive(batch, from: instance, now: now)
            if isFirst, !ready.isEmpty { machine.learnPrefillTime(of: &flight, now: now) }
            if wasOffered, let prefill = flight.prefill, case .accepted = flight.slot {
                machine.noteStart(of: &flight, at: prefill)
            }
            var actions: [GatewayAction] =
                ready.isEmpty ? [] : [.deliver(flight.job.request, ready)]
            if let reason = flight.finish {
                return actions + machine.finish(&flight, reason, last: instance, now: now)
            }
            if !couldWait, !flight.waitsFor.isEmpty {
                // Its first token is there; its KV waits in the slot for a place.
                flight.placementDeadline = min(
                    flight.endDeadline, now + machine.limits.placementDeadline)
                actions += machine.advance(&flight, now: now)
            }
            return actions
        }
    }

    private mutating func finish(
        _ flight: inout GatewayFlight, _ reason: FinishReason, last instance: InstanceID,
        now: MonotonicTime
    ) -> [GatewayAction] {
        // The prefill-worker may end the request; then the reservation is not needed.
        let isByDecode = flight.decode == instance
        let actions = isByDecode ? [] : cancellations(of: flight)
        flight.hasEnded = true
        traffic.completed(flight, settings(of: flight.job.scenario), now: now)
        if isByDecode, let worker = board[instance] {
            // It keeps the KV of the whole conversation for the next turn.
            conversationIndex.insert(
                flight.job.promptTokens + flight.delivered, at: instance,
                incarnation: worker.description.incarnation)
        }
        return actions + [.finish(flight.job.request, reason)]
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
    mutating func answer(
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
    mutating func notice(
        of attempt: AttemptID,
        _ body: (inout GatewayMachine, inout GatewayFlight) -> [GatewayAction]
    ) -> [GatewayAction] {
        currentRequest(attempt).map { change($0, body) } ?? []
    }

    // MARK: Calls

    mutating func opened(
        _ instance: InstanceID, freeSlots: Int, now: MonotonicTime
    ) -> [GatewayAction] {
        board.apply(
            .open(freeSlots, until: now + limits.askAgainInterval), to: instance, .prompts)
        return []
    }

    mutating func opened(
        _ instance: InstanceID, freeBytes: Int, now: MonotonicTime
    ) -> [GatewayAction] {
        guard let worker = board[instance] else { return [] }
        let freeTokens = freeBytes / max(1, worker.description.kvBytesPerToken)
        let isIdle = freeTokens >= worker.standing.capacityTokens
        board.apply(
            .open(isIdle ? .max : freeTokens, until: now + limits.askAgainInterval),
            to: instance, .sequences)
        return []
    }
}
