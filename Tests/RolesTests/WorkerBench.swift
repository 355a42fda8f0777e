import InferenceEngine
import KVHandOver
import Roles
import ServingTypes

/// A worker's machine with a clock and short ways to say what happens to it.
struct WorkerBench {
    static let instance = InstanceID("worker-1")
    static let gateway = LinkID(1)
    static let otherGateway = LinkID(2)
    /// Connections that bring KV.
    static let link = KVLinkID(1)
    static let otherLink = KVLinkID(2)

    var machine: WorkerMachine
    var now = MonotonicTime.start

    /// - Parameters:
    ///   - capacity: tokens of KV.
    init(
        _ role: ServingRole, slots: Int = 2, sequences: Int = 3, capacity: Int = 100,
        context: Int = 60,
        _ change: (inout WorkerLimits) -> Void = { _ in }
    ) {
        var limits = WorkerLimits(
            prefillSlots: slots, decodeSequences: sequences, kvCapacityTokens: capacity,
            contextTokens: context, kvBytesPerToken: 10)
        change(&limits)
        machine = WorkerMachine(instance: Self.instance, role: role, limits: limits)
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
        _ terms: AttemptTerms, prompt: [TokenID] = [1, 2, 3], held: Int = 0,
        from link: LinkID = gateway
    ) -> [WorkerAction] {
        hear(
            .prefillOffer(
                PrefillOffer(
                    terms: terms, decodeInstance: decode1,
                    decodeBulkAddress: NetworkAddress(host: "decode-1", port: 2),
                    secret: secret(9), heldTokens: held)), tokens: prompt, from: link)
    }

    mutating func reserve(
        _ terms: AttemptTerms, prompt: [TokenID] = [1, 2, 3], from link: LinkID = gateway
    ) -> [WorkerAction] {
        hear(.reserveKV(ReserveKV(terms: terms)), tokens: prompt, from: link)
    }

    mutating func cancel(_ attempt: AttemptID) -> [WorkerAction] {
        hear(.cancelRequest(CancelRequest(attempt: attempt)))
    }

    // MARK: Engine

    mutating func engine(_ event: EngineEvent) -> [WorkerAction] {
        machine.engine(event, now: now)
    }

    mutating func sampled(
        _ sequence: UInt64, _ token: TokenID, finish: FinishReason? = nil
    ) -> [WorkerAction] {
        engine(.token(SequenceID(sequence), TokenOutput(token: token), finish: finish))
    }

    mutating func engineFailed(
        _ sequence: UInt64, _ error: EngineError = .computeFailed(code: -1)
    ) -> [WorkerAction] {
        engine(.failed(SequenceID(sequence), error))
    }

    mutating func engineCancelled(_ sequence: UInt64) -> [WorkerAction] {
        engine(.cancelled(SequenceID(sequence)))
    }

    mutating func imported(_ sequence: UInt64, tokens: Int) -> [WorkerAction] {
        engine(.imported(SequenceID(sequence), tokens: tokens))
    }

    mutating func refused(_ sequence: UInt64, at token: Int) -> [WorkerAction] {
        engine(
            .blockRefused(SequenceID(sequence), expectedToken: token, reason: "checksum"))
    }

    // MARK: Transfers

    mutating func offerKV(
        _ attempt: AttemptID, secret number: UInt64 = 9, tokens: Int = 3, from start: Int = 0,
        chunkTokens: Int = 60, fingerprint: ModelFingerprint = model,
        by sender: InstanceID = prefill1, on link: KVLinkID = link
    ) -> [WorkerAction] {
        machine.kvOffered(
            KVOffer(
                attempt: attempt, secret: secret(number), fingerprint: fingerprint,
                tokens: tokens, startToken: start, chunkTokens: chunkTokens), from: sender,
            fingerprint: model, on: link, now: now)
    }

    mutating func begin(
        _ chunk: ChunkFacts, of attempt: AttemptID, by sender: InstanceID = prefill1,
        on link: KVLinkID = link
    ) -> (isWanted: Bool, actions: [WorkerAction]) {
        machine.kvBegins(chunk, of: attempt, from: sender, on: link, now: now)
    }

