import ServingTypes

/// Workers in the lists of their groups.
extension GatewayBoard {
    // MARK: Views

    /// Takes over what the scheduler says; a worker that left stays while requests depend on it.
    ///
    /// Says whether anything but readings has changed; readings change no list.
    mutating func setMembers(_ view: GroupView) -> Bool {
        viewNumber += 1
        var hasChanged = setGroups(view.groups)
        for member in view.members where member.description.role.isWorker {
            if setMember(member) { hasChanged = true }
        }
        // Few leave at a time; but who does has to be found.
        for position in workers.indices
        where workers[position].seen != viewNumber && workers[position].standing.isMember {
            hasChanged = true
            change(position) { worker in
                worker.standing.isMember = false
                worker.group = nil
            }
        }
        if hasChanged {
            forgetGone()
            removeEmptyGroups()
            orderGroups()
        }
        return hasChanged
    }

    /// Takes over what a worker says of itself; changes no list.
    mutating func read(_ reading: MemberReading) {
        guard let position = positions[reading.instance] else { return }
        workers[position].standing.update(reading.status)
    }

    private mutating func setMember(_ member: GroupMember) -> Bool {
        let instance = member.description.instance
        guard let position = positions[instance] else {
            var worker = GatewayWorker(member, isConnected: connected.contains(instance))
            worker.group = groupID(of: member, otherwise: worker.facts.implicitGroup)
            worker.seen = viewNumber
            addWorker(worker)
            return true
        }
        workers[position].seen = viewNumber
        workers[position].standing.update(member.status)
        let isSameProcess = workers[position].facts.description == member.description
        let facts =
            isSameProcess ? workers[position].facts : GatewayWorkerFacts(member.description)
        let group = groupID(of: member, otherwise: facts.implicitGroup)
        let standing = workers[position].standing
        let isSame =
            isSameProcess && standing.isMember && standing.state == member.state
            && standing.role == member.role && workers[position].group == group
        guard !isSame else { return false }
        let isRestarted =
            workers[position].facts.description.incarnation != member.description.incarnation
        // A restarted one has said no to nobody, and neither has one in a new role.
        if isRestarted || standing.role != member.role {
            change(position) { $0.standing.isMember = false }
        }
        change(position) { worker in
            worker.become(facts)
            worker.standing.state = member.state
            worker.standing.role = member.role
            worker.group = group
            worker.standing.isMember = true
        }
        return true
    }

    private mutating func addWorker(_ worker: GatewayWorker) {
        let instance = worker.instance
        let position = freePositions.popLast() ?? workers.count
        if position == workers.count { workers.append(worker) } else { workers[position] = worker }
        positions[instance] = position
        // Listed for the first time: nothing to remove before.
        workers[position].standing.isMember = false
        change(position) { $0.standing.isMember = true }
    }

    private mutating func forgetGone() {
        for (instance, position) in positions
        where !workers[position].standing.isMember && workers[position].requests.isEmpty {
            for need in GatewayNeed.allCases { apply(.lift, to: position, need) }
            positions[instance] = nil
            freePositions.append(position)
        }
        freePositions.sort(by: >)
    }

    // MARK: Groups

    private func groupID(of member: GroupMember, otherwise implicit: GroupID) -> GroupID? {
        if let group = member.group, let known = groups[group], !known.isImplicit { return group }
        return scenarios.isEmpty || member.group == nil ? implicit : nil
    }

    /// Takes over the groups that the scheduler tells of; says whether any of them changed.
    private mutating func setGroups(_ told: [ServingGroup]) -> Bool {
        var gone = Set(groups.values.lazy.filter { !$0.isImplicit }.map(\.id))
        var hasChanged = false
        for rules in told {
            gone.remove(rules.id)
            if groups[rules.id]?.isImplicit != false {
                dissolve(rules.id)
                groups[rules.id] = GatewayGroup(rules, isImplicit: false)
            } else if groups[rules.id]?.rules == rules {
                continue
            }
            groups[rules.id]?.rules = rules
            changedGroups.insert(rules.id)
            hasChanged = true
        }
        for id in gone {
            dissolve(id)
            changedGroups.insert(id)
            hasChanged = true
        }
        guard hasChanged else { return false }
        scenarios = Set(told.map(\.scenario))
        let opened = Set(told.filter { $0.state != .forming }.map(\.scenario))
        if opened != openedScenarios {
            openedScenarios = opened
            // Who may use which group has changed.
            changedGroups.formUnion(groups.keys)
        }
        return true
    }

    /// Takes a group's workers out of it; the view says where they belong now.
    private mutating func dissolve(_ id: GroupID) {
        guard let group = groups[id] else { return }
        for need in GatewayNeed.allCases {
            for position in group.members(need) where workers[position].group == id {
                change(position) { $0.group = nil }
            }
        }
        groups[id] = nil
    }

    private mutating func removeEmptyGroups() {
        for (id, group) in groups where group.isImplicit && group.isEmpty {
            groups[id] = nil
            changedGroups.insert(id)
        }
    }

