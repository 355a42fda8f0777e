import InferenceEngine
import KVHandOver
import Roles
import ServingTypes

/// A worker's shell in the simulated cluster.
final class SimulatedWorker: SimulatedProcess {
    let plan: ClusterPlan
    var machine: WorkerMachine
    var engine: EngineModel?
    private var gateways: [LinkID: SimulatedLink] = [:]
    private var scheduler: SimulatedLink?
    private var secrets: UInt64 = 0
    /// Decode-workers that KV goes to, and which of them each transfer goes to.
    var destinations: [InstanceID: SimulatedDestination] = [:]
    var sending: [AttemptID: SimulatedDestination] = [:]
    /// Connections that bring KV, and those inside a chunk that is wanted.
    var inbound: [KVLinkID: SimulatedLink] = [:]
    var reading: Set<KVLinkID> = []
    /// Chunks that have landed and are not with the engine, by first token.
    var landed: [AttemptID: [Int: [TokenID]]] = [:]

    init(_ name: String, role: Role, plan: ClusterPlan, cluster: ClusterSimulation) {
        self.plan = plan
        machine = WorkerMachine(
            instance: InstanceID(name), role: ServingRole(usualFor: role),
            limits: plan.workerLimits)
        super.init(name, role: role, cluster: cluster)
    }

    /// Nothing of any request is here.
    var isFree: Bool {
        let status = status
        return machine.isIdle && sending.isEmpty && destinations.values.allSatisfy(\.isFree)
            && landed.isEmpty && machine.landedKVBytes == 0 && engine?.isQuiet != false
            && (engine == nil || engine?.openSequences == machine.keptSequences)
            && status.reservedKVBytes == 0
            && (status.isDraining || !machine.role.takesPrompts
                || status.freePrefillSlots == description.prefillSlots)
    }

    private var status: InstanceStatus {
        machine.status(
            engine?.progress
                ?? EngineProgress(steps: 0, stepAge: nil, openSequences: 0, usedKVTokens: 0))
    }

    private var description: InstanceDescription {
        InstanceDescription(
            instance: name, role: role, incarnation: life, host: "host",
            controlAddress: NetworkAddress(host: name.name, port: 1),
            bulkAddress: NetworkAddress(host: name.name, port: 2), modelName: "model",
            fingerprint: cluster.fingerprint, contextTokens: plan.contextTokens,
            kvBytesPerToken: 16, kvCapacityBytes: 16 * plan.kvCapacityTokens,
            prefillSlots: plan.prefillSlots, decodeSequences: plan.decodeSequences,
            device: "model")
    }

    override func begin() {
        machine = WorkerMachine(
            instance: name, role: ServingRole(usualFor: role), limits: plan.workerLimits)
        engine = EngineModel(process: self, plan: plan) { [unowned self] in happened($0) }
        every(.milliseconds(200)) { [unowned self] in tick() }
        every(.milliseconds(400)) { [unowned self] in
            scheduler?.send(.heartbeat(Heartbeat(status: status)), from: self)
        }
        dialScheduler()
    }

    override func end() {
        engine = nil
        gateways = [:]
        scheduler = nil
        destinations = [:]
        sending = [:]
        inbound = [:]
        reading = []
        landed = [:]
    }

    private func tick() {
        perform(machine.tick(now: now))
        for (_, destination) in destinations.sorted(by: { $0.key < $1.key }) {
            destination.tick()
        }
        cluster.note(stranded: machine.strandedKV(now: now))
    }

    override func check() {
        let status = status
        let reserved = status.reservedKVBytes / 16
        cluster.expect(
            reserved >= 0 && reserved + machine.keptKVTokens <= plan.kvCapacityTokens,
            "\(name) has reserved \(reserved) and kept \(machine.keptKVTokens) tokens")
        cluster.expect(
            sending.count <= plan.prefillSlots + plan.decodeSequences,
            "\(name) sends KV of \(sending.count) prompts")
        cluster.expect(
            machine.landedKVBytes <= plan.workerLimits.landingBytes, "\(name) lands too much")
        guard let engine, !engine.hasCommands else { return }
        cluster.expect(
            engine.usedTokens <= machine.promisedKVTokens + machine.keptKVTokens,
            "\(name) uses \(engine.usedTokens) tokens, promised \(machine.promisedKVTokens)")
        cluster.expect(
            engine.openSequences
                <= plan.prefillSlots + plan.decodeSequences + plan.keptSequences,
            "\(name) has \(engine.openSequences) sequences open")
    }

    func drain() {
        perform(machine.drain())
        // Answers are short here: they would end before the next tick.
        perform(machine.tick(now: now))
    }

