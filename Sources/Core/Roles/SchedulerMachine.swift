package import ServingTypes

/// Every bound of the scheduler's decisions.
package struct SchedulerLimits: Sendable, Hashable {
    /// Time without a heartbeat after which a worker leaves the view.
    package var lease: Duration = .seconds(3)
    /// Time between two views that differ in readings only; other changes are pushed at once.
    package var readingsInterval: Duration = .milliseconds(500)
    /// Time between two ticks from which on this process was away itself; the silence of others is
    /// not held against them then.
    package var ownPause: Duration = .seconds(1)
    /// Workers in one cluster.
    package var maximumInstances = 4096
    /// Hosts whose readings are kept.
    package var maximumHosts = 4096

    package init() {}
}

/// What the scheduler's shell has to do.
package enum SchedulerAction: Hashable, Sendable {
    case push(GroupView, to: [LinkID])
    case answer(ControlMessage, to: LinkID)
    /// Say why and close the connection.
    case refuse(Refusal, LinkID)
    /// For the log: a worker changed its state.
    case changed(InstanceID, InstanceState?, reason: String)
}

/// The scheduler's decisions: who is a member and who hears of it.
///
/// A worker is `suspect` as soon as its connection is gone, so gateways stop choosing it, and
/// leaves the view when its lease has run out. It is never asked per request.
package struct SchedulerMachine: Sendable {
    private struct Member: Sendable {
        var description: InstanceDescription
        var status: InstanceStatus
        /// Nil while it is not connected.
        var link: LinkID?
        var leaseEnd: MonotonicTime
        /// What a health-agent says against it, and when that is forgotten unless it is repeated.
        var complaint: String?
        var complaintEnd = MonotonicTime.start
    }

    private let limits: SchedulerLimits
    private let epoch: UInt64
    private var version: UInt64 = 0
    private var members: [InstanceID: Member] = [:]
    private var instances: [LinkID: InstanceID] = [:]
    private var subscribers: Set<LinkID> = []
    private var gateways: [LinkID: InstanceID] = [:]
    private var hosts: [String: HealthReport] = [:]
    private var agents: [LinkID: String] = [:]
    private var pushed: GroupView
    private var lastPush: MonotonicTime = .start
    private var lastTick: MonotonicTime?
    /// What has changed since the last push.
    private var news = News.none

    private enum News: Int { case none, readings, members }

    /// - Parameter epoch: greater than that of every earlier scheduler of this cluster.
    package init(limits: SchedulerLimits = SchedulerLimits(), epoch: UInt64) {
        self.limits = limits
        self.epoch = epoch
        pushed = GroupView(epoch: epoch, version: 0, members: [])
    }

    package var status: ClusterStatus {
        ClusterStatus(
            view: currentView, hosts: hosts.values.sorted { $0.host.host < $1.host.host },
            gateways: gateways.values.sorted())
    }

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
            heard(heartbeat.status, from: instance, now: now)
            return publish(now: now)
        case .deregister(let leaving):
            guard let instance = instances.removeValue(forKey: link) else { return [] }
            members[instance] = nil
            news = .members
            return [.changed(instance, nil, reason: leaving.reason)] + publish(now: now)
        case .subscribe:
            subscribers.insert(link)
            if peer.role == .gateway { gateways[link] = peer.instance }
            return [.push(pushed, to: [link])]
        case .healthReport(let report):
            return self.report(report, link: link, now: now)
        case .clusterStatusRequest:
            return [.answer(.clusterStatus(status), to: link)]
        case .ping(let ping):
            return [.answer(.pong(Pong(number: ping.number)), to: link)]
        default:
            return []
        }
    }

    package mutating func closed(_ link: LinkID, now: MonotonicTime) -> [SchedulerAction] {
        subscribers.remove(link)
        gateways[link] = nil
        if let host = agents.removeValue(forKey: link), !agents.values.contains(host) {
            hosts[host] = nil
        }
        guard let instance = instances.removeValue(forKey: link),
            members[instance]?.link == link
        else { return [] }
        members[instance]?.link = nil
        news = .members
        return [.changed(instance, .suspect, reason: "its connection is lost")]
            + publish(now: now)
    }

    /// Ends leases; called a few times a second.
    package mutating func tick(now: MonotonicTime) -> [SchedulerAction] {
        var actions: [SchedulerAction] = []
        forgiveOwnPause(now: now)
        let due = members.filter {
            now >= $0.value.leaseEnd || $0.value.complaint != nil && now >= $0.value.complaintEnd
        }
        for (instance, member) in due.sorted(by: { $0.key < $1.key }) {
            if now >= member.leaseEnd {
                actions += endLease(of: instance, member)
            } else {
                members[instance]?.complaint = nil
                news = .members
                actions.append(
                    .changed(instance, judge(member, complaint: nil).0, reason: "nobody complains"))
            }
        }
        return actions + publish(now: now)
    }

    /// Heartbeats that came while this process did not run are still unread: nobody is late.
    private mutating func forgiveOwnPause(now: MonotonicTime) {
        defer { lastTick = now }
        guard let lastTick, now - lastTick >= limits.ownPause else { return }
        let pause = now - lastTick
        for instance in members.keys {
            if let member = members[instance] {
                members[instance]?.leaseEnd = min(member.leaseEnd + pause, now + limits.lease)
            }
        }
    }

    private mutating func endLease(
        of instance: InstanceID, _ member: Member
    ) -> [SchedulerAction] {
        members[instance] = nil
        news = .members
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
        var complaint: String?
        var complaintEnd = now
        if let known = members[instance] {
            let isSameLife = known.description.incarnation == description.incarnation
            guard isSameLife || known.link == nil else {
                return refuse(
                    .busy, "another process named \(instance) serves; give each its own name")
            }
            if let old = known.link { instances[old] = nil }
            complaint = isSameLife ? known.complaint : nil
            complaintEnd = known.complaintEnd
        } else if members.count >= limits.maximumInstances {
            return refuse(.busy, "the cluster has \(limits.maximumInstances) workers already")
        }
        members[instance] = Member(
            description: description, status: register.status, link: link,
            leaseEnd: now + limits.lease, complaint: complaint, complaintEnd: complaintEnd)
        instances[link] = instance
        news = .members
        let state = members[instance].map { judge($0, complaint: complaint).0 }
        return [.changed(instance, state, reason: "it registered")] + publish(now: now)
    }

    private mutating func heard(
        _ status: InstanceStatus, from instance: InstanceID, now: MonotonicTime
    ) {
        guard let member = members[instance] else { return }
        if member.status.isDraining != status.isDraining {
            news = .members
        } else if member.status != status, news == .none {
            news = .readings
        }
        members[instance]?.status = status
        members[instance]?.leaseEnd = now + limits.lease
    }

    private mutating func report(
        _ report: HealthReport, link: LinkID, now: MonotonicTime
    ) -> [SchedulerAction] {
        let host = report.host.host
        guard hosts[host] != nil || hosts.count < limits.maximumHosts else { return [] }
        hosts[host] = report
        agents[link] = host
        var actions: [SchedulerAction] = []
        for finding in report.findings {
            guard let member = members[finding.instance], member.description.host == host,
                member.description.incarnation == finding.incarnation
            else { continue }
            let complaint = finding.isResponding ? nil : finding.reason
            members[finding.instance]?.complaintEnd = now + limits.lease
            guard complaint != member.complaint else { continue }
            members[finding.instance]?.complaint = complaint
            guard (complaint == nil) != (member.complaint == nil) else {
                if news == .none { news = .readings }
                continue
            }
            news = .members
            actions.append(
                .changed(
                    finding.instance, judge(member, complaint: complaint).0,
                    reason: complaint ?? "it answers again"))
        }
        return actions + publish(now: now)
    }

    // MARK: View

    private var currentView: GroupView {
        let all = members.values.map { member in
            let (state, reason) = judge(member, complaint: member.complaint)
            return GroupMember(
                description: member.description, state: state, status: member.status,
                reason: reason)
        }
        return GroupView(
            epoch: epoch, version: version,
            members: all.sorted { $0.description.instance < $1.description.instance })
    }

    private func judge(_ member: Member, complaint: String?) -> (InstanceState, String) {
        if let complaint { return (.down, complaint) }
        if member.link == nil { return (.suspect, "its connection to the scheduler is lost") }
        if member.status.isDraining { return (.draining, "it is leaving") }
        return (.serving, "")
    }

    /// Pushes the view if there is news: at once, or for readings after a while.
    ///
    /// Readings that have to wait are pushed by a later tick.
    private mutating func publish(now: MonotonicTime) -> [SchedulerAction] {
        switch news {
        case .none: return []
        case .readings: guard now - lastPush >= limits.readingsInterval else { return [] }
        case .members: break
        }
        news = .none
        lastPush = now
        version += 1
        pushed = currentView
        guard !subscribers.isEmpty else { return [] }
        return [.push(pushed, to: subscribers.sorted { $0.value < $1.value })]
    }
}
