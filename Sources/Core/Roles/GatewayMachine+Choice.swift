import Scheduling
import ServingTypes

/// Which worker is asked.
extension GatewayMachine {
    /// The position of the worker to ask; nil if nobody may be asked now.
    mutating func choose(
        _ list: GatewayGroup.List, of group: GroupID, for flight: inout GatewayFlight,
        opening: Int?, now: MonotonicTime
    ) -> Int? {
        guard let group = board.groups[group] else { return nil }
        let available = group.available(list).count
        guard available > 0 else { return nil }
        // Taken out, so that its storage is used again.
        var choice = scratch
        scratch = GatewayBoard.Choice()
        defer { scratch = choice }
        let holders = board.holders(
            (list == .prompts ? promptIndex : conversationIndex).hits(for: flight.blocks))
        let lateness =
            list == .prompts ? lateness(of: flight, in: group, now: now) : nil
        let start = available > limits.maximumCandidates ? generator.below(available) : 0
        board.find(
            &choice, in: list, of: group, for: flight, start: start, opening: opening,
            holders: holders, lateness: lateness, limits: limits)
        guard !choice.candidates.isEmpty else {
            if !choice.isComplete {
                flight.looksAgain = true
                flight.askAgainAt = now + limits.askAgainInterval
            }
            return nil
        }
        return policyChoice(list, for: flight, among: choice.candidates)
            .flatMap { board.positions[$0] }
    }

    private mutating func policyChoice(
        _ list: GatewayGroup.List, for flight: GatewayFlight,
        among candidates: [PlacementCandidate]
    ) -> InstanceID? {
        let bytesPerToken = board[candidates[0].instance]?.description.kvBytesPerToken ?? 0
        let request = PlacementRequest(
            promptTokens: flight.job.promptTokens.count,
            neededKVBytes: flight.neededTokens * bytesPerToken)
        let scenario = flight.job.scenario
        guard policies[scenario] != nil else {
            return list == .prompts
                ? policy.prefillWorker(for: request, among: candidates, using: &generator)
                : policy.decodeWorker(for: request, among: candidates, using: &generator)
        }
        return list == .prompts
            ? policies[scenario]?.prefillWorker(
                for: request, among: candidates, using: &generator)
            : policies[scenario]?.decodeWorker(for: request, among: candidates, using: &generator)
    }
}
