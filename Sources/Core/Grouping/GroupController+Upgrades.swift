import ClusterRules
import ServingTypes

/// Steps of upgrades: the view first, floors kept, one group after another.
extension GroupController {
    func line(of plan: UpgradePlan) -> String {
        let what = plan.isGoingBack ? "back to" : "upgrade to"
        let head =
            "\(plan.scenario): \(what) \(plan.target): \(plan.moved) of \(plan.total) workers"
        switch plan.phase {
        case .finished: return head + ", done"
        case .aborted: return head + ", taken back"
        case .paused(let reason): return head + ", paused: \(reason)"
        case .running:
            if !plan.movers.isEmpty {
                let names = plan.movers.keys.sorted().map(\.name).joined(separator: ", ")
                return head + "; \(names) on the way"
            }
            return plan.obstacle.isEmpty ? head : head + "; waits: \(plan.obstacle)"
        }
    }

    // MARK: Steps

    mutating func advanceUpgrade(of scenario: ScenarioSpec) {
        guard var plan = upgrades[scenario.name] else { return }
        guard plan.isUnderWay else { return }
        defer { upgrades[scenario.name] = plan }
        let instances = seats.instances(ofScenario: scenario.name)
        examinedSeats += instances.count
        let seated = instances.compactMap { workers[$0] }
        let old = seated.filter { !plan.isNew($0.description) }
        for worker in old { plan.leave(worker.description.fingerprint) }
        plan.moved = seated.count - old.count
        plan.total = Set(instances).union(plan.movers.keys).count
        checkMovers(&plan)
        guard plan.phase == .running, plan.movers.isEmpty else { return }
        if let last = plan.lastStep, now - last < plan.settle { return }
        guard old.contains(where: \.isServing) else {
            finish(&plan)
            return
        }
        takeStep(&plan, scenario)
    }

    private mutating func checkMovers(_ plan: inout UpgradePlan) {
        checkPresence(&plan)
        for (instance, mover) in plan.movers.sorted(by: { $0.key < $1.key }) {
            if let seat = seats[instance], let worker = workers[instance], worker.isServing {
                if plan.isNew(worker.description), seat.isConfirmed {
                    plan.movers[instance] = nil
                    let name = worker.description.modelName
                    guard name == plan.modelName else {
                        pause(
                            &plan,
                            "\(instance) calls its model '\(name)', clients and gateways know "
                                + "'\(plan.modelName)'; abort, start workers and gateways with "
                                + "--model-name, and try again")
                        continue
                    }
                    if plan.movers.isEmpty { plan.lastStep = now }
                    decided(
                        .upgrade, plan.scenario, "\(instance) has the model of \(plan.target)",
                        "it took \((now - mover.since).seconds.figure(1)) s")
                    continue
                }
                if !plan.isNew(worker.description),
                    worker.description.incarnation != mover.incarnation
                {
                    plan.movers[instance] = nil
                    pause(&plan, "\(instance) came back without the model of \(plan.target)")
                    continue
                }
                if hasRefused(worker, seat, plan) {
                    pause(&plan, "\(instance) can't load \(plan.target); its log says why")
                    if returnToWork(worker, seat, as: mover.role) { plan.movers[instance] = nil }
                    continue
                }
            }
            if now - mover.since >= limits.upgradeDeadline, plan.phase == .running {
                pause(
                    &plan,
                    "\(instance) has not come back with \(plan.target) for "
                        + "\((now - mover.since).seconds.figure(0)) s")
            }
        }
    }

