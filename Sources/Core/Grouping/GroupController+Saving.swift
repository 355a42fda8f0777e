import ClusterRules
package import ServingTypes

/// What outlives this controller: taken out as it changes, put back into the next one.
///
/// After that nothing is decided about a scenario until its workers have come back, or
/// `GroupLimits.recall` is over: half a cluster looks like one that lacks the other half.
extension GroupController {
    /// What has changed since the last call; nil removes a record.
    package mutating func takeChanges() -> [SavedKey: SavedRecord?] {
        var changes: [SavedKey: SavedRecord?] = [:]
        for instance in seats.takeTouched() {
            let seat = (seats[instance].map { SavedSeat($0) } ?? recalled[instance])
            guard savedSeats[instance] != seat else { continue }
            savedSeats[instance] = seat
            changes[.seat(instance)] = .some(seat.map { .seat($0) })
        }
        var others: [SavedKey: SavedRecord] = [
            .counters: .counters(SavedCounters(assignment: lastNumber))
        ]
        for (id, record) in groupBook { others[.group(id)] = .group(SavedGroup(record)) }
        for name in Set(lastGroup.keys).union(scales.keys).union(upgrades.keys) {
            let scale = scales[name] ?? ScaleOverride()
            others[.scenario(name)] = .scenario(
                SavedScenario(
                    lastGroup: lastGroup[name],
                    scale: scale == ScaleOverride() ? nil : SavedScale(scale),
                    upgrade: upgrades[name].map { SavedUpgrade($0) }))
        }
        guard others != savedOthers else { return changes }
        for (key, record) in others where savedOthers[key] != record {
            changes[key] = .some(record)
        }
        for key in savedOthers.keys where others[key] == nil { changes[key] = .some(nil) }
        savedOthers = others
        return changes
    }

    /// Takes over what an earlier scheduler saved; called once, before anything else.
    package mutating func restore(_ records: [SavedKey: SavedRecord], now: MonotonicTime) {
        self.now = now
        for (key, record) in records {
            switch (key, record) {
            case (.counters, .counters(let counters)):
                lastNumber = max(lastNumber, counters.assignment)
            case (.scenario(let name), .scenario(let scenario)):
                lastGroup[name] = scenario.lastGroup
                scales[name] = scenario.scale?.scale
                upgrades[name] = scenario.upgrade.flatMap {
                    UpgradePlan($0, scenario: name, now: now)
                }
            case (.group(let id), .group(let group)):
                guard let restored = group.record(id, now: now) else { continue }
                groupBook[id] = restored
                poolGroups[restored.pool, default: []].insert(id)
                ratios[restored.pool, default: RatioController()].disturbed(now: now)
            case (.seat(let instance), .seat(let seat)):
                recalled[instance] = seat
                savedSeats[instance] = seat
                continue
            default: continue
            }
            savedOthers[key] = record
        }
        recallEnd = now + limits.recall
        hasNews = true
    }

    /// Workers that have not come back yet.
    package var awaitedWorkers: Int { recalled.count }

    /// Scenarios some of whose workers have not had the time to come back.
    mutating func noteAwaited() {
        if !recalled.isEmpty, now >= recallEnd { endRecall() }
        awaited = Set(recalled.values.map(\.scenario))
    }

    /// Workers that stayed away are gone: spares take their places.
    private mutating func endRecall() {
        let missing = recalled.sorted { $0.key < $1.key }
        recalled = [:]
        for (instance, saved) in missing {
            seats.touch(instance)
            guard let pool = saved.pool, let role = ServingRole(name: saved.home),
                role != .spare, let group = saved.group.map({ GroupID($0) })
            else { continue }
            let seat = Seat(
                pool: pool, group: group, role: role, home: role, shown: role,
                incarnation: saved.incarnation, since: now)
            _ = replace(instance, seat, in: group, why: "has not come back")
        }
    }

    /// Gives a worker the seat it had; nil if it has none, or is another worker by now.
    mutating func recall(_ worker: GroupWorker) -> Seat? {
        let description = worker.description
        guard let saved = recalled.removeValue(forKey: worker.instance) else { return nil }
        seats.touch(worker.instance)
        guard let pool = saved.pool, let rules = spec[saved.scenario], fits(worker, rules),
            pool.modelName == description.modelName, pool.fingerprint == description.fingerprint,
            let role = ServingRole(name: saved.role), let home = ServingRole(name: saved.home),
            description.can(role)
        else { return nil }
        var seat = Seat(
            pool: pool, role: role, home: home, shown: .spare,
            incarnation: description.incarnation, since: now)
        if let name = saved.group {
            let id = GroupID(name)
            seat.group =
                groupBook[id]?.pool == pool
                ? id : group(for: role, of: pool, rules, path: description.modelPath)
        }
        seat.isPinned = saved.isPinned
        seat.loadPath = saved.loadPath
        seat.number = saved.number
        seat.stepLimit = stepLimit(role, pool.scenario)
        // It is told once more: its rules may be others, and an order may have been lost.
        seat.orderDue = now
        let isSameLife = description.incarnation == saved.incarnation
        let does = worker.status.role == role
        seat.isConfirmed =
            isSameLife && does && saved.number > 0 && saved.loadPath.isEmpty
            && worker.status.assignment == saved.number
        seat.isAdopted = does && worker.status.assignment > 0
        seat.shown = does ? role : .spare
        seat.isFlip = !does && seat.group != nil && worker.status.role != .spare
        return seat
    }
}

extension SavedUpgrade {
    init(_ plan: UpgradePlan) {
        let (phase, reason) =
            switch plan.phase {
            case .running: ("running", "")
            case .paused(let reason): ("paused", reason)
            case .finished: ("finished", "")
            case .aborted: ("aborted", "")
            }
        self.init(
            modelName: plan.modelName, target: plan.target, origin: plan.origin, step: plan.step,
            settleMilliseconds: Int(plan.settle.seconds * 1000),
            left: plan.old.map(\.hexadecimal).sorted(), phase: phase, reason: reason,
            isGoingBack: plan.isGoingBack, awaitsReturn: plan.awaitsReturn,
            movers: Dictionary(
                plan.movers.map { instance, mover in
                    (
                        instance.name,
                        Mover(role: mover.role.name, incarnation: mover.incarnation)
                    )
                }, uniquingKeysWith: { $1 }),
            roles: Dictionary(
                plan.roles.map { ($0.key.name, $0.value.name) }, uniquingKeysWith: { $1 }),
            lateLoads: Dictionary(
                plan.lateLoads.map { ($0.key.name, $0.value) }, uniquingKeysWith: { $1 }),
            moved: plan.moved, total: plan.total)
    }
}
