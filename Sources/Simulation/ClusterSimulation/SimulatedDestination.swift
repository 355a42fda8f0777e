import KVHandOver
import ServingTypes

/// One decode-worker that a simulated worker sends KV to: the machine, its connections and the
/// blocks it holds.
final class SimulatedDestination {
    private enum Job {
        case frame(ControlMessage)
        case chunk(AttemptID, ChunkFacts)
    }

    /// One connection; what belongs to one that was replaced never happens.
    private final class Lane {
        var link: SimulatedLink?
        var jobs: [Job] = []
        var isSending = false
        /// Transfers whose chunk here is not wanted any more.
        var brokenOff: Set<AttemptID> = []
    }

    private let instance: InstanceID
    private unowned let worker: SimulatedWorker
    private var machine: KVSendMachine
    private var lanes: [Lane?]
    private var blocks: [AttemptID: [Int: [TokenID]]] = [:]
    /// A connection was cut, and some transfer of that time is still open.
    private var hasBeenCut = false
    /// The connection that was cut, until that is noticed.
    private var cutLink: SimulatedLink?

    init(_ instance: InstanceID, of worker: SimulatedWorker, limits: KVHandOverLimits) {
        self.instance = instance
        self.worker = worker
        machine = KVSendMachine(limits: limits)
        lanes = Array(repeating: nil, count: limits.connections)
    }

    private var cluster: ClusterSimulation { worker.cluster }

    /// Nothing of any transfer is here.
    var isFree: Bool { machine.isEmpty && machine.heldBytes == 0 && blocks.isEmpty }

    // MARK: The worker

    func open(_ plan: SendingPlan) { perform(machine.open(plan, now: worker.now)) }

    func export(_ tokens: [TokenID], from start: Int, of attempt: AttemptID) {
        guard machine.isOpen(attempt) else { return }
        blocks[attempt, default: [:]][start] = tokens
        let facts = ChunkFacts(
            tokenStart: start, tokenCount: tokens.count, bytes: 16 * tokens.count + 5,
            checksum: UInt32(truncatingIfNeeded: ModelFunction.hash(of: tokens)))
        perform(machine.exported(attempt, facts, now: worker.now))
    }

    func finish(_ end: KVEnd) { perform(machine.finish(end, now: worker.now)) }

    func abort(_ attempt: AttemptID, reason: String) {
        perform(machine.abort(attempt, reason: reason, now: worker.now))
    }

    func tick() {
        perform(machine.tick(now: worker.now))
        cluster.note(stranded: machine.stranded(now: worker.now))
    }

    // MARK: Links

    func received(_ message: ControlMessage, on link: SimulatedLink) {
        guard lanes.contains(where: { $0?.link === link }) else { return }
        if case .kvCredit = message { cluster.note(.credit) }
        perform(machine.received(message, now: worker.now))
    }

    func closed(_ link: SimulatedLink) {
        guard let index = lanes.firstIndex(where: { $0?.link === link }) else { return }
        lost(index)
    }

    private func lost(_ index: Int) {
        forgetCut(lanes[index]?.link)
        lanes[index] = nil
        perform(machine.lost(index, reason: "the link is lost", now: worker.now))
    }

    /// A cut that is noticed only now may be the loss of transfers that have begun since.
    private func forgetCut(_ link: SimulatedLink?) {
        guard let link, link === cutLink else { return }
        cutLink = nil
        if machine.isEmpty { hasBeenCut = false }
    }

    private func connect(_ index: Int) {
        let lane = Lane()
        lanes[index] = lane
        cluster.dial(instance.name, from: worker, .bulk) { [self] link in
            guard lanes[index] === lane else {
                link?.close(by: worker)
                return
            }
            guard let link else { return lost(index) }
            lane.link = link
            perform(machine.connected(index, now: worker.now))
        }
    }

    /// Lets the connection take its next jobs, until it is inside a chunk.
    private func work(_ index: Int) {
        guard let lane = lanes[index], let link = lane.link else { return }
        while !lane.isSending, !lane.jobs.isEmpty {
            switch lane.jobs.removeFirst() {
            case .frame(let message): link.send(message, from: worker)
            case .chunk(let attempt, let facts): begin(facts, of: attempt, lane, index)
            }
        }
    }

    private func begin(
        _ facts: ChunkFacts, of attempt: AttemptID, _ lane: Lane, _ index: Int
    ) {
        guard let link = lane.link, let tokens = blocks[attempt]?[facts.tokenStart],
            lane.brokenOff.remove(attempt) == nil
        else {
            cluster.expect(!machine.isOpen(attempt), "\(worker.name) sends a block it lacks")
            lane.brokenOff.remove(attempt)
            return perform(
                machine.sent(
                    attempt, facts, connection: index, isWhole: false, now: worker.now))
        }
        lane.isSending = true
        let chunk = facts.chunk(of: attempt)
        let sender = worker.name
        link.deliver(from: worker) {
            (link.acceptor as? SimulatedWorker)?.chunkBegins(
                chunk, bytes: facts.bytes, from: sender, on: link)
        }
        if !hasBeenCut || !cluster.plan.weather.isHarmless {
            hasBeenCut = cluster.mayBreak(link)
            if hasBeenCut { cutLink = link }
        }
        worker.after(.microseconds(100 + 30 * tokens.count)) { [self] in
            guard lanes[index] === lane else { return }
            lane.isSending = false
            let isWhole = lane.brokenOff.remove(attempt) == nil
            link.deliver(from: worker) {
                (link.acceptor as? SimulatedWorker)?.chunkEnds(
                    chunk, bytes: facts.bytes, tokens: isWhole ? tokens : nil, on: link)
            }
            perform(
                machine.sent(
                    attempt, facts, connection: index, isWhole: isWhole, now: worker.now))
            work(index)
        }
    }

    // MARK: Actions

    private func perform(_ actions: [KVSendMachine.Action]) {
        for action in actions {
            switch action {
            case .connect(let index): connect(index)
            case .disconnect(let index, _):
                let lane = lanes[index]
                forgetCut(lane?.link)
                lanes[index] = nil
                lane?.link?.close(by: worker)
            case .send(let message, let index):
                cluster.expect(
                    lanes[index]?.link != nil, "\(worker.name) sends on no connection")
                lanes[index]?.jobs.append(.frame(message))
                work(index)
            case .sendChunk(let attempt, let facts, let index):
                lanes[index]?.jobs.append(.chunk(attempt, facts))
                work(index)
            case .breakOff(let attempt):
                for lane in lanes { lane?.brokenOff.insert(attempt) }
            case .ended(let attempt, let failure, let summary):
                blocks[attempt] = nil
                if machine.isEmpty, cutLink == nil { hasBeenCut = false }
                cluster.note(summary)
                worker.transferEnded(attempt, failure: failure)
            }
        }
    }
}
