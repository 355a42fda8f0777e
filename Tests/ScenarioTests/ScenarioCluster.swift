import ClusterRules
import Grouping
import InferenceEngine
import KVHandOver
import Roles
import ServingTypes

/// A line of a scenario that is no command.
struct ScenarioError: Error, Equatable {
    var command: String
}

/// One gateway, one scheduler and some workers; messages wait until they are delivered.
struct ScenarioCluster {
    struct Letter {
        var message: ControlMessage
        var tokens: [TokenID]
        var sender: InstanceID
        var receiver: InstanceID
        /// The payload, not the message.
        var isDamaged = false
    }

    static let gateway = InstanceID("gateway")
    static let scheduler = InstanceID("scheduler")
    static let gatewayLink = LinkID(1)

    var gateway = GatewayMachine(seed: 1)
    var scheduler: SchedulerMachine? = SchedulerMachine(epoch: 1)
    var epoch: UInt64 = 1
    var workers: [InstanceID: ScenarioWorker] = [:]
    var incarnations: UInt64 = 0
    var assignments: UInt64 = 0
    var senders: [ScenarioPair: ScenarioSender] = [:]
    var routes: [AttemptID: ScenarioPair] = [:]
    var links: UInt64 = 0
    var now = MonotonicTime.start
    var letters: [Letter] = []
    var leaving: [InstanceID] = []
    var transcript: [String] = []
    private var reader = ViewReader()
    private var shownMembers = ""

    init() {
        subscribe()
    }

    private mutating func subscribe() {
        reader.connected()
        let peer = identity(Self.gateway, .gateway)
        let now = now
        perform(
            scheduler?.received(
                .subscribe(Subscribe()), from: peer, on: Self.gatewayLink, now: now) ?? [])
    }

    // MARK: Commands

    mutating func run(_ command: String) throws -> [String] {
        transcript = []
        let words = command.split(separator: " ").map(String.init)
        let error = ScenarioError(command: command)
        func number(_ name: String, or usual: Int? = nil) throws -> Int {
            guard let index = words.firstIndex(of: name) else {
                if let usual { return usual }
                throw error
            }
            guard index + 1 < words.count, let number = Int(words[index + 1]) else { throw error }
            return number
        }
        func worker() throws -> InstanceID {
            guard words.count > 1, workers[InstanceID(words[1])] != nil else { throw error }
            return InstanceID(words[1])
        }
        switch words.first {
        case "worker" where words.count > 1:
            start(
                InstanceID(words[1]), slots: try number("slots", or: 2),
                sequences: try number("sequences", or: 4),
                capacity: try number("capacity", or: 100), kept: try number("kept", or: 0),
                chunk: try number("chunk", or: 100))
        case "rules": try rule(words.dropFirst(), or: error)
        case "submit" where words.count > 1:
            submit(words[1], prompt: try number("prompt"), new: try number("new"))
        case "leave" where words.count > 1:
            perform(gateway.cancel(request(words[1])))
        case "deliver":
            deliver(atMost: words.count == 1 ? .max : try number("deliver"))
        case "compute": compute(try words.count > 1 ? [worker()] : workers.keys.sorted())
        case "tick": tick(.seconds(try number("tick")))
        case "damage": try damageChunk(or: error)
        case "corrupt": workers[try worker()]?.refusesNextChunk = true
        case "cut" where words.count == 3:
            cut(ScenarioPair(prefill: try worker(), decode: InstanceID(words[2])))
        case "crash": crash(try worker())
        case "restart": restart(try worker())
        case "drain":
            let name = try worker()
            act(name) { machine, _ in machine.drain() }
            heartbeat(name)
        case "assign" where words.count == 3:
            guard let role = ServingRole(name: words[2]) else { throw error }
            assign(role, to: try worker())
        case "scheduler" where words.last == "away": scheduler = nil
        case "scheduler" where words.last == "back": schedulerBack()
        case "status": tellStatus()
        default: throw error
        }
        return transcript
    }

