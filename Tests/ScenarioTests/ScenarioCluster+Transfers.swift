import InferenceEngine
import KVHandOver
import Roles
import ServingTypes

/// A prefill-worker and a decode-worker it sends KV to.
struct ScenarioPair: Hashable {
    var prefill: InstanceID
    var decode: InstanceID
}

/// The sending side of a pair, over one connection.
struct ScenarioSender {
    var machine: KVSendMachine
    /// The connection that stands; nil if none does.
    var link: KVLinkID?
}

extension ScenarioCluster {
    // MARK: Sending

    mutating func open(_ plan: TransferPlan, of name: InstanceID) {
        let pair = ScenarioPair(prefill: name, decode: plan.decodeInstance)
        guard let worker = workers[name] else { return }
        routes[plan.attempt] = pair
        let sending = SendingPlan(
            attempt: plan.attempt, secret: plan.secret,
            fingerprint: worker.description.fingerprint, tokens: plan.tokens,
            startToken: plan.heldTokens, chunkTokens: worker.chunkTokens, expires: plan.expires)
        sender(pair) { machine, now in machine.open(sending, now: now) }
    }

    mutating func export(_ sequence: SequenceID, _ block: KVBlock, of name: InstanceID) {
        guard let attempt = workers[name]?.machine.exportingAttempt(sequence),
            let pair = routes[attempt]
        else { return }
        let facts = ChunkFacts(
            tokenStart: block.tokenStart, tokenCount: block.tokenCount,
            bytes: block.tokenCount, checksum: block.checksum)
        sender(pair) { machine, now in machine.exported(attempt, facts, now: now) }
    }

    mutating func end(_ end: KVEnd) {
        guard let pair = routes[end.attempt] else { return }
        sender(pair) { machine, now in machine.finish(end, now: now) }
    }

    mutating func abort(_ attempt: AttemptID, reason: String) {
        guard let pair = routes[attempt] else { return }
        sender(pair) { machine, now in machine.abort(attempt, reason: reason, now: now) }
    }

    mutating func tickSenders() {
        for pair in pairs { sender(pair) { machine, now in machine.tick(now: now) } }
    }

    private var pairs: [ScenarioPair] {
        senders.keys.sorted { ($0.prefill, $0.decode) < ($1.prefill, $1.decode) }
    }

    mutating func sender(
        _ pair: ScenarioPair,
        _ event: (inout KVSendMachine, MonotonicTime) -> [KVSendMachine.Action]
    ) {
        guard workers[pair.prefill]?.isUp == true else { return }
        var sender = senders[pair] ?? ScenarioSender(machine: KVSendMachine(limits: .init()))
        let actions = event(&sender.machine, now)
        senders[pair] = sender
        for action in actions { perform(action, of: pair) }
    }

    private mutating func perform(_ action: KVSendMachine.Action, of pair: ScenarioPair) {
        switch action {
        case .connect: connect(pair)
        case .disconnect: cut(pair, isNoticedBySender: false)
        case .send(let message, _): send(message, from: pair.prefill, to: pair.decode)
        case .sendChunk(let attempt, let facts, let connection):
            send(.kvChunk(facts.chunk(of: attempt)), from: pair.prefill, to: pair.decode)
            sender(pair) { machine, now in
                machine.sent(
                    attempt, facts, connection: connection, isWhole: true, now: now)
            }
        case .breakOff: break
        case .ended(let attempt, let failure, _):
            routes[attempt] = nil
            act(pair.prefill) { machine, _ in
                machine.transferEnded(attempt, failure: failure)
            }
        }
    }

    // MARK: Connections

    private mutating func connect(_ pair: ScenarioPair) {
        guard workers[pair.decode]?.isUp == true else {
            return sender(pair) { machine, now in
                machine.lost(0, reason: "\(pair.decode) does not answer", now: now)
            }
        }
        links += 1
        senders[pair]?.link = KVLinkID(links)
        sender(pair) { machine, now in machine.connected(0, now: now) }
    }

    /// What is on its way between the two is lost.
    mutating func cut(_ pair: ScenarioPair, isNoticedBySender: Bool = true) {
        guard let link = senders[pair]?.link else { return }
        senders[pair]?.link = nil
        letters.removeAll {
            $0.message.isAboutKV
                && [$0.sender, $0.receiver].allSatisfy { [pair.prefill, pair.decode].contains($0) }
        }
        act(pair.decode) { machine, now in machine.kvLinkLost(link, now: now) }
        guard isNoticedBySender else { return }
        sender(pair) { machine, now in
            machine.lost(0, reason: "the link to \(pair.decode) is lost", now: now)
        }
    }

    /// A worker is gone, and its connections with it.
    mutating func cutAll(of name: InstanceID) {
        for pair in pairs where pair.prefill == name || pair.decode == name {
            cut(pair)
            if pair.prefill == name { senders[pair] = nil }
        }
        routes = routes.filter { $0.value.prefill != name }
    }

    // MARK: Receiving

    mutating func receiveKV(_ letter: Letter) {
        let pair = ScenarioPair(prefill: letter.sender, decode: letter.receiver)
        guard let link = senders[pair]?.link,
            let fingerprint = workers[letter.receiver]?.description.fingerprint
        else { return }
        if case .kvChunk(let chunk) = letter.message {
            workers[letter.receiver]?.landed[chunk.attempt, default: [:]][chunk.tokenStart] =
                chunk.tokenCount
        }
        act(letter.receiver) { machine, now in
            switch letter.message {
            case .kvOffer(let offer):
                machine.kvOffered(
                    offer, from: letter.sender, fingerprint: fingerprint, on: link, now: now)
            case .kvEnd(let end):
                machine.kvEnded(end, from: letter.sender, on: link, now: now)
            case .kvAbort(let abort): machine.kvAborted(abort.attempt, by: letter.sender)
            case .kvChunk(let chunk):
                machine.receive(chunk, from: letter, on: link, now: now)
            default: []
            }
        }
    }

    /// Answers of the decode-worker.
    mutating func receiveKVAnswer(_ letter: Letter) {
        let pair = ScenarioPair(prefill: letter.receiver, decode: letter.sender)
        sender(pair) { machine, now in machine.received(letter.message, now: now) }
    }
}

extension WorkerMachine {
    /// A chunk comes and lands, or is damaged.
    fileprivate mutating func receive(
        _ chunk: KVChunk, from letter: ScenarioCluster.Letter, on link: KVLinkID,
        now: MonotonicTime
    ) -> [WorkerAction] {
        let facts = ChunkFacts(chunk, bytes: chunk.tokenCount)
        let (isWanted, actions) = kvBegins(
            facts, of: chunk.attempt, from: letter.sender, on: link, now: now)
        guard isWanted else { return actions }
        guard !letter.isDamaged else {
            return actions
                + kvMissed(
                    facts, of: chunk.attempt, on: link, isDamaged: true,
                    reason: "damaged on the way", now: now)
        }
        return actions + kvLanded(facts, of: chunk.attempt, on: link, now: now).actions
    }
}

extension ControlMessage {
    /// Travels on KV connections.
    var isAboutKV: Bool {
        switch self {
        case .kvOffer, .kvGrant, .kvChunk, .kvEnd, .kvDone, .kvAbort, .kvCredit, .kvResend: true
        default: false
        }
    }
}