    func loseEngine() {
        engine = nil
        perform(machine.engine(.engineLost(.computeFailed(code: 2)), now: now))
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
            machine.schedulerChanged()
            link.send(.register(Register(description: description, status: status)), from: self)
        }
    }

    override func accepted(_ link: SimulatedLink) {
        if link.dialer.role == .gateway { gateways[LinkID(link.id)] = link }
        if link.purpose == .bulk { inbound[KVLinkID(link.id)] = link }
    }

    override func closed(_ link: SimulatedLink) {
        if link === scheduler {
            scheduler = nil
            after(cluster.randomDuration(upTo: .milliseconds(400))) { [unowned self] in
                dialScheduler()
            }
        } else if gateways.removeValue(forKey: LinkID(link.id)) != nil {
            perform(machine.gatewayLost(LinkID(link.id)))
        } else if link.purpose == .bulk {
            lostBulk(link)
        }
    }

    override func received(
        _ message: ControlMessage, tokens: [TokenID], on link: SimulatedLink
    ) {
        switch message {
        case .ping(let ping):
            link.send(.pong(Pong(number: ping.number, status: status)), from: self)
        case .refusal:
            break
        case .assign(let assign):
            perform(machine.assigned(assign, now: now))
            perform(machine.tick(now: now))
        case .kvOffer, .kvEnd, .kvAbort: receivedKV(message, on: link)
        case .kvGrant, .kvCredit, .kvResend, .kvDone:
            destinations[link.acceptor.name]?.received(message, on: link)
        default:
            secrets += 1
            perform(
                machine.received(
                    message, tokens: tokens, from: LinkID(link.id),
                    secret: ReservationSecret(high: life, low: secrets), now: now))
        }
    }

    private func receivedKV(_ message: ControlMessage, on link: SimulatedLink) {
        let id = KVLinkID(link.id)
        let sender = link.dialer.name
        switch message {
        case .kvOffer(let offer):
            perform(
                machine.kvOffered(
                    offer, from: sender, fingerprint: cluster.fingerprint, on: id, now: now))
        case .kvEnd(let end): perform(machine.kvEnded(end, from: sender, on: id, now: now))
        case .kvAbort(let abort): perform(machine.kvAborted(abort.attempt, by: sender))
        default: break
        }
    }

    // MARK: Engine

    private func happened(_ event: EngineModel.Event) {
        switch event {
        case .exported(let sequence, let start, let tokens):
            guard let attempt = machine.exportingAttempt(sequence) else { return }
            sending[attempt]?.export(tokens, from: start, of: attempt)
        case .other(let event):
            perform(machine.engine(event, now: now))
        }
    }

    // MARK: Actions

    func perform(_ actions: [WorkerAction]) {
        for action in actions {
            switch action {
            case .send(let message, let to): gateways[to]?.send(message, from: self)
            case .broadcast(let message):
                for (_, gateway) in gateways.sorted(by: { $0.key.value < $1.key.value }) {
                    gateway.send(message, from: self)
                }
            case .run(let job):
                cluster.checkJob(job)
                engine?.submit(.run(job))
            case .cancelSequence(let sequence): engine?.submit(.cancel(sequence))
            case .holdSequence(let sequence): engine?.submit(.hold(sequence))
            case .openTransfer(let plan): open(plan)
            case .endTransfer(let end): sending[end.attempt]?.finish(end)
            case .abortTransfer(let attempt, let reason):
                sending[attempt]?.abort(attempt, reason: reason)
            case .fork(let sequence, let from, let tokens):
                cluster.note(heldTokens: tokens)
                engine?.submit(.fork(sequence, from: from, tokens: tokens))
            case .export(let sequence, let start):
                engine?.submit(.export(sequence, from: start))
            case .limitStep(let limit): engine?.submit(.limitStep(limit))
            case .roleChanged:
                scheduler?.send(.heartbeat(Heartbeat(status: status)), from: self)
            case .loadModel: perform(machine.modelLoaded(false))
            case .sendKV(let message, let to): inbound[to]?.send(message, from: self)
            case .importChunks(let sequence, let attempt, let starts):
                importChunks(starts, of: attempt, as: sequence)
            case .dropChunks(let attempt): landed[attempt] = nil
            case .drained: leave()
            }
        }
    }

    private func leave() {
        scheduler?.send(.deregister(Deregister(reason: "drained")), from: self)
        cluster.expect(machine.isIdle, "\(name) has drained and still works")
        let name = name
        after(.milliseconds(50)) { [unowned self] in
            crash()
            cluster.restart(name, within: .seconds(2))
        }
    }
}
