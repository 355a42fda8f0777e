import InferenceEngine
import Roles
import ServingTypes

/// A worker's machine with a clock and short ways to say what happens to it.
struct WorkerBench {
    static let gateway = LinkID(1)
    static let otherGateway = LinkID(2)

    var machine: WorkerMachine
    var now = MonotonicTime.start

    /// - Parameters:
    ///   - capacity: tokens of KV.
    init(
        _ role: Role, slots: Int = 2, sequences: Int = 3, capacity: Int = 100, context: Int = 60
    ) {
        machine = WorkerMachine(
            role: role,
            limits: WorkerLimits(
                prefillSlots: slots, decodeSequences: sequences, kvCapacityTokens: capacity,
                contextTokens: context, kvBytesPerToken: 10))
    }

    var status: InstanceStatus {
        machine.status(
            EngineProgress(steps: 5, stepAge: .milliseconds(30), openSequences: 0, usedKVTokens: 0))
    }

    mutating func hear(
        _ message: ControlMessage, tokens: [TokenID] = [], from link: LinkID = gateway
    ) -> [WorkerAction] {
        machine.received(message, tokens: tokens, from: link, secret: secret(9), now: now)
    }

    mutating func offer(
        _ terms: AttemptTerms, prompt: [TokenID] = [1, 2, 3], from link: LinkID = gateway
    ) -> [WorkerAction] {
        hear(
            .prefillOffer(
                PrefillOffer(
                    terms: terms, decodeInstance: decode1,
                    decodeBulkAddress: NetworkAddress(host: "decode-1", port: 2),
                    secret: secret(9))), tokens: prompt, from: link)
    }

    mutating func reserve(
        _ terms: AttemptTerms, prompt: [TokenID] = [1, 2, 3], from link: LinkID = gateway
    ) -> [WorkerAction] {
        hear(.reserveKV(ReserveKV(terms: terms)), tokens: prompt, from: link)
    }

    mutating func cancel(_ attempt: AttemptID) -> [WorkerAction] {
        hear(.cancelRequest(CancelRequest(attempt: attempt)))
    }

    mutating func sampled(
        _ sequence: UInt64, _ token: TokenID, finish: FinishReason? = nil
    ) -> [WorkerAction] {
        machine.engine(.token(SequenceID(sequence), TokenOutput(token: token), finish: finish))
    }

    mutating func engineFailed(
        _ sequence: UInt64, _ error: EngineError = .computeFailed(code: -1)
    ) -> [WorkerAction] {
        machine.engine(.failed(SequenceID(sequence), error))
    }

    mutating func engineCancelled(_ sequence: UInt64) -> [WorkerAction] {
        machine.engine(.cancelled(SequenceID(sequence)))
    }

    mutating func offerKV(
        _ attempt: AttemptID, secret number: UInt64 = 9, tokens: Int = 3,
        fingerprint: ModelFingerprint = model
    ) -> FailureCode? {
        machine.kvOffered(
            KVOffer(
                attempt: attempt, secret: secret(number), fingerprint: fingerprint, tokens: tokens),
            fingerprint: model, now: now)?.code
    }

    mutating func land(_ attempt: AttemptID, _ start: Int, _ count: Int) -> SequenceID? {
        machine.kvLanded(
            KVChunk(attempt: attempt, tokenStart: start, tokenCount: count), now: now)
    }

    mutating func endKV(
        _ attempt: AttemptID, tokens: Int = 3, first: TokenID = 7
    ) -> [WorkerAction] {
        machine.kvEnded(
            KVEnd(attempt: attempt, tokens: tokens, firstToken: TokenOutput(token: first)),
            now: now)
    }

    mutating func tick(_ duration: Duration) -> [WorkerAction] {
        now = now + duration
        return machine.tick(now: now)
    }

    /// Brings an attempt to decoding.
    mutating func run(_ terms: AttemptTerms) {
        _ = reserve(terms)
        _ = offerKV(terms.attempt)
        _ = land(terms.attempt, 0, 3)
        _ = endKV(terms.attempt)
    }
}

func sends(_ message: ControlMessage, to link: LinkID = WorkerBench.gateway) -> WorkerAction {
    .send(message, to: link)
}

func accepts(_ attempt: AttemptID) -> WorkerAction {
    sends(.prefillAccepted(PrefillAccepted(attempt: attempt)))
}

func writes(
    _ attempt: AttemptID, at index: Int, _ tokens: TokenID..., finish: FinishReason? = nil
) -> WorkerAction {
    sends(
        .tokenBatch(
            TokenBatch(
                attempt: attempt, firstIndex: index,
                tokens: tokens.map { TokenOutput(token: $0) }, finish: finish)))
}

extension [WorkerAction] {
    var rejection: FailureCode? {
        if case .send(.prefillRejected(let rejected), _) = only { rejected.code } else { nil }
    }

    var refusal: ReservationRefused? {
        if case .send(.reservationRefused(let refused), _) = only { refused } else { nil }
    }

    /// Codes of failures reported to gateways.
    var failures: [FailureCode] {
        compactMap {
            if case .send(.requestFailed(let failed), _) = $0 { failed.code } else { nil }
        }
    }

    /// Codes of the last words on transfers.
    var transferAnswers: [FailureCode?] {
        compactMap { if case .answerTransfer(let done) = $0 { done.code } else { nil } }
    }

    var aborts: [AttemptID] {
        compactMap { if case .abortTransfer(let attempt, _) = $0 { attempt } else { nil } }
    }
}
