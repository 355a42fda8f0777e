import ClusterRules
import Grouping
import Roles
import ServingTypes

/// The scheduler's shell in the simulated cluster.
final class SimulatedScheduler: SimulatedProcess {
    private let plan: ClusterPlan
    private var machine: SchedulerMachine
    private var links: [LinkID: SimulatedLink] = [:]

    init(plan: ClusterPlan, cluster: ClusterSimulation) {
        self.plan = plan
        machine = SchedulerMachine(limits: plan.schedulerLimits, epoch: 0)
        super.init("scheduler", role: .scheduler, cluster: cluster)
    }

    var servingWorkers: Int {
        machine.status.view.members.count { $0.state == .serving }
    }

    /// Whether an open group of the scenario has workers for prompts and for sequences, or may do
    /// without one kind.
    ///
    /// - Parameter asHelp: the request fits into workers that prefill. Who does not waits for one
    ///   that decodes, which may hold more.
    func canServe(_ scenario: String, asHelp: Bool) -> Bool {
        guard let rules = plan.rules.scenarios.first(where: { $0.name == scenario }) else {
            return false
        }
        let view = machine.status.view
        return view.groups.contains { group in
            guard group.scenario == scenario, group.state == .open else { return false }
            let roles = view.members.filter { $0.group == group.id && $0.state == .serving }
                .map(\.role)
            return
                switch (
                    roles.contains(where: \.takesPrompts), roles.contains(where: \.takesSequences)
                )
            {
            case (true, true): true
            case (true, false): rules.prefillOnlyFallback && asHelp
            case (false, true): rules.decodeOnlyFallback
            case (false, false): false
            }
        }
    }

    override func begin() {
        machine = SchedulerMachine(limits: plan.schedulerLimits, epoch: life)
        // The file's text says nothing here: gateways know the plan.
        perform(machine.rulesChanged(plan.rules, text: "", now: now))
        every(.milliseconds(100)) { [unowned self] in tick() }
    }

    private func tick() {
        let milliseconds = cluster.nanoseconds / 1_000_000
        let clock = WallClock(
            unixMilliseconds: UInt64(milliseconds), minuteOfDay: Int(milliseconds / 60_000 % 1440))
        perform(machine.tick(now: now, clock: clock))
    }

    override func end() { links = [:] }

    override func accepted(_ link: SimulatedLink) { links[LinkID(link.id)] = link }

    override func closed(_ link: SimulatedLink) {
        links[LinkID(link.id)] = nil
        perform(machine.closed(LinkID(link.id), now: now))
    }

    override func received(
        _ message: ControlMessage, tokens: [TokenID], on link: SimulatedLink
    ) {
        let peer = link.other(than: self)
        let identity = PeerIdentity(cluster: "simulated", role: peer.role, instance: peer.name)
        perform(machine.received(message, from: identity, on: LinkID(link.id), now: now))
    }

    private func perform(_ actions: [SchedulerAction]) {
        for action in actions {
            switch action {
            case .push(let view, let to): send(.groupView(view), to)
            case .pushChange(let change, let to): send(.groupViewChange(change), to)
            case .rules(let rules, let to): send(.clusterRules(rules), to)
            case .assign(_, let assign, let to): send(.assign(assign), [to])
            case .answer(let message, let to):
                links[to]?.send(message, from: self)
            case .refuse(_, let id):
                guard let link = links.removeValue(forKey: id) else { continue }
                link.close(by: self)
                perform(machine.closed(id, now: now))
            case .changed, .decided, .tookUp, .viewChanged, .commanded, .wanted, .save: break
            }
        }
    }

    private func send(_ message: ControlMessage, _ to: [LinkID]) {
        for link in to { links[link]?.send(message, from: self) }
    }
}

/// The health-agent's shell in the simulated cluster.
final class SimulatedAgent: SimulatedProcess {
    private let plan: ClusterPlan
    private var machine: HealthMachine
    private var reader = ViewReader()
    private var scheduler: SimulatedLink?
    private var watched: [InstanceID: SimulatedLink?] = [:]

    init(plan: ClusterPlan, cluster: ClusterSimulation) {
        self.plan = plan
        machine = HealthMachine(host: "host", limits: plan.healthLimits)
        super.init("health-agent", role: .healthAgent, cluster: cluster)
    }

    override func begin() {
        machine = HealthMachine(host: "host", limits: plan.healthLimits)
        reader = ViewReader()
        every(.milliseconds(250)) { [unowned self] in perform(machine.tick(now: now)) }
        dialScheduler()
    }

    override func end() {
        scheduler = nil
        watched = [:]
    }

    private func dialScheduler() {
        cluster.dial("scheduler", from: self, .control) { [unowned self] link in
            guard let link else {
                after(cluster.randomDuration(upTo: .milliseconds(400))) { [unowned self] in
                    dialScheduler()
                }
                return
            }
            scheduler = link
            reader.connected()
            link.send(.subscribe(Subscribe(host: "host")), from: self)
        }
    }

    private func dial(_ instance: InstanceID) {
        cluster.dial(instance.name, from: self, .control) { [unowned self] link in
            guard case .some(.none) = watched[instance] else {
                link?.close(by: self)
                return
            }
            if let link { watched[instance] = .some(link) } else { redial(instance) }
        }
    }

    private func redial(_ instance: InstanceID) {
        after(.milliseconds(200)) { [unowned self] in
            if case .some(.none) = watched[instance] { dial(instance) }
        }
    }

    override func closed(_ link: SimulatedLink) {
        if link === scheduler {
            scheduler = nil
            dialScheduler()
        } else if let instance = watched.first(where: { $0.value === link })?.key {
            watched[instance] = .some(nil)
            redial(instance)
        }
    }

    override func received(
        _ message: ControlMessage, tokens: [TokenID], on link: SimulatedLink
    ) {
        switch message {
        case .groupView(let page):
            if let view = reader.received(page) { perform(machine.viewChanged(view, now: now)) }
        case .groupViewChange(let change):
            switch reader.received(change) {
            case .nothing, .readings: break
            case .view(let view): perform(machine.viewChanged(view, now: now))
            case .outOfStep: link.send(.subscribe(Subscribe(host: "host")), from: self)
            }
        case .pong(let pong): machine.answered(link.acceptor.name, pong, now: now)
        case .canaryDone(let done):
            perform(machine.canaryDone(link.acceptor.name, done, now: now))
        default: break
        }
    }

    private func perform(_ actions: [HealthAction]) {
        for action in actions {
            switch action {
            case .watch(let instance, _, _):
                watched[instance] = .some(nil)
                dial(instance)
            case .forget(let instance):
                watched.removeValue(forKey: instance)??.close(by: self)
            case .ping(let instance, let ping):
                watched[instance]??.send(.ping(ping), from: self)
            case .canary(let instance, let canary):
                watched[instance]??.send(.canary(canary), from: self)
            case .report(let findings):
                let host = HostReading(
                    host: "host", cores: 1, busyFraction: 0, loadAverage: 0, totalMemoryBytes: 1,
                    availableMemoryBytes: 1, devices: [])
                scheduler?.send(
                    .healthReport(HealthReport(host: host, findings: findings)), from: self)
            case .end, .judged, .canaryEnded: break
            }
        }
    }
}