    private func identity(_ instance: InstanceID, _ role: Role) -> PeerIdentity {
        PeerIdentity(cluster: "scenario", role: role, instance: instance)
    }

    private func request(_ name: String) -> RequestID {
        RequestID(high: 0, low: UInt64(name.unicodeScalars.first?.value ?? 0))
    }

    private mutating func submit(_ name: String, prompt: Int, new: Int) {
        let job = GenerationJob(
            request: request(name), modelName: "model",
            promptTokens: (1...max(1, prompt)).map { TokenID($0) }, maximumNewTokens: new,
            sampling: SamplingParameters())
        perform(gateway.submit(job, now: now))
    }

    /// The cluster file allows these, and nothing else.
    private mutating func rule(_ words: ArraySlice<String>, or error: ScenarioError) throws {
        var spec = ScenarioSpec(name: ScenarioSpec.defaultName)
        spec.deflection = false
        spec.decodeOnlyFallback = false
        spec.prefillOnlyFallback = false
        for word in words {
            switch word {
            case "late": spec.decodePlacement = .late
            case "deflection": spec.deflection = true
            case "decode-only": spec.decodeOnlyFallback = true
            case "prefill-only": spec.prefillOnlyFallback = true
            default: throw error
            }
        }
        perform(gateway.rulesChanged(ClusterSpec(scenarios: [spec]), now: now))
    }

    // MARK: Workers

    private mutating func start(
        _ name: InstanceID, slots: Int, sequences: Int, capacity: Int, kept: Int, chunk: Int
    ) {
        let role: Role = name.name.hasPrefix("prefill") ? .prefillWorker : .decodeWorker
        incarnations += 1
        let address = NetworkAddress(host: name.name, port: 1)
        let description = InstanceDescription(
            instance: name, role: role, incarnation: incarnations, host: "host",
            controlAddress: address, bulkAddress: address, modelName: "model",
            fingerprint: ModelFingerprint(
                [UInt8](repeating: 1, count: ModelFingerprint.byteCount)),
            contextTokens: 100, kvBytesPerToken: 1, kvCapacityBytes: capacity,
            prefillSlots: slots, decodeSequences: sequences, device: "CPU")
        workers[name] = ScenarioWorker(description, keptSequences: kept, chunkTokens: chunk)
        register(name)
        perform(gateway.connected(name, now: now))
    }

    private mutating func register(_ name: InstanceID) {
        guard let worker = workers[name] else { return }
        tell(
            .register(Register(description: worker.description, status: worker.status)),
            from: name)
    }

    private mutating func assign(_ role: ServingRole, to name: InstanceID) {
        assignments += 1
        let assign = Assign(number: assignments, role: role, group: nil)
        act(name) { machine, now in machine.assigned(assign, now: now) }
    }

    private mutating func heartbeat(_ name: InstanceID) {
        guard let worker = workers[name], worker.isUp else { return }
        tell(.heartbeat(Heartbeat(status: worker.status)), from: name)
    }

    private mutating func tell(_ message: ControlMessage, from name: InstanceID) {
        guard let worker = workers[name], scheduler != nil else { return }
        let link = LinkID(100 + worker.description.incarnation)
        let peer = identity(name, worker.description.role)
        let now = now
        perform(scheduler?.received(message, from: peer, on: link, now: now) ?? [])
    }

    private mutating func crash(_ name: InstanceID) {
        workers[name]?.isUp = false
        letters.removeAll { $0.sender == name || $0.receiver == name }
        perform(gateway.disconnected(name, now: now))
        if let worker = workers[name] {
            let link = LinkID(100 + worker.description.incarnation)
            let now = now
            perform(scheduler?.closed(link, now: now) ?? [])
        }
        cutAll(of: name)
    }

    /// Damages the first chunk that is on its way.
    private mutating func damageChunk(or error: ScenarioError) throws {
        let chunk = letters.firstIndex {
            if case .kvChunk = $0.message { true } else { false }
        }
        guard let chunk else { throw error }
        letters[chunk].isDamaged = true
    }

