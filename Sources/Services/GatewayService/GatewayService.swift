import ClusterRules
import InferenceEngine
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

/// What the client's side hears of one choice, in order; `finished` or `failed` comes last.
package enum GenerationEvent: Sendable {
    /// Its prompt is being computed, but for so many tokens; again if it starts again.
    case started(cachedTokens: Int)
    case tokens([TokenOutput])
    case finished(FinishReason)
    case failed(GenerationFailure)
}

/// Something that happened to one choice of an answer.
package struct ChoiceEvent: Sendable {
    package var choice: Int
    package var event: GenerationEvent
}

/// The gateway's shell: places requests by its machine and hands tokens to their clients.
package final class GatewayService: Service {
    /// One choice of a client's answer.
    private struct Client {
        let choice: Int
        let siblings: [RequestID]
        let backlog: ClientBacklog
        let promptTokens: Int

        /// The name of its answer: the first choice's request.
        var answer: RequestID? { siblings.first }
    }

    /// What an answer has taken so far, all choices together.
    private struct Answer {
        let admission: Admission
        let promptTokens: Int
        var hasStarted = false
        var outputTokens = 0
        var outcome = GatewayMetrics.Outcome.finished

        var usedTokens: Int { hasStarted ? promptTokens + outputTokens : 0 }
    }

    private struct State {
        var machine: GatewayMachine
        var workers: [InstanceID: ControlSession] = [:]
        /// Members of the last view, by instance, as the connections know them.
        var linked: [InstanceID: InstanceDescription] = [:]
        var clients: [RequestID: Client] = [:]
        /// By the request of the answer's first choice.
        var answers: [RequestID: Answer] = [:]
        var views = ViewReader(tellsReadings: true)
        var rules: ServingTypes.ClusterRules?
        var reportedAt = ProcessClock.now()
        var modelContexts: [String: Int] = [:]
    }

    private let scheduler: ControlClient
    private let links: LinkSet
    private let drainDeadline: Duration
    private let unreadLimit: Int
    private let viewFile: ViewFile?
    private let logger: Logger
    private let state: Mutex<State>
    let access: AccessControl
    let vocabularies: VocabularyBook
    /// Time between two reports to the scheduler.
    private static let reportInterval: Duration = .seconds(2)
    let metrics = GatewayMetrics()

    /// - Parameter unreadLimit: pieces of a choice that wait for a client that reads slowly.
    package init(
        scheduler: ControlClient, links: LinkSet, limits: GatewayLimits, seed: UInt64,
        drainDeadline: Duration, unreadLimit: Int, access: AccessControl,
        vocabularies: VocabularyBook,
        viewFile: ViewFile? = nil, logger: Logger
    ) {
        self.viewFile = viewFile
        self.access = access
        self.vocabularies = vocabularies
        self.scheduler = scheduler
        self.links = links
        self.drainDeadline = drainDeadline
        self.unreadLimit = unreadLimit
        self.logger = logger
        state = Mutex(State(machine: GatewayMachine(limits: limits, seed: seed)))
        vocabulariesChanged()
        if let content = viewFile?.read() { begin(with: content) }
    }

    /// Nil if requests can be served now, otherwise why not.
    package var complaint: String? {
        state.withLock { state in
            if state.views.view == nil { return "the scheduler has not sent its view yet" }
            return state.machine.canServe
                ? nil : "no pair of a prefill-worker and a decode-worker is connected"
        }
    }

    /// 0: no scheduler has sent a view yet.
    package var viewEpoch: UInt64 { state.withLock { $0.views.view?.epoch ?? 0 } }

    package var requestCount: Int { state.withLock { $0.machine.requestCount } }

    /// The longest context a worker of the model offers; nil if none is known.
    package func contextTokens(ofModel model: String) -> Int? {
        state.withLock { $0.modelContexts[model] }
    }

    /// Names that clients may give for a model of this gateway, in the order of the scenarios.
    ///
    /// Those of scenarios with an open group; the model's own if no groups are known.
    func modelNames(for model: String) -> [String] {
        guard let spec = access.spec, let view = state.withLock({ $0.views.view }),
            !view.groups.isEmpty
        else { return [model] }
        let open = view.groups.filter { $0.state == .open && $0.modelName == model }
        var names: [String] = []
        for scenario in spec.scenarios where open.contains(where: { $0.scenario == scenario.name })
        {
            let own = scenario.matchedModels.isEmpty ? [model] : scenario.matchedModels
            names += own.filter { !names.contains($0) }
        }
        return names
    }

    /// Who turns text into tokens for a request of the scenario; nil: of any.
    func speaker(scenario: String?) -> Speaker {
        let path = state.withLock { state in
            state.machine.drawModelPath(
                scenario: scenario ?? "", modelName: vocabularies.own.tokenizer.modelName)
        }
        return vocabularies.speaker(for: path)
    }

    private func vocabulariesChanged() {
        let known = vocabularies.known
        handle { $0.vocabulariesChanged(known, now: ProcessClock.now()) }
    }

    // MARK: Requests

    /// Starts the requests of one answer.
    ///
    /// Its events end when all have; dropping them cancels the requests, and so does not reading
    /// them. At the end the admission's charge is corrected.
    func generate(
        _ jobs: [GenerationJob], admission: Admission, promptTokens: Int
    ) -> ClientBacklog {
        let requests = jobs.map(\.request)
        let backlog = ClientBacklog(limit: unreadLimit * max(1, jobs.count)) { [weak self] in
            guard let self else { return }
            self.logger.info("the client is gone", metadata: ["requests": "\(requests)"])
            self.metrics.clientsGone.increment()
            for request in requests { self.cancel(request, isClientGone: true) }
        }
        state.withLock { state in
            if let answer = requests.first {
                state.answers[answer] = Answer(admission: admission, promptTokens: promptTokens)
            }
            for (choice, job) in jobs.enumerated() {
                state.clients[job.request] = Client(
                    choice: choice, siblings: requests, backlog: backlog,
                    promptTokens: job.promptTokens.count)
            }
        }
        for job in jobs { handle { $0.submit(job, now: ProcessClock.now()) } }
        return backlog
    }

    /// Ends a request whose client has all it wants, or is gone.
    package func cancel(_ request: RequestID, isClientGone: Bool = false) {
        handle { $0.cancel(request) }
        let ended = state.withLock { state in
            if isClientGone { note(request, &state) { $0.outcome = .cancelled } }
            return removeClient(request, &state)
        }
        ended?.finish()
    }

    /// Forgets a choice; gives the stream if it was the last one of its answer.
    private func removeClient(
        _ request: RequestID, _ state: inout State
    ) -> ClientBacklog? {
        guard let client = state.clients.removeValue(forKey: request) else { return nil }
        guard !client.siblings.contains(where: { state.clients[$0] != nil }) else { return nil }
        if let answer = client.answer.flatMap({ state.answers.removeValue(forKey: $0) }) {
            access.ended(answer.admission, usedTokens: answer.usedTokens)
            metrics.ended(answer.outcome, scenario: answer.admission.scenario.name)
        }
        return client.backlog
    }

    private func note(_ request: RequestID, _ state: inout State, _ change: (inout Answer) -> Void)
    {
        guard let answer = state.clients[request]?.answer, var noted = state.answers[answer] else {
            return
        }
        change(&noted)
        state.answers[answer] = noted
    }

    // MARK: Life

    package func run() async throws {
        try await withGracefulShutdownHandler {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { await self.scheduler.run { try await self.follow($0) } }
                group.addTask {
                    try await self.links.run { try await self.serve($0, instance: $1) }
                }
                group.addTask { try await self.tick() }
                if let viewFile { group.addTask { try await self.keepView(in: viewFile) } }
                group.addTask {
                    for await path in self.vocabularies.wanted {
                        await self.vocabularies.fetch(path)
                        self.vocabulariesChanged()
                    }
                }
                try await group.next()
                group.cancelAll()
            }
        } onGracefulShutdown: {
            self.logger.notice("draining: new requests are refused")
            self.state.withLock { $0.machine.beginShutdown() }
        }
    }

    /// Ticks until the gateway has drained.
    private func tick() async throws {
        var drainEnd: MonotonicTime?
        var placements = PlacementMetrics()
        while true {
            try await Task.sleep(for: .milliseconds(50))
            let now = ProcessClock.now()
            handle { $0.tick(now: now) }
            let open = state.withLock { state in
                relink(&state)
                metrics.record(state.machine)
                placements.record(state.machine.counts)
                return state.machine.requestCount
            }
            guard Task.isShuttingDownGracefully else { continue }
            drainEnd = drainEnd ?? now + drainDeadline
            if open == 0 { return }
            if let drainEnd, now >= drainEnd { return failAll() }
        }
    }

    private func failAll() {
        logger.warning("the drain deadline has passed; open requests are given up")
        let clients = state.withLock { state in
            defer { state.clients = [:] }
            return state.clients
        }
        for client in clients.values {
            _ = client.backlog.add(
                ChoiceEvent(choice: client.choice, event: .failed(.shuttingDown)))
            client.backlog.finish()
        }
    }

    // MARK: Scheduler and workers

    private func follow(_ session: ControlSession) async throws {
        state.withLock { $0.views.connected(isOnly: scheduler.hasOneAddress) }
        session.post(.subscribe(Subscribe()))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await session.keepAlive() }
            group.addTask {
                for try await frame in session.inbound { self.hear(frame.message, session) }
            }
            group.addTask {
                try await repeatedly(every: Self.reportInterval) { self.report(to: session) }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    private func hear(_ message: ControlMessage, _ session: ControlSession) {
        switch message {
        case .clusterRules(let rules): follow(rules)
        case .groupView(let page):
            state.withLock { state in
                if let view = state.views.received(page) { adopt(view, &state) }
            }
        case .groupViewChange(let page):
            let isOutOfStep = state.withLock { state in
                switch state.views.received(page) {
                case .nothing: return false
                case .view(let view):
                    adopt(view, &state)
                    return false
                case .readings(let readings, let version):
                    state.machine.readingsChanged(readings, version: version)
                    return false
                case .outOfStep: return true
                }
            }
            guard isOutOfStep else { return }
            logger.notice("a change of the view is missing; the whole view is asked for")
            session.post(.subscribe(Subscribe()))
        default: break
        }
    }

    private func follow(_ rules: ServingTypes.ClusterRules) {
        guard let spec = access.follow(rules) else { return }
        state.withLock { $0.rules = rules }
        handle { $0.rulesChanged(spec, now: ProcessClock.now()) }
    }

    /// Serves by what was kept, until a scheduler says otherwise.
    private func begin(with content: ViewFile.Content) {
        if let rules = content.rules { follow(rules) }
        state.withLock { state in
            if let view = state.views.received(content.view) { adopt(view, &state) }
        }
    }

    private func keepView(in file: ViewFile) async throws {
        var file = file
        try await repeatedly(every: ViewFile.interval) {
            let (view, rules) = state.withLock { ($0.views.view, $0.rules) }
            // What was read from the file says nothing new.
            guard let view, view.epoch > 0 else { return }
            file.keep(ViewFile.Content(view: view, rules: rules))
        }
    }

    private func adopt(_ view: GroupView, _ state: inout State) {
        let actions = state.machine.viewChanged(view, now: ProcessClock.now())
        relink(&state)
        for action in actions { perform(action, &state) }
        guard vocabularies.follow(view.groups) else { return }
        let known = vocabularies.known
        for action in state.machine.vocabulariesChanged(known, now: ProcessClock.now()) {
            perform(action, &state)
        }
    }

    /// Tells the scheduler what happened in the groups, from which it derives their ratio.
    private func report(to session: ControlSession) {
        let now = ProcessClock.now()
        let (groups, interval) = state.withLock { state in
            defer { state.reportedAt = now }
            return (state.machine.takeTraffic(now: now), now - state.reportedAt)
        }
        // An empty report says that nothing waits any more.
        for start in stride(from: 0, to: max(1, groups.count), by: WireLimits.groups) {
            let part = groups[start..<min(start + WireLimits.groups, groups.count)]
            session.post(.trafficReport(TrafficReport(interval: interval, groups: Array(part))))
        }
    }

    /// Keeps a connection to each worker the machine wants to be connected with.
    ///
    /// That is not only the scheduler's last view: it also holds workers whose last words are on
    /// their way, and those that have not had time to register with a new scheduler.
    private func relink(_ state: inout State) {
        let members = state.machine.view.members.map(\.description)
        guard
            state.linked.count != members.count
                || members.contains(where: { state.linked[$0.instance] != $0 })
        else { return }
        let wanted = Dictionary(members.map { ($0.instance, $0) }, uniquingKeysWith: { $1 })
        for (instance, old) in state.linked where wanted[instance] != old {
            links.remove(instance)
            state.linked[instance] = nil
        }
        for (instance, new) in wanted where state.linked[instance] == nil {
            state.linked[instance] = new
            links.add(instance, role: new.role, at: new.controlAddress)
            guard new.role == .decodeWorker else { continue }
            state.modelContexts[new.modelName] = max(
                new.contextTokens, state.modelContexts[new.modelName] ?? 0)
        }
    }

    private func serve(_ session: ControlSession, instance: InstanceID) async throws {
        logger.info("a worker is connected", metadata: ["worker": "\(instance)"])
        state.withLock { state in
            state.workers[instance] = session
            let actions = state.machine.connected(instance, now: ProcessClock.now())
            for action in actions { perform(action, &state) }
        }
        defer {
            logger.info("a worker is disconnected", metadata: ["worker": "\(instance)"])
            state.withLock { state in
                // A new life of the worker may be connected already.
                guard state.workers[instance] === session else { return }
                state.workers[instance] = nil
                let actions = state.machine.disconnected(instance, now: ProcessClock.now())
                for action in actions { perform(action, &state) }
            }
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await session.keepAlive() }
            group.addTask {
                for try await frame in session.inbound {
                    self.handle {
                        $0.received(frame.message, from: instance, now: ProcessClock.now())
                    }
                }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    // MARK: Actions

    private func handle(_ event: (inout GatewayMachine) -> [GatewayAction]) {
        state.withLock { state in
            for action in event(&state.machine) { perform(action, &state) }
        }
    }

    private func perform(_ action: GatewayAction, _ state: inout State) {
        switch action {
        case .send(let message, let instance, let tokens):
            state.workers[instance]?.post(
                message, payload: tokens.map { TokenPayload.encode($0) } ?? [])
        case .started(let request, let cachedTokens):
            guard let client = state.clients[request] else { return }
            note(request, &state) { $0.hasStarted = true }
            metrics.promptTokens.increment(by: client.promptTokens)
            metrics.cachedTokens.increment(by: min(cachedTokens, client.promptTokens))
            deliver(.started(cachedTokens: cachedTokens), to: client, &state)
        case .deliver(let request, let tokens):
            guard let client = state.clients[request] else { return }
            note(request, &state) { answer in
                answer.hasStarted = true
                answer.outputTokens += tokens.count
            }
            deliver(.tokens(tokens), to: client, &state)
        case .finish(let request, let reason):
            end(request, .finished(reason), &state)
        case .fail(let request, let failure):
            metrics.failed.increment()
            note(request, &state) { $0.outcome = .failed }
            logger.warning(
                "a request failed",
                metadata: ["request": "\(request)", "reason": "\(failure)"])
            end(request, .failed(failure), &state)
        case .restarted(let request, let attempt, let reason):
            metrics.restarted.increment()
            logger.warning(
                "a request starts again",
                metadata: [
                    "request": "\(request)", "attempt": "\(attempt)", "reason": "\(reason)",
                ])
        }
    }

    /// A client that has left too much unread loses its answer; its KV is freed at once.
    private func deliver(_ event: GenerationEvent, to client: Client, _ state: inout State) {
        if client.backlog.add(ChoiceEvent(choice: client.choice, event: event)) { return }
        metrics.clientsSlow.increment()
        logger.info(
            "a client reads too slowly: its request ends",
            metadata: ["requests": "\(client.siblings)", "unread": "\(unreadLimit)"])
        for request in client.siblings {
            note(request, &state) { $0.outcome = .cancelled }
            for action in state.machine.cancel(request) { perform(action, &state) }
            removeClient(request, &state)?.finish()
        }
    }

    private func end(_ request: RequestID, _ event: GenerationEvent, _ state: inout State) {
        guard let client = state.clients[request] else { return }
        _ = client.backlog.add(ChoiceEvent(choice: client.choice, event: event))
        removeClient(request, &state)?.finish()
    }
}
