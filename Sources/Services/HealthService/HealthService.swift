package import HostProbe
package import Logging
package import Roles
import ServiceLifecycle
import ServiceRuntime
import ServiceStart
import ServingTypes
import Synchronization
package import Transport
import WireProtocol

/// The health-agent's shell: probes the workers of its host and reports to the scheduler.
package final class HealthService: Service {
    private struct State {
        var machine: HealthMachine
        var reader = ViewReader()
        var workers: [InstanceID: ControlSession] = [:]
        var scheduler: ControlSession?
        var probe: HostProbe
        var metrics = HealthMetrics()
    }

    private let scheduler: ControlClient
    private let links: LinkSet
    private let host: String
    private let probes: [ProbeThread]
    private let supervisor: Supervisor?
    private let logger: Logger
    private let state: Mutex<State>

    /// - Parameters:
    ///   - links: makes the connections to workers.
    ///   - supervisor: keeps workers of this host running; nil if others do.
    package init(
        scheduler: ControlClient, links: LinkSet, probe: sending HostProbe,
        probes: [ProbeThread], supervisor: Supervisor?, host: String,
        limits: HealthLimits = HealthLimits(), logger: Logger
    ) {
        self.probes = probes
        self.supervisor = supervisor
        self.scheduler = scheduler
        self.links = links
        self.host = host
        self.logger = logger
        state = Mutex(State(machine: HealthMachine(host: host, limits: limits), probe: probe))
    }

    /// Whether the scheduler is connected.
    package var isConnected: Bool { state.withLock { $0.scheduler != nil } }

    package func run() async throws {
        try await untilShutdown { try await self.serve() }
    }

    private func serve() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await self.scheduler.run { try await self.follow($0) } }
            group.addTask {
                try await self.links.run { try await self.watch($0, instance: $1) }
            }
            group.addTask {
                try await repeatedly(every: .milliseconds(100)) { self.tick() }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    private func tick() {
        let reports = probes.compactMap(\.report)
        handle { machine in
            let now = ProcessClock.now()
            for report in reports { machine.probed(report, now: now) }
            return machine.tick(now: now)
        }
    }

    private func follow(_ session: ControlSession) async throws {
        state.withLock { state in
            state.scheduler = session
            state.reader.connected(isOnly: scheduler.hasOneAddress)
        }
        defer { state.withLock { $0.scheduler = nil } }
        session.post(.subscribe(Subscribe(host: host)))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await session.keepAlive() }
            group.addTask {
                for try await frame in session.inbound {
                    self.read(frame.message, on: session)
                }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    private func read(_ message: ControlMessage, on session: ControlSession) {
        state.withLock { state in
            let view: GroupView?
            switch message {
            case .groupView(let page): view = state.reader.received(page)
            case .groupViewChange(let change):
                switch state.reader.received(change) {
                case .nothing, .readings: view = nil
                case .view(let changed): view = changed
                case .outOfStep:
                    session.post(.subscribe(Subscribe(host: host)))
                    view = nil
                }
            default: view = nil
            }
            guard let view else { return }
            for action in state.machine.viewChanged(view, now: ProcessClock.now()) {
                perform(action, &state)
            }
        }
    }

    private func watch(_ session: ControlSession, instance: InstanceID) async throws {
        state.withLock { $0.workers[instance] = session }
        defer {
            state.withLock { state in
                // A new life of the worker may be connected already.
                if state.workers[instance] === session { state.workers[instance] = nil }
            }
        }
        for try await frame in session.inbound {
            let now = ProcessClock.now()
            switch frame.message {
            case .pong(let pong):
                state.withLock { $0.machine.answered(instance, pong, now: now) }
            case .canaryDone(let done):
                handle { $0.canaryDone(instance, done, now: now) }
            default: continue
            }
        }
    }

    private func handle(_ event: (inout HealthMachine) -> [HealthAction]) {
        state.withLock { state in
            for action in event(&state.machine) { perform(action, &state) }
        }
    }

    private func perform(_ action: HealthAction, _ state: inout State) {
        switch action {
        case .watch(let instance, let address, let role):
            logger.info("watching a worker", metadata: ["worker": "\(instance)"])
            links.add(instance, role: role, at: address)
        case .forget(let instance):
            links.remove(instance)
        case .ping(let instance, let ping):
            state.workers[instance]?.post(.ping(ping))
        case .canary(let instance, let canary):
            state.workers[instance]?.post(.canary(canary))
        case .canaryEnded(let instance, let end):
            HealthMetrics.canary(end)
            logger.debug(
                "a canary has ended", metadata: ["worker": "\(instance)", "outcome": "\(end)"])
        case .judged(let finding): log(finding)
        case .end(let instance, let reason, let isSilent):
            endWorker(instance, reason, isSilent: isSilent, state)
        case .report(let findings): report(findings, &state)
        }
    }

    private func report(_ findings: [WorkerFinding], _ state: inout State) {
        let devices = state.machine.devices
        state.metrics.show(findings)
        state.metrics.show(devices)
        guard let scheduler = state.scheduler else { return }
        let report = HealthReport(
            host: state.probe.read(devices: devices), findings: findings,
            supervised: supervisor?.report ?? [])
        scheduler.post(.healthReport(report))
    }

    private func log(_ finding: WorkerFinding) {
        guard finding.isSuspect || !finding.isResponding else {
            logger.notice("a worker is well", metadata: ["worker": "\(finding.instance)"])
            return
        }
        logger.warning(
            "a worker is not well",
            metadata: [
                "worker": "\(finding.instance)", "reason": "\(finding.reason)",
                "state": finding.isSuspect ? "suspect" : "down",
            ])
    }

    /// Has a hung worker started again: by this agent, or by whoever runs its container.
    private func endWorker(
        _ instance: InstanceID, _ reason: String, isSilent: Bool, _ state: borrowing State
    ) {
        if supervisor?.end(instance.name, reason: reason) == true { return }
        guard !isSilent, let session = state.workers[instance] else {
            logger.error(
                "a hung worker can't be ended from here; restart it",
                metadata: ["worker": "\(instance)", "reason": "\(reason)"])
            return
        }
        logger.error(
            "a hung worker is told to exit",
            metadata: ["worker": "\(instance)", "reason": "\(reason)"])
        HealthMetrics.toldToExit()
        session.post(.exit(Exit(reason: reason)))
    }
}
