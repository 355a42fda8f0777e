import ClusterRules
import ClusterStore
import Foundation
import Grouping
import Logging
import Roles
import ServiceLifecycle
import ServiceRuntime
import ServiceStart
import ServingTypes
import Synchronization
import Transport
import WireProtocol

/// The scheduler's shell for one term: carries the machine's actions out and feeds it what happens.
///
/// Every action is a non-blocking hand-over, so the lock is held for microseconds and orders both
/// the decisions and what follows from them.
final class SchedulerService: Sendable {
    private struct State {
        var machine: SchedulerMachine
        var sessions: [LinkID: ControlSession] = [:]
        var links: UInt64 = 0
        var wanted: [WantedInstances] = []
        var metrics = SchedulerMetrics()
    }

    private let listener: ControlListener
    private let rules: ClusterRulesFile?
    private let events: EventLog
    private let store: StoreLink?
    private let logger: Logger
    private let state: Mutex<State>

    /// - Parameters:
    ///   - rules: the cluster file, which has been read once; nil if there is none.
    ///   - store: what outlives this term; nil if nothing does.
    init(
        listener: ControlListener, limits: SchedulerLimits, epoch: UInt64,
        rules: ClusterRulesFile?, events: EventLog, store: StoreLink?, logger: Logger
    ) {
        self.listener = listener
        self.rules = rules
        self.events = events
        self.store = store
        self.logger = logger
        state = Mutex(
            State(
                machine: SchedulerMachine(limits: limits, epoch: epoch, clock: Self.clock())))
    }

    /// Members looked at since the start.
    var examinedMembers: Int { state.withLock { $0.machine.examinedMembers } }

    /// How many workers each scenario has and should have.
    var wanted: [WantedInstances] { state.withLock { $0.wanted } }

    /// Workers of an earlier scheduler that have not come back yet.
    var awaitedWorkers: Int { state.withLock { $0.machine.awaitedWorkers } }

    /// Takes over what an earlier scheduler saved; called before anything else.
    func restore(_ records: [SavedKey: SavedRecord]) {
        state.withLock { $0.machine.restore(records, now: ProcessClock.now()) }
    }

    /// Makes a cluster file's rules the cluster's.
    func apply(_ content: ClusterRulesFile.Content) {
        handle { $0.rulesChanged(content.spec, text: content.text, now: ProcessClock.now()) }
    }