    /// Pauses when a worker stays away, and goes on when all have come back.
    private mutating func checkPresence(_ plan: inout UpgradePlan) {
        for (instance, mover) in plan.movers.sorted(by: { $0.key < $1.key }) {
            let goneSince = workers[instance] == nil ? mover.goneSince ?? now : nil
            plan.movers[instance]?.goneSince = goneSince
            guard let goneSince, now - goneSince >= limits.upgradeAbsence,
                plan.phase == .running
            else { continue }
            pause(
                &plan,
                "\(instance) has been gone for \((now - goneSince).seconds.figure(0)) s; start it "
                    + "with \(plan.target), or abort")
            plan.awaitsReturn = true
        }
        guard plan.awaitsReturn, plan.movers.isEmpty else { return }
        plan.awaitsReturn = false
        plan.phase = .running
        decided(
            .upgrade, plan.scenario, "the upgrade to \(plan.target) goes on", "its workers are back"
        )
    }

    /// It has answered the order to load the new model, and still has the old one.
    private func hasRefused(_ worker: GroupWorker, _ seat: Seat, _ plan: UpgradePlan) -> Bool {
        !plan.isNew(worker.description) && seat.loadPath == plan.target && seat.orderDue == nil
            && seat.number > 0 && worker.status.assignment == seat.number
    }

    /// Gives a worker that keeps its model its work back; false if its groups take no more.
    private mutating func returnToWork(
        _ worker: GroupWorker, _ seat: Seat, as role: ServingRole
    ) -> Bool {
        guard role != .spare else {
            change(worker.instance, to: .spare, group: nil)
            return true
        }
        guard let scenario = spec[seat.pool.scenario],
            records(of: seat.pool).contains(where: { $0.group.state != .draining })
        else { return false }
        let path = worker.description.modelPath
        change(
            worker.instance, to: role,
            group: group(for: role, of: seat.pool, scenario, path: path))
        return true
    }

    private mutating func pause(_ plan: inout UpgradePlan, _ reason: String) {
        guard plan.phase == .running || plan.awaitsReturn else { return }
        // What else is wrong than an absence needs a person.
        plan.awaitsReturn = false
        plan.phase = .paused(reason)
        decided(.upgrade, plan.scenario, "the upgrade to \(plan.target) pauses", reason)
    }

    private mutating func finish(_ plan: inout UpgradePlan) {
        plan.phase = plan.isGoingBack ? .aborted : .finished
        plan.moved = plan.total
        decided(
            .upgrade, plan.scenario,
            plan.isGoingBack
                ? "the upgrade is taken back" : "the upgrade to \(plan.target) is done",
            "no worker has the other model any more")
        for pool in pools(of: plan.scenario) {
            ratios[pool, default: RatioController()].disturbed(now: now)
            for record in records(of: pool) where plan.isLeft(pool.fingerprint) {
                drain(record.group.id, "its workers have moved to \(plan.target)")
            }
        }
    }

    /// What a step may take from, and what must stay.
    private struct Ground {
        /// Confirmed workers of open groups: all, those of the old group, those of the new model.
        var served = PerRole(prefill: 0, decode: 0)
        var oldServes = PerRole(prefill: 0, decode: 0)
        var newServes = PerRole(prefill: 0, decode: 0)
        /// The group that is being moved, one after another.
        var group: GroupID?
        var old: [Member] = []
        var spares: [Member] = []
        var new: [Member] = []
    }

    private mutating func ground(_ plan: UpgradePlan) -> Ground {
        var ground = Ground()
        var all: [Member] = []
        for pool in pools(of: plan.scenario) {
            let members = members(of: pool)
            all += members.prefill + members.decode + members.mixed + members.spares
        }
        let isOld = { (member: Member) in !plan.isNew(member.worker.description) }
        ground.group = all.filter(isOld).compactMap(\.seat.group).min()
        for member in all {
            guard let group = member.seat.group else {
                if isOld(member) { ground.spares.append(member) }
                continue
            }
            if !isOld(member) { ground.new.append(member) }
            if group == ground.group { ground.old.append(member) }
            guard member.seat.isConfirmed, groupBook[group]?.group.state == .open else { continue }
            for role in [ServingRole.prefill, .decode]
            where member.seat.role == role || member.seat.role == .mixed {
                ground.served[role] += 1
                if group == ground.group { ground.oldServes[role] += 1 }
                if !isOld(member) { ground.newServes[role] += 1 }
            }
        }
        return ground
    }

