import InferenceEngine
import KVHandOver
import ServingTypes

/// A sequence that stands still here, whose KV waits for another place.
struct HeldSequence: Sendable {
    var terms: AttemptTerms
    var gateway: LinkID
    var sequence: SequenceID
    /// All whose KV is there.
    var tokens: [TokenID]
    var hit: KeptSequences.Hit?
    var lastToken: TokenOutput
    var expires: MonotonicTime
}

/// Handing running sequences on to other decode-workers, with their KV.
///
///     running ─MoveWanted▶ gateway finds a place ─HoldSequence▶ held ─▶ prefill side sends the KV
///
/// From there on it is a prompt that was offered without a target: the tokens so far, with the last
/// one as the one that was sampled after them.
extension DecodeMachine {
    /// Asks for other places for what would run on after `end`.
    ///
    /// - Parameter stepMilliseconds: how long a token takes; 0: nobody knows.
    mutating func askForPlaces(
        leavingAt end: MonotonicTime, stepMilliseconds: Double, now: MonotonicTime
    ) -> [WorkerAction] {
        attemptsInOrder(where: \.isMovable).compactMap { attempt in
            guard let reservation = reservations[attempt],
                reservation.askedToMove.map({ now - $0 >= limits.moveInterval }) ?? true
            else { return nil }
            let seconds = Double(reservation.tokensToCome) * stepMilliseconds / 1000
            guard stepMilliseconds <= 0 || now + .seconds(seconds) > end else { return nil }
            reservations[attempt]?.askedToMove = now
            return .send(.moveWanted(MoveWanted(attempt: attempt)), to: reservation.gateway)
        }
    }

    /// There is another place for it.
    mutating func hold(_ hold: HoldSequence, from gateway: LinkID) -> [WorkerAction] {
        guard let reservation = reservations[hold.attempt], reservation.gateway == gateway,
            reservation.isMovable, hold.successor > hold.attempt.number
        else { return [] }
        reservations[hold.attempt]?.successor = hold.successorID
        return [.holdSequence(reservation.sequence)]
    }

    /// The engine holds it: its room is free, its KV belongs to the attempt that follows.
    ///
    /// - Returns: nil if nobody wants it any more; then it is being cancelled.
    mutating func held(_ sequence: SequenceID) -> (HeldSequence, [WorkerAction])? {
        guard let attempt = attempts[sequence], let reservation = reservations[attempt],
            reservation.stage == .running, let successor = reservation.successor,
            let lastToken = reservation.lastOutput
        else { return nil }
        let terms = reservation.terms
        let held = HeldSequence(
            terms: AttemptTerms(
                attempt: successor, outputTokens: reservation.outputTokens - 1,
                maximumNewTokens: reservation.tokensToCome + 1, sampling: terms.sampling,
                deadline: terms.deadline),
            gateway: reservation.gateway, sequence: sequence, tokens: reservation.knownTokens,
            hit: reservation.hit, lastToken: lastToken, expires: reservation.expires)
        return (held, free(attempt))
    }
}

extension DecodeMachine.Reservation {
    /// Tokens that this attempt has given, by whichever worker.
    private var newTokens: Int { sampled.count + (isLocal ? 0 : 1) }
    /// Of the whole output.
    var outputTokens: Int { terms.outputTokens + newTokens }
    /// At most.
    var tokensToCome: Int { terms.maximumNewTokens - newTokens }
    /// Whether another worker could go on with it: it decodes, and nothing of it is still coming.
    var isMovable: Bool {
        guard stage == .running, !sampled.isEmpty, successor == nil else { return false }
        return isLocal || assembly.isImported
    }
}
