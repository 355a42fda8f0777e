import ServingTypes

/// How requests were placed since the gateway started; each attempt counts.
package struct PlacementCounts: Sendable, Hashable {
    /// Room first, then a slot elsewhere.
    package var early = 0
    /// A slot first, room after the first token.
    package var late = 0
    /// The decode-worker computes the prompt itself since that is sooner.
    package var deflected = 0
    /// A decode-worker computes the prompt since none that prefills is left.
    package var decodeOnly = 0
    /// A prefill-worker decodes since none that decodes is left.
    package var prefillOnly = 0
    /// Sequences that went on in another decode-worker since theirs was leaving.
    package var moved = 0
    /// Offers that were rejected, and reservations that were refused.
    package var rejected = 0
    package var refused = 0
    /// Requests that had no slot when their first token was due.
    package var expired = 0
    /// Requests that were answered as soon as no worker could be in time for their first token.
    package var shed = 0

    package init() {}
}

/// What the gateway tells the scheduler of its groups.
struct GatewayTraffic: Sendable {
    private struct Key: Hashable {
        var group: GroupID
        var scenario: String
    }

    private var reports: [Key: GroupTraffic] = [:]

    mutating func note(_ flight: GatewayFlight, _ body: (inout GroupTraffic) -> Void) {
        guard let group = flight.group else { return }
        let key = Key(group: group, scenario: flight.job.scenario)
        body(
            &reports[
                key, default: GroupTraffic(group: group, scenario: flight.job.scenario)])
    }

    mutating func completed(
        _ flight: GatewayFlight, _ settings: ScenarioSettings, now: MonotonicTime
    ) {
        let first = flight.times.firstToken ?? now
        let accepted = flight.times.accepted ?? first
        let further = flight.delivered.count - 1
        let isInTime = first - flight.arrived <= flight.job.ttftLimit ?? settings.ttftLimit
        let isFluent = further < 1 || (now - first) / further <= settings.tpotLimit
        note(flight) { traffic in
            traffic.completed += 1
            if isInTime, isFluent { traffic.good += 1 }
            traffic.ttft += first - flight.arrived
            traffic.prefill += first - accepted
            traffic.endToEnd += now - accepted
            traffic.promptTokens += flight.job.promptTokens.count
            traffic.cachedTokens += flight.times.cachedTokens
            traffic.outputTokens += flight.delivered.count
        }
    }

    /// Gives what was noted, sorted, and begins anew.
    mutating func take(waiting: [GroupID: Int]) -> [GroupTraffic] {
        var waiting = waiting
        let taken = reports.values.sorted {
            ($0.group.name, $0.scenario) < ($1.group.name, $1.scenario)
        }.map { report in
            var report = report
            // Those of a group that serves several scenarios are not told apart.
            report.waiting = waiting.removeValue(forKey: report.group) ?? 0
            return report
        }
        reports = [:]
        return taken
    }
}
