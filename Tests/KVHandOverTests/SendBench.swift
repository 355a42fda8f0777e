import KVHandOver
import ServingTypes

/// A sending machine with a clock and short ways to say what happens to it.
struct SendBench {
    typealias Action = KVSendMachine.Action

    var machine: KVSendMachine
    var now = MonotonicTime.start

    init(connections: Int = 1, _ change: (inout KVHandOverLimits) -> Void = { _ in }) {
        var limits = KVHandOverLimits()
        limits.connections = connections
        change(&limits)
        machine = KVSendMachine(limits: limits)
    }

    mutating func open(
        _ number: UInt64 = 1, tokens: Int = 30, from start: Int = 0,
        expires: MonotonicTime = seconds(60)
    ) -> [Action] {
        machine.open(plan(number, tokens: tokens, from: start, expires: expires), now: now)
    }

    private func plan(
        _ number: UInt64, tokens: Int, from start: Int, expires: MonotonicTime
    ) -> SendingPlan {
        SendingPlan(
            attempt: attempt(number), secret: ReservationSecret(high: 0, low: 9),
            fingerprint: model, tokens: tokens, startToken: start, chunkTokens: 10,
            expires: expires)
    }

    mutating func connected(_ index: Int = 0) -> [Action] {
        machine.connected(index, now: now)
    }

    mutating func lost(_ index: Int = 0) -> [Action] {
        machine.lost(index, reason: "cut", now: now)
    }

    mutating func export(_ start: Int, _ count: Int = 10, of number: UInt64 = 1) -> [Action] {
        machine.exported(attempt(number), chunk(start, count, round: 0), now: now)
    }

    mutating func finish(_ number: UInt64 = 1, tokens: Int = 30) -> [Action] {
        machine.finish(
            KVEnd(
                attempt: attempt(number), tokens: tokens, firstToken: TokenOutput(token: 42)),
            now: now)
    }

    mutating func grant(
        _ number: UInt64 = 1, held: Int = 0, credit: Int = 1000, round: UInt32 = 1
    ) -> [Action] {
        machine.received(
            .kvGrant(
                KVGrant(
                    attempt: attempt(number), heldTokens: held, maximumChunkBytes: 1000,
                    creditBytes: credit, round: round)), now: now)
    }

    mutating func credit(_ bytes: Int, of number: UInt64 = 1) -> [Action] {
        machine.received(
            .kvCredit(KVCredit(attempt: attempt(number), bytes: bytes)), now: now)
    }

    mutating func resend(
        from token: Int, of number: UInt64 = 1, credit: Int = 1000, round: UInt32 = 2
    ) -> [Action] {
        machine.received(
            .kvResend(
                KVResend(
                    attempt: attempt(number), fromToken: token, creditBytes: credit,
                    round: round, reason: "checksum")), now: now)
    }

    mutating func done(_ number: UInt64 = 1, _ code: FailureCode? = nil) -> [Action] {
        machine.received(.kvDone(KVDone(attempt: attempt(number), code: code)), now: now)
    }

    mutating func sent(
        _ start: Int, _ count: Int = 10, of number: UInt64 = 1, round: UInt32 = 1,
        connection: Int = 0, isWhole: Bool = true
    ) -> [Action] {
        machine.sent(
            attempt(number), chunk(start, count, round: round), connection: connection,
            isWhole: isWhole, now: now)
    }

    mutating func abort(_ number: UInt64 = 1) -> [Action] {
        machine.abort(attempt(number), reason: "not wanted", now: now)
    }

    mutating func tick(_ duration: Duration) -> [Action] {
        now = now + duration
        return machine.tick(now: now)
    }

    /// Connected and granted, with these chunks exported; the first is being sent.
    static func sending(
        _ starts: Int..., credit: Int = 1000, connections: Int = 1,
        _ change: (inout KVHandOverLimits) -> Void = { _ in }
    ) -> SendBench {
        var bench = SendBench(connections: connections, change)
        _ = bench.open()
        _ = bench.connected()
        _ = bench.grant(credit: credit)
        for start in starts { _ = bench.export(start) }
        return bench
    }
}

func offers(
    _ number: UInt64 = 1, tokens: Int = 30, from start: Int = 0, on connection: Int = 0
) -> KVSendMachine.Action {
    .send(
        .kvOffer(
            KVOffer(
                attempt: attempt(number), secret: ReservationSecret(high: 0, low: 9),
                fingerprint: model, tokens: tokens, startToken: start, chunkTokens: 10)),
        connection: connection)
}

func sends(
    _ start: Int, _ count: Int = 10, of number: UInt64 = 1, round: UInt32 = 1,
    on connection: Int = 0
) -> KVSendMachine.Action {
    .sendChunk(attempt(number), chunk(start, count, round: round), connection: connection)
}

extension [KVSendMachine.Action] {
    /// First tokens of the chunks that are sent.
    var starts: [Int] {
        compactMap { if case .sendChunk(_, let chunk, _) = $0 { chunk.tokenStart } else { nil } }
    }

    /// Transfers of which a chunk is sent.
    var senders: [UInt64] {
        compactMap {
            if case .sendChunk(let attempt, _, _) = $0 { attempt.request.low } else { nil }
        }
    }

    /// Transfers that are offered, and where.
    var offered: [UInt64: Int] {
        reduce(into: [:]) { offered, action in
            if case .send(.kvOffer(let offer), let connection) = action {
                offered[offer.attempt.request.low] = connection
            }
        }
    }

    var connects: [Int] {
        compactMap { if case .connect(let index) = $0 { index } else { nil } }
    }

    var disconnects: [Int] {
        compactMap { if case .disconnect(let index, _) = $0 { index } else { nil } }
    }

    /// The last word to the receiver, and on which connection.
    var end: (KVEnd, connection: Int)? {
        for case .send(.kvEnd(let end), let connection) in self { return (end, connection) }
        return nil
    }

    /// Transfers given up, as the receivers hear it.
    var aborts: [UInt64] {
        compactMap {
            if case .send(.kvAbort(let abort), _) = $0 { abort.attempt.request.low } else { nil }
        }
    }

    var breaksOff: [UInt64] {
        compactMap {
            if case .breakOff(let attempt) = $0 { attempt.request.low } else { nil }
        }
    }

    /// Transfers that are over, with the code of their failure.
    var ended: [UInt64: FailureCode?] {
        reduce(into: [:]) { ended, action in
            if case .ended(let attempt, let failure, _) = action {
                ended[attempt.request.low] = .some(failure?.code)
            }
        }
    }

    var summary: TransferSummary? {
        for case .ended(_, _, let summary) in self { return summary }
        return nil
    }
}
