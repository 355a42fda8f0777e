package import ServingTypes

/// A worker that could take a request, with what its gateway knows of it.
package struct PlacementCandidate: Sendable, Hashable {
    package var instance: InstanceID
    /// Prompt tokens this gateway has placed there whose prefill has not ended.
    package var openPromptTokens: Int
    /// KV bytes free by the last status, less what this gateway reserved since.
    package var freeKVBytes: Int
    /// Requests this gateway has placed there that have not ended.
    package var openRequests: Int
    /// Tokens still to be computed there, of all gateways: the last report and what was placed
    /// since.
    package var pendingTokens: Int
    /// Leading tokens of the prompt whose KV it is expected to hold.
    package var hitTokens: Int
    /// Measured rate of prefill; 0: unknown.
    package var prefillTokensPerSecond: Double
    /// Measured time of a decode step; 0: unknown.
    package var decodeStepMilliseconds: Double

    package init(
        instance: InstanceID, openPromptTokens: Int = 0, freeKVBytes: Int = 0,
        openRequests: Int = 0, pendingTokens: Int = 0, hitTokens: Int = 0,
        prefillTokensPerSecond: Double = 0, decodeStepMilliseconds: Double = 0
    ) {
        self.instance = instance
        self.openPromptTokens = openPromptTokens
        self.freeKVBytes = freeKVBytes
        self.openRequests = openRequests
        self.pendingTokens = pendingTokens
        self.hitTokens = hitTokens
        self.prefillTokensPerSecond = prefillTokensPerSecond
        self.decodeStepMilliseconds = decodeStepMilliseconds
    }
}

/// What of a request matters for its place.
package struct PlacementRequest: Sendable, Hashable {
    package var promptTokens: Int
    /// KV bytes of the prompt and the longest answer on a decode-worker; 0: unknown.
    package var neededKVBytes: Int

    package init(promptTokens: Int = 0, neededKVBytes: Int = 0) {
        self.promptTokens = promptTokens
        self.neededKVBytes = neededKVBytes
    }
}

/// Decides which worker is asked next; it never has to be right, since a worker can say no.
///
/// Candidates come in the ascending order of their names. A choice looks at each of them once or
/// twice, sorts nothing and allocates nothing.
package protocol PlacementPolicy: Sendable {
    /// The prefill-worker to offer the prompt to; nil if there is none.
    mutating func prefillWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID?

    /// The decode-worker to ask for room; nil if there is none.
    mutating func decodeWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID?
}

extension [PlacementCandidate] {
    /// The candidate of least cost; of equals each is as likely.
    func least<Cost: Comparable>(
        using generator: inout SeededGenerator, cost: (PlacementCandidate) -> Cost
    ) -> InstanceID? {
        guard var leastCost = first.map(cost) else { return nil }
        var chosen = 0
        var equals = 1
        for index in indices.dropFirst() {
            let next = cost(self[index])
            if next < leastCost {
                leastCost = next
                chosen = index
                equals = 1
            } else if next == leastCost {
                equals += 1
            }
        }
        var passed = Int.random(in: 0..<equals, using: &generator)
        while passed > 0 {
            chosen += 1
            if cost(self[chosen]) == leastCost { passed -= 1 }
        }
        return self[chosen].instance
    }
}
