import Scheduling
import ServingTypes

/// Which workers a request may be offered to.
extension GatewayBoard {
    /// Who may be asked now, and whether all who may were looked at.
    struct Choice: Sendable {
        var candidates: [PlacementCandidate] = []
        var isComplete = true
    }

    /// A worker that is expected to hold the beginning of a prompt.
    struct Holder: Sendable {
        var position: Int
        var tokens: Int
    }

    /// Those of an index' answer that are here, by their names.
    func holders(_ hits: [InstanceID: Int]) -> [Holder] {
        guard !hits.isEmpty else { return [] }
        return hits.sorted { $0.key < $1.key }.compactMap { instance, tokens in
            positions[instance].map { Holder(position: $0, tokens: tokens) }
        }
    }

    /// Finds workers the flight may be offered to, or ask for room, now.
    ///
    /// - Parameters:
    ///   - choice: is filled; its storage is used again.
    ///   - start: the place in the list at which to begin, for large groups.
    ///   - opening: the worker whose call woke the flight, looked at first.
    ///   - holders: those expected to hold leading tokens of the prompt.
    ///   - lateness: rules out workers that would be late; nil: none is.
    func find(
        _ choice: inout Choice, in list: GatewayGroup.List, of group: GatewayGroup,
        for flight: GatewayFlight, start: Int, opening: Int?, holders: [Holder],
        lateness: Lateness?, limits: GatewayLimits
    ) {
        choice.candidates.removeAll(keepingCapacity: true)
        choice.isComplete = true
        let positions = group.available(list)
        guard !positions.isEmpty else { return }
        var first: [Int] = []
        if positions.count > limits.maximumCandidates {
            first = holders.map(\.position)
            if let opening, !first.contains(opening) { first.append(opening) }
            for position in first where workers[position].group == group.id {
                consider(position, list, flight, holders, lateness, &choice)
            }
        }
        let looks = min(positions.count, limits.maximumLooks)
        var index = start % positions.count
        for _ in 0..<looks {
            if !first.contains(positions[index]) {
                consider(positions[index], list, flight, holders, lateness, &choice)
            }
            index += 1
            if index == positions.count { index = 0 }
            if choice.candidates.count >= limits.maximumCandidates { return }
        }
        choice.isComplete = looks == positions.count
    }

    private func consider(
        _ position: Int, _ list: GatewayGroup.List, _ flight: GatewayFlight, _ holders: [Holder],
        _ lateness: Lateness?, _ choice: inout Choice
    ) {
        let need: GatewayNeed = list == .prompts ? .prompts : .sequences
        let amount = need == .prompts ? 1 : flight.neededTokens
        let standing = workers[position].standing
        guard standing.canBeAsked(need), standing[need].allows(amount),
            flight.neededTokens <= standing.maximumTokens(need)
        else { return }
        if !flight.refused.isEmpty || !flight.tooLongFor.isEmpty {
            let instance = workers[position].instance
            guard !flight.refused.contains(instance), !flight.tooLongFor.contains(instance) else {
                return
            }
        }
        let held = holders.first { $0.position == position }?.tokens ?? 0
        if let lateness, lateness.rulesOut(standing, hitTokens: held) { return }
        choice.candidates.append(candidate(position, need, hitTokens: held))
    }

    private func candidate(
        _ position: Int, _ need: GatewayNeed, hitTokens: Int
    ) -> PlacementCandidate {
        let standing = workers[position].standing
        var candidate = PlacementCandidate(
            instance: workers[position].instance, openPromptTokens: standing.openPromptTokens,
            freeKVBytes: standing.freeKVBytes, hitTokens: hitTokens,
            prefillTokensPerSecond: standing.prefillTokensPerSecond,
            decodeStepMilliseconds: standing.decodeStepMilliseconds)
        switch need {
        case .prompts:
            candidate.openRequests = standing.openPrompts
            candidate.pendingTokens = standing.openPromptTokens
        case .sequences:
            candidate.openRequests = standing.sequences
            candidate.pendingTokens = standing.takenTokens
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
            let context = workers[position].standing.maximumTokens(need)
            guard
                flight.neededTokens > context
                    || flight.tooLongFor.contains(workers[position].instance)
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