    private mutating func restart(_ name: InstanceID) {
        guard let worker = workers[name] else { return }
        let old = worker.description
        start(
            name, slots: old.prefillSlots, sequences: old.decodeSequences,
            capacity: old.kvCapacityBytes, kept: worker.keptSequences, chunk: worker.chunkTokens)
    }

    private mutating func schedulerBack() {
        epoch += 1
        scheduler = SchedulerMachine(epoch: epoch)
        subscribe()
        for name in workers.keys.sorted() where workers[name]?.isUp == true { register(name) }
    }

    // MARK: Time

    private mutating func tick(_ duration: Duration) {
        let end = now + duration
        while now < end {
            now = now + .milliseconds(250)
            for name in workers.keys.sorted() {
                act(name) { machine, now in machine.tick(now: now) }
                heartbeat(name)
            }
            tickSenders()
            let now = now
            perform(scheduler?.tick(now: now, clock: WallClock()) ?? [])
            perform(gateway.tick(now: now))
        }
    }

    private mutating func compute(_ names: [InstanceID]) {
        for name in names where workers[name]?.isUp == true {
            for event in workers[name]?.iterate() ?? [] {
                if case .exported(let sequence, let block) = event {
                    export(sequence, block, of: name)
                } else {
                    act(name) { machine, now in machine.engine(event, now: now) }
                }
            }
        }
    }

    // MARK: Messages

    mutating func send(
        _ message: ControlMessage, tokens: [TokenID] = [], from: InstanceID, to: InstanceID
    ) {
        transcript.append("\(from) → \(to): \(sentence(message, tokens))")
        letters.append(Letter(message: message, tokens: tokens, sender: from, receiver: to))
    }

    private mutating func deliver(atMost count: Int) {
        var left = count
        while left > 0, !letters.isEmpty {
            left -= 1
            let letter = letters.removeFirst()
            if letter.receiver == Self.gateway {
                perform(gateway.received(letter.message, from: letter.sender, now: now))
            } else {
                receive(letter)
            }
        }
        // A worker closes its connection after its last words.
        for name in leaving where !letters.contains(where: { $0.sender == name }) {
            leaving.removeAll { $0 == name }
            perform(gateway.disconnected(name, now: now))
        }
    }

    private mutating func receive(_ letter: Letter) {
        let name = letter.receiver
        switch letter.message {
        case .kvOffer, .kvChunk, .kvEnd, .kvAbort: receiveKV(letter)
        case .kvGrant, .kvCredit, .kvResend, .kvDone: receiveKVAnswer(letter)
        default:
            act(name) { machine, now in
                machine.received(
                    letter.message, tokens: letter.tokens, from: Self.gatewayLink,
                    secret: ReservationSecret(high: 0, low: 1), now: now)
            }
        }
    }

    // MARK: Actions

    mutating func act(
        _ name: InstanceID,
        _ event: (inout WorkerMachine, MonotonicTime) -> [WorkerAction]
    ) {
        guard var worker = workers[name], worker.isUp else { return }
        let actions = event(&worker.machine, now)
        workers[name] = worker
        for action in actions { perform(action, of: name) }
    }

