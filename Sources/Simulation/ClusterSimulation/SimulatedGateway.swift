import Roles
import ServingTypes

/// A gateway's shell in the simulated cluster.
final class SimulatedGateway: SimulatedProcess {
    private let plan: ClusterPlan
    private var machine: GatewayMachine
    private var reader = ViewReader(tellsReadings: true)
    private var scheduler: SimulatedLink?
    private var workers: [InstanceID: SimulatedLink] = [:]
    private var dialing: Set<InstanceID> = []
    /// Requests that it has not read yet.
    private var unread: Set<RequestID> = []
    /// Open requests of its clients.
    private(set) var open: Set<RequestID> = []

    init(_ name: String, plan: ClusterPlan, cluster: ClusterSimulation) {
        self.plan = plan
        machine = GatewayMachine(limits: plan.gatewayLimits, seed: 0)
        super.init(name, role: .gateway, cluster: cluster)
    }

    override func begin() {
        machine = GatewayMachine(limits: plan.gatewayLimits, seed: plan.seed &+ life)
        perform(machine.rulesChanged(plan.rules, now: now))
        reader = ViewReader(tellsReadings: true)
        every(.milliseconds(100)) { [unowned self] in
            perform(machine.tick(now: now))
            report(machine.takeTraffic(now: now))
            connect()
        }
        dialScheduler()
    }

    override func end() {
        for request in open.union(unread).sorted(by: { $0.low < $1.low }) {
            cluster.lostGateway(request)
        }
        cluster.note(machine.counts)
        open = []
        unread = []
        scheduler = nil
        workers = [:]
        dialing = []
    }

    /// How it has placed requests since it started.
    var placements: PlacementCounts { machine.counts }

    override func check() {
        cluster.expect(
            machine.requestCount == open.count,
            "\(name) knows \(machine.requestCount) requests, \(open.count) are open")
        cluster.expect(
            machine.waitingCount >= 0 && machine.waitingCount <= open.count,
            "\(name): \(machine.waitingCount) of \(open.count) requests wait")
    }

    // MARK: Clients

    func submit(_ job: GenerationJob) {
        unread.insert(job.request)
        handle(life: life) { [unowned self] in
            unread.remove(job.request)
            open.insert(job.request)
            perform(machine.submit(job, now: now))
        }
    }

    func leave(_ request: RequestID) {
        guard open.remove(request) != nil else { return }
        cluster.left(request)
        perform(machine.cancel(request))
    }

    // MARK: Links

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
            link.send(.subscribe(Subscribe()), from: self)
        }
    }

    /// Keeps a connection to each worker of the view.
    private func connect() {
        let wanted = machine.view.members.map(\.description.instance)
        for (instance, link) in workers.sorted(by: { $0.key < $1.key })
        where !wanted.contains(instance) {
            workers[instance] = nil
            link.close(by: self)
            perform(machine.disconnected(instance, now: now))
        }
        for instance in wanted where workers[instance] == nil && !dialing.contains(instance) {
            dialing.insert(instance)
            cluster.dial(instance.name, from: self, .control) { [unowned self] link in
                dialing.remove(instance)
                guard let link else { return }
                workers[instance] = link
                perform(machine.connected(instance, now: now))
            }
        }
    }

    override func closed(_ link: SimulatedLink) {
        if link === scheduler {
            scheduler = nil
            after(cluster.randomDuration(upTo: .milliseconds(400))) { [unowned self] in
                dialScheduler()
            }
        } else if let instance = workers.first(where: { $0.value === link })?.key {
            workers[instance] = nil
            perform(machine.disconnected(instance, now: now))
        }
    }

    override func received(
        _ message: ControlMessage, tokens: [TokenID], on link: SimulatedLink
    ) {
        switch message {
        case .groupView(let page):
            if let view = reader.received(page) { follow(view) }
        case .groupViewChange(let change):
            switch reader.received(change) {
            case .nothing: break
            case .view(let view): follow(view)
            case .readings(let readings, let version):
                machine.readingsChanged(readings, version: version)
            case .outOfStep: link.send(.subscribe(Subscribe()), from: self)
            }
        default:
            guard link !== scheduler else { return }
            perform(machine.received(message, from: link.acceptor.name, now: now))
        }
    }

    private func follow(_ view: GroupView) {
        perform(machine.viewChanged(view, now: now))
        connect()
    }

    private func report(_ traffic: [GroupTraffic]) {
        cluster.note(traffic)
        guard !traffic.isEmpty else { return }
        let report = TrafficReport(interval: .milliseconds(100), groups: traffic)
        scheduler?.send(.trafficReport(report), from: self)
    }

    // MARK: Actions

    private func perform(_ actions: [GatewayAction]) {
        for action in actions {
            switch action {
            case .send(let message, let instance, let tokens):
                cluster.expect(
                    workers[instance] != nil, "\(name) sends to \(instance), not connected")
                workers[instance]?.send(message, tokens: tokens ?? [], from: self)
            case .started(let request, let cachedTokens):
                cluster.expect(open.contains(request), "\(name) starts for nobody")
                cluster.started(request, cachedTokens: cachedTokens)
            case .deliver(let request, let tokens):
                cluster.expect(open.contains(request), "\(name) delivers to nobody")
                cluster.delivered(request, tokens.map(\.token))
            case .finish(let request, let reason):
                cluster.expect(open.remove(request) != nil, "\(name) ends \(request) twice")
                cluster.finished(request, reason)
            case .fail(let request, let failure):
                cluster.expect(open.remove(request) != nil, "\(name) ends \(request) twice")
                cluster.failed(request, failure)
            case .restarted(let request, let attempt, let reason):
                cluster.restarted(request, attempt: attempt, reason: reason)
            }
        }
    }
}
