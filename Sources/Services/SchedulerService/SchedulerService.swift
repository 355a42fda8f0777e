package import Logging
import Metrics
package import Roles
import ServiceLifecycle
import ServiceRuntime
import ServiceStart
package import ServingTypes
import Synchronization
package import Transport
import WireProtocol

/// The scheduler's shell: carries the machine's actions out and feeds it what happens.
///
/// Every action is a non-blocking hand-over, so the lock is held for microseconds and orders both
/// the decisions and what follows from them.
package final class SchedulerService: Service {
    private struct State {
        var machine: SchedulerMachine
        var sessions: [LinkID: ControlSession] = [:]
        var links: UInt64 = 0
    }

    private let listener: ControlListener
    private let logger: Logger
    private let state: Mutex<State>

    package init(
        listener: ControlListener, limits: SchedulerLimits = SchedulerLimits(), epoch: UInt64,
        logger: Logger
    ) {
        self.listener = listener
        self.logger = logger
        state = Mutex(State(machine: SchedulerMachine(limits: limits, epoch: epoch)))
    }

    package var status: ClusterStatus { state.withLock { $0.machine.status } }

    package func run() async throws {
        try await untilShutdown { try await self.serve() }
    }

    private func serve() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.listener.run { await self.serve($0) } }
            group.addTask {
                try await repeatedly(every: .milliseconds(100)) {
                    self.handle { $0.tick(now: ProcessClock.now()) }
                }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    private func serve(_ session: ControlSession) async {
        let link = state.withLock { state in
            state.links += 1
            let link = LinkID(state.links)
            state.sessions[link] = session
            return link
        }
        do {
            for try await frame in session.inbound {
                handle {
                    $0.received(
                        frame.message, from: session.peer, on: link, now: ProcessClock.now())
                }
            }
        } catch {
            logger.info(
                "a connection ended",
                metadata: ["peer": "\(session.peer)", "reason": "\(error)"])
        }
        handle { $0.closed(link, now: ProcessClock.now()) }
        state.withLock { _ = $0.sessions.removeValue(forKey: link) }
    }

    private func handle(_ event: (inout SchedulerMachine) -> [SchedulerAction]) {
        state.withLock { state in
            for action in event(&state.machine) { perform(action, &state) }
        }
    }

    private func perform(_ action: SchedulerAction, _ state: inout State) {
        switch action {
        case .push(let view, let links):
            for link in links { state.sessions[link]?.post(.groupView(view)) }
            for member in InstanceState.allCases {
                Gauge(label: "scheduler_instances", dimensions: [("state", member.name)])
                    .record(view.members.count { $0.state == member })
            }
        case .answer(let message, let link):
            state.sessions[link]?.post(message)
        case .refuse(let refusal, let link):
            state.sessions[link]?.close(refusal: refusal)
        case .changed(let instance, let newState, let reason):
            logger.notice(
                "a worker changed its state",
                metadata: [
                    "worker": "\(instance)", "state": "\(newState?.name ?? "gone")",
                    "reason": "\(reason)",
                ])
        }
    }
}