    private mutating func perform(_ action: WorkerAction, of name: InstanceID) {
        switch action {
        case .send(let message, _), .broadcast(let message):
            send(message, from: name, to: Self.gateway)
        case .run(let job):
            transcript.append("\(name) computes \(list(job.tokens)), \(job.maximumNewTokens) new")
            workers[name]?.run(job)
        case .cancelSequence(let sequence): workers[name]?.cancel(sequence)
        case .holdSequence(let sequence):
            guard workers[name]?.hold(sequence) == true else { return }
            act(name) { machine, now in machine.engine(.held(sequence), now: now) }
        case .openTransfer(let plan): open(plan, of: name)
        case .endTransfer(let message): end(message)
        case .abortTransfer(let attempt, let reason): abort(attempt, reason: reason)
        case .fork(let sequence, let from, let tokens):
            transcript.append("\(name) begins with \(tokens) kept tokens")
            workers[name]?.fork(sequence, from: from, tokens: tokens)
            act(name) { machine, now in
                machine.engine(.imported(sequence, tokens: tokens), now: now)
            }
        case .sendKV(let message, let link):
            guard let pair = senders.first(where: { $0.value.link == link })?.key else { return }
            send(message, from: name, to: pair.prefill)
        case .importChunks(let sequence, let attempt, let starts):
            for start in starts {
                let event = workers[name]?.importChunk(start, of: attempt, as: sequence)
                if let event { act(name) { machine, now in machine.engine(event, now: now) } }
            }
        case .dropChunks(let attempt): workers[name]?.landed[attempt] = nil
        case .export(let sequence, let start):
            transcript.append("\(name) exports from token \(start) on")
            for block in workers[name]?.export(sequence, from: start) ?? [] {
                export(sequence, block, of: name)
            }
            act(name) { machine, now in machine.engine(.exportEnded(sequence), now: now) }
        case .limitStep(let limit):
            transcript.append("\(name) computes for \(limit.map { "\($0)" } ?? "ever") at most")
        case .roleChanged(let role):
            transcript.append("\(name) is now of role \(role.name)")
            heartbeat(name)
        case .loadModel(let path): transcript.append("\(name) has to load \(path)")
        case .drained:
            transcript.append("\(name) has drained and leaves")
            tell(.deregister(Deregister(reason: "drained")), from: name)
            workers[name]?.isUp = false
            leaving.append(name)
        }
    }

    private mutating func perform(_ actions: [GatewayAction]) {
        for action in actions {
            switch action {
            case .send(let message, let to, let tokens):
                send(message, tokens: tokens ?? [], from: Self.gateway, to: to)
            case .started: break
            case .deliver(let request, let tokens):
                transcript.append("client \(letter(request)) gets \(list(tokens.map(\.token)))")
            case .finish(let request, let reason):
                transcript.append("client \(letter(request)): finished (\(reason))")
            case .fail(let request, let failure):
                transcript.append("client \(letter(request)): failed, \(failure)")
            case .restarted(let request, let attempt, let reason):
                transcript.append("\(letter(request)) starts again as #\(attempt): \(reason)")
            }
        }
    }

    private mutating func perform(_ actions: [SchedulerAction]) {
        for action in actions {
            switch action {
            case .push(let page, _):
                if let view = reader.received(page) { show(view) }
            case .pushChange(let change, _):
                if case .view(let view) = reader.received(change) { show(view) }
            case .assign(let name, let assign, _):
                act(name) { machine, now in machine.assigned(assign, now: now) }
            case .answer, .refuse, .rules, .viewChanged, .decided, .tookUp, .commanded, .wanted,
                .save:
                break
            case .changed(let instance, let state, let reason):
                transcript.append("\(instance) is \(state?.name ?? "gone"): \(reason)")
            }
        }
    }

    private mutating func show(_ view: GroupView) {
        let members = view.members.map { "\($0.description.instance) \($0.state)" }
            .joined(separator: ", ")
        if members != shownMembers {
            transcript.append(
                "scheduler → gateway: view of \(members.isEmpty ? "nobody" : members)")
            shownMembers = members
        }
        perform(gateway.viewChanged(view, now: now))
    }

    private mutating func tellStatus() {
        transcript.append(
            "gateway: \(gateway.requestCount) requests, \(gateway.waitingCount) wait")
        for (name, worker) in workers.sorted(by: { $0.key < $1.key }) where worker.isUp {
            let status = worker.status
            transcript.append(
                status.role == .prefill
                    ? "\(name): \(status.freePrefillSlots) slots free"
                        + (worker.machine.keptKVTokens > 0
                            ? ", \(worker.machine.keptKVTokens) kept" : "")
                    : "\(name): \(status.runningSequences) run, "
                        + "\(status.reservedKVBytes) tokens reserved"
                        + (worker.machine.keptKVTokens > 0
                            ? ", \(worker.machine.keptKVTokens) kept" : ""))
        }
    }
}
