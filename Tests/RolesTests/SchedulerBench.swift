import ClusterRules
import Grouping
import Roles
import ServingTypes
import Testing

/// A scheduler's machine with a clock, obedient workers, a subscriber that reads what it gets, and
/// short ways to say what happens.
struct SchedulerBench {
    var machine: SchedulerMachine
    var now = MonotonicTime.start
    /// What each worker was told last.
    var assigned: [InstanceID: Assign] = [:]
    /// What subscribers have, by link; they read whatever is pushed to them.
    var readers: [UInt64: ViewReader] = [:]
    /// What the subscriber on link 1 saw of the last event.
    var views: [GroupView] = []
    /// Links whose change did not fit what they had.
    var outOfStep: [UInt64] = []
    /// What a worker does; what it was started as unless it is here.
    private var roles: [InstanceID: ServingRole] = [:]

    init(limits: SchedulerLimits = SchedulerLimits()) {
        machine = SchedulerMachine(limits: limits, epoch: 7)
    }

    /// Takes the actions in.
    private mutating func follow(_ actions: [SchedulerAction]) -> [SchedulerAction] {
        views = []
        for action in actions {
            switch action {
            case .push(let page, let links):
                for link in links {
                    note(readers[link.value, default: ViewReader()].received(page), on: link)
                }
            case .pushChange(let change, let links):
                for link in links {
                    switch readers[link.value, default: ViewReader()].received(change) {
                    case .nothing, .readings: break
                    case .view(let view): note(view, on: link)
                    case .outOfStep: outOfStep.append(link.value)
                    }
                }
            case .assign(let instance, let assign, _): assigned[instance] = assign
            default: break
            }
        }
        return actions
    }

    private mutating func note(_ view: GroupView?, on link: LinkID) {
        if let view, link == LinkID(1) { views.append(view) }
    }

    mutating func hear(
        _ message: ControlMessage, from name: InstanceID, _ role: Role, on link: UInt64
    ) -> [SchedulerAction] {
        follow(
            machine.received(
                message, from: PeerIdentity(cluster: "home", role: role, instance: name),
                on: LinkID(link), now: now))
    }

    mutating func register(
        _ description: InstanceDescription, on link: UInt64, as name: InstanceID? = nil
    ) -> [SchedulerAction] {
        var status = InstanceStatus()
        status.role = description.initialRole
        roles[description.instance] = description.initialRole
        return hear(
            .register(Register(description: description, status: status)),
            from: name ?? description.instance, description.role, on: link)
    }

    /// - Parameter isObedient: whether it has carried out what it was told.
    mutating func beat(
        _ instance: InstanceID, on link: UInt64, running: Int = 0, isDraining: Bool = false,
        isObedient: Bool = true
    ) -> [SchedulerAction] {
        if isObedient, let assign = assigned[instance] { roles[instance] = assign.role }
        var status = InstanceStatus()
        status.role = roles[instance] ?? .spare
        status.assignment = isObedient ? assigned[instance]?.number ?? 0 : 0
        status.runningSequences = running
        status.isDraining = isDraining
        return hear(
            .heartbeat(Heartbeat(status: status)), from: instance, .decodeWorker, on: link)
    }

    mutating func subscribe(on link: UInt64) -> [SchedulerAction] {
        readers[link] = ViewReader()
        return hear(
            .subscribe(Subscribe()), from: InstanceID("gateway-\(link)"), .gateway, on: link)
    }

    mutating func subscribe(host: String, on link: UInt64) -> [SchedulerAction] {
        readers[link] = ViewReader()
        return hear(
            .subscribe(Subscribe(host: host)), from: InstanceID("agent-\(host)"), .healthAgent,
            on: link)
    }

    mutating func report(
        _ findings: [WorkerFinding], host: String = "host", devices: [DeviceReading] = [],
        on link: UInt64 = 90
    ) -> [SchedulerAction] {
        let reading = HostReading(
            host: host, cores: 1, busyFraction: 0, loadAverage: 0, totalMemoryBytes: 1,
            availableMemoryBytes: 1, devices: devices)
        return hear(
            .healthReport(HealthReport(host: reading, findings: findings)),
            from: InstanceID("agent"), .healthAgent, on: link)
    }

    mutating func ask(_ command: String, _ arguments: [String: String]) -> AdminReply? {
        let request = AdminRequest(
            command: command,
            arguments: arguments.sorted { $0.key < $1.key }.map {
                AdminRequest.Argument(name: $0.key, value: $0.value)
            })
        let actions = hear(
            .adminRequest(request), from: InstanceID("me"), .administrator, on: 99)
        return actions.compactMap { action in
            if case .answer(.adminReply(let reply), _) = action { reply } else { nil }
        }.only
    }

    mutating func rules(_ spec: ClusterSpec, text: String = "rules") -> [SchedulerAction] {
        follow(machine.rulesChanged(spec, text: text, now: now))
    }

    mutating func tickOnce() -> [SchedulerAction] {
        follow(machine.tick(now: now, clock: WallClock(unixMilliseconds: 1, minuteOfDay: 0)))
    }

    /// Ticks often enough that the scheduler does not think that it was away itself.
    mutating func tick(_ duration: Duration) -> [SchedulerAction] {
        var actions: [SchedulerAction] = []
        var seen: [GroupView] = []
        let end = now + duration
        while now < end {
            now = min(end, now + .milliseconds(100))
            actions += tickOnce()
            seen += views
        }
        views = seen
        return actions
    }

    /// Time passes in which these workers beat twice a second and do what they are told.
    mutating func run(_ duration: Duration, _ workers: [(InstanceID, UInt64)])
        -> [SchedulerAction]
    {
        var actions: [SchedulerAction] = []
        var seen: [GroupView] = []
        let end = now + duration
        while now < end {
            for (instance, link) in workers {
                actions += beat(instance, on: link)
                seen += views
            }
            actions += tick(min(.milliseconds(500), end - now))
            seen += views
        }
        views = seen
        return actions
    }

    mutating func close(_ link: UInt64) -> [SchedulerAction] {
        follow(machine.closed(LinkID(link), now: now))
    }

    func shown(_ instance: InstanceID, on link: UInt64 = 1) -> GroupMember? {
        readers[link]?.view?[instance]
    }
}

func finding(
    _ instance: InstanceID, incarnation: UInt64 = 1, complaint: String? = nil,
    suspicion: String? = nil
) -> WorkerFinding {
    WorkerFinding(
        instance: instance, incarnation: incarnation, isResponding: complaint == nil,
        silentMilliseconds: 0, reason: complaint ?? suspicion ?? "",
        isSuspect: suspicion != nil)
}

extension [SchedulerAction] {
    var refusals: [FailureCode] {
        compactMap { if case .refuse(let refusal, _) = $0 { refusal.code } else { nil } }
    }
    var states: [InstanceState?] {
        compactMap { action -> InstanceState?? in
            if case .changed(_, let state, _) = action { .some(state) } else { nil }
        }
    }
    var assigns: [(instance: InstanceID, assign: Assign)] {
        compactMap { if case .assign(let name, let assign, _) = $0 { (name, assign) } else { nil } }
    }
    var decisions: [String] {
        compactMap { if case .decided(let decision) = $0 { decision.action } else { nil } }
    }
    var pushes: [SchedulerAction] {
        filter { action in
            switch action {
            case .push, .pushChange: true
            default: false
            }
        }
    }
}
