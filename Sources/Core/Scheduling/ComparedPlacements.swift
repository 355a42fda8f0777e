package import ClusterRules
package import ServingTypes

/// Splitwise's policy: fewest pending tokens (join the shortest queue).
///
/// Meant for early placement: Splitwise chooses both workers when a request arrives.
package struct ShortestQueuePlacement: PlacementPolicy {
    package init() {}

    package func prefillWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID? {
        candidates.least(using: &generator, cost: \.pendingTokens)
    }

    package func decodeWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID? {
        candidates.least(using: &generator, cost: \.pendingTokens)
    }
}

/// The baseline P/D-Serve compares itself with: fewest own open requests.
package struct LeastConnectionsPlacement: PlacementPolicy {
    package init() {}

    package func prefillWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID? {
        candidates.least(using: &generator, cost: \.openRequests)
    }

    package func decodeWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID? {
        candidates.least(using: &generator, cost: \.openRequests)
    }
}

/// Each worker in turn, in the order of their names, whatever their load.
///
/// It goes on after the name it chose last, so candidates may come and go.
package struct RoundRobinPlacement: PlacementPolicy {
    private var lastPrefill: InstanceID?
    private var lastDecode: InstanceID?

    package init() {}

    package mutating func prefillWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID? {
        let chosen = Self.next(after: lastPrefill, among: candidates)
        lastPrefill = chosen ?? lastPrefill
        return chosen
    }

    package mutating func decodeWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID? {
        let chosen = Self.next(after: lastDecode, among: candidates)
        lastDecode = chosen ?? lastDecode
        return chosen
    }

    /// The least name above `last`, or the least of all; a binary search, since comparing ten
    /// thousand names takes a millisecond.
    private static func next(
        after last: InstanceID?, among candidates: [PlacementCandidate]
    ) -> InstanceID? {
        guard let last else { return candidates.first?.instance }
        var low = 0
        var high = candidates.count
        while low < high {
            let middle = (low + high) / 2
            if candidates[middle].instance > last { high = middle } else { low = middle + 1 }
        }
        return low < candidates.count ? candidates[low].instance : candidates.first?.instance
    }
}

extension PlacementName {
    /// A new policy of this name; one that goes by turns keeps its turn in itself.
    package func makePolicy() -> any PlacementPolicy {
        switch self {
        case .onDemand: OnDemandPlacement()
        case .shortestQueue: ShortestQueuePlacement()
        case .roundRobin: RoundRobinPlacement()
        case .leastConnections: LeastConnectionsPlacement()
        }
    }
}
