import ClusterRules
import Roles
import Scheduling
import ServingTypes

/// A gateway's machine with a clock and short ways to say what happens to it.
struct GatewayBench {
    var machine: GatewayMachine
    var now = MonotonicTime.start
    var view = GroupView(epoch: 1, version: 0, members: [])

    /// A gateway connected with these workers.
    init(
        _ workers: [InstanceDescription] = [
            worker(prefill1, .prefillWorker), worker(decode1, .decodeWorker),
        ], limits: GatewayLimits = GatewayLimits(), seed: UInt64 = 1
    ) {
        machine = GatewayMachine(limits: limits, seed: seed)
        _ = show(workers.map { serving($0) })
        for worker in workers { _ = connect(worker.instance) }
    }

    mutating func show(
        _ members: [GroupMember], groups: [ServingGroup]? = nil, epoch: UInt64? = nil
    ) -> [GatewayAction] {
        if let epoch, epoch != view.epoch {
            view = GroupView(epoch: epoch, version: 0, members: [])
        }
        view.version += 1
        view.members = members
        view.groups = groups ?? view.groups
        return machine.viewChanged(view, now: now)
    }

    mutating func connect(_ instance: InstanceID) -> [GatewayAction] {
        machine.connected(instance, now: now)
    }

    mutating func disconnect(_ instance: InstanceID) -> [GatewayAction] {
        machine.disconnected(instance, now: now)
    }

    mutating func submit(
        _ number: UInt64, prompt: [TokenID] = [1, 2, 3], maximumNewTokens: Int = 5,
        modelName: String = "small", adjust: (inout GenerationJob) -> Void = { _ in }
    ) -> [GatewayAction] {
        var job = GenerationJob(
            request: request(number), modelName: modelName, promptTokens: prompt,
            maximumNewTokens: maximumNewTokens, sampling: SamplingParameters())
        adjust(&job)
        return machine.submit(job, now: now)
    }

    /// A cluster file with these scenarios, else as if nothing was said of them.
    mutating func rule(
        _ names: [String] = [ScenarioSpec.defaultName],
        _ adjust: (inout ScenarioSpec) -> Void
    ) -> [GatewayAction] {
        let scenarios = names.map { name in
            var spec = ScenarioSpec(name: name)
            spec.deflection = false
            spec.decodeOnlyFallback = false
            spec.prefillOnlyFallback = false
            adjust(&spec)
            return spec
        }
        return machine.rulesChanged(ClusterSpec(scenarios: scenarios), now: now)
    }

    mutating func tick(_ duration: Duration) -> [GatewayAction] {
        now = now + duration
        return machine.tick(now: now)
    }

    mutating func hear(_ message: ControlMessage, from instance: InstanceID) -> [GatewayAction] {
        machine.received(message, from: instance, now: now)
    }

    mutating func grant(
        _ attempt: AttemptID, from instance: InstanceID = decode1, held: Int = 0
    ) -> [GatewayAction] {
        hear(
            .reservationGranted(
                ReservationGranted(
                    attempt: attempt, secret: secret(9), kvBytes: 80, heldTokens: held)),
            from: instance)
    }

    mutating func refuse(
        _ attempt: AttemptID, _ code: FailureCode = .noKVRoom, needed: Int = 80, free: Int = 0,
        from instance: InstanceID = decode1
    ) -> [GatewayAction] {
        hear(
            .reservationRefused(
                ReservationRefused(
                    attempt: attempt, code: code, neededBytes: needed, freeBytes: free)),
            from: instance)
    }

    mutating func accept(
        _ attempt: AttemptID, from instance: InstanceID = prefill1, cached: Int = 0
    ) -> [GatewayAction] {
        hear(
            .prefillAccepted(PrefillAccepted(attempt: attempt, cachedTokens: cached)),
            from: instance)
    }

    mutating func reject(
        _ attempt: AttemptID, _ code: FailureCode = .busy, from instance: InstanceID = prefill1
    ) -> [GatewayAction] {
        hear(
            .prefillRejected(PrefillRejected(attempt: attempt, code: code, reason: "")),
            from: instance)
    }

