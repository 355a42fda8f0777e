package import Scheduling
package import ServingTypes

/// The gateway's decisions: where requests wait, who is asked, what happens when a worker is lost.
///
/// Waiting happens here, where every idle worker is reachable (on-demand forwarding of P/D-Serve):
/// a prefill-worker accepts or rejects at once, and the request goes on to the next one. A worker
/// that said no is left alone until it calls, so those who wait cost nothing.
package struct GatewayMachine: Sendable {
    let limits: GatewayLimits
    private let policy: any PlacementPolicy
    private var generator: SeededGenerator
    /// The workers to be connected with: the scheduler's last view; after its restart also those of
    /// the view before it, until they have had time to register again; and those that drained and
    /// left, until they close their connection.
    package private(set) var view = GroupView.empty
    private var unheard: [InstanceID: GroupMember] = [:]
    private var unheardUntil = MonotonicTime.start
    /// Workers that drained and left the view: their last words may still be on their way.
    private var leaving: [InstanceID: GroupMember] = [:]
    private var flights: [RequestID: GatewayFlight] = [:]
    private var arrivals: UInt64 = 0
    var board = GatewayBoard()
    private var isShuttingDown = false

    package init(
        limits: GatewayLimits = GatewayLimits(),
        policy: any PlacementPolicy = OnDemandPlacement(), seed: UInt64
    ) {
        self.limits = limits
        self.policy = policy
        generator = SeededGenerator(seed: seed)
    }

    package var requestCount: Int { flights.count }
    /// Requests no prefill-worker has accepted yet.
    package var waitingCount: Int { flights.count - board.placedCount }

    /// Whether a request could be placed now: both roles serve one model and are connected.
    package var canServe: Bool { board.canServe }

    // MARK: Events

    package mutating func submit(_ job: GenerationJob, now: MonotonicTime) -> [GatewayAction] {
        precondition(flights[job.request] == nil, "a request id is used once")
        guard !isShuttingDown else { return [.fail(job.request, .shuttingDown)] }
        guard flights.count < limits.maximumRequests else {
            return [.fail(job.request, .tooManyRequests(limit: limits.maximumRequests))]
        }
        arrivals += 1
        var flight = GatewayFlight(job: job, order: arrivals, now: now, limits: limits)
        let actions = advance(&flight, now: now)
        keep(flight)
        return actions
    }

    /// The client is gone, or has all it wants.
    package mutating func cancel(_ request: RequestID) -> [GatewayAction] {
        change(request) { machine, flight in
            let cancellations = machine.cancellations(of: flight)
            flight.stage = .ended
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
        for member in newView.members {
            unheard[member.description.instance] = nil
            leaving[member.description.instance] = nil
        }
        var merged = newView
        if !unheard.isEmpty || !leaving.isEmpty {
            merged.members = (newView.members + unheard.values + leaving.values)
                .sorted { $0.description.instance < $1.description.instance }
        }
        return adopt(merged, now: now)
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
            view.members.removeAll { $0.description.instance == instance }
            _ = board.setMembers(view.members)
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
            case .prefillAccepted(let accepted): self.accepted(accepted, from: instance)
            case .prefillRejected(let rejected): self.rejected(rejected, from: instance, now: now)
            case .tokenBatch(let batch): received(batch, from: instance)
            case .requestFailed(let failed): self.failed(failed, from: instance, now: now)
            case .slotsOpen(let open): opened(instance, freeSlots: open.freePrefillSlots, now: now)
            case .kvRoomOpen(let open): opened(instance, freeBytes: open.freeKVBytes, now: now)
            default: []
            }
        return actions + wake(now: now)
    }

    /// Looks at every deadline that has come; called at least every `askAgainInterval`.
    package mutating func tick(now: MonotonicTime) -> [GatewayAction] {
        var actions: [GatewayAction] = []
        if !unheard.isEmpty, now >= unheardUntil {
            var heard = view
            heard.members.removeAll { unheard[$0.description.instance] != nil }
            unheard = [:]
            actions += adopt(heard, now: now)
        }
        while let next = board.timers.first, next.key.time <= now {
            actions += change(next.value) { machine, flight in machine.tick(&flight, now: now) }
        }
        board.openSilent(now: now, interval: limits.askAgainInterval)
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
        return actions
    }

    private mutating func keep(
        _ flight: GatewayFlight, instead before: GatewayFootprint? = nil
    ) {
        let isOpen = flight.stage != .ended
        let after = isOpen ? GatewayFootprint(flight, limits: limits) : nil
        if before != after {
            if let before { board.remove(before, of: flight) }
            if let after { board.add(after, of: flight) }
        }
        if isOpen { flights[flight.job.request] = flight }
    }

    /// The request whose current attempt this is.
    func currentRequest(_ attempt: AttemptID) -> RequestID? {
        flights[attempt.request]?.attempt == attempt.number ? attempt.request : nil
    }

    mutating func chosen(
        _ role: Role, for flight: GatewayFlight
    ) -> InstanceID? {
        let candidates = board.candidates(role, for: flight)
        return role == .prefillWorker
            ? policy.prefillWorker(among: candidates, using: &generator)
            : policy.decodeWorker(among: candidates, using: &generator)
    }

    // MARK: Many requests

    private mutating func adopt(_ newView: GroupView, now: MonotonicTime) -> [GatewayAction] {
        let old = view
        view = newView
        guard board.setMembers(newView.members) else { return wake(now: now) }
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
                machine.restart(&flight, avoiding: [instance], reason: reason, now: now)
            }
        }
    }

    /// Lets those who wait ask the workers that opened, who came first is served first.
    private mutating func wake(now: MonotonicTime) -> [GatewayAction] {
        var actions: [GatewayAction] = []
        while true {
            let opened = board.takeOpened()
            guard !opened.isEmpty else { return actions }
            for instance in opened { actions += wake(instance, now: now) }
        }
    }

    private mutating func wake(_ instance: InstanceID, now: MonotonicTime) -> [GatewayAction] {
        guard let opened = board[instance], opened.canBeAsked else { return [] }
        var actions: [GatewayAction] = []
        for entry in board.queue(for: opened).entries {
            guard let worker = board[instance], worker.canBeAsked else { break }
            let isDecode = worker.description.role == .decodeWorker
            if isDecode, entry.value.neededTokens > worker.allowance { continue }
            actions += change(entry.value.request) { machine, flight in
                machine.advance(&flight, now: now)
            }
        }
        return actions
    }

    // MARK: Messages

    func cancellations(of flight: GatewayFlight) -> [GatewayAction] {
        let message = ControlMessage.cancelRequest(CancelRequest(attempt: flight.attemptID))
        return [flight.prefill, flight.decode].compactMap { $0 }
            .filter { board.isConnected($0) }
            .map { .send(message, to: $0) }
    }
}
