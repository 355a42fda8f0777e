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
    }

    private let scheduler: ControlClient
    private let links: LinkSet
    private let host: String
    private let logger: Logger
    private let state: Mutex<State>

    /// - Parameter links: makes the connections to workers.
    package init(
        scheduler: ControlClient, links: LinkSet, probe: sending HostProbe, host: String,
        limits: HealthLimits = HealthLimits(), logger: Logger
    ) {
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
                try await repeatedly(every: .milliseconds(100)) {
                    self.handle { $0.tick(now: ProcessClock.now()) }
                }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    private func follow(_ session: ControlSession) async throws {
        state.withLock { state in
            state.scheduler = session
            state.reader.connected()
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
            guard case .pong(let pong) = frame.message else { continue }
            state.withLock { $0.machine.answered(instance, pong, now: ProcessClock.now()) }
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
        case .report(let findings):
            for finding in findings where !finding.isResponding {
                logger.warning(
                    "a worker is not well",
                    metadata: [
                        "worker": "\(finding.instance)", "reason": "\(finding.reason)",
                    ])
            }
            guard let scheduler = state.scheduler else { return }
            let report = HealthReport(host: state.probe.read(), findings: findings)
            scheduler.post(.healthReport(report))
        }
    }
}