    mutating func tokens(
        _ attempt: AttemptID, at index: Int, _ tokens: TokenID..., finish: FinishReason? = nil,
        from instance: InstanceID
    ) -> [GatewayAction] {
        hear(
            .tokenBatch(
                TokenBatch(
                    attempt: attempt, firstIndex: index,
                    tokens: tokens.map { TokenOutput(token: $0) }, finish: finish)),
            from: instance)
    }

    mutating func fail(
        _ attempt: AttemptID, _ code: FailureCode = .engine, from instance: InstanceID
    ) -> [GatewayAction] {
        hear(
            .requestFailed(RequestFailed(attempt: attempt, code: code, reason: "why")),
            from: instance)
    }

    mutating func callSlots(_ free: Int, from instance: InstanceID = prefill1)
        -> [GatewayAction]
    {
        hear(.slotsOpen(SlotsOpen(freePrefillSlots: free)), from: instance)
    }

    mutating func callRoom(_ freeTokens: Int, from instance: InstanceID = decode1)
        -> [GatewayAction]
    {
        hear(.kvRoomOpen(KVRoomOpen(freeKVBytes: freeTokens * 10)), from: instance)
    }

    /// Brings a request to the stage in which its prefill-worker has accepted it.
    mutating func place(
        _ number: UInt64, maximumNewTokens: Int = 5, on prefill: InstanceID = prefill1,
        decode: InstanceID = decode1
    ) {
        _ = submit(number, maximumNewTokens: maximumNewTokens)
        _ = grant(attempt(number), from: decode)
        _ = accept(attempt(number), from: prefill)
    }

    /// Brings a request to the stage in which it has room and waits for a slot.
    mutating func hold(_ number: UInt64) {
        _ = submit(number)
        _ = grant(attempt(number))
        if machine.waitingCount > 0 { _ = reject(attempt(number)) }
    }
}

extension GatewayAction {
    /// The attempt and the worker of a reservation.
    var reserves: (AttemptID, InstanceID)? {
        if case .send(.reserveKV(let message), let to, _) = self {
            (message.terms.attempt, to)
        } else {
            nil
        }
    }

    /// The attempt and the worker of an offer.
    var offers: (AttemptID, InstanceID)? {
        if case .send(.prefillOffer(let message), let to, _) = self {
            (message.terms.attempt, to)
        } else {
            nil
        }
    }
}

extension GatewayAction {
    /// The offer itself.
    var prefillOffer: PrefillOffer? {
        if case .send(.prefillOffer(let message), _, _) = self { message } else { nil }
    }

    /// Where the KV of a prompt goes that was computed before, and who is told.
    var places: (PlaceKV, InstanceID)? {
        if case .send(.placeKV(let message), let to, _) = self { (message, to) } else { nil }
    }
}

extension [GatewayAction] {
    var prefillOffers: [PrefillOffer] { compactMap(\.prefillOffer) }
    var reservations: [AttemptID] { compactMap { $0.reserves?.0 } }
    var offers: [AttemptID] { compactMap { $0.offers?.0 } }
    var reservedAt: [InstanceID] { compactMap { $0.reserves?.1 } }
    var offeredTo: [InstanceID] { compactMap { $0.offers?.1 } }
    var failures: [GenerationFailure] {
        compactMap { if case .fail(_, let failure) = $0 { failure } else { nil } }
    }
    var restarts: [UInt32] {
        compactMap { if case .restarted(_, let attempt, _) = $0 { attempt } else { nil } }
    }
    var delivered: [TokenID] {
        flatMap { action -> [TokenID] in
            if case .deliver(_, let tokens) = action { tokens.map(\.token) } else { [] }
        }
    }
}

func cancels(_ attempt: AttemptID, at instance: InstanceID) -> GatewayAction {
    .send(.cancelRequest(CancelRequest(attempt: attempt)), to: instance)
}