    private mutating func orderGroups() {
        serving = [:]
        for id in groups.keys.sorted() {
            guard let group = groups[id] else { continue }
            let modelName = group.rules.modelName
            serving[Demand(scenario: "", modelName: modelName), default: []].append(id)
            guard !group.isImplicit else { continue }
            let demand = Demand(scenario: group.rules.scenario, modelName: modelName)
            serving[demand, default: []].append(id)
        }
        for scenario in scenarios.subtracting(openedScenarios) { lend(to: scenario) }
    }

    /// As long as none of a scenario's groups has opened, groups of others with the same model
    /// revision serve it.
    private mutating func lend(to scenario: String) {
        let told = groups.values.filter { !$0.isImplicit }
        let revisions = Set(told.filter { $0.rules.scenario == scenario }.map(\.rules.fingerprint))
        for group in told.sorted(by: { $0.id < $1.id })
        where group.rules.scenario != scenario && revisions.contains(group.rules.fingerprint) {
            let demand = Demand(scenario: scenario, modelName: group.rules.modelName)
            serving[demand, default: []].append(group.id)
        }
    }

    /// Groups that serve such requests now or later: those of the scenario, as soon as one of them
    /// has opened; any of the model for a scenario that has none.
    func groups(for demand: Demand) -> [GroupID] {
        let scenario = scenarios.contains(demand.scenario) ? demand.scenario : ""
        return serving[Demand(scenario: scenario, modelName: demand.modelName)] ?? []
    }

    /// The demands that a group could serve and somebody waits with.
    func unassignedDemands(for id: GroupID) -> [Demand] {
        unassigned.keys.filter { groups(for: $0).contains(id) }
            .sorted { ($0.scenario, $0.modelName) < ($1.scenario, $1.modelName) }
    }

    func hasUsable(_ need: GatewayNeed, in group: GroupID) -> Bool {
        groups[group]?.hasUsable(need) ?? false
    }

    /// The group among whose workers this one is one that may be asked for this now.
    ///
    /// Workers that only prefill take sequences while none that decodes is left.
    func groupServed(by opening: Opening) -> GroupID? {
        let worker = workers[opening.position]
        guard let group = worker.group, worker.standing.canBeAsked(opening.need),
            worker.standing.serves(opening.need)
                || opening.need == .sequences && !hasUsable(.sequences, in: group)
        else { return nil }
        return group
    }

    // MARK: Lists

    /// Where a worker that can be asked for this is found.
    private func availableList(
        _ role: ServingRole, _ need: GatewayNeed
    ) -> GatewayGroup.List? {
        switch need {
        case .prompts: role.takesPrompts ? .prompts : nil
        case .sequences:
            role.takesSequences ? .sequences : role.takesPrompts ? .fallback : nil
        }
    }

    mutating func list(_ position: Int) {
        guard workers[position].standing.isMember, let id = workers[position].group else { return }
        if groups[id] == nil { addImplicitGroup(id, of: workers[position].description) }
        for need in GatewayNeed.allCases where workers[position].standing.serves(need) {
            workers[position].standing[need].memberIndex =
                groups[id]?.addMember(position, need) ?? -1
            guard workers[position].standing.isUsable else { continue }
            if groups[id]?.countUsable(need, by: 1) == true { changedGroups.insert(id) }
        }
        for need in GatewayNeed.allCases { refresh(position, need) }
    }

    mutating func unlist(_ position: Int) {
        guard workers[position].standing.isMember, let id = workers[position].group else { return }
        for need in GatewayNeed.allCases {
            setAvailable(position, need, false)
            let index = workers[position].standing[need].memberIndex
            guard index >= 0 else { continue }
            if let moved = groups[id]?.removeMember(at: index, need) {
                workers[moved].standing[need].memberIndex = index
            }
            workers[position].standing[need].memberIndex = -1
            guard workers[position].standing.isUsable else { continue }
            if groups[id]?.countUsable(need, by: -1) == true { changedGroups.insert(id) }
        }
    }

    /// Keeps the list of workers that can be asked in step with one of them.
    mutating func refresh(_ position: Int, _ need: GatewayNeed) {
        setAvailable(position, need, workers[position].standing.canBeAsked(need))
    }

    private mutating func setAvailable(_ position: Int, _ need: GatewayNeed, _ isAvailable: Bool) {
        let index = workers[position].standing[need].availableIndex
        guard isAvailable != (index >= 0), let id = workers[position].group,
            let list = availableList(workers[position].standing.role, need)
        else { return }
        if isAvailable {
            workers[position].standing[need].availableIndex =
                groups[id]?.addAvailable(position, list) ?? -1
        } else {
            if let moved = groups[id]?.removeAvailable(at: index, list) {
                workers[moved].standing[need].availableIndex = index
            }
            workers[position].standing[need].availableIndex = -1
        }
    }

    private mutating func addImplicitGroup(_ id: GroupID, of description: InstanceDescription) {
        groups[id] = GatewayGroup(
            ServingGroup(
                id: id, scenario: "", modelName: description.modelName,
                fingerprint: description.fingerprint), isImplicit: true)
        changedGroups.insert(id)
    }
}
