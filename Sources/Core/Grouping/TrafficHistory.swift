import ServingTypes

/// What gateways saw in a span of time.
struct TrafficSums: Sendable, Hashable {
    var arrived = 0
    var completed = 0
    var rejected = 0
    var refused = 0
    var prefillSeconds = 0.0
    var endToEndSeconds = 0.0
    var promptTokens = 0
    var cachedTokens = 0
    var outputTokens = 0

    init() {}

    init(_ traffic: GroupTraffic) {
        arrived = max(0, traffic.arrived)
        completed = max(0, traffic.completed)
        rejected = max(0, traffic.rejected)
        refused = max(0, traffic.refused)
        prefillSeconds = max(0, traffic.prefill.seconds)
        endToEndSeconds = max(0, traffic.endToEnd.seconds)
        promptTokens = max(0, traffic.promptTokens)
        cachedTokens = max(0, traffic.cachedTokens)
        outputTokens = max(0, traffic.outputTokens)
    }

    static func += (left: inout TrafficSums, right: TrafficSums) {
        left.arrived &+= right.arrived
        left.completed &+= right.completed
        left.rejected &+= right.rejected
        left.refused &+= right.refused
        left.prefillSeconds += right.prefillSeconds
        left.endToEndSeconds += right.endToEndSeconds
        left.promptTokens &+= right.promptTokens
        left.cachedTokens &+= right.cachedTokens
        left.outputTokens &+= right.outputTokens
    }

    private func mean(_ sum: Double) -> Double { sum / Double(max(1, completed)) }

    /// Means over the completed requests.
    var meanPrefillSeconds: Double { mean(prefillSeconds) }
    var meanEndToEndSeconds: Double { mean(endToEndSeconds) }
    /// Prompt tokens that had to be computed.
    var meanNewTokens: Double { max(0, mean(Double(promptTokens - cachedTokens))) }
    var meanOutputTokens: Double { mean(Double(outputTokens)) }
    /// T_p/E2E.
    var prefillShare: Double {
        endToEndSeconds > 0 ? prefillSeconds / endToEndSeconds : 0
    }
}

/// The traffic of one pool over the last two windows.
struct TrafficHistory: Sendable {
    private struct Entry: Sendable {
        var index: Int64
        var sums: TrafficSums
    }

    private struct Source: Hashable {
        var gateway: InstanceID
        var group: GroupID
    }

    private var entries: [Entry] = []
    private var waitingBySource: [Source: Int] = [:]
    /// Since when nothing waits; nil: something does, or nothing was reported yet.
    private(set) var calmSince: MonotonicTime?
    private let entryNanoseconds: Int64
    private let capacity: Int64

    init(limits: GroupLimits) {
        entryNanoseconds = max(1, limits.windowEntry.nanoseconds)
        capacity = 2 * limits.window.nanoseconds / entryNanoseconds + 2
    }

    /// Requests that wait now, in all gateways.
    var waiting: Int { waitingBySource.values.reduce(0, +) }

    mutating func add(_ traffic: GroupTraffic, from gateway: InstanceID, now: MonotonicTime) {
        let index = now.nanoseconds / entryNanoseconds
        if let last = entries.indices.last, entries[last].index >= index {
            entries[last].sums += TrafficSums(traffic)
        } else {
            entries.append(Entry(index: index, sums: TrafficSums(traffic)))
            let oldest = index - capacity
            entries.removeAll { $0.index < oldest }
        }
        let source = Source(gateway: gateway, group: traffic.group)
        waitingBySource[source] = traffic.waiting > 0 ? traffic.waiting : nil
        noteWaiting(now)
    }

    mutating func forget(gateway: InstanceID, now: MonotonicTime) {
        waitingBySource = waitingBySource.filter { $0.key.gateway != gateway }
        noteWaiting(now)
    }

    private mutating func noteWaiting(_ now: MonotonicTime) {
        calmSince = waiting > 0 ? nil : calmSince ?? now
    }

    /// What was reported after `from`, until `to`, to the precision of an entry.
    func sums(from: MonotonicTime, to: MonotonicTime) -> TrafficSums {
        let first = from.nanoseconds / entryNanoseconds
        let end = to.nanoseconds / entryNanoseconds
        var sums = TrafficSums()
        for entry in entries where entry.index > first && entry.index <= end {
            sums += entry.sums
        }
        return sums
    }
}
