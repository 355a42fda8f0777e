import ClusterRules
import ServingTypes

/// Steps of one pool: dead workers, floors, spikes, numbers that are wanted, the ratio.
extension GroupController {
    mutating func plan(_ pool: Pool, _ scenario: ScenarioSpec) {
        let targets = targets(of: scenario)
        noteRates(pool)
        replaceAbsent(pool)
        guard !(upgrades[scenario.name]?.isUnderWay ?? false) else { return }
        divide(pool, scenario)
        if targets.isAutomatic { takeSpikes(pool) }
        endMixed(pool, targets)
        guard isSetUp(pool), !isFlipping(scenario.name) else { return }
        if fillFloors(pool, targets) { return }
        guard ratios[pool, default: RatioController()].isSettled(now: now, limits: limits),
            isQuiet(scenario.name)
        else { return }
        _ =
            reachGoals(pool, targets) || keepCeilings(pool, targets)
            || keepSpares(pool, targets, scenario)
            || followTraffic(pool, targets)
    }

    /// No worker of the scenario is on its way into a role.
    private func isQuiet(_ scenario: String) -> Bool {
        seats.restless(ofScenario: scenario) == 0
    }

    private mutating func noteRates(_ pool: Pool) {
        guard let history = histories[pool] else { return }
        rates[pool, default: RateBook()].note(
            history.sums(from: now - limits.window, to: now), limits: limits)
    }

    /// Spares take the roles of workers that do not serve.
    private mutating func replaceAbsent(_ pool: Pool) {
        let counts = seats.counts(of: pool)
        guard counts.absent > 0, counts.spares > 0 else { return }
        for member in members(of: pool).absent {
            guard let group = member.seat.group, !member.seat.isPinned,
                replace(member.instance, member.seat, in: group, why: "does not serve")
            else { continue }
            change(member.instance, to: .spare, group: nil)
            seats[member.instance]?.isFlip = false
        }
    }

    // MARK: Choosing workers

    /// The worker that loses least when it leaves its role; nil if floor or group forbid it.
    private func leaver(
        _ role: ServingRole, for next: ServingRole, in members: PoolMembers, floor: Int
    ) -> Member? {
        guard members.shown(role) > floor else { return nil }
        let sizes = Dictionary(
            (members.list(role) + members.mixed + members.absent)
                .filter { $0.seat.home == role || $0.seat.home == .mixed }
                .compactMap { member in member.seat.group.map { ($0, 1) } }, uniquingKeysWith: +)
        let candidates = members.list(role).filter { member in
            guard member.seat.isConfirmed, !member.seat.isPinned, member.can(next),
                member.seat.role == role, let group = member.seat.group
            else { return false }
            return floor == 0 || sizes[group, default: 0] > 1
        }
        return candidates.min { left, right in
            let leftSize = left.seat.group.flatMap { sizes[$0] } ?? 0
            let rightSize = right.seat.group.flatMap { sizes[$0] } ?? 0
            return (-leftSize, left.load, right.instance) < (-rightSize, right.load, left.instance)
        }
    }

    private mutating func promote(
        _ role: ServingRole, _ members: PoolMembers, _ pool: Pool, reason: String
    ) -> Bool {
        guard let scenario = spec[pool.scenario],
            let spare = members.spares.first(where: {
                $0.can(role) && !$0.seat.isPinned && $0.seat.isConfirmed
            }) ?? members.spares.first(where: { $0.can(role) && !$0.seat.isPinned })
        else { return false }
        let group = group(
            for: role, of: pool, scenario, path: spare.worker.description.modelPath)
        change(spare.instance, to: role, group: group)
        ratios[pool, default: RatioController()].disturbed(now: now)
        decided(.role, pool.scenario, "\(spare.instance) becomes \(role.name)", reason)
        return true
    }

    private mutating func flip(_ member: Member, to role: ServingRole, reason: String) {
        let group = role == .spare ? nil : member.seat.group
        change(member.instance, to: role, group: group)
        decided(
            .role, member.seat.pool.scenario, "\(member.instance) becomes \(role.name)",
            "\(reason); \(member.instance) changes")
    }

    private func text(_ members: PoolMembers) -> String {
        "\(members.count(.prefill)) prefill- and \(members.count(.decode)) decode-workers, "
            + "\(members.spares.count) spares"
    }

    // MARK: Numbers

    private mutating func fillFloors(_ pool: Pool, _ targets: Targets) -> Bool {
        let counts = seats.counts(of: pool)
        guard
            counts.count(.prefill) < targets.floor.prefill
                || counts.count(.decode) < targets.floor.decode
        else { return false }
        let members = members(of: pool)
        for role in [ServingRole.prefill, .decode] where members.count(role) < targets.floor[role] {
            // A worker that is away for a moment keeps its place.
            let away = members.absent.contains { member in
                member.seat.home == role
                    && member.seat.absentSince.map { now - $0 < limits.absence } ?? true
            }
            if away { continue }
            let reason = "\(text(members)); at least \(targets.floor[role]) \(role.name) are wanted"
            if promote(role, members, pool, reason: reason) { return true }
            let other = role.opposite
            guard targets.changesRoles, members.count(other) > targets.floor[other],
                let member = leaver(
                    other, for: role, in: members, floor: targets.floor[other])
            else { continue }
            flip(member, to: role, reason: reason)
            ratios[pool, default: RatioController()].disturbed(now: now)
            return true
        }
        return false
    }

