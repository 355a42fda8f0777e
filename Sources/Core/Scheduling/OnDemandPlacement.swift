package import ServingTypes

/// P/D-Serve's on-demand forwarding: least own open work first, the next one after each rejection.
///
/// Prefill: least time until this prompt would be done there, counted from own open work, the part
/// of the prompt it does not hold yet and its rate; so a prefix hit outweighs just as much open
/// work as it saves.
///
/// Decode: the one with more free KV of two drawn at random, which spreads load nearly as well as
/// looking at all and keeps several gateways from choosing the same one (power of two choices).
/// Free bytes are divided by the step time where both are known: memory that is read faster counts
/// more. The worker that holds most of the conversation comes first as long as the request fits.
package struct OnDemandPlacement: PlacementPolicy {
    /// Fewer held tokens don't attract a request: nearly every prompt shares a few.
    package var fewestHeldTokens = 32
    /// Room the holder of a conversation must have at least, as a fraction of the alternative's;
    /// without it one popular beginning would gather all requests on one worker.
    package var holderRoomFraction = 0.25

    package init() {}

    package func prefillWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID? {
        var rates = 0.0
        var known = 0
        for candidate in candidates where candidate.prefillTokensPerSecond > 0 {
            rates += candidate.prefillTokensPerSecond
            known += 1
        }
        // One that was not measured yet counts as an average one.
        let usualRate = known > 0 ? rates / Double(known) : 1
        return candidates.least(using: &generator) { candidate in
            let rate = candidate.prefillTokensPerSecond
            let rest = max(0, request.promptTokens - candidate.hitTokens)
            return Double(candidate.openPromptTokens + rest) / (rate > 0 ? rate : usualRate)
        }
    }

    package func decodeWorker(
        for request: PlacementRequest, among candidates: [PlacementCandidate],
        using generator: inout SeededGenerator
    ) -> InstanceID? {
        guard candidates.count > 1 else { return candidates.first?.instance }
        let first = Int.random(in: candidates.indices, using: &generator)
        // One of the others, each as likely.
        var second = Int.random(in: 0..<candidates.count - 1, using: &generator)
        if second >= first { second += 1 }
        let drawn =
            isRoomier(candidates[second], than: candidates[first], for: request) ? second : first
        guard let holder = holder(for: request, among: candidates) else {
            return candidates[drawn].instance
        }
        let enough = holderRoomFraction * Double(candidates[drawn].freeKVBytes)
        return Double(candidates[holder].freeKVBytes) >= enough
            ? candidates[holder].instance : candidates[drawn].instance
    }

    /// Index of the candidate that holds most of the prompt and has room; nil if none holds enough.
    private func holder(
        for request: PlacementRequest, among candidates: [PlacementCandidate]
    ) -> Int? {
        var chosen: Int?
        var mostTokens = fewestHeldTokens - 1
        var mostBytes = 0
        for index in candidates.indices {
            let tokens = candidates[index].hitTokens
            guard tokens >= mostTokens, tokens >= fewestHeldTokens,
                candidates[index].freeKVBytes >= request.neededKVBytes
            else { continue }
            let bytes = candidates[index].freeKVBytes
            if tokens > mostTokens || bytes > mostBytes {
                chosen = index
                mostTokens = tokens
                mostBytes = bytes
            }
        }
        return chosen
    }

    private func isRoomier(
        _ left: PlacementCandidate, than right: PlacementCandidate, for request: PlacementRequest
    ) -> Bool {
        let leftFits = left.freeKVBytes >= request.neededKVBytes
        guard leftFits == (right.freeKVBytes >= request.neededKVBytes) else { return leftFits }
        guard left.decodeStepMilliseconds > 0, right.decodeStepMilliseconds > 0 else {
            return left.freeKVBytes > right.freeKVBytes
        }
        return Double(left.freeKVBytes) * right.decodeStepMilliseconds
            > Double(right.freeKVBytes) * left.decodeStepMilliseconds
    }
}
