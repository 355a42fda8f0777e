import ServingTypes

/// Decode-workers that leave hand their sequences on.
extension GatewayMachine {
    mutating func moveWanted(
        _ wanted: MoveWanted, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        notice(of: wanted.attempt) { machine, flight in
            guard flight.isMovable(from: instance, limits: machine.limits),
                let group = flight.group
            else { return [] }
            if now >= flight.askAgainAt { flight.refused = [] }
            machine.avoid(instance, &flight, now: now)
            // While there is no place, it stays where it is and is written on.
            guard
                machine.choose(.sequences, of: group, for: &flight, opening: nil, now: now) != nil
            else { return [] }
            let hold = HoldSequence(attempt: wanted.attempt, successor: flight.nameSuccessor())
            return [.send(.holdSequence(hold), to: instance)]
        }
    }

    /// The worker that had the KV is not needed any more.
    mutating func delivered(
        _ delivered: KVDelivered, from instance: InstanceID
    ) -> [GatewayAction] {
        notice(of: delivered.attempt) { _, flight in
            if flight.prefill == instance { flight.isDelivered = true }
            return []
        }
    }

    /// It stands still: the place is asked for, as for a prompt that was computed without one.
    mutating func held(
        _ held: SequenceHeld, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        var isWanted = false
        var actions = notice(of: held.attempt) { machine, flight in
            guard flight.decode == instance else { return [] }
            isWanted =
                flight.isMovable(from: instance, limits: machine.limits)
                && flight.successor == held.successor
                && flight.delivered.count == held.outputTokens
            guard isWanted else {
                return machine.restart(
                    &flight, avoiding: [instance], reason: "\(instance) does not go on", now: now)
            }
            flight.held(by: instance, now: now, limits: machine.limits)
            machine.counts.moved += 1
            return machine.advance(&flight, now: now)
        }
        if !isWanted {
            let attempt = AttemptID(request: held.attempt.request, number: held.successor)
            actions.append(.send(.cancelRequest(CancelRequest(attempt: attempt)), to: instance))
        }
        return actions
    }
}
