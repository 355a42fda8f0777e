import Foundation
package import InferenceEngine
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

/// The shell of both worker roles: carries the machine's actions out and feeds it what happens.
///
/// Events come from the engine's thread, from bulk threads and from control sessions. Every action
/// is a non-blocking hand-over, so the lock is held for microseconds and orders decisions and
/// what follows from them.
package final class WorkerService: Service {
    private struct State {
        var machine: WorkerMachine
        var gateways: [LinkID: ControlSession] = [:]
        var scheduler: ControlSession?
        /// Who else serves, by the scheduler's last word.
        var view = GroupView.empty
        var links: UInt64 = 0
        /// Last words on transfers that the running call caused; taken by the bulk thread.
        var transferAnswers: [KVDone] = []
        var isDrained = false
        var lost: EngineError?
    }

    private let description: InstanceDescription
    private let engine: any InferenceEngine
    private let listener: ControlListener
    private let scheduler: ControlClient
    private let bulk: BulkListener
    private let buffers = KVBufferPool(
        maximumKeptBytes: WorkerTransferLimits.pooledBufferBytes)
    private let drainDeadline: Duration
    private let logger: Logger
    private let state: Mutex<State>
    private let sender: KVSender
    private let relay: WorkerRelay

    /// - Parameters:
    ///   - relay: the object whose `engineEvent` was given to the engine as its sink.
    package init(
        description: InstanceDescription, limits: WorkerLimits, engine: any InferenceEngine,
        relay: WorkerRelay, listener: ControlListener, scheduler: ControlClient,
        bulk: BulkListener, sender: KVSender.Settings, drainDeadline: Duration, logger: Logger
    ) {
        self.description = description
        self.engine = engine
        self.relay = relay
        self.listener = listener
        self.scheduler = scheduler
        self.bulk = bulk
        self.drainDeadline = drainDeadline
        self.logger = logger
        state = Mutex(State(machine: WorkerMachine(role: description.role, limits: limits)))
        self.sender = KVSender(settings: sender, logger: logger) { [relay] attempt, failure in
            relay.service?.transferEnded(attempt, failure)
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
        state.withLock { $0.machine.status(engine.progress) }
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
            handle { $0.tick(now: now) }
            record(status)
            let (isDrained, lost) = state.withLock { ($0.isDrained, $0.lost) }
            if let lost { throw lost }
            if isDrained { return leave() }
            guard Task.isShuttingDownGracefully else { continue }
            drainEnd = drainEnd ?? now + drainDeadline
            if let drainEnd, now >= drainEnd {
                logger.warning("the drain deadline has passed; open requests are given up")
                return leave()
            }
        }
    }

    private func beginDraining() {
        logger.notice("draining: no new work is taken")
        handle { $0.drain() }
        sendHeartbeat()
    }

    /// Says good-bye while the connection stands; a session sends what it has before it closes.
    private func leave() {
        state.withLock { state in
            state.scheduler?.post(.deregister(Deregister(reason: "it was stopped")))
        }
    }

    private func stop() async {
        sender.shutdown()
        bulk.stop()
        await engine.shutdown()
    }

    // MARK: Scheduler

    private func follow(_ session: ControlSession) async throws {
        let status = status
        state.withLock { $0.scheduler = session }
        defer { state.withLock { $0.scheduler = nil } }
        session.post(.register(Register(description: description, status: status)))
        session.post(.subscribe(Subscribe()))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await repeatedly(every: .seconds(1)) { self.sendHeartbeat() }
            }
            group.addTask { try await session.keepAlive() }
            group.addTask {
                for try await frame in session.inbound {
                    guard case .groupView(let view) = frame.message else { continue }
                    self.state.withLock { $0.view = view }
                }
            }
            try await group.next()
            group.cancelAll()
        }
    }

    private func sendHeartbeat() {
        let status = status
        state.withLock { _ = $0.scheduler?.post(.heartbeat(Heartbeat(status: status))) }
    }

    // MARK: Gateways and health-agents

    private func serve(_ session: ControlSession) async {
        let link = state.withLock { state in
            state.links += 1
            let link = LinkID(state.links)
            if session.peer.role == .gateway { state.gateways[link] = session }
            return link
        }
        do {
            for try await frame in session.inbound { receive(frame, session, link) }
        } catch {
            logger.info(
                "a connection ended",
                metadata: ["peer": "\(session.peer)", "reason": "\(error)"])
        }
        state.withLock { _ = $0.gateways.removeValue(forKey: link) }
        handle { $0.gatewayLost(link) }
    }

    private func receive(_ frame: Frame, _ session: ControlSession, _ link: LinkID) {
        if case .ping(let ping) = frame.message {
            session.post(.pong(Pong(number: ping.number, status: status)))
            return
        }
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

    // MARK: Engine and transfers

    func engineEvent(_ event: EngineEvent) {
        switch event {
        case .exported(let sequence, let block):
            let attempt = state.withLock { $0.machine.exportingAttempt(sequence) }
            if let attempt { sender.send(block, of: attempt) }
        case .engineLost(let error):
            logger.critical("the engine is lost", metadata: ["reason": "\(error)"])
            handle { $0.engine(event) }
            state.withLock { $0.lost = error }
        default:
            handle { $0.engine(event) }
        }
    }

    private func transferEnded(_ attempt: AttemptID, _ failure: KVDone?) {
        if let failure {
            // A request that has ended elsewhere is no fault.
            let isFault = failure.code != .cancelled && failure.code != .unknownRequest
            logger.log(
                level: isFault ? .warning : .debug, "a KV transfer ended early",
                metadata: ["request": "\(attempt)", "reason": "\(failure.reason)"])
        }
        handle { $0.transferEnded(attempt, failure: failure) }
    }

    func kvOffered(_ offer: KVOffer) -> KVDone? {
        state.withLock {
            $0.machine.kvOffered(
                offer, fingerprint: description.fingerprint, now: ProcessClock.now())
        }
    }

    func kvRefusal(of chunk: KVChunk) -> KVDone? {
        state.withLock { $0.machine.kvRefusal(of: chunk) }
    }

    func kvBuffer(for chunk: KVChunk) -> KVBuffer {
        buffers.buffer(
            capacityBytes: engine.description.maximumBlockBytes(tokens: chunk.tokenCount))
    }

    var maximumChunkBytes: Int {
        engine.description.maximumBlockBytes(tokens: description.contextTokens)
    }

    /// Gives the block to the engine if its request still wants it.
    func kvLanded(_ chunk: KVChunk, _ buffer: KVBuffer) {
        state.withLock { state in
            guard let sequence = state.machine.kvLanded(chunk, now: ProcessClock.now()) else {
                return
            }
            let block = KVBlock(
                tokenStart: chunk.tokenStart, tokenCount: chunk.tokenCount, bytes: buffer)
            engine.submit(.importKV(sequence, block))
        }
    }

    /// Gives the last word on the transfer.
    func kvEnded(_ end: KVEnd) -> KVDone {
        let answers = handle { $0.kvEnded(end, now: ProcessClock.now()) }
        return answers.last { $0.attempt == end.attempt }
            ?? KVDone(attempt: end.attempt, code: .unknownRequest, reason: "no transfer is open")
    }

    func kvLost(_ attempt: AttemptID, reason: String) {
        handle { $0.kvLost(attempt, reason: reason) }
    }

    /// The sender gave the transfer up, and tells the gateway why itself.
    func kvAborted(_ attempt: AttemptID) { handle { $0.kvAborted(attempt) } }

    // MARK: Actions

    @discardableResult
    private func handle(_ event: (inout WorkerMachine) -> [WorkerAction]) -> [KVDone] {
        state.withLock { state in
            for action in event(&state.machine) { perform(action, &state) }
            defer { state.transferAnswers = [] }
            return state.transferAnswers
        }
    }

    private func perform(_ action: WorkerAction, _ state: inout State) {
        switch action {
        case .send(let message, let link): state.gateways[link]?.post(message)
        case .broadcast(let message):
            for session in state.gateways.values { session.post(message) }
        case .run(let job): engine.submit(.run(job))
        case .cancelSequence(let sequence): engine.submit(.cancel(sequence))
        case .openTransfer(let plan): sender.open(plan)
        case .endTransfer(let end): sender.end(end)
        case .abortTransfer(let attempt, let reason): sender.abort(attempt, reason: reason)
        // Sent by the bulk thread that asked; a sender that did not ask learns it with its next
        // chunk, or from its gateway.
        case .answerTransfer(let done): state.transferAnswers.append(done)
        case .drained: state.isDrained = true
        }
    }

    private func record(_ status: InstanceStatus) {
        let role = description.role == .prefillWorker ? "prefill" : "decode"
        let view = state.withLock { $0.view }
        Gauge(label: "\(role)_group_members").record(view.members.count)
        Gauge(label: "\(role)_free_slots").record(status.freePrefillSlots)
        Gauge(label: "\(role)_running_sequences").record(status.runningSequences)
        Gauge(label: "\(role)_kv_free_bytes").record(status.freeKVBytes)
        Gauge(label: "\(role)_kv_reserved_bytes").record(status.reservedKVBytes)
        Gauge(label: "\(role)_engine_steps").record(Int64(clamping: status.engineSteps))
        Gauge(label: "\(role)_engine_kv_used_tokens").record(engine.progress.usedKVTokens)
        Gauge(label: "\(role)_engine_open_sequences").record(engine.progress.openSequences)
        Gauge(label: "\(role)_transfer_waiting_jobs").record(sender.waitingJobs)
    }
}

/// Carries engine events to the service, which is made after the engine.
package final class WorkerRelay: Sendable {
    private let target = Mutex<Weak>(Weak())

    private struct Weak { weak var service: WorkerService? }

    package init() {}

    package func engineEvent(_ event: EngineEvent) { service?.engineEvent(event) }

    /// Serves one bulk connection on its own thread until it ends.
    func serve(_ connection: BulkConnection, logger: Logger) {
        guard let service else { return }
        do {
            var receiver = try KVReceiver(
                service: service, connection: connection, logger: logger)
            receiver.run()
        } catch {
            logger.error("KV can't be received", metadata: ["reason": "\(error)"])
        }
    }

    var service: WorkerService? { target.withLock { $0.service } }

    func connect(_ service: WorkerService) { target.withLock { $0.service = service } }
}
