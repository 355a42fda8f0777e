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
        let continuation: AsyncStream<ChoiceEvent>.Continuation
    }

    private struct State {
        var machine: GatewayMachine
        var workers: [InstanceID: ControlSession] = [:]
        /// Members of the last view, by instance, as the connections know them.
        var linked: [InstanceID: InstanceDescription] = [:]
        var clients: [RequestID: Client] = [:]
        var hasView = false
        var modelContexts: [String: Int] = [:]
    }

    private let scheduler: ControlClient
    private let links: LinkSet
    private let drainDeadline: Duration
    private let logger: Logger
    private let state: Mutex<State>
    let metrics = GatewayMetrics()

    package init(
        scheduler: ControlClient, links: LinkSet, limits: GatewayLimits, seed: UInt64,
        drainDeadline: Duration, logger: Logger
    ) {
        self.scheduler = scheduler
        self.links = links
        self.drainDeadline = drainDeadline
        self.logger = logger
        state = Mutex(State(machine: GatewayMachine(limits: limits, seed: seed)))
    }

    /// Nil if requests can be served now, otherwise why not.
    package var complaint: String? {
        state.withLock { state in
            if !state.hasView { return "the scheduler has not sent its view yet" }
            return state.machine.canServe
                ? nil : "no pair of a prefill-worker and a decode-worker is connected"
        }
    }

    package var requestCount: Int { state.withLock { $0.machine.requestCount } }

    /// The longest context a worker of the model offers; nil if none is known.
    package func contextTokens(ofModel model: String) -> Int? {
        state.withLock { $0.modelContexts[model] }
    }

    // MARK: Requests

    /// Starts the requests of one answer.
    ///
    /// The stream ends when all have; dropping it cancels them.
    package func generate(_ jobs: [GenerationJob]) -> AsyncStream<ChoiceEvent> {
        let requests = jobs.map(\.request)
        // Bounded by the requests' own token limits: the machine delivers each token once.
        let (stream, continuation) = AsyncStream.makeStream(
            of: ChoiceEvent.self, bufferingPolicy: .unbounded)
        continuation.onTermination = { [weak self] reason in
            guard case .cancelled = reason, let self else { return }
            self.logger.info("the client is gone", metadata: ["requests": "\(requests)"])
            self.metrics.clientsGone.increment()
            for request in requests { self.cancel(request) }
        }
        state.withLock { state in
            for (choice, job) in jobs.enumerated() {
                state.clients[job.request] = Client(
                    choice: choice, siblings: requests, continuation: continuation)
            }
        }
        for job in jobs { handle { $0.submit(job, now: ProcessClock.now()) } }
        return stream
    }

    /// Ends a request whose client has all it wants, or is gone.
    package func cancel(_ request: RequestID) {
        handle { $0.cancel(request) }
        let ended = state.withLock { state in removeClient(request, &state) }
        ended?.finish()
    }

    /// Forgets a choice; gives the stream if it was the last one of its answer.
    private func removeClient(
        _ request: RequestID, _ state: inout State
    ) -> AsyncStream<ChoiceEvent>.Continuation? {
        guard let client = state.clients.removeValue(forKey: request) else { return nil }
        let isLast = !client.siblings.contains { state.clients[$0] != nil }
        return isLast ? client.continuation : nil
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
        while true {
            try await Task.sleep(for: .milliseconds(50))
            let now = ProcessClock.now()
            handle { $0.tick(now: now) }
            let (open, waiting) = state.withLock { state in
                relink(&state)
                return (state.machine.requestCount, state.machine.waitingCount)
            }
            metrics.open.record(open)
            metrics.waiting.record(waiting)
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
            client.continuation.yield(
                ChoiceEvent(choice: client.choice, event: .failed(.shuttingDown)))
            client.continuation.finish()
        }
    }

    // MARK: Scheduler and workers

    private func follow(_ session: ControlSession) async throws {
        session.post(.subscribe(Subscribe()))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await session.keepAlive() }
            group.addTask {
                for try await frame in session.inbound {
                    if case .groupView(let view) = frame.message { self.apply(view) }
                }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    private func apply(_ view: GroupView) {
        state.withLock { state in
            state.hasView = true
            let actions = state.machine.viewChanged(view, now: ProcessClock.now())
            relink(&state)
            for action in actions { perform(action, &state) }
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
        case .deliver(let request, let tokens):
            guard let client = state.clients[request] else { return }
            client.continuation.yield(
                ChoiceEvent(choice: client.choice, event: .tokens(tokens)))
        case .finish(let request, let reason):
            end(request, .finished(reason), &state)
        case .fail(let request, let failure):
            metrics.failed.increment()
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

    private func end(_ request: RequestID, _ event: GenerationEvent, _ state: inout State) {
        guard let client = state.clients[request] else { return }
        client.continuation.yield(ChoiceEvent(choice: client.choice, event: event))
        removeClient(request, &state)?.finish()
    }
}
