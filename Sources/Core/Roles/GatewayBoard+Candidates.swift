import Scheduling
import ServingTypes

/// Which workers a request may be offered to.
extension GatewayBoard {
    /// Who may be asked now, and whether all who may were looked at.
    struct Choice: Sendable {
        var candidates: [PlacementCandidate] = []
        var isComplete = true
    }

    /// Finds workers the flight may be offered to, or ask for room, now.
    ///
    /// - Parameters:
    ///   - choice: is filled; its storage is used again.
    ///   - start: the place in the list at which to begin, for large groups.
    ///   - opening: the worker whose call woke the flight, looked at first.
    ///   - hits: leading tokens of the prompt that workers are expected to hold.
    func find(
        _ choice: inout Choice, in list: GatewayGroup.List, of group: GatewayGroup,
        for flight: GatewayFlight, start: Int, opening: Int?, hits: [InstanceID: Int],
        limits: GatewayLimits
    ) {
        choice.candidates.removeAll(keepingCapacity: true)
        choice.isComplete = true
        let positions = group.available(list)
        guard !positions.isEmpty else { return }
        var first: [Int] = []
        if positions.count > limits.maximumCandidates {
            first =
                hits.keys.sorted().compactMap { self.positions[$0] } + [opening].compactMap { $0 }
            for position in first { consider(position, list, group.id, flight, hits, &choice) }
        }
        let looks = min(positions.count, limits.maximumLooks)
        var index = start % positions.count
        for _ in 0..<looks {
            if !first.contains(positions[index]) {
                consider(positions[index], list, group.id, flight, hits, &choice)
            }
            index += 1
            if index == positions.count { index = 0 }
            if choice.candidates.count >= limits.maximumCandidates { return }
        }
        choice.isComplete = looks == positions.count
    }

    private func consider(
        _ position: Int, _ list: GatewayGroup.List, _ group: GroupID, _ flight: GatewayFlight,
        _ hits: [InstanceID: Int], _ choice: inout Choice
    ) {
        let need: GatewayNeed = list == .prompts ? .prompts : .sequences
        let amount = need == .prompts ? 1 : flight.neededTokens
        guard workers[position].group == group, workers[position].canBeAsked(need),
            workers[position][need].allows(amount),
            flight.neededTokens <= workers[position].maximumTokens(need)
        else { return }
        let instance = workers[position].description.instance
        guard !flight.refused.contains(instance), !flight.tooLongFor.contains(instance) else {
            return
        }
        choice.candidates.append(candidate(position, need, hitTokens: hits[instance] ?? 0))
    }

    private func candidate(
        _ position: Int, _ need: GatewayNeed, hitTokens: Int
    ) -> PlacementCandidate {
        var candidate = PlacementCandidate(
            instance: workers[position].description.instance,
            openPromptTokens: workers[position].openPromptTokens,
            freeKVBytes: workers[position].freeKVBytes, hitTokens: hitTokens,
            prefillTokensPerSecond: workers[position].status.prefillTokensPerSecond,
            decodeStepMilliseconds: workers[position].status.decodeStepMilliseconds)
        switch need {
        case .prompts:
            candidate.openRequests = workers[position].openPrompts
            candidate.pendingTokens = workers[position].openPromptTokens
        case .sequences:
            candidate.openRequests = workers[position].sequences
            candidate.pendingTokens = workers[position].takenTokens
        }
        return candidate
    }

    /// Longest context of a group's workers, if each of them is too short for the flight.
    ///
    /// Workers that can't be reached now count too: they may come back.
    func contextTooShort(
        _ need: GatewayNeed, of group: GatewayGroup, for flight: GatewayFlight
    ) -> Int? {
        var longest: Int?
        for position in group.members(need) {
            let context = workers[position].maximumTokens(need)
            guard
                flight.neededTokens > context
                    || flight.tooLongFor.contains(workers[position].description.instance)
            else { return nil }
            longest = max(longest ?? 0, context)
        }
        return longest
    }

    /// As above, of either role.
    func contextTooShort(of group: GatewayGroup, for flight: GatewayFlight) -> Int? {
        contextTooShort(.prompts, of: group, for: flight)
            ?? contextTooShort(.sequences, of: group, for: flight)
    }
}
