import InferenceEngine
package import ServingTypes

/// Sequences that would outlast this worker, or its role, go on elsewhere.
extension WorkerMachine {
    /// Takes no new work; `drained` follows when nothing is left.
    ///
    /// - Parameter end: when whatever is left is given up; sequences that would run on after it, or
    ///   nearly, are handed on.
    package mutating func drain(until end: MonotonicTime = .start) -> [WorkerAction] {
        isDraining = true
        drainEnd = end
        prefill.saysDeliveries = true
        return follow { $0.room.close() }
    }

    /// When its sequences should be gone; nil while it may decode on.
    private var sequencesEnd: MonotonicTime? {
        if isDraining { return drainEnd + (.zero - limits.moveReserve) }
        guard pending != nil, let assignedAt, !takes(\.takesSequences) else { return nil }
        return assignedAt + limits.roleChangePatience
    }

    mutating func askForPlaces(
        stepMilliseconds: Double, now: MonotonicTime
    ) -> [WorkerAction] {
        guard let end = sequencesEnd else { return [] }
        return decode.askForPlaces(
            leavingAt: end, stepMilliseconds: stepMilliseconds, now: now)
    }

    /// The engine holds a sequence.
    mutating func held(_ sequence: SequenceID) -> [WorkerAction] {
        guard let attempt = decode.attempt(of: sequence),
            let (held, freed) = decode.held(sequence)
        else { return [] }
        movedSequences += 1
        let message = SequenceHeld(
            attempt: attempt, successor: held.terms.attempt.number,
            outputTokens: held.terms.outputTokens + 1)
        prefill.adopt(held)
        return freed + [.send(.sequenceHeld(message), to: held.gateway)]
    }
}