    private mutating func takeStep(_ plan: inout UpgradePlan, _ scenario: ScenarioSpec) {
        let ground = ground(plan)
        let roles = [ServingRole.prefill, .decode]
        let floor = targets(of: scenario).floor
        guard let group = ground.group else {
            send(ground.spares, as: nil, &plan)
            return
        }
        // The last of a role leaves with all others: half a group serves nobody.
        let othersSuffice = roles.allSatisfy {
            ground.served[$0] - ground.oldServes[$0] >= max(1, floor[$0])
        }
        let isLast = roles.contains { role in
            ground.old.count { $0.seat.home == role || $0.seat.home == .mixed } <= plan.step
        }
        plan.obstacle = ""
        if othersSuffice, isLast {
            close(group, ground, &plan)
            return
        }
        var spares = ground.spares
        for role in roles {
            let candidates = ground.old.filter { $0.seat.home == role }.sorted {
                ($0.load, $0.instance) < ($1.load, $1.instance)
            }
            var wanted = min(plan.step, candidates.count)
            if wanted == 0, ground.newServes[role] == 0 { wanted = 1 }
            let fromSpares = Array(spares.filter { $0.can(role) }.prefix(wanted))
            spares.removeAll { spare in fromSpares.contains { $0.instance == spare.instance } }
            wanted -= fromSpares.count
            let room = max(0, ground.served[role] - max(1, floor[role]))
            let taken = Array(candidates.prefix(min(wanted, room, max(0, candidates.count - 1))))
            send(fromSpares + taken, as: role, &plan)
            if fromSpares.isEmpty, taken.isEmpty, wanted > 0 {
                plan.obstacle =
                    "\(ground.served[role]) \(role.name)-workers serve, at least "
                    + "\(max(1, floor[role])) must stay; start a spare or lower the minimum"
            }
        }
        if plan.movers.isEmpty { cover(ground) }
    }

    /// Lets a worker with the new model do both, if the new group lacks a role nobody can leave.
    private mutating func cover(_ ground: Ground) {
        guard ground.newServes.prefill == 0 || ground.newServes.decode == 0,
            let worker = ground.new.first(where: {
                $0.can(.mixed) && $0.seat.role != .mixed && $0.seat.isConfirmed
            })
        else { return }
        widen(worker.instance, to: .mixed, home: worker.seat.home)
        decided(
            .role, worker.seat.pool.scenario, "\(worker.instance) becomes mixed",
            "no worker can leave its group for the other role of the new one")
    }

    /// Takes a group from the map; its workers follow when its requests have had time to end.
    private mutating func close(_ group: GroupID, _ ground: Ground, _ plan: inout UpgradePlan) {
        drain(group, "the rest of it moves to \(plan.target)")
        guard groupBook[group]?.drainingSince.map({ now - $0 >= limits.drain }) ?? true else {
            return
        }
        send(ground.old, as: nil, &plan)
    }

    /// - Parameter role: what they do afterwards; nil: what they do now.
    private mutating func send(
        _ members: [Member], as role: ServingRole?, _ plan: inout UpgradePlan
    ) {
        for member in members {
            let home = member.seat.home
            let next = role ?? (home == .spare ? plan.roles[member.instance] ?? home : home)
            plan.roles[member.instance] = next
            plan.movers[member.instance] = UpgradePlan.Mover(
                role: next,
                incarnation: member.worker.description.incarnation, since: now)
            change(member.instance, to: .spare, group: nil, loading: plan.target)
            // Many leave at once here; the floors have been looked at above.
            seats[member.instance]?.isFlip = false
            decided(
                .upgrade, plan.scenario, "\(member.instance) leaves for \(plan.target)",
                "\(plan.moved) of \(plan.total) workers have it")
        }
    }
}