    private mutating func reachGoals(_ pool: Pool, _ targets: Targets) -> Bool {
        let counts = seats.counts(of: pool)
        guard
            counts.count(.prefill) < targets.goal.prefill ?? 0
                || counts.count(.decode) < targets.goal.decode ?? 0
        else { return false }
        let members = members(of: pool)
        for role in [ServingRole.prefill, .decode] {
            guard let goal = targets.goal[role], members.count(role) < goal else { continue }
            let reason = "\(text(members)); \(goal) \(role.name) are set"
            if members.spares.count > targets.spares,
                promote(role, members, pool, reason: reason)
            {
                return true
            }
            let other = role.opposite
            guard members.count(other) > (targets.goal[other] ?? targets.floor[other]),
                let member = leaver(other, for: role, in: members, floor: targets.floor[other])
            else { continue }
            flip(member, to: role, reason: reason)
            ratios[pool, default: RatioController()].disturbed(now: now)
            return true
        }
        return false
    }

    private mutating func keepCeilings(_ pool: Pool, _ targets: Targets) -> Bool {
        let counts = seats.counts(of: pool)
        guard
            counts.count(.prefill) > targets.ceiling.prefill
                || counts.count(.decode) > targets.ceiling.decode
        else { return false }
        let members = members(of: pool)
        for role in [ServingRole.prefill, .decode]
        where members.count(role) > targets.ceiling[role] {
            let other = role.opposite
            let next: ServingRole =
                targets.changesRoles && members.count(other) < targets.ceiling[other]
                    && members.spares.count >= targets.spares ? other : .spare
            let floor = targets.floor[role]
            guard
                let member = leaver(role, for: next, in: members, floor: floor)
                    ?? leaver(role, for: .spare, in: members, floor: floor)
            else { continue }
            flip(
                member, to: member.can(next) ? next : .spare,
                reason: "\(text(members)); at most \(targets.ceiling[role]) \(role.name) are wanted"
            )
            ratios[pool, default: RatioController()].disturbed(now: now)
            return true
        }
        return false
    }

    private mutating func keepSpares(
        _ pool: Pool, _ targets: Targets, _ scenario: ScenarioSpec
    ) -> Bool {
        let spares = seats.counts(of: pool).spares
        guard
            spares < targets.spares && targets.changesRoles
                || spares > targets.spares && targets.isAutomatic
        else { return false }
        let members = members(of: pool)
        let times = rates[pool, default: RateBook()].times(of: members, spec: scenario)
        let count = PerRole(prefill: members.count(.prefill), decode: members.count(.decode))
        func rate(_ role: ServingRole, _ step: Int) -> Double {
            var after = count
            after[role] += step
            if let times {
                return times.requestsPerSecond(prefill: after.prefill, decode: after.decode)
            }
            return Double(min(after.prefill, after.decode))
        }
        let reason = "\(text(members)); \(targets.spares) spares are to be kept"
        if members.spares.count < targets.spares, targets.changesRoles {
            let roles = [ServingRole.decode, .prefill].filter {
                count[$0] > max(1, targets.floor[$0], targets.goal[$0] ?? 0)
            }
            guard let role = roles.max(by: { rate($0, -1) < rate($1, -1) }),
                let member = leaver(
                    role, for: .spare, in: members, floor: max(1, targets.floor[role]))
            else { return false }
            flip(member, to: .spare, reason: reason)
        } else if members.spares.count > targets.spares, targets.isAutomatic {
            let roles = [ServingRole.decode, .prefill].filter { count[$0] < targets.ceiling[$0] }
            guard let role = roles.max(by: { rate($0, 1) < rate($1, 1) }) else { return false }
            return promote(role, members, pool, reason: reason)
        } else {
            return false
        }
        ratios[pool, default: RatioController()].disturbed(now: now)
        return true
    }

    // MARK: Ratio

    func ratioInputs(_ members: PoolMembers, _ pool: Pool, _ targets: Targets) -> RatioInputs {
        let book = rates[pool, default: RateBook()]
        return RatioInputs(
            count: PerRole(prefill: members.count(.prefill), decode: members.count(.decode)),
            floor: targets.floor, ceiling: targets.ceiling, occupancy: occupancy(of: members),
            times: spec[pool.scenario].flatMap { book.times(of: members, spec: $0) },
            isMeasured: book.isMeasured)
    }

    private mutating func followTraffic(_ pool: Pool, _ targets: Targets) -> Bool {
        guard targets.isAutomatic else { return false }
        let members = members(of: pool)
        let inputs = ratioInputs(members, pool, targets)
        let history = histories[pool] ?? TrafficHistory(limits: limits)
        var ratio = ratios[pool, default: RatioController()]
        defer { ratios[pool] = ratio }
        guard let advice = ratio.advise(inputs, history: history, now: now, limits: limits) else {
            return false
        }
        let other = advice.role.opposite
        let mixed = members.list(other).first {
            $0.seat.isMixedForSpike && $0.seat.isConfirmed && !$0.seat.isPinned
        }
        let floor = max(1, targets.floor[other])
        let member =
            mixed.flatMap { members.shown(other) > floor && canLeave($0) ? $0 : nil }
            ?? leaver(other, for: advice.role, in: members, floor: floor)
        guard let member else { return false }
        ratio.stepped(advice, now: now)
        flip(member, to: advice.role, reason: advice.reason)
        return true
    }

    private func canLeave(_ member: Member) -> Bool {
        member.seat.group.map { count(member.seat.home, in: $0) > 1 } ?? false
    }
}
