import InferenceEngine
import KVHandOver
import ServingTypes

/// Computing a prompt where it will be decoded.
extension DecodeMachine {
    /// Takes the prompt of a reservation, if few others are computed here.
    mutating func prefillHere(
        _ offer: PrefillOffer, tokens: [TokenID], from gateway: LinkID, isOpen: Bool
    ) -> [WorkerAction] {
        let attempt = offer.terms.attempt
        func reject(_ code: FailureCode, _ reason: String) -> [WorkerAction] {
            let rejected = PrefillRejected(attempt: attempt, code: code, reason: reason)
            return [.send(.prefillRejected(rejected), to: gateway)]
        }
        guard var reservation = reservations[attempt], reservation.gateway == gateway,
            reservation.secret == offer.target?.secret, reservation.stage == .reserved
        else { return reject(.unknownRequest, "there is no such reservation, or its KV comes") }
        guard tokens == reservation.tokens,
            offer.terms.outputTokens == reservation.terms.outputTokens,
            offer.terms.maximumNewTokens == reservation.terms.maximumNewTokens
        else { return reject(.invalid, "the offer differs from the reservation") }
        guard isOpen || reservation.isFallback else {
            return reject(.role, "this worker does not decode any more")
        }
        guard localPrefills < limits.localPrefills else {
            return reject(.busy, "\(limits.localPrefills) prompts are computed here")
        }
        reservation.isLocal = true
        reservation.stage = .running
        reservations[attempt] = reservation
        let accepted = PrefillAccepted(attempt: attempt, cachedTokens: reservation.heldTokens)
        return [
            .send(.prefillAccepted(accepted), to: gateway),
            .run(localJob(reservation, importedTokens: reservation.heldTokens)),
        ]
    }

    /// Goes on with a prompt that the prefill side of this worker has computed: its KV is shared.
    ///
    /// - Parameter sequence: a new one; what the reservation began with is given up.
    /// - Returns: nil if there is no such reservation.
    mutating func takeOver(
        _ attempt: AttemptID, _ prompt: PrefillMachine.Staying, as sequence: SequenceID
    ) -> [WorkerAction]? {
        guard var reservation = reservations[attempt], reservation.stage == .reserved,
            reservation.secret == prompt.target.secret, reservation.gateway == prompt.gateway,
            reservation.tokens == prompt.tokens, reservation.terms.maximumNewTokens > 1
        else { return nil }
        var actions: [WorkerAction] =
            reservation.isWithEngine ? [.cancelSequence(reservation.sequence)] : []
        attempts[reservation.sequence] = nil
        attempts[sequence] = attempt
        let count = prompt.tokens.count
        reservation.sequence = sequence
        reservation.hit = KeptSequences.Hit(sequence: prompt.sequence, tokens: count)
        reservation.sender = prompt.target.instance
        reservation.stage = .receiving
        reservation.assembly = KVAssembly(tokens: count, heldTokens: count, allowedResends: 0)
        _ = reservation.assembly.ended(
            KVEnd(
                attempt: attempt, tokens: count, firstToken: prompt.firstToken,
                digest: PayloadDigest().value))
        reservations[attempt] = reservation
        actions.append(.fork(sequence, from: prompt.sequence, tokens: count))
        return actions + startIfWhole(attempt)
    }

    /// The engine can't begin with kept KV and has dropped the job: all is computed.
    mutating func localForkRefused(_ attempt: AttemptID) -> [WorkerAction] {
        guard let reservation = reservations[attempt] else { return [] }
        reservations[attempt]?.hit = nil
        guard reservation.stage != .closing else {
            // The order to cancel it came before there was anything.
            return free(attempt)
        }
        return [.run(localJob(reservation, importedTokens: 0))]
    }

    private func localJob(_ reservation: Reservation, importedTokens: Int) -> SequenceJob {
        SequenceJob(
            sequence: reservation.sequence, tokens: reservation.tokens,
            outputTokens: reservation.terms.outputTokens, importedTokens: importedTokens,
            sampling: reservation.terms.sampling,
            maximumNewTokens: reservation.terms.maximumNewTokens,
            retainsKV: limits.keptSequences > 0)
    }
}
