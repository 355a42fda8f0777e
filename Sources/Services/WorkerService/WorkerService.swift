package import InferenceEngine
import KVHandOver
package import Logging
import Metrics
package import Roles
import ServiceLifecycle
import ServiceRuntime
import ServiceStart
package import ServingTypes
package import SharedMemory
import Synchronization
package import Transport
import WireProtocol

/// The shell of both worker roles: carries the machine's actions out and feeds it what happens.
///
/// Events come from the engine's thread, from bulk threads and from control sessions. Every action
/// is a non-blocking hand-over, so the lock is held for microseconds and orders decisions and
/// what follows from them.
package final class WorkerService: Service {
    struct State {
        var machine: WorkerMachine
        var gateways: [LinkID: ControlSession] = [:]
        var agents: [LinkID: ControlSession] = [:]
        var scheduler: ControlSession?
        var links: UInt64 = 0
        /// Connections that bring KV.
        var inbound: [KVLinkID: KVInbound] = [:]
        /// KV that is here and not with the engine, by its first token.
        var landed: [AttemptID: [Int: KVBlock]] = [:]
        var engineMetrics = EngineMetrics()
        var rates = EngineRates()
        /// It prefills, or decodes, or has done so.
        var usesPrefill: Bool
        var usesDecode: Bool
        var isDrained = false
        var lost: EngineError?
        /// The model file that was asked for; the next tick looks at it.
        var wantedModel: String?
        /// Why it leaves.
        var farewell = "it was stopped"
    }

    let description: InstanceDescription
    let engine: any InferenceEngine
    private let listener: ControlListener
    private let scheduler: ControlClient
    private let bulk: BulkListener
    let buffers = KVBufferPool(
        maximumKeptBytes: WorkerTransferLimits.pooledBufferBytes)
    private let drainDeadline: Duration
    private let reload: ModelReload?
    private let end: @Sendable (Int32) -> Void
    /// Beats with each tick.
    let pulse = Pulse()
    let logger: Logger
    let state: Mutex<State>
    let sender: KVSender
    /// Where workers of this host hand memory over; nil if none is taken.
    let local: LocalListener?
    private let relay: WorkerRelay

    /// - Parameters:
    ///   - relay: the object whose `engineEvent` was given to the engine as its sink.
    ///   - reload: nil if its model never changes.
    ///   - end: ends the process at once.
    package init(
        description: InstanceDescription, limits: WorkerLimits, engine: any InferenceEngine,
        relay: WorkerRelay, listener: ControlListener, scheduler: ControlClient,
        bulk: BulkListener, local: LocalListener?, sender: KVSender.Settings,
        drainDeadline: Duration, reload: ModelReload? = nil,
        end: @escaping @Sendable (Int32) -> Void = { endAtOnce($0) }, logger: Logger
    ) {
        self.end = end
        self.description = description
        self.engine = engine
        self.relay = relay
        self.listener = listener
        self.scheduler = scheduler
        self.bulk = bulk
        self.local = local
        self.drainDeadline = drainDeadline
        self.reload = reload
        self.logger = logger
        let machine = WorkerMachine(
            instance: description.instance, role: description.initialRole, limits: limits,
            modelPath: description.modelPath)
        state = Mutex(
            State(
                machine: machine, engineMetrics: EngineMetrics(since: engine.progress),
                rates: EngineRates(since: engine.progress),
                usesPrefill: description.role == .prefillWorker,
                usesDecode: description.role == .decodeWorker))
        self.sender = KVSender(settings: sender, logger: logger) { [relay] ended in
            relay.service?.transferEnded(ended)
        }
        relay.connect(self)
    }

    /// Nil if the worker serves, otherwise why not.
    package var complaint: String? {
        state.withLock { state in
            if let lost = state.lost { return "the engine is lost: \(lost)" }
            return state.scheduler == nil ? "the scheduler is not connected" : nil
        }
    }

    package var status: InstanceStatus {
        state.withLock { status($0) }
    }

    private func status(_ state: borrowing State) -> InstanceStatus {
        state.machine.status(engine.progress, rates: state.rates)
    }

    // MARK: Life

    package func run() async throws {
        do {
            try await withGracefulShutdownHandler {
                try await serveUntilDrained()
            } onGracefulShutdown: {
                self.beginDraining()
            }
        } catch {
            await stop()
            throw error
        }
        await stop()
    }

    private func serveUntilDrained() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.listener.run { await self.serve($0) } }
            group.addTask { await self.scheduler.run { try await self.follow($0) } }
            group.addTask { try await self.tick() }
            try await group.next()
            group.cancelAll()
        }
    }

    /// Ticks until the worker has drained or lost its engine.
    private func tick() async throws {
        var drainEnd: MonotonicTime?
        while true {
            try await Task.sleep(for: .milliseconds(100))
            let now = ProcessClock.now()
            pulse.beat()
            let stepMilliseconds = state.withLock { $0.rates.decodeStepMilliseconds }
            handle { $0.tick(now: now, stepMilliseconds: stepMilliseconds) }
            for ended in sender.tick() { transferEnded(ended) }
            record(status, now: now)
            let (isDrained, lost) = state.withLock { ($0.isDrained, $0.lost) }
            if let lost { throw lost }
            if isDrained { return leave() }
            guard Task.isShuttingDownGracefully else {
                changeModel()
                continue
            }
            drainEnd = drainEnd ?? now + drainDeadline
            if let drainEnd, now >= drainEnd {
                logger.warning("the drain deadline has passed; open requests are given up")
                return leave()
            }
        }
    }

    private func beginDraining() {
        logger.notice("draining: no new work is taken")
        handle { $0.drain(until: ProcessClock.now() + drainDeadline) }
        sendHeartbeat()
    }

    /// Says good-bye while the connection stands; a session sends what it has before it closes.
    private func leave() {
        state.withLock { state in
            state.scheduler?.post(.deregister(Deregister(reason: state.farewell)))
        }
    }

    private func stop() async {
        pulse.end()
        sender.shutdown()
        bulk.stop()
        local?.stop()
        await engine.shutdown()
    }

    // MARK: Scheduler

    private func follow(_ session: ControlSession) async throws {
        state.withLock { state in
            state.scheduler = session
            state.machine.schedulerChanged()
            let status = status(state)
            session.post(.register(Register(description: description, status: status)))
        }
        defer { state.withLock { $0.scheduler = nil } }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await repeatedly(every: .seconds(1)) { self.sendHeartbeat() }
            }
            group.addTask { try await session.keepAlive() }
            group.addTask {
                for try await frame in session.inbound {
                    guard case .assign(let assign) = frame.message else { continue }
                    self.assigned(assign)
                }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    private func sendHeartbeat() { state.withLock { sendHeartbeat($0) } }

    private func sendHeartbeat(_ state: borrowing State) {
        _ = state.scheduler?.post(.heartbeat(Heartbeat(status: status(state))))
    }

    private func assigned(_ assign: Assign) {
        logger.info(
            "a role is assigned",
            metadata: [
                "role": "\(assign.role.name)", "number": "\(assign.number)",
                "group": "\(assign.group?.name ?? "none")",
            ])
        handle { $0.assigned(assign, now: ProcessClock.now()) }
    }

    private func roleChanged(_ role: ServingRole, _ state: inout State) {
        if role.takesPrompts { state.usesPrefill = true }
        if role.takesSequences { state.usesDecode = true }
        let duration = state.machine.assignedAt.map { ProcessClock.now() - $0 } ?? .zero
        EngineMetrics.roleChanged(description.role, in: duration)
        logger.notice(
            "the assigned role is taken up",
            metadata: [
                "role": "\(role.name)", "milliseconds": "\(duration.milliseconds)",
            ])
        sendHeartbeat(state)
    }

    /// Looks at the model file that was asked for, outside of the lock, and begins its life.
    private func changeModel() {
        guard let path = state.withLock({ $0.wantedModel.take() }) else { return }
        do {
            guard let reload else {
                throw EngineError.modelNotLoaded(
                    path: path, reason: "this worker's model never changes")
            }
            try reload.check(path)
            logger.notice("another model is loaded", metadata: ["model": "\(path)"])
            state.withLock { $0.farewell = "it loads \(path)" }
            reload.begin(path)
        } catch {
            logger.error(
                "another model can't be loaded; the old one stays",
                metadata: ["model": "\(path)", "reason": "\(error)"])
            handle { $0.modelLoaded(false) }
            sendHeartbeat()
        }
    }

    // MARK: Gateways and health-agents

    private func serve(_ session: ControlSession) async {
        let link = state.withLock { state in
            state.links += 1
            let link = LinkID(state.links)
            if session.peer.role == .gateway { state.gateways[link] = session }
            if session.peer.role == .healthAgent { state.agents[link] = session }
            return link
        }
        do {
            for try await frame in session.inbound { receive(frame, session, link) }
        } catch {
            logger.info(
                "a connection ended",
                metadata: ["peer": "\(session.peer)", "reason": "\(error)"])
        }
        state.withLock { state in
            state.gateways[link] = nil
            state.agents[link] = nil
        }
        handle { $0.gatewayLost(link) }
    }

    private func receive(_ frame: Frame, _ session: ControlSession, _ link: LinkID) {
        if case .ping(let ping) = frame.message {
            session.post(.pong(Pong(number: ping.number, status: status)))
            return
        }
        if case .exit(let exit) = frame.message { return self.exit(exit, session.peer) }
        var tokens: [TokenID] = []
        if frame.message.kind.carriesPayload {
            do {
                tokens = try TokenPayload.decode(frame.payload)
            } catch {
                session.close(refusal: Refusal(code: .protocol, reason: "\(error)"))
                return
            }
        }
        var generator = SystemRandomNumberGenerator()
        let secret = ReservationSecret(using: &generator)
        handle {
            $0.received(
                frame.message, tokens: tokens, from: link, secret: secret,
                now: ProcessClock.now())
        }
    }

    /// A hung engine can't be ended in order: what it computes is given up with the process.
    private func exit(_ exit: Exit, _ agent: PeerIdentity) {
        logger.critical(
            "told to end at once",
            metadata: ["agent": "\(agent)", "reason": "\(exit.reason)"])
        end(ExitCode.hung.rawValue)
    }

    // MARK: Engine and transfers

    func engineEvent(_ event: EngineEvent) {
        switch event {
        case .exported(let sequence, let block):
            let attempt = state.withLock { $0.machine.exportingAttempt(sequence) }
            guard let attempt else { return }
            for ended in sender.send(block, of: attempt) { transferEnded(ended) }
        case .blockRefused(let sequence, _, let reason):
            KVMetrics.damaged()
            logger.warning(
                "a block of KV is refused",
                metadata: ["sequence": "\(sequence.value)", "reason": "\(reason)"])
            handle { $0.engine(event, now: ProcessClock.now()) }
        case .engineLost(let error):
            logger.critical("the engine is lost", metadata: ["reason": "\(error)"])
            handle { $0.engine(event, now: ProcessClock.now()) }
            state.withLock { $0.lost = error }
        default:
            handle { $0.engine(event, now: ProcessClock.now()) }
        }
    }

    private func transferEnded(_ ended: KVSender.Ended) {
        state.withLock { transferEnded(ended, &$0) }
    }

    private func transferEnded(_ ended: KVSender.Ended, _ state: inout State) {
        if let failure = ended.failure {
            // A request that has ended elsewhere is no fault.
            let isFault = failure.code != .cancelled && failure.code != .unknownRequest
            logger.log(
                level: isFault ? .warning : .debug, "a KV transfer ended early",
                metadata: ["request": "\(ended.attempt)", "reason": "\(failure.reason)"])
        }
        for action in state.machine.transferEnded(ended.attempt, failure: ended.failure) {
            perform(action, &state)
        }
    }

    // MARK: Actions

    func handle(_ event: (inout WorkerMachine) -> [WorkerAction]) {
        state.withLock { state in
            for action in event(&state.machine) { perform(action, &state) }
        }
    }

    func perform(_ action: WorkerAction, _ state: inout State) {
        switch action {
        case .send(let message, let link):
            if case .prefillAccepted(let accepted) = message { KVMetrics.accepted(accepted) }
            (state.gateways[link] ?? state.agents[link])?.post(message)
        case .broadcast(let message):
            for session in state.gateways.values { session.post(message) }
        case .run(let job): engine.submit(.run(job))
        case .cancelSequence(let sequence): engine.submit(.cancel(sequence))
        case .holdSequence(let sequence): engine.submit(.hold(sequence))
        case .fork(let new, let kept, let tokens):
            engine.submit(.fork(new, from: kept, tokens: tokens))
        case .export(let sequence, let start): engine.submit(.export(sequence, from: start))
        case .limitStep(let limit): engine.submit(.limitStep(limit))
        case .openTransfer(let plan): follow(sender.open(plan), &state)
        case .endTransfer(let end): follow(sender.end(end), &state)
        case .abortTransfer(let attempt, let reason):
            follow(sender.abort(attempt, reason: reason), &state)
        case .sendKV(let message, let link): post(message, to: link, &state)
        case .importChunks(let sequence, let attempt, let starts):
            for start in starts {
                guard let block = state.landed[attempt]?.removeValue(forKey: start) else {
                    preconditionFailure("a chunk is imported that is not here")
                }
                engine.submit(.importKV(sequence, block))
            }
            if state.landed[attempt]?.isEmpty == true { state.landed[attempt] = nil }
        case .dropChunks(let attempt): state.landed[attempt] = nil
        case .roleChanged(let role): roleChanged(role, &state)
        case .loadModel(let path): state.wantedModel = path
        case .drained: state.isDrained = true
        }
    }

    /// Takes in what ended at once.
    private func follow(_ ended: [KVSender.Ended], _ state: inout State) {
        for end in ended { transferEnded(end, &state) }
    }

    private func record(_ status: InstanceStatus, now: MonotonicTime) {
        let role = description.role == .prefillWorker ? "prefill" : "decode"
        let progress = engine.progress
        let (machine, usesPrefill, usesDecode) = state.withLock { state in
            state.rates.record(progress)
            state.engineMetrics.record(progress, of: description.role)
            state.engineMetrics.record(
                movedSequences: state.machine.movedSequences, of: description.role)
            return (state.machine, state.usesPrefill, state.usesDecode)
        }
        Gauge(label: "\(role)_free_slots").record(status.freePrefillSlots)
        Gauge(label: "\(role)_running_sequences").record(status.runningSequences)
        Gauge(label: "\(role)_kv_free_bytes").record(status.freeKVBytes)
        Gauge(label: "\(role)_kv_reserved_bytes").record(status.reservedKVBytes)
        Gauge(label: "\(role)_engine_steps").record(Int64(clamping: status.engineSteps))
        Gauge(label: "\(role)_engine_kv_used_tokens").record(progress.usedKVTokens)
        Gauge(label: "\(role)_engine_open_sequences").record(progress.openSequences)
        Gauge(label: "\(role)_kv_kept_sequences").record(machine.keptSequences)
        Gauge(label: "\(role)_kv_kept_tokens").record(machine.keptKVTokens)
        if usesPrefill {
            KVMetrics.held(bytes: sender.heldBytes, stranded: sender.stranded(now: now))
        }
        if usesDecode {
            KVMetrics.landed(
                bytes: machine.landedKVBytes, stranded: machine.strandedKV(now: now))
        }
    }
}
