import InferenceEngine
import ServingTypes

/// A test of a worker's engine that runs now.
struct OpenCanary: Sendable {
    static let promptTokens = 8
    static let newTokens = 4
    static var neededTokens: Int { promptTokens + newTokens }

    let number: UInt64
    let link: LinkID
    let sequence: SequenceID
    var tokens = 0
}

/// Canaries: a few tokens of the real engine while there is nothing else to do.
///
/// They never wait for work nor let work wait: one that comes to a busy worker is answered at
/// once, and one that runs is cancelled in front of the first command of new work.
extension WorkerMachine {
    mutating func begin(_ asked: Canary, from link: LinkID) -> [WorkerAction] {
        let needed = OpenCanary.neededTokens
        guard isIdle, !isDraining, !isLoading, canary == nil, needed <= limits.contextTokens,
            needed <= room.capacityTokens
        else {
            return [.send(.canaryDone(CanaryDone(number: asked.number, outcome: .busy)), to: link)]
        }
        let sequence = nextSequence()
        canary = OpenCanary(number: asked.number, link: link, sequence: sequence)
        let job = SequenceJob(
            sequence: sequence, tokens: (0..<OpenCanary.promptTokens).map { TokenID($0) },
            sampling: SamplingParameters(), maximumNewTokens: OpenCanary.newTokens)
        return room.begin(sequence, neededTokens: needed, usedTokens: 0, with: nil) + [.run(job)]
    }

    /// What the engine says of the canary; nil if it is about something else.
    mutating func canaryHappened(_ event: EngineEvent) -> [WorkerAction]? {
        guard let open = canary else { return nil }
        switch event {
        case .token(open.sequence, _, let finish):
            canary?.tokens += 1
            return finish == nil ? [] : answerCanary(.generated)
        case .failed(open.sequence, let error):
            if case .noRoom = error { return answerCanary(.busy) }
            return answerCanary(.failed, reason: "\(error)")
        default: return nil
        }
    }

    /// Takes the canary out of the engine, if one runs.
    mutating func endCanary(
        _ outcome: CanaryDone.Outcome, reason: String = ""
    ) -> [WorkerAction] {
        guard let open = canary else { return [] }
        return [.cancelSequence(open.sequence)] + answerCanary(outcome, reason: reason)
    }

    private mutating func answerCanary(
        _ outcome: CanaryDone.Outcome, reason: String = ""
    ) -> [WorkerAction] {
        guard let open = canary.take() else { return [] }
        let done = CanaryDone(
            number: open.number, outcome: outcome, tokens: open.tokens, reason: reason)
        return [.send(.canaryDone(done), to: open.link)]
    }
}
