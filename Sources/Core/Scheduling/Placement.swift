package import ServingTypes

/// A worker that could take a request, with what its gateway knows of it.
package struct PlacementCandidate: Sendable, Hashable {
    package var instance: InstanceID
    /// Prompt tokens this gateway has placed there whose prefill has not ended.
    package var openPromptTokens: Int
    /// KV bytes free by the last status, less what this gateway reserved since.
    package var freeKVBytes: Int

    package init(instance: InstanceID, openPromptTokens: Int = 0, freeKVBytes: Int = 0) {
        self.instance = instance
        self.openPromptTokens = openPromptTokens
        self.freeKVBytes = freeKVBytes
    }
}

/// Decides which worker is asked next; it never has to be right, since a worker can say no.
package protocol PlacementPolicy: Sendable {
    /// The prefill-worker to offer the prompt to; nil if there is none.
    func prefillWorker(
        among candidates: [PlacementCandidate], using generator: inout SeededGenerator
    ) -> InstanceID?

    /// The decode-worker to ask for room; nil if there is none.
    func decodeWorker(
        among candidates: [PlacementCandidate], using generator: inout SeededGenerator
    ) -> InstanceID?
}

/// P/D-Serve's on-demand forwarding: least own open work first, the next one after each rejection.
///
/// Decode: the one with more free KV of two drawn at random, which spreads load nearly as well as
/// looking at all and keeps several gateways from choosing the same one (power of two choices).
package struct OnDemandPlacement: PlacementPolicy {
    package init() {}

    package func prefillWorker(
        among candidates: [PlacementCandidate], using generator: inout SeededGenerator
    ) -> InstanceID? {
        guard let least = candidates.lazy.map(\.openPromptTokens).min() else { return nil }
        let equals = candidates.lazy.count { $0.openPromptTokens == least }
        var choice = Int.random(in: 0..<equals, using: &generator)
        for candidate in candidates where candidate.openPromptTokens == least {
            if choice == 0 { return candidate.instance }
            choice -= 1
        }
        return nil
    }

    package func decodeWorker(
        among candidates: [PlacementCandidate], using generator: inout SeededGenerator
    ) -> InstanceID? {
        guard candidates.count > 1 else { return candidates.first?.instance }
        let first = Int.random(in: candidates.indices, using: &generator)
        // One of the others, each as likely.
        var second = Int.random(in: 0..<candidates.count - 1, using: &generator)
        if second >= first { second += 1 }
        return candidates[first].freeKVBytes >= candidates[second].freeKVBytes
            ? candidates[first].instance : candidates[second].instance
    }
}
