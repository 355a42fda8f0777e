package import ServingTypes

/// Which group serves a request.
extension GatewayMachine {
    /// Finds a group for a request that no worker knows of; gives why it can't be served at all.
    ///
    /// While none can serve it, it waits outside of all groups.
    mutating func assign(_ flight: inout GatewayFlight) -> GenerationFailure? {
        let settings = settings(of: flight.job.scenario)
        if let id = flight.group, let group = board.groups[id], group.canServe(settings),
            group.takes(flight), board.groups(for: flight.demand).contains(id)
        {
            return nil
        }
        let all = board.groups(for: flight.demand).compactMap { board.groups[$0] }
        let known = all.filter { speaks($0, flight.job.vocabulary) }
        var able = known.filter { $0.canServe(settings) && $0.takes(flight) }
        if able.isEmpty, flight.fingerprint == nil, known.count < all.count {
            // Its tokens mean nothing to the groups that are open.
            able = known.filter { $0.canServe(settings) && $0.rules.state == .draining }
        }
        flight.group = nil
        if let fingerprint = flight.fingerprint {
            let same = able.filter { $0.rules.fingerprint == fingerprint }
            let tooShort = same.compactMap { board.contextTooShort(of: $0, for: flight) }
            if tooShort.count < same.count {
                flight.group = drawn(
                    among: same.filter { board.contextTooShort(of: $0, for: flight) == nil })
                return nil
            }
            guard flight.delivered.isEmpty, flight.job.mayChangeRevision else {
                return tooShort.max().map { .tooLong(contextTokens: $0) }
                    ?? revisionIsGone(fingerprint, for: flight, among: known)
            }
        }
        let contexts = known.map { board.contextTooShort(of: $0, for: flight) }
        if !known.isEmpty, !contexts.contains(nil) {
            return .tooLong(contextTokens: contexts.compactMap { $0 }.max() ?? 0)
        }
        flight.group = drawn(
            among: able.filter { board.contextTooShort(of: $0, for: flight) == nil })
        return nil
    }

    private func speaks(_ group: GatewayGroup, _ vocabulary: VocabularyID?) -> Bool {
        vocabulary.map { vocabularies[group.rules.modelPath] == $0 } ?? true
    }

    /// The model file of a group that may serve such a request, drawn by weight among those whose
    /// vocabulary is known; nil if there is none.
    package mutating func drawModelPath(scenario: String, modelName: String) -> String? {
        let demand = GatewayBoard.Demand(scenario: scenario, modelName: modelName)
        let spoken = board.groups(for: demand).compactMap { board.groups[$0] }.filter {
            vocabularies[$0.rules.modelPath] != nil && $0.rules.state != .forming
        }
        let settings = settings(of: scenario)
        let able = spoken.filter { $0.canServe(settings) }
        return drawn(among: able.isEmpty ? spoken : able)
            .flatMap { board.groups[$0]?.rules.modelPath }
    }

    /// Other vocabularies can be spoken now.
    ///
    /// - Parameter known: by model file; the empty path for groups that name none.
    package mutating func vocabulariesChanged(
        _ known: [String: VocabularyID], now: MonotonicTime
    ) -> [GatewayAction] {
        guard known != vocabularies else { return [] }
        vocabularies = known
        board.changedGroups.formUnion(board.groups.keys)
        return tick(now: now)
    }

    /// Draws an open group by weight, or takes one that is draining.
    private mutating func drawn(among groups: [GatewayGroup]) -> GroupID? {
        let open = groups.filter { $0.rules.state == .open }
        guard open.count > 1 else { return (open.first ?? groups.first)?.id }
        let total = open.reduce(0) { $0 + max(0, $1.rules.weight) }
        guard total > 0 else { return open[generator.below(open.count)].id }
        var left = generator.below(total)
        for group in open {
            left -= max(0, group.rules.weight)
            if left < 0 { return group.id }
        }
        return open.last?.id
    }

    /// Why it can't go on, unless its groups are only out of reach and may come back.
    private func revisionIsGone(
        _ fingerprint: ModelFingerprint, for flight: GatewayFlight, among known: [GatewayGroup]
    ) -> GenerationFailure? {
        let isKnown = known.contains { $0.rules.fingerprint == fingerprint }
        guard !isKnown, board.scenarios.contains(flight.job.scenario) else { return nil }
        return .attemptsExhausted(
            attempts: flight.tries,
            reason: "no group is left with the model revision that began the answer")
    }

    /// A group changed: those who wait in it, or for any group, look again.
    mutating func review(_ id: GroupID, now: MonotonicTime) -> [GatewayAction] {
        var requests: [RequestID] = []
        if let group = board.groups[id] {
            for demand in board.unassignedDemands(for: id)
            where group.canServe(settings(of: demand.scenario)) {
                requests += board.unassigned[demand]?.entries.map(\.value) ?? []
            }
        }
        requests += board.waitingIn[id]?.entries.map(\.value) ?? []
        requests += strangers(since: id)
        return requests.flatMap { request in
            change(request) { machine, flight in machine.advance(&flight, now: now) }
        }
    }

    /// Requests that wait in another group, which took them before their scenario had this one.
    private func strangers(since id: GroupID) -> [RequestID] {
        guard let group = board.groups[id], !group.isImplicit else { return [] }
        return board.waitingIn.keys.filter { $0 != id }.sorted().flatMap { other in
            board.waitingIn[other]?.entries.map(\.value).filter { request in
                guard let flight = flights[request], flight.isUnbound else { return false }
                let groups = board.groups(for: flight.demand)
                return groups.contains(id) && !groups.contains(other)
            } ?? []
        }
    }
}

extension GatewayGroup {
    /// Whether it may take the request: a draining one only goes on with what it began.
    fileprivate func takes(_ flight: GatewayFlight) -> Bool {
        let isSame = rules.fingerprint == flight.fingerprint
        switch rules.state {
        case .forming: return false
        case .draining: return isSame
        case .open:
            let isBound = !flight.delivered.isEmpty || !flight.job.mayChangeRevision
            return isSame || flight.fingerprint == nil || !isBound
        }
    }
}
