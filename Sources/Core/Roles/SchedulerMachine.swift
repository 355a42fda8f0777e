package import ClusterRules
package import Grouping
package import ServingTypes

/// The scheduler's decisions: who is a member, what each is used for, and who hears of it.
///
/// A worker is `suspect` as soon as its connection is gone, so gateways stop choosing it, and
/// leaves the view when its lease has run out. It is never asked per request.
///
/// Roles and groups come from a `GroupController`. What it takes from a worker is pushed first,
/// then the worker is told; what it gives is pushed once the worker has said that it does it.
package struct SchedulerMachine: Sendable {
    struct Member: Sendable {
        var description: InstanceDescription
        var status: InstanceStatus
        /// Nil while it is not connected.
        var link: LinkID?
        var leaseEnd: MonotonicTime
        /// What a health-agent says against it, and when that is forgotten unless it is repeated.
        var complaint: String?
        var complaintEnd = MonotonicTime.start
        /// Why it gets no new work though nobody complains; ends with the complaint.
        var suspicion: String?
        /// What is wrong with its device though it serves.
        var note = ""
        /// Since when it is not connected.
        var detachedAt: MonotonicTime?
        /// Recognises its entry among the deadlines.
        let ticket: UInt64
        /// As the view shows it.
        var role = ServingRole.spare
        var group: GroupID?
        /// The last assignment of this life, and since when it is to be in that role.
        var order: Assign?
        var orderedAt = MonotonicTime.start
        var hasTakenUp = true
    }

    private struct Deadline: Sendable {
        var instance: InstanceID
        var ticket: UInt64
    }

    /// What has changed since the last push.
    enum News: Int, Comparable {
        case none, readings, members

        static func < (left: News, right: News) -> Bool { left.rawValue < right.rawValue }
    }

    let limits: SchedulerLimits
    var groups: GroupController
    var shown: SchedulerView
    var members: [InstanceID: Member] = [:]
    /// The members' names in order.
    var roster: [InstanceID] = []
    private var instances: [LinkID: InstanceID] = [:]
    private var deadlines = DeadlineBuckets<Deadline>()
    private var tickets: UInt64 = 0
    /// Of all members, in order of their links.
    var subscribers: [LinkID] = []
    var hostSubscribers: [String: [LinkID: UInt64]] = [:]
    private var subscribedHosts: [LinkID: String] = [:]
    var gateways: [LinkID: InstanceID] = [:]
    private var hosts: [String: HealthReport] = [:]
    private var agents: [LinkID: String] = [:]
    private var lastTick: MonotonicTime?

    // What `conclude` works with.
    var dirty: Set<InstanceID> = []
    var news = News.none
    var isDecisionDue = true
    var lastPush = MonotonicTime.start
    var lastChange: MonotonicTime?
    var lastDecision: MonotonicTime?
    var nextDecision: MonotonicTime?
    var quickUntil = MonotonicTime.start
    var clock: WallClock
    var wanted: [WantedInstances] = []
    private var rules = ClusterRules(text: "")
    /// Members looked at so far: what the work of this machine grows with.
    package internal(set) var examinedMembers = 0

    /// - Parameter epoch: greater than that of every earlier scheduler of this cluster.
    package init(
        limits: SchedulerLimits = SchedulerLimits(), epoch: UInt64, clock: WallClock = WallClock()
    ) {
        self.limits = limits
        self.clock = clock
        groups = GroupController(limits: limits.groups)
        shown = SchedulerView(epoch: epoch)
    }

    package var status: ClusterStatus {
        ClusterStatus(
            view: shown.view, hosts: hosts.values.sorted { $0.host.host < $1.host.host },
            gateways: gateways.values.sorted(), wanted: wanted,
            decisions: groups.decisions.suffix(limits.shownDecisions),
            upgrades: groups.upgradeLines)
    }

    /// How many members of the view are in which state and role.
    package var memberCounts: [MemberKind: Int] { shown.counts }

    /// Takes over what an earlier scheduler saved; called once, before any event.
    package mutating func restore(_ records: [SavedKey: SavedRecord], now: MonotonicTime) {
        groups.restore(records, now: now)
        isDecisionDue = true
    }

    /// Workers of an earlier scheduler that have not come back yet.
    package var awaitedWorkers: Int { groups.awaitedWorkers }

    // MARK: Events

    package mutating func received(
        _ message: ControlMessage, from peer: PeerIdentity, on link: LinkID, now: MonotonicTime
    ) -> [SchedulerAction] {
        switch message {
        case .register(let register):
            return self.register(register, peer: peer, link: link, now: now)
        case .heartbeat(let heartbeat):
            guard let instance = instances[link] else {
                return [
                    .refuse(Refusal(code: .unknownRequest, reason: "register first"), link)
                ]
            }
            return heard(heartbeat.status, from: instance, now: now) + conclude(now: now)
        case .deregister(let leaving):
            guard let instance = instances.removeValue(forKey: link) else { return [] }
            remove(instance)
            return [.changed(instance, nil, reason: leaving.reason)] + conclude(now: now)
        case .subscribe(let subscribe):
            return self.subscribe(subscribe, peer: peer, link: link)
        case .healthReport(let report):
            return self.report(report, link: link, now: now)
        case .trafficReport(let report):
            if let gateway = gateways[link] { groups.record(report, from: gateway, now: now) }
            return []
        case .adminRequest(let request):
            return command(request, by: peer.instance, on: link, now: now)
        case .clusterStatusRequest:
            return status.pages().map { .answer(.clusterStatus($0), to: link) }
        case .ping(let ping):
            return [.answer(.pong(Pong(number: ping.number)), to: link)]
        default:
            return []
        }
    }

    package mutating func closed(_ link: LinkID, now: MonotonicTime) -> [SchedulerAction] {
        unsubscribe(link)
        if let gateway = gateways.removeValue(forKey: link), !gateways.values.contains(gateway) {
            groups.forget(gateway: gateway)
        }
        if let host = agents.removeValue(forKey: link), !agents.values.contains(host) {
            hosts[host] = nil
        }
        guard let instance = instances.removeValue(forKey: link),
            members[instance]?.link == link
        else { return [] }
        members[instance]?.link = nil
        members[instance]?.detachedAt = now
        note(instance)
        return [.changed(instance, .suspect, reason: "its connection is lost")]
            + conclude(now: now)
    }

    /// The cluster file was read: its scenarios apply from now on.
    ///
    /// - Parameter text: the file itself, for the gateways.
    package mutating func rulesChanged(
        _ spec: ClusterSpec, text: String, now: MonotonicTime
    ) -> [SchedulerAction] {
        groups.rulesChanged(spec)
        isDecisionDue = true
        rules = ClusterRules(text: text)
        let links = gateways.keys.sorted { $0.value < $1.value }
        return (links.isEmpty ? [] : [.rules(rules, to: links)]) + conclude(now: now)
    }

    /// Ends leases and decides what is due; called a few times a second.
    package mutating func tick(now: MonotonicTime, clock: WallClock) -> [SchedulerAction] {
        self.clock = clock
        forgiveOwnPause(now: now)
        var actions: [SchedulerAction] = []
        let due = deadlines.takeDue(now: now).sorted { $0.instance < $1.instance }
        for deadline in due { actions += reach(deadline, now: now) }
        return actions + conclude(now: now, isTick: true)
    }

    // MARK: Leases

    /// Heartbeats that came while this process did not run are still unread: nobody is late.
    private mutating func forgiveOwnPause(now: MonotonicTime) {
        defer { lastTick = now }
        guard let lastTick, now - lastTick >= limits.ownPause else { return }
        let pause = now - lastTick
        for instance in roster {
            if let member = members[instance] {
                members[instance]?.leaseEnd = min(member.leaseEnd + pause, now + limits.lease)
            }
        }
    }

    /// Each member has one entry among the deadlines, never later than what it stands for.
    private mutating func reach(_ deadline: Deadline, now: MonotonicTime) -> [SchedulerAction] {
        let instance = deadline.instance
        guard let member = members[instance], member.ticket == deadline.ticket else { return [] }
        examinedMembers += 1
        guard now < member.leaseEnd else { return endLease(of: instance, member) }
        guard member.complaint != nil || member.suspicion != nil || !member.note.isEmpty else {
            deadlines.add(deadline, at: member.leaseEnd)
            return []
        }
        guard now >= member.complaintEnd else {
            deadlines.add(deadline, at: min(member.leaseEnd, member.complaintEnd))
            return []
        }
        deadlines.add(deadline, at: member.leaseEnd)
        var well = member
        well.complaint = nil
        well.suspicion = nil
        well.note = ""
        members[instance] = well
        note(instance)
        let state = judge(well).0
        guard judge(member).0 != state else { return [] }
        return [.changed(instance, state, reason: "nobody complains")]
    }

    private mutating func endLease(
        of instance: InstanceID, _ member: Member
    ) -> [SchedulerAction] {
        remove(instance)
        let gone = SchedulerAction.changed(instance, nil, reason: "its lease has run out")
        guard let link = member.link else { return [gone] }
        instances[link] = nil
        let reason = "no heartbeat for \(limits.lease)"
        return [.refuse(Refusal(code: .deadline, reason: reason), link), gone]
    }

    // MARK: Membership

    private mutating func register(
        _ register: Register, peer: PeerIdentity, link: LinkID, now: MonotonicTime
    ) -> [SchedulerAction] {
        let description = register.description
        let instance = description.instance
        func refuse(_ code: FailureCode, _ reason: String) -> [SchedulerAction] {
            [.refuse(Refusal(code: code, reason: reason), link)]
        }
        guard instance == peer.instance, description.role == peer.role else {
            return refuse(.role, "the certificate is for \(peer)")
        }
        let known = members[instance]
        let isSameLife = known?.description.incarnation == description.incarnation
        if let known {
            guard isSameLife || known.link == nil else {
                return refuse(
                    .busy, "another process named \(instance) serves; give each its own name")
            }
            if let old = known.link { instances[old] = nil }
        } else if members.count >= limits.maximumInstances {
            return refuse(.busy, "the cluster has \(limits.maximumInstances) workers already")
        }
        var member =
            known ?? newMember(description, register.status, leaseEnd: now + limits.lease)
        member.description = description
        member.link = link
        member.detachedAt = nil
        if !isSameLife {
            member.complaint = nil
            member.suspicion = nil
            member.note = ""
            member.order = nil
            member.hasTakenUp = true
        }
        members[instance] = member
        instances[link] = instance
        note(instance)
        var actions = [
            SchedulerAction.changed(
                instance, judge(member).0, reason: "it registered")
        ]
        actions += heard(register.status, from: instance, now: now)
        if let order = member.order, register.status.assignment < order.number {
            // It may have been on its way when the old connection ended.
            actions.append(.assign(instance, order, to: link))
        }
        return actions + conclude(now: now)
    }

    private mutating func newMember(
        _ description: InstanceDescription, _ status: InstanceStatus, leaseEnd: MonotonicTime
    ) -> Member {
        tickets += 1
        let instance = description.instance
        deadlines.add(Deadline(instance: instance, ticket: tickets), at: leaseEnd)
        roster.insert(instance, at: place(in: roster, of: instance))
        return Member(
            description: description, status: status, leaseEnd: leaseEnd, ticket: tickets)
    }

    private mutating func remove(_ instance: InstanceID) {
        guard members.removeValue(forKey: instance) != nil else { return }
        let index = place(in: roster, of: instance)
        if index < roster.count, roster[index] == instance { roster.remove(at: index) }
        note(instance)
    }

    private func place(in names: [InstanceID], of instance: InstanceID) -> Int {
        var low = 0
        var high = names.count
        while low < high {
            let middle = (low + high) / 2
            if names[middle] < instance { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// A member has changed in more than its readings.
    private mutating func note(_ instance: InstanceID) {
        dirty.insert(instance)
        news = .members
        isDecisionDue = true
    }

    private mutating func heard(
        _ status: InstanceStatus, from instance: InstanceID, now: MonotonicTime
    ) -> [SchedulerAction] {
        guard let member = members[instance] else { return [] }
        examinedMembers += 1
        let old = member.status
        if old.isDraining != status.isDraining {
            note(instance)
        } else if old != status {
            dirty.insert(instance)
            news = max(news, .readings)
        }
        if old.role != status.role || old.assignment != status.assignment { isDecisionDue = true }
        members[instance]?.status = status
        members[instance]?.leaseEnd = now + limits.lease
        guard let order = member.order, !member.hasTakenUp, status.role == order.role,
            status.assignment == order.number
        else { return [] }
        members[instance]?.hasTakenUp = true
        return [.tookUp(instance, order.role, after: now - member.orderedAt)]
    }

    private mutating func report(
        _ report: HealthReport, link: LinkID, now: MonotonicTime
    ) -> [SchedulerAction] {
        let host = report.host.host
        guard hosts[host] != nil || hosts.count < limits.maximumHosts else { return [] }
        hosts[host] = report
        agents[link] = host
        let faults = DeviceFaults(report.host.devices)
        var actions: [SchedulerAction] = []
        for finding in report.findings {
            guard let member = members[finding.instance], member.description.host == host,
                member.description.incarnation == finding.incarnation
            else { continue }
            examinedMembers += 1
            actions += take(finding, faults, of: member, now: now)
        }
        return actions + conclude(now: now)
    }

    private mutating func take(
        _ finding: WorkerFinding, _ faults: DeviceFaults, of member: Member, now: MonotonicTime
    ) -> [SchedulerAction] {
        let instance = finding.instance
        var new = member
        let device = faults.worst(of: member.description)
        new.complaint = finding.isResponding ? nil : finding.reason
        if new.complaint == nil, let device, device.grade.isOut { new.complaint = device.text }
        new.suspicion = finding.isSuspect ? finding.reason : nil
        new.note = device.map { $0.grade.isOut ? "" : $0.text } ?? ""
        new.complaintEnd = now + limits.lease
        // Its host hears it well; only the way to here is broken.
        if finding.isResponding, !finding.isSuspect, let since = member.detachedAt,
            now - since < limits.detachedLimit
        {
            new.leaseEnd = max(new.leaseEnd, now + limits.lease)
        }
        members[instance] = new
        let (before, after) = (judge(member), judge(new))
        guard before.0 != after.0 else {
            if before.1 != after.1 {
                dirty.insert(instance)
                news = max(news, .readings)
            }
            return []
        }
        note(instance)
        let reason = after.1.isEmpty || after.0 == .serving ? "it answers again" : after.1
        return [.changed(instance, after.0, reason: reason)]
    }

    func judge(_ member: Member) -> (InstanceState, String) {
        if let complaint = member.complaint { return (.down, complaint) }
        if member.link == nil { return (.suspect, "its connection to the scheduler is lost") }
        if let suspicion = member.suspicion { return (.suspect, suspicion) }
        if member.status.isDraining { return (.draining, "it is leaving") }
        return (.serving, member.note)
    }

    // MARK: Subscribers

    private mutating func subscribe(
        _ subscribe: Subscribe, peer: PeerIdentity, link: LinkID
    ) -> [SchedulerAction] {
        unsubscribe(link)
        guard subscribe.host.isEmpty else {
            subscribedHosts[link] = subscribe.host
            hostSubscribers[subscribe.host, default: [:]][link] = shown.view.version
            return shown.view(ofHost: subscribe.host).pages().map { .push($0, to: [link]) }
        }
        let index = subscribers.firstIndex { $0.value > link.value } ?? subscribers.count
        subscribers.insert(link, at: index)
        var actions: [SchedulerAction] = []
        if peer.role == .gateway {
            gateways[link] = peer.instance
            actions.append(.rules(rules, to: [link]))
        }
        return actions + shown.view.pages().map { .push($0, to: [link]) }
    }

    private mutating func unsubscribe(_ link: LinkID) {
        if let host = subscribedHosts.removeValue(forKey: link) {
            hostSubscribers[host]?[link] = nil
            if hostSubscribers[host]?.isEmpty == true { hostSubscribers[host] = nil }
        } else {
            subscribers.removeAll { $0 == link }
        }
    }
}
