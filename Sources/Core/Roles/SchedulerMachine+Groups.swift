import Grouping
import ServingTypes

/// Deciding, showing what was decided, and telling the workers; in this order.
extension SchedulerMachine {
    /// Does what the events so far call for.
    ///
    /// A small cluster acts on each change. In a large one changes that follow each other closely
    /// are taken together by the next tick; who is a member, and whether it serves, is shown
    /// sooner than decisions about roles follow.
    mutating func conclude(now: MonotonicTime, isTick: Bool = false) -> [SchedulerAction] {
        let isPrompt =
            roster.count <= limits.promptInstances
            || (lastChange.map { now - $0 >= limits.changesInterval } ?? true)
        var actions: [SchedulerAction] = []
        var orders: [GroupOrder] = []
        let mayDecide = lastDecision.map { now - $0 >= decisionInterval } ?? true
        let isLook = isTick && (nextDecision.map { now >= $0 } ?? true)
        if mayDecide && (isDecisionDue && isPrompt || isLook) {
            lastChange = isDecisionDue ? now : lastChange
            orders = decide(now: now, &actions)
        }
        actions += publish(now: now, isPrompt: isPrompt)
        for order in orders { actions += tell(order, now: now) }
        return actions
    }

    /// A decision costs as much as there are members: so that it leaves time for all else.
    private var decisionInterval: Duration {
        roster.count <= limits.promptInstances
            ? .zero : limits.changesInterval * roster.count / max(1, limits.decidedInstances)
    }

    private var workers: [GroupWorker] {
        roster.compactMap { instance in
            members[instance].map { member in
                GroupWorker(
                    description: member.description, status: member.status,
                    isServing: judge(member).0 == .serving)
            }
        }
    }

    /// Looks at all members: on a change and, while there is none, at each `lookInterval`.
    private mutating func decide(
        now: MonotonicTime, _ actions: inout [SchedulerAction]
    ) -> [GroupOrder] {
        isDecisionDue = false
        lastDecision = now
        examinedMembers += roster.count
        let orders = groups.decide(workers, now: now, clock: clock)
        let changes = groups.takeChanges()
        if !changes.isEmpty { actions.append(.save(changes)) }
        let decisions = groups.takeNewDecisions()
        actions += decisions.map { .decided($0) }
        var hasChanged = !orders.isEmpty || !decisions.isEmpty
        for instance in roster {
            let place = groups.place(of: instance)
            guard let member = members[instance],
                member.role != place.role || member.group != place.group
            else { continue }
            members[instance]?.role = place.role
            members[instance]?.group = place.group
            dirty.insert(instance)
            hasChanged = true
        }
        if groups.groups != shown.view.groups { hasChanged = true }
        if hasChanged {
            news = .members
            lastChange = now
            // Orders wait until gateways have seen what is taken away.
            quickUntil = now + limits.groups.viewLead
        }
        nextDecision = now < quickUntil ? quickUntil : now + limits.groups.lookInterval
        let wanted = groups.wanted()
        if wanted != self.wanted {
            self.wanted = wanted
            actions.append(.wanted(wanted))
        }
        return orders
    }

    private mutating func tell(_ order: GroupOrder, now: MonotonicTime) -> [SchedulerAction] {
        guard let member = members[order.instance] else { return [] }
        let isAnotherRole = member.order.map { $0.role != order.assign.role } ?? true
        members[order.instance]?.order = order.assign
        // An order that is given again, or that changes the group alone, begins nothing.
        if isAnotherRole {
            members[order.instance]?.orderedAt = now
            members[order.instance]?.hasTakenUp = member.status.role == order.assign.role
        }
        return member.link.map { [.assign(order.instance, order.assign, to: $0)] } ?? []
    }

    /// A person asks; what comes of it is decided with the other things.
    mutating func command(
        _ request: AdminRequest, by person: InstanceID, on link: LinkID, now: MonotonicTime
    ) -> [SchedulerAction] {
        let reply = groups.command(request, workers: workers, now: now, clock: clock)
        isDecisionDue = true
        return [
            .commanded(by: person, on: link, request, reply),
            .answer(.adminReply(reply), to: link),
        ] + conclude(now: now)
    }

    // MARK: View

    /// Pushes what has changed: at once, or for readings after a while.
    ///
    /// What has to wait is pushed by a later tick.
    private mutating func publish(now: MonotonicTime, isPrompt: Bool) -> [SchedulerAction] {
        let areReadingsDue = now - lastPush >= limits.readingsInterval
        switch news {
        case .none: return []
        case .readings: guard areReadingsDue else { return [] }
        case .members: guard isPrompt || areReadingsDue || lastChange == now else { return [] }
        }
        if news == .members { lastChange = now }
        news = .none
        lastPush = now
        examinedMembers += dirty.count
        let changes = dirty.sorted().map { instance in
            (
                instance: instance,
                member: members[instance].map { member in
                    let (state, reason) = judge(member)
                    return GroupMember(
                        description: member.description, state: state, status: member.status,
                        reason: reason, role: member.role, group: member.group)
                }
            )
        }
        dirty.removeAll(keepingCapacity: true)
        let difference = shown.apply(changes, groups: groups.groups)
        guard !difference.isEmpty else { return [] }
        let isMore =
            !difference.members.isEmpty || !difference.removed.isEmpty || difference.groups != nil
        return push(difference) + (isMore ? [.viewChanged(shown.view.groups)] : [])
    }

    private mutating func push(_ difference: SchedulerView.Difference) -> [SchedulerAction] {
        var actions: [SchedulerAction] = []
        if !subscribers.isEmpty {
            for page in difference.change(to: shown.view).pages() {
                actions.append(.pushChange(page, to: subscribers))
            }
        }
        guard !hostSubscribers.isEmpty else { return actions }
        let changes = difference.changesByHost(to: shown.view)
        for (host, change) in changes.sorted(by: { $0.key < $1.key }) {
            let versions = hostSubscribers[host] ?? [:]
            for (link, version) in versions.sorted(by: { $0.key.value < $1.key.value }) {
                var change = change
                change.since = version
                hostSubscribers[host]?[link] = change.version
                actions += change.pages().map { .pushChange($0, to: [link]) }
            }
        }
        return actions
    }
}
