package import ClusterRules
package import Scheduling
package import ServingTypes

/// The gateway's decisions: where requests wait, who is asked, what happens when a worker is lost.
///
/// Waiting happens here, where every idle worker is reachable (on-demand forwarding of P/D-Serve):
/// a prefill-worker accepts or rejects at once, and the request goes on to the next one. A worker
/// that said no is left alone until it calls, so those who wait cost nothing.
package struct GatewayMachine: Sendable {
    let limits: GatewayLimits
    /// For scenarios that no cluster file names.
    var policy: any PlacementPolicy
    var policies: [String: any PlacementPolicy] = [:]
    private var settings: [String: ScenarioSettings] = [:]
    private let usualSettings = ScenarioSettings()
    var generator: SeededGenerator
    /// The workers to be connected with: the scheduler's last view; after its restart also those of
    /// the view before it, until they have had time to register again; and those that drained and
    /// left, until they close their connection.
    package private(set) var view = GroupView.empty
    private var unheard: [InstanceID: GroupMember] = [:]
    private var unheardUntil = MonotonicTime.start
    /// The groups of the scheduler's last view.
    private var toldGroups: [ServingGroup] = []
    /// Workers that drained and left the view: their last words may still be on their way.
    private var leaving: [InstanceID: GroupMember] = [:]
    private(set) var flights: [RequestID: GatewayFlight] = [:]
    private var arrivals: UInt64 = 0
    var board: GatewayBoard
    /// Who holds the beginning of which prompt: of those that prefill, and of those that decode.
    var promptIndex: PrefixIndex
    var conversationIndex: PrefixIndex
    /// Storage for candidates.
    var scratch = GatewayBoard.Choice()
    var traffic = GatewayTraffic()
    /// By model file.
    var vocabularies: [String: VocabularyID] = [:]
    package internal(set) var counts = PlacementCounts()
    private var isShuttingDown = false

    package init(
        limits: GatewayLimits = GatewayLimits(),
        policy: any PlacementPolicy = OnDemandPlacement(), seed: UInt64
    ) {
        self.limits = limits
        self.policy = policy
        generator = SeededGenerator(seed: seed)
        board = GatewayBoard(maximumWaiting: limits.maximumWaiting)
        // Equal seeds: the blocks of a prompt serve both.
        let indexSeed = generator.next()
        promptIndex = PrefixIndex(limits: limits.prefixIndex, seed: indexSeed)
        conversationIndex = PrefixIndex(limits: limits.prefixIndex, seed: indexSeed)
    }

    package var requestCount: Int { flights.count }
    package var connectedWorkers: Int { board.connectedCount }
    /// Requests no prefill-worker has accepted yet.
    package var waitingCount: Int { flights.count - board.placedCount }

    /// Whether a request could be placed now: the workers of some open group are connected.
    package var canServe: Bool {
        board.groups.values.contains { group in
            group.rules.state == .open
                && group.canServe(
                    settings(of: group.isImplicit ? ScenarioSpec.defaultName : group.rules.scenario)
                )
        }
    }

    func settings(of scenario: String) -> ScenarioSettings { settings[scenario] ?? usualSettings }

    // MARK: Events

    package mutating func submit(_ job: GenerationJob, now: MonotonicTime) -> [GatewayAction] {
        precondition(flights[job.request] == nil, "a request id is used once")
        guard !isShuttingDown else { return [.fail(job.request, .shuttingDown)] }
        guard flights.count < limits.maximumRequests else {
            return [.fail(job.request, .tooManyRequests(limit: limits.maximumRequests))]
        }
        arrivals += 1
        var flight = GatewayFlight(
            job: job, blocks: promptIndex.blocks(of: job.promptTokens), order: arrivals, now: now,
            limits: limits)
        let actions = advance(&flight, now: now)
        keep(flight)
        return actions + turnAway()
    }

    /// The client is gone, or has all it wants.
    package mutating func cancel(_ request: RequestID) -> [GatewayAction] {
        change(request) { machine, flight in
            let cancellations = machine.cancellations(of: flight)
            flight.hasEnded = true
            return cancellations
        }
    }

    package mutating func viewChanged(_ newView: GroupView, now: MonotonicTime) -> [GatewayAction] {
        guard newView.isNewer(than: view) else { return [] }
        if newView.epoch > view.epoch {
            unheard = Dictionary(
                view.members.map { ($0.description.instance, $0) }, uniquingKeysWith: { $1 })
            unheardUntil = now + limits.schedulerGrace
        }
        for member in view.members where member.state == .draining {
            let instance = member.description.instance
            if board.isConnected(instance), unheard[instance] == nil { leaving[instance] = member }
        }
        if !unheard.isEmpty || !leaving.isEmpty {
            for member in newView.members {
                unheard[member.description.instance] = nil
                leaving[member.description.instance] = nil
            }
        }
        var merged = newView
        if !unheard.isEmpty || !leaving.isEmpty {
            merged.members = (newView.members + unheard.values + leaving.values)
                .sorted { $0.description.instance < $1.description.instance }
        }
        toldGroups = newView.groups
        if !unheard.isEmpty {
            let told = Set(newView.groups.map(\.id))
            merged.groups += view.groups.filter { !told.contains($0.id) }
        }
        return adopt(merged, now: now)
    }

    /// Nothing but these readings differs from the scheduler's last view; sorted by instance.
    package mutating func readingsChanged(_ readings: [MemberReading], version: UInt64) {
        guard version > view.version else { return }
        for reading in readings { board.read(reading) }
        // Workers that the last view has are here, whoever else is.
        _ = view.take(readings, version: version)
    }

    package mutating func connected(_ instance: InstanceID, now: MonotonicTime) -> [GatewayAction] {
        board.setConnected(instance, true)
        return wake(now: now)
    }

    package mutating func disconnected(
        _ instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        board.setConnected(instance, false)
        if leaving.removeValue(forKey: instance) != nil {
            promptIndex.remove(instance)
            conversationIndex.remove(instance)
            view.members.removeAll { $0.description.instance == instance }
            _ = board.setMembers(view)
        }
        return lost(instance, reason: "the connection to \(instance) is lost", now: now)
            + wake(now: now)
    }

    package mutating func received(
        _ message: ControlMessage, from instance: InstanceID, now: MonotonicTime
    ) -> [GatewayAction] {
        let actions: [GatewayAction] =
            switch message {
            case .reservationGranted(let granted): self.granted(granted, from: instance, now: now)
            case .reservationRefused(let refused): self.refused(refused, from: instance, now: now)
            case .prefillAccepted(let accepted): self.accepted(accepted, from: instance, now: now)
            case .prefillRejected(let rejected): self.rejected(rejected, from: instance, now: now)
            case .tokenBatch(let batch): received(batch, from: instance, now: now)
            case .requestFailed(let failed): self.failed(failed, from: instance, now: now)
            case .moveWanted(let wanted): moveWanted(wanted, from: instance, now: now)
            case .kvDelivered(let delivered): self.delivered(delivered, from: instance)
            case .sequenceHeld(let held): self.held(held, from: instance, now: now)
            case .slotsOpen(let open): opened(instance, freeSlots: open.freePrefillSlots, now: now)
            case .kvRoomOpen(let open): opened(instance, freeBytes: open.freeKVBytes, now: now)
            default: []
            }
        return actions + wake(now: now)
    }

    /// The scheduler has sent another cluster file.
    package mutating func rulesChanged(
        _ spec: ClusterSpec, now: MonotonicTime
    ) -> [GatewayAction] {
        for scenario in spec.scenarios
        where settings[scenario.name]?.placement != scenario.placement {
            policies[scenario.name] = scenario.placement.makePolicy()
        }
        settings = Dictionary(
            spec.scenarios.map { ($0.name, ScenarioSettings($0)) }, uniquingKeysWith: { $1 })
        policies = policies.filter { settings[$0.key] != nil }
        // Whether one role may do the other's work decides what a group can serve.
        board.changedGroups.formUnion(board.groups.keys)
        return wake(now: now)
    }

    /// What happened since the last call, by group; for the scheduler.
    package mutating func takeTraffic(now: MonotonicTime) -> [GroupTraffic] {
        traffic.take(waiting: board.waitingIn.mapValues(\.count))
    }

    /// Looks at every deadline that has come; called at least every `askAgainInterval`.
    package mutating func tick(now: MonotonicTime) -> [GatewayAction] {
        var actions: [GatewayAction] = []
        if !unheard.isEmpty, now >= unheardUntil {
            var heard = view
            heard.members.removeAll { unheard[$0.description.instance] != nil }
            heard.groups = toldGroups
            unheard = [:]
            actions += adopt(heard, now: now)
        }
        for request in board.timers.due(now: now) {
            actions += change(request) { machine, flight in machine.tick(&flight, now: now) }
        }
        board.trySilent(now: now)
        return actions + wake(now: now)
    }

    /// Refuses new requests from now on; those in flight go on.
    package mutating func beginShutdown() { isShuttingDown = true }

    // MARK: Requests in the lists

    /// Changes a request and keeps the lists in step; a request that ended is forgotten.
    mutating func change(
        _ request: RequestID,
        _ body: (inout GatewayMachine, inout GatewayFlight) -> [GatewayAction]
    ) -> [GatewayAction] {
        // Taken out, so that its tokens are not copied.
        guard var flight = flights.removeValue(forKey: request) else { return [] }
        let before = GatewayFootprint(flight, limits: limits)
        let actions = body(&self, &flight)
        keep(flight, instead: before)
        return actions + turnAway()
    }

    /// Fails those for whom there is no place in their queue.
    private mutating func turnAway() -> [GatewayAction] {
        board.takeTurnedAway().flatMap { request in
            change(request) { machine, flight in
                machine.fail(
                    &flight, .tooManyRequests(limit: machine.limits.maximumWaiting))
            }
        }
    }

    private mutating func keep(
        _ flight: GatewayFlight, instead before: GatewayFootprint? = nil
    ) {
        let isOpen = !flight.hasEnded
        let after = isOpen ? GatewayFootprint(flight, limits: limits) : nil
        if before != after {
            if let before {
                board.remove(before, of: flight, isTaken: after?.asked != nil)
            }
            if let after {
                let isBack = before?.asked != nil && !after.waitsFor.isEmpty
                board.add(after, of: flight, isBack: isBack)
            }
        }
        if isOpen { flights[flight.job.request] = flight }
    }

    /// The request whose current attempt this is.
    func currentRequest(_ attempt: AttemptID) -> RequestID? {
        flights[attempt.request]?.attempt == attempt.number ? attempt.request : nil
    }

    // MARK: Many requests

    private mutating func adopt(_ newView: GroupView, now: MonotonicTime) -> [GatewayAction] {
        let old = view
        view = newView
        guard board.setMembers(newView) else { return wake(now: now) }
        let new = Dictionary(
            newView.members.map { ($0.description.instance, $0) }, uniquingKeysWith: { $1 })
        var actions: [GatewayAction] = []
        for member in old.members {
            let instance = member.description.instance
            if let now = new[instance],
                now.description.incarnation == member.description.incarnation
            {
                continue
            }
            promptIndex.remove(instance)
            conversationIndex.remove(instance)
            let reason = new[instance] == nil ? "\(instance) has left" : "\(instance) has restarted"
            actions += lost(instance, reason: reason, now: now)
        }
        for member in newView.members where member.state == .down {
            actions += lost(member.description.instance, reason: member.reason, now: now)
        }
        return actions + wake(now: now)
    }

    /// A worker is gone: everything that depends on it starts again.
    private mutating func lost(
        _ instance: InstanceID, reason: String, now: MonotonicTime
    ) -> [GatewayAction] {
        guard let requests = board[instance]?.requests else { return [] }
        return requests.entries.flatMap { entry in
            change(entry.value) { machine, flight in
                machine.lost(instance, of: &flight, reason: reason, now: now)
            }
        }
    }

    /// Lets those who wait ask the workers that opened, by their turn.
    private mutating func wake(now: MonotonicTime) -> [GatewayAction] {
        var actions: [GatewayAction] = []
        while true {
            let changed = board.takeChangedGroups()
            let opened = board.takeOpened()
            guard !changed.isEmpty || !opened.isEmpty else { return actions }
            for group in changed { actions += review(group, now: now) }
            for opening in opened { actions += wake(opening, now: now) }
        }
    }

    private mutating func wake(
        _ opening: GatewayBoard.Opening, now: MonotonicTime
    ) -> [GatewayAction] {
        let (position, need) = (opening.position, opening.need)
        guard let group = board.groupServed(by: opening) else { return [] }
        let place = GatewayBoard.Place(group: group, need: need)
        var actions: [GatewayAction] = []
        var tried: Set<RequestID> = []
        while board.workers[position].standing.canBeAsked(need) {
            let duty = board.workers[position].standing[need]
            let next = board.waiting[place]?.first { request, waiting in
                duty.allows(need == .prompts ? 1 : waiting.neededTokens)
                    && !tried.contains(request)
            }
            guard let request = next?.id else { break }
            tried.insert(request)
            actions += change(request) { machine, flight in
                machine.advance(&flight, now: now, opening: position)
            }
        }
        return actions
    }
}
