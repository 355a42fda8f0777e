import InferenceEngine
import Roles
import ServingTypes

/// A worker's shell in the simulated cluster.
final class SimulatedWorker: SimulatedProcess {
    private let plan: ClusterPlan
    private var machine: WorkerMachine
    private var engine: EngineModel?
    private var gateways: [LinkID: SimulatedLink] = [:]
    private var scheduler: SimulatedLink?
    private var sending: [AttemptID: OutgoingTransfer] = [:]
    private var receiving: [AttemptID: SimulatedLink] = [:]
    private var secrets: UInt64 = 0

    init(_ name: String, role: Role, plan: ClusterPlan, cluster: ClusterSimulation) {
        self.plan = plan
        machine = WorkerMachine(role: role, limits: plan.workerLimits)
        super.init(name, role: role, cluster: cluster)
    }

    /// Nothing of any request is here.
    var isFree: Bool {
        let status = status
        return machine.isIdle && sending.isEmpty && receiving.isEmpty && engine?.isEmpty != false
            && status.reservedKVBytes == 0
            && (status.isDraining || status.freePrefillSlots == description.prefillSlots)
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
            prefillSlots: role == .prefillWorker ? plan.prefillSlots : 0,
            decodeSequences: role == .decodeWorker ? plan.decodeSequences : 0, device: "model")
    }

    override func begin() {
        machine = WorkerMachine(role: role, limits: plan.workerLimits)
        engine = EngineModel(process: self, plan: plan) { [unowned self] in happened($0) }
        every(.milliseconds(200)) { [unowned self] in perform(machine.tick(now: now)) }
        every(.milliseconds(400)) { [unowned self] in
            scheduler?.send(.heartbeat(Heartbeat(status: status)), from: self)
        }
        dialScheduler()
    }

    override func end() {
        engine = nil
        gateways = [:]
        scheduler = nil
        sending = [:]
        receiving = [:]
    }

    override func check() {
        let status = status
        let capacity = 16 * plan.kvCapacityTokens
        cluster.expect(
            status.reservedKVBytes >= 0 && status.reservedKVBytes <= capacity,
            "\(name) has reserved \(status.reservedKVBytes) of \(capacity) bytes")
        cluster.expect(
            sending.count <= plan.prefillSlots, "\(name) sends KV of \(sending.count) prompts")
        guard role == .decodeWorker, let engine else { return }
        cluster.expect(
            engine.usedTokens * 16 <= status.reservedKVBytes,
            "\(name) uses \(engine.usedTokens * 16) and reserved \(status.reservedKVBytes) bytes")
        cluster.expect(
            engine.openSequences <= plan.decodeSequences,
            "\(name) has \(engine.openSequences) sequences open")
    }

    func drain() { perform(machine.drain()) }

    func loseEngine() {
        engine = nil
        perform(machine.engine(.engineLost(.computeFailed(code: 2))))
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
            link.send(.register(Register(description: description, status: status)), from: self)
        }
    }

    override func accepted(_ link: SimulatedLink) {
        if link.dialer.role == .gateway { gateways[LinkID(link.id)] = link }
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

    private func lostBulk(_ link: SimulatedLink) {
        for (attempt, transfer) in sending where transfer.link === link {
            endSending(attempt, KVDone(attempt: attempt, code: .transfer, reason: "link lost"))
        }
        for (attempt, open) in receiving where open === link {
            receiving[attempt] = nil
            perform(machine.kvLost(attempt, reason: "link lost"))
        }
    }

    override func received(
        _ message: ControlMessage, tokens: [TokenID], on link: SimulatedLink
    ) {
        switch message {
        case .ping(let ping):
            link.send(.pong(Pong(number: ping.number, status: status)), from: self)
        case .refusal, .groupView:
            break
        case .kvOffer(let offer): received(offer, on: link)
        case .kvChunk(let chunk):
            if let done = machine.kvRefusal(of: chunk) { link.send(.kvDone(done), from: self) }
        case .kvEnd(let end):
            perform(machine.kvEnded(end, now: now), answering: link)
        case .kvAbort(let abort):
            receiving[abort.attempt] = nil
            perform(machine.kvAborted(abort.attempt))
        case .kvGrant(let grant):
            sending[grant.attempt]?.isGranted = true
            sendBlocks(of: grant.attempt)
        case .kvDone(let done):
            endSending(done.attempt, done.code == nil ? nil : done)
        default:
            secrets += 1
            perform(
                machine.received(
                    message, tokens: tokens, from: LinkID(link.id),
                    secret: ReservationSecret(high: life, low: secrets), now: now))
        }
    }

    // MARK: Engine

    private func happened(_ event: EngineModel.Event) {
        switch event {
        case .exported(let sequence, let start, let tokens):
            guard let attempt = machine.exportingAttempt(sequence) else { return }
            sending[attempt]?.blocks.append((start, tokens))
            sendBlocks(of: attempt)
        case .other(let event):
            perform(machine.engine(event))
        }
    }

    // MARK: Sending KV

    private func open(_ plan: TransferPlan) {
        sending[plan.attempt] = OutgoingTransfer()
        cluster.dial(plan.address.host, from: self, .bulk) { [unowned self] link in
            guard sending[plan.attempt] != nil else {
                link?.close(by: self)
                return
            }
            guard let link else {
                endSending(
                    plan.attempt,
                    KVDone(attempt: plan.attempt, code: .transfer, reason: "no connection"))
                return
            }
            sending[plan.attempt]?.link = link
            let offer = KVOffer(
                attempt: plan.attempt, secret: plan.secret, fingerprint: cluster.fingerprint,
                tokens: plan.tokens)
            link.send(.kvOffer(offer), from: self)
            limitAnswer(plan.attempt, link)
        }
    }

    private func sendBlocks(of attempt: AttemptID) {
        guard var transfer = sending[attempt], transfer.isGranted, let link = transfer.link else {
            return
        }
        for (start, tokens) in transfer.blocks {
            let chunk = KVChunk(attempt: attempt, tokenStart: start, tokenCount: tokens.count)
            link.send(.kvChunk(chunk), from: self)
            link.deliver(from: self) {
                (link.acceptor as? SimulatedWorker)?.landed(chunk, tokens)
            }
        }
        transfer.blocks = []
        if let end = transfer.end {
            link.send(.kvEnd(end), from: self)
            transfer.end = nil
            limitAnswer(attempt, link)
        }
        sending[attempt] = transfer
    }

    /// A receiver that hangs must not keep the slot.
    private func limitAnswer(_ attempt: AttemptID, _ link: SimulatedLink) {
        after(.seconds(4)) { [unowned self] in
            guard let transfer = sending[attempt], transfer.link === link else { return }
            link.close(by: self)
            endSending(attempt, KVDone(attempt: attempt, code: .transfer, reason: "no answer"))
        }
    }

    private func endSending(_ attempt: AttemptID, _ failure: KVDone?) {
        guard let transfer = sending.removeValue(forKey: attempt) else { return }
        transfer.link?.close(by: self)
        perform(machine.transferEnded(attempt, failure: failure))
    }

    private func abort(_ attempt: AttemptID, _ reason: String) {
        sending[attempt]?.link?.send(
            .kvAbort(KVAbort(attempt: attempt, reason: reason)), from: self)
        after(cluster.randomDuration(upTo: .milliseconds(3))) { [unowned self] in
            endSending(attempt, nil)
        }
    }

    // MARK: Receiving KV

    private func received(_ offer: KVOffer, on link: SimulatedLink) {
        if let done = machine.kvOffered(offer, fingerprint: cluster.fingerprint, now: now) {
            link.send(.kvDone(done), from: self)
        } else {
            receiving[offer.attempt] = link
            let grant = KVGrant(
                attempt: offer.attempt, heldTokens: 0, maximumChunkBytes: 1 << 20)
            link.send(.kvGrant(grant), from: self)
        }
    }

    /// The payload of a chunk has come; much can have happened since its header.
    private func landed(_ chunk: KVChunk, _ tokens: [TokenID]) {
        guard let sequence = machine.kvLanded(chunk, now: now) else { return }
        engine?.submit(
            .importKV(
                sequence, start: chunk.tokenStart, tokens: tokens,
                isDamaged: cluster.happens(.damagedBlock)))
    }

    // MARK: Actions

    private func perform(_ actions: [WorkerAction], answering link: SimulatedLink? = nil) {
        for action in actions {
            switch action {
            case .send(let message, let to): gateways[to]?.send(message, from: self)
            case .broadcast(let message):
                for (_, gateway) in gateways.sorted(by: { $0.key.value < $1.key.value }) {
                    gateway.send(message, from: self)
                }
            case .run(let job):
                cluster.checkJob(job, machine: role)
                engine?.submit(.run(job))
            case .cancelSequence(let sequence): engine?.submit(.cancel(sequence))
            case .openTransfer(let plan): open(plan)
            case .endTransfer(let end):
                sending[end.attempt]?.end = end
                sendBlocks(of: end.attempt)
            case .abortTransfer(let attempt, let reason): abort(attempt, reason)
            case .answerTransfer(let done):
                let open = receiving.removeValue(forKey: done.attempt)
                if link != nil || plan.answersTransfersAtOnce {
                    (link ?? open)?.send(.kvDone(done), from: self)
                }
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

/// KV on its way out.
private struct OutgoingTransfer {
    var link: SimulatedLink?
    var isGranted = false
    /// Exported and not sent yet.
    var blocks: [(start: Int, tokens: [TokenID])] = []
    var end: KVEnd?
}