    /// Returns only by cancellation, or with what is wrong.
    func serve() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.listener.run { await self.serve($0) } }
            group.addTask {
                try await repeatedly(every: .milliseconds(100)) {
                    let clock = Self.clock()
                    self.handle { $0.tick(now: ProcessClock.now(), clock: clock) }
                }
            }
            if let rules { group.addTask { try await self.watch(rules) } }
            try await group.next()
            group.cancelAll()
        }
    }

    private func watch(_ file: ClusterRulesFile) async throws {
        var file = file
        try await repeatedly(every: ClusterRulesFile.interval) { look(at: &file) }
    }

    private func look(at rules: inout ClusterRulesFile) {
        do throws(ClusterRulesError) {
            guard let content = try rules.readIfChanged() else { return }
            apply(content)
            store?.noteRules(content.text)
            let scenarios = content.spec.scenarios.map(\.name).joined(separator: " ")
            logger.notice("the cluster file was read", metadata: ["scenarios": "\(scenarios)"])
            events.add(
                .rules, rules.path,
                "was read; scenarios: \(scenarios); the file belongs to \(rules.owner)")
        } catch {
            state.withLock { $0.metrics.wrongFile() }
            events.add(
                .rules, rules.path,
                "can't be used: \(error); the file belongs to \(rules.owner)")
            logger.error(
                "a new cluster file can't be used, the rules before it stay",
                metadata: ["reason": "\(error)"])
        }
    }

    /// The time as the operator's schedules mean it.
    private static func clock() -> Grouping.WallClock {
        let date = Date()
        let seconds = Int(date.timeIntervalSince1970)
        let local = seconds + TimeZone.autoupdatingCurrent.secondsFromGMT(for: date)
        return Grouping.WallClock(
            unixMilliseconds: UInt64(max(0, date.timeIntervalSince1970 * 1000)),
            minuteOfDay: (local % 86_400 + 86_400) % 86_400 / 60)
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
                if case .adminRequest(let request) = frame.message, request.command == "events" {
                    session.post(.adminReply(events.answer(request)))
                    continue
                }
                handle {
                    $0.received(
                        frame.message, from: session.peer, on: link, now: ProcessClock.now())
                }
            }
        } catch {
            if case .messageNotAllowed(.adminRequest, let role) = error {
                events.add(
                    .administration, session.peer.instance.name,
                    "refused: a \(role.name) may ask for nothing; asked by \(asker(session))")
            }
            logger.info(
                "a connection ended",
                metadata: ["peer": "\(session.peer)", "reason": "\(error)"])
        }
        handle { $0.closed(link, now: ProcessClock.now()) }
        state.withLock { _ = $0.sessions.removeValue(forKey: link) }
    }

    /// Does nothing any more once another may lead.
    private func handle(_ event: (inout SchedulerMachine) -> [SchedulerAction]) {
        state.withLock { state in
            guard store?.term.isCurrent ?? true else { return }
            for action in event(&state.machine) { perform(action, &state) }
        }
    }

    private func perform(_ action: SchedulerAction, _ state: inout State) {
        switch action {
        case .push(let view, let links): send(.groupView(view), to: links, state)
        case .pushChange(let change, let links):
            send(.groupViewChange(change), to: links, state)
        case .rules(let rules, let links): send(.clusterRules(rules), to: links, state)
        case .answer(let message, let link): state.sessions[link]?.post(message)
        case .assign(_, let assign, let link):
            state.metrics.count(assign)
            state.sessions[link]?.post(.assign(assign))
        case .refuse(let refusal, let link): state.sessions[link]?.close(refusal: refusal)
        case .wanted(let wanted):
            state.wanted = wanted
            state.metrics.show(wanted)
        case .viewChanged(let groups):
            state.metrics.show(state.machine)
            state.metrics.show(groups)
        case .tookUp(let instance, let role, let duration):
            state.metrics.tookUp(role, after: duration)
            events.add(
                .role, instance.name,
                "works as \(role.name) \(duration.milliseconds) ms after it was told to")
            logger.info(
                "a worker took up its role",
                metadata: [
                    "worker": "\(instance)", "role": "\(role.name)",
                    "milliseconds": "\(duration.milliseconds)",
                ])
        case .decided(let decision):
            state.metrics.count(decision)
            log(decision)
            events.add(
                decision.eventKind, decision.scenario, "\(decision.action): \(decision.reason)")
        case .commanded(let person, let link, let request, let reply):
            log(request, reply, by: person, asker(state.sessions[link]))
        case .save(let changes): store?.save(changes)
        case .changed(let instance, let newState, let reason):
            events.add(
                .membership, instance.name, "\(newState?.name ?? "gone"): \(reason)")
            logger.notice(
                "a worker changed its state",
                metadata: [
                    "worker": "\(instance)", "state": "\(newState?.name ?? "gone")",
                    "reason": "\(reason)",
                ])
        }
    }

    private func send(_ message: ControlMessage, to links: [LinkID], _ state: State) {
        let sessions = links.compactMap { state.sessions[$0] }
        do throws(WireError) {
            try ControlSession.send(message, to: sessions)
        } catch {
            let reason = "a message can't be written: \(error)"
            for session in sessions {
                session.close(refusal: Refusal(code: .protocol, reason: reason))
            }
        }
    }

    private func log(_ decision: Decision) {
        logger.notice(
            "the scheduler decided",
            metadata: [
                "scenario": "\(decision.scenario)", "action": "\(decision.action)",
                "reason": "\(decision.reason)",
            ])
    }

    /// What the certificate calls a peer, and where it is.
    private func asker(_ session: ControlSession?) -> String {
        session.map { "\($0.certificate) from \($0.remoteAddress)" } ?? "a peer that has gone"
    }

    private func log(
        _ request: AdminRequest, _ reply: AdminReply, by person: InstanceID, _ asker: String
    ) {
        let arguments = request.arguments.map { "\($0.name)=\($0.value)" }
        let words = ([request.command] + arguments).joined(separator: " ")
        events.add(
            .administration, person.name,
            "\(words): \(reply.isAccepted ? "done" : "refused"): \(reply.text); asked by \(asker)")
        logger.notice(
            "a person asked for something",
            metadata: [
                "person": "\(person)", "asker": "\(asker)", "command": "\(request.command)",
                "arguments": "\(arguments.joined(separator: " "))",
                "accepted": "\(reply.isAccepted)", "answer": "\(reply.text)",
            ])
    }
}
