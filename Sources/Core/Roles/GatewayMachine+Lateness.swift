import Scheduling
import ServingTypes

/// What of a request decides whether a worker would be too late for it.
struct Lateness: Sendable {
    var tokens: Int
    /// Until its first token is due.
    var secondsLeft: Double
    /// What the measured rates are to be taken times.
    var stretch: Double
    /// Nobody else of its group waits for a slot.
    var isAlone: Bool

    /// Whether the worker is expected to be late with it.
    ///
    /// Nothing is expected of one whose rate was not measured. An idle worker is never late for one
    /// that waits alone: the forecast may be wrong, only trying tells, and it is in nobody's way.
    func rulesOut(_ standing: GatewayStanding, hitTokens: Int) -> Bool {
        guard !(isAlone && standing.openPrompts == 0),
            let seconds = PrefillForecast.seconds(
                tokens: standing.openPromptTokens + max(1, tokens - hitTokens),
                tokensPerSecond: standing.prefillTokensPerSecond)
        else { return false }
        return seconds * stretch > secondsLeft
    }
}

/// Prompts whose first token would be late are not begun: they would take the time of others.
extension GatewayMachine {
    /// Nil for a request that has no limit for its first token, has one already, or starts again.
    func lateness(
        of flight: GatewayFlight, in group: GatewayGroup, now: MonotonicTime
    ) -> Lateness? {
        guard flight.job.ttftLimit != nil, flight.attempt == 1, flight.slot == .none else {
            return nil
        }
        let place = GatewayBoard.Place(group: group.id, need: .prompts)
        let waiting = board.waiting[place]
        let isListed = waiting?.contains(flight.job.request) ?? false
        return Lateness(
            tokens: flight.tokens.count, secondsLeft: (flight.due - now).seconds,
            stretch: group.forecast.stretch,
            isAlone: (waiting?.count ?? 0) - (isListed ? 1 : 0) <= 0)
    }

    /// Answers a request at once that waits although no worker could be in time for it any more.
    ///
    /// Known by the fastest worker of its group, as if that one had nothing else to do. While one
    /// rate is unknown, or the system is idle, it goes on waiting: the forecast may be wrong.
    mutating func shedIfLate(
        _ flight: inout GatewayFlight, in id: GroupID, now: MonotonicTime
    ) -> [GatewayAction] {
        flight.latestStart = nil
        board.readRates(of: id, now: now, limits: limits)
        guard let group = board.groups[id], group.fastestPrefill > 0,
            let late = lateness(of: flight, in: group, now: now)
        else { return [] }
        let held = promptIndex.hits(for: flight.blocks).values.max() ?? 0
        let seconds = PrefillForecast.seconds(
            tokens: late.tokens - held, tokensPerSecond: group.fastestPrefill)
        let needed = Duration.seconds((seconds ?? 0) * late.stretch)
        guard needed > flight.due - now else {
            flight.latestStart = flight.due + (.zero - needed)
            return []
        }
        guard !(late.isAlone && board.hasIdleWorker(group)) else { return [] }
        counts.shed += 1
        return fail(&flight, .tooLate(left: flight.due - now, needed: needed))
    }

    /// Notes what the first token is expected to take, to learn from it.
    func noteOffer(
        of flight: inout GatewayFlight, to position: Int, isLocal: Bool, now: MonotonicTime
    ) {
        flight.offer = nil
        // What a decode-worker takes besides its other sequences says nothing of the others.
        guard flight.job.ttftLimit != nil, !isLocal else { return }
        let standing = board.workers[position].standing
        let hits = promptIndex.hits(for: flight.blocks)
        let held = hits[board.workers[position].instance] ?? 0
        flight.offer = PrefillForecast.seconds(
            tokens: standing.openPromptTokens + max(1, flight.tokens.count - held),
            tokensPerSecond: standing.prefillTokensPerSecond
        ).map { GatewayOffer(sent: now, expectedSeconds: $0) }
    }

    /// A first token has come: how long it took is compared with what was expected.
    mutating func learnPrefillTime(of flight: inout GatewayFlight, now: MonotonicTime) {
        guard let offer = flight.offer, let group = flight.group else { return }
        flight.offer = nil
        board.groups[group]?.forecast.learn(
            expected: offer.expectedSeconds, taken: (now - offer.sent).seconds)
    }
}

extension GatewayBoard {
    /// Reads a group's fastest rate of prefill, now and then, since it looks at all its workers.
    mutating func readRates(of id: GroupID, now: MonotonicTime, limits: GatewayLimits) {
        guard let group = groups[id], now >= group.ratesUntil else { return }
        var fastest = 0.0
        for position in group.members(.prompts) where workers[position].standing.isUsable {
            let rate = workers[position].standing.prefillTokensPerSecond
            fastest = max(fastest, rate)
            guard rate > 0 else {
                fastest = 0
                break
            }
        }
        groups[id]?.fastestPrefill = fastest
        groups[id]?.ratesUntil = now + limits.rateInterval
    }

    /// Whether a worker can be asked that has no prompt of this gateway.
    func hasIdleWorker(_ group: GatewayGroup) -> Bool {
        group.available(.prompts).contains { workers[$0].standing.openPrompts == 0 }
    }
}