    mutating func landed(
        _ chunk: ChunkFacts, of attempt: AttemptID, on link: KVLinkID = link
    ) -> (isKept: Bool, actions: [WorkerAction]) {
        machine.kvLanded(chunk, of: attempt, on: link, now: now)
    }

    mutating func missed(
        _ chunk: ChunkFacts, of attempt: AttemptID, isDamaged: Bool = true,
        on link: KVLinkID = link
    ) -> [WorkerAction] {
        machine.kvMissed(
            chunk, of: attempt, on: link, isDamaged: isDamaged, reason: "piece 1", now: now)
    }

    /// A chunk comes and lands; gives what follows.
    mutating func land(
        _ attempt: AttemptID, _ start: Int, _ count: Int, round: UInt32 = 1,
        on link: KVLinkID = link
    ) -> [WorkerAction] {
        let chunk = chunk(start, count, round: round)
        let (isWanted, actions) = begin(chunk, of: attempt, on: link)
        return actions + (isWanted ? landed(chunk, of: attempt, on: link).actions : [])
    }

    /// - Parameter chunks: first token and tokens of each.
    mutating func endKV(
        _ attempt: AttemptID, tokens: Int = 3, first: TokenID = 7,
        of chunks: [(start: Int, count: Int)], by sender: InstanceID = prefill1,
        on link: KVLinkID = link
    ) -> [WorkerAction] {
        let digest = PayloadDigest(chunks.map { chunk($0.start, $0.count) }).value
        let end = KVEnd(
            attempt: attempt, tokens: tokens, firstToken: TokenOutput(token: first),
            digest: digest)
        return machine.kvEnded(end, from: sender, on: link, now: now)
    }

    mutating func linkLost(_ link: KVLinkID = link) -> [WorkerAction] {
        machine.kvLinkLost(link, now: now)
    }

    mutating func tick(_ duration: Duration) -> [WorkerAction] {
        now = now + duration
        return machine.tick(now: now)
    }

    /// Brings an attempt to decoding, under the sequence it got.
    mutating func run(_ terms: AttemptTerms, prompt: [TokenID] = [1, 2, 3], as number: UInt64) {
        _ = reserve(terms, prompt: prompt)
        _ = offerKV(terms.attempt, tokens: prompt.count)
        _ = land(terms.attempt, 0, prompt.count)
        _ = endKV(terms.attempt, tokens: prompt.count, of: [(0, prompt.count)])
        _ = imported(number, tokens: prompt.count)
    }
}

/// A chunk whose tokens take 10 bytes each.
func chunk(_ start: Int, _ count: Int, bytes: Int? = nil, round: UInt32 = 1) -> ChunkFacts {
    ChunkFacts(
        tokenStart: start, tokenCount: count, bytes: bytes ?? 10 * count, checksum: 5,
        round: round)
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

    /// What senders of KV hear.
    var answers: [ControlMessage] {
        compactMap { if case .sendKV(let message, _) = $0 { message } else { nil } }
    }

    /// Codes of the last words on transfers; nil for success.
    var transferAnswers: [FailureCode?] {
        answers.compactMap { if case .kvDone(let done) = $0 { .some(done.code) } else { nil } }
    }

    var grant: KVGrant? {
        answers.compactMap { if case .kvGrant(let grant) = $0 { grant } else { nil } }.only
    }

    var resend: KVResend? {
        answers.compactMap { if case .kvResend(let resend) = $0 { resend } else { nil } }.only
    }

    /// Credit by request.
    var credits: [UInt64: Int] {
        reduce(into: [:]) { credits, action in
            guard case .sendKV(.kvCredit(let credit), _) = action else { return }
            credits[credit.attempt.request.low, default: 0] += credit.bytes
        }
    }

    /// Chunks that go to the engine, by first token.
    var imports: [Int] {
        flatMap { action -> [Int] in
            if case .importChunks(_, _, let starts) = action { starts } else { [] }
        }
    }

    var job: SequenceJob? {
        compactMap { if case .run(let job) = $0 { job } else { nil } }.only
    }

    var granted: ReservationGranted? {
        compactMap {
            if case .send(.reservationGranted(let granted), _) = $0 { granted } else { nil }
        }.only
    }

    var aborts: [AttemptID] {
        compactMap { if case .abortTransfer(let attempt, _) = $0 { attempt } else { nil } }
    }
}
