import ClusterRules
import ServingTypes

/// A group and what the controller remembers of it.
struct GroupRecord: Sendable {
    var group: ServingGroup
    let pool: Pool
    let since: MonotonicTime
    /// It had its floors once, or has waited long enough for them.
    var isSetUp = false
    var isLate = false
    /// Roles it had at the last look.
    var had: Set<ServingRole> = []
    var emptySince: MonotonicTime?
    var drainingSince: MonotonicTime?
}

/// Groups: where newcomers sit, when groups open, share traffic and close.
extension GroupController {
    // MARK: Newcomers

    /// The scenario a worker joins: where a role it can do is missing, first where the other role
    /// waits for it, else where fewest are.
    private func scenario(for worker: GroupWorker) -> ScenarioSpec? {
        let fitting = spec.scenarios.filter { fits(worker, $0) }
        guard fitting.count > 1 else { return fitting.first }
        func missing(_ scenario: ScenarioSpec) -> Int {
            let floor = targets(of: scenario).floor
            return [ServingRole.prefill, .decode].reduce(0) { sum, role in
                guard worker.description.can(role) else { return sum }
                let present = seats.count(role, ofScenario: scenario.name)
                let usual = worker.description.initialRole == role ? 2 : 1
                return max(sum, present < floor[role] ? usual : 0)
            }
        }
        func size(_ scenario: ScenarioSpec) -> Int { seats.size(ofScenario: scenario.name) }
        func isBegun(_ scenario: ScenarioSpec) -> Bool {
            [ServingRole.prefill, .decode, .mixed].contains { role in
                seats.count(role, ofScenario: scenario.name) > 0
            }
        }
        func rank(_ scenario: ScenarioSpec) -> (Int, Int, Int) {
            let missing = missing(scenario)
            return (-missing, missing > 0 && isBegun(scenario) ? 0 : 1, size(scenario))
        }
        let ranks = fitting.map { rank($0) }
        // The first of equals.
        return fitting.indices.min { ranks[$0] < ranks[$1] }.map { fitting[$0] }
    }

    mutating func seatNewcomer(_ worker: GroupWorker) {
        if let seat = recall(worker) {
            seats[worker.instance] = seat
            seats.note(worker.instance, isServing: worker.isServing)
            return
        }
        guard let scenario = scenario(for: worker) else { return }
        let description = worker.description
        let pool = Pool(
            scenario: scenario.name, modelName: description.modelName,
            fingerprint: description.fingerprint)
        let plan = upgrades[scenario.name]
        var role = role(for: worker, pool, scenario)
        var loading = ""
        if let plan, plan.isLeft(description) {
            if !plan.isUnderWay {
                // It missed the upgrade.
                role = .spare
                loading = sendLate(worker.instance, to: plan)
            } else if !records(of: pool).contains(where: { $0.group.state != .draining }) {
                role = .spare
            }
        } else if let mover = plan?.movers[worker.instance], description.can(mover.role) {
            role = mover.role
        }
        var seat = Seat(
            pool: pool, role: role, home: role, shown: .spare,
            incarnation: description.incarnation, since: now)
        if role != .spare {
            seat.group = group(for: role, of: pool, scenario, path: description.modelPath)
        }
        // A worker that does this already is used at once; so a scheduler that starts again
        // interrupts nothing.
        seat.shown = worker.status.role == role ? role : .spare
        seat.isAdopted = worker.status.assignment > 0 && worker.status.role == role
        seat.loadPath = loading
        seat.stepLimit = stepLimit(role, scenario.name)
        seat.orderDue = now
        seats[worker.instance] = seat
        seats.note(worker.instance, isServing: worker.isServing)
        guard role != description.initialRole, loading.isEmpty, worker.status.role != role else {
            return
        }
        decided(
            .role, scenario.name, "\(worker.instance) becomes \(role.name)",
            "it was started as \(description.initialRole.name); "
                + (role == .spare ? "that role has enough" : "\(role.name) lacks workers"))
    }

    /// The file that a worker with the old model is to load after the end of an upgrade; empty if
    /// it has come back without it too often.
    private mutating func sendLate(_ instance: InstanceID, to plan: UpgradePlan) -> String {
        let loads = plan.lateLoads[instance, default: 0] + 1
        upgrades[plan.scenario]?.lateLoads[instance] = loads
        guard loads > limits.lateLoads else { return plan.target }
        decided(
            .role, plan.scenario, "\(instance) stays a spare",
            "it came back without \(plan.target) \(limits.lateLoads) times; its log says why")
        return ""
    }

    /// What it was, unless another role needs it more.
    private func role(
        for worker: GroupWorker, _ pool: Pool, _ scenario: ScenarioSpec
    ) -> ServingRole {
        let description = worker.description
        let status = worker.status
        let targets = targets(of: scenario)
        let members = seats.counts(of: pool)
        let adopted = status.assignment > 0 && status.role != .mixed
        var role = adopted ? status.role : description.initialRole
        if !description.can(role) {
            role = [.prefill, .decode].first { description.can($0) } ?? .spare
        }
        if isSetUp(pool), !(upgrades[scenario.name]?.isUnderWay ?? false) {
            let short = [ServingRole.prefill, .decode].first {
                members.count($0) < targets.floor[$0] && description.can($0)
                    && (targets.changesRoles || role == .spare || members.count($0) == 0)
            }
            if let short { return short }
            if members.spares < targets.spares { return .spare }
        }
        guard role == .prefill || role == .decode else { return role }
        guard members.count(role) >= targets.ceiling[role] else { return role }
        let other = role.opposite
        return targets.changesRoles && members.count(other) < targets.ceiling[other]
            && description.can(other) ? other : .spare
    }

    func isSetUp(_ pool: Pool) -> Bool {
        poolGroups[pool]?.contains { groupBook[$0]?.isSetUp == true } ?? false
    }

    // MARK: Groups of a pool

    func records(of pool: Pool) -> [GroupRecord] {
        (poolGroups[pool] ?? []).sorted().compactMap { groupBook[$0] }
    }

    func count(_ role: ServingRole, in group: GroupID) -> Int { seats.count(role, in: group) }

    /// The group with the fewest workers of the role; a new one if there is none.
    mutating func group(
        for role: ServingRole, of pool: Pool, _ scenario: ScenarioSpec, path: String
    ) -> GroupID {
        let open = records(of: pool).filter { $0.group.state != .draining }
        let least = open.min {
            (count(role, in: $0.group.id), $0.group.id) < (
                count(role, in: $1.group.id), $1.group.id
            )
        }
        return least?.group.id ?? newGroup(of: pool, path: path)
    }

    mutating func newGroup(of pool: Pool, path: String) -> GroupID {
        lastGroup[pool.scenario, default: 0] += 1
        let id = GroupID("\(pool.scenario)/\(lastGroup[pool.scenario, default: 1])")
        groupBook[id] = GroupRecord(
            group: ServingGroup(
                id: id, scenario: pool.scenario, modelName: pool.modelName,
                fingerprint: pool.fingerprint, modelPath: path, state: .forming, weight: 0),
            pool: pool, since: now)
        poolGroups[pool, default: []].insert(id)
        return id
    }

    /// Divides a pool's workers evenly among as many groups as the scenario wants and they allow.
    mutating func divide(_ pool: Pool, _ scenario: ScenarioSpec) {
        let targets = targets(of: scenario)
        let members = seats.counts(of: pool)
        let records = records(of: pool).filter { $0.group.state != .draining }
        let possible = min(members.count(.prefill), members.count(.decode))
        if records.count < min(targets.groups, possible), let first = records.first {
            _ = newGroup(of: pool, path: first.group.modelPath)
        } else if records.count > targets.groups, let last = records.last {
            drain(last.group.id, "\(targets.groups) groups are wanted")
        }
        let left = self.records(of: pool)
        let ids = left.filter { $0.group.state != .draining }.map(\.group.id)
        for record in left where record.group.state == .draining {
            guard let since = record.drainingSince, now - since >= limits.drain else { continue }
            for instance in seats.instances(in: record.group.id).sorted() {
                guard let home = seats[instance]?.home,
                    let least = ids.min(by: { count(home, in: $0) < count(home, in: $1) })
                else { break }
                move(instance, to: least)
            }
        }
        for role in [ServingRole.prefill, .decode] { even(role, among: ids) }
    }

    private mutating func even(_ role: ServingRole, among ids: [GroupID]) {
        // The last of a list goes first.
        var leavers: [GroupID: [InstanceID]] = [:]
        while let least = ids.min(by: { count(role, in: $0) < count(role, in: $1) }),
            let most = ids.max(by: { count(role, in: $0) < count(role, in: $1) }),
            count(role, in: most) - count(role, in: least) > 1
        {
            if leavers[most] == nil { leavers[most] = self.leavers(role, from: most) }
            guard let instance = leavers[most]?.popLast() else { return }
            move(instance, to: least)
        }
    }

    private mutating func leavers(_ role: ServingRole, from group: GroupID) -> [InstanceID] {
        let instances = seats.instances(in: group)
        examinedSeats += instances.count
        return instances.filter { instance in
            seats[instance].map { $0.home == role && !$0.isFlip } ?? false
        }.sorted()
    }

    /// Gives a worker another group of its pool; what it does stays as it is.
    private mutating func move(_ instance: InstanceID, to group: GroupID) {
        guard let seat = seats[instance], seat.group != group else { return }
        seats[instance]?.group = group
        seats[instance]?.shown = seat.shownRole
        seats[instance]?.isConfirmed = false
        seats[instance]?.orderDue = seat.orderDue ?? now
        seats[instance]?.since = now
        decided(
            .group, seat.pool.scenario, "\(instance) moves to \(group)",
            "groups are to be of one size")
    }

    mutating func drain(_ id: GroupID, _ reason: String) {
        guard let record = groupBook[id], record.group.state != .draining else { return }
        groupBook[id]?.group.state = .draining
        groupBook[id]?.drainingSince = now
        decided(.group, record.group.scenario, "\(id) takes no more requests", reason)
    }

    // MARK: Opening, shares, closing

    mutating func tendGroups() {
        for id in groupBook.keys.sorted() { tend(id) }
        share()
    }

    private mutating func serving(_ id: GroupID) -> [Seat] {
        let instances = seats.instances(in: id)
        examinedSeats += instances.count
        return instances.compactMap { workers[$0]?.isServing == true ? seats[$0] : nil }
    }

    private mutating func tend(_ id: GroupID) {
        guard var record = groupBook[id] else { return }
        let members = serving(id)
        let hasSeats = !seats.instances(in: id).isEmpty
        record.emptySince = hasSeats ? nil : record.emptySince ?? now
        let isClosing = record.group.state == .draining || spec[record.pool.scenario] == nil
        if !awaited.contains(record.pool.scenario), let since = record.emptySince,
            isClosing || now - since >= limits.emptyGroupKept
        {
            groupBook[id] = nil
            poolGroups[record.pool]?.remove(id)
            if poolGroups[record.pool]?.isEmpty == true { poolGroups[record.pool] = nil }
            histories = histories.filter { groupsRemain(of: $0.key) }
            rates = rates.filter { groupsRemain(of: $0.key) }
            ratios = ratios.filter { groupsRemain(of: $0.key) }
            decided(.group, record.pool.scenario, "\(id) is closed", "it has no workers")
            return
        }
        var has: Set<ServingRole> = []
        for role in [ServingRole.prefill, .decode]
        where members.contains(where: { $0.shownRole == role || $0.shownRole == .mixed }) {
            has.insert(role)
        }
        if record.group.state == .forming || !record.isSetUp { setUp(&record, members) }
        if record.group.state == .open {
            for role in record.had.subtracting(has).sorted(by: { $0.rawValue < $1.rawValue }) {
                decided(
                    .group, record.pool.scenario, "\(id) has no \(role.name)-worker",
                    "it stays open; its gateways fall back as far as the rules let them")
            }
        }
        record.had = has
        groupBook[id] = record
    }

    private func groupsRemain(of pool: Pool) -> Bool {
        poolGroups[pool] != nil
    }

    /// Opens a group that is complete, or whose gateways may fall back on what there is.
    private mutating func setUp(_ record: inout GroupRecord, _ members: [Seat]) {
        guard let scenario = spec[record.pool.scenario] else { return }
        let targets = targets(of: scenario)
        let groups = max(1, records(of: record.pool).count { $0.group.state != .draining })
        func ready(_ role: ServingRole) -> Int {
            members.count {
                $0.isConfirmed && ($0.role == role || $0.role == .mixed)
                    || $0.isAdopted && $0.shownRole == role
            }
        }
        let has = PerRole(prefill: ready(.prefill), decode: ready(.decode))
        let isUpgrade = upgrades[scenario.name]?.isUnderWay ?? false
        func floor(_ role: ServingRole) -> Int {
            isUpgrade ? 1 : min(1, targets.floor[role]) * max(1, targets.floor[role] / groups)
        }
        let floor = PerRole(prefill: floor(.prefill), decode: floor(.decode))
        let isComplete =
            has.prefill >= floor.prefill && has.decode >= floor.decode
            && has.prefill + has.decode > 0
        let fallsBack =
            !isUpgrade
            && (has.decode > 0 && scenario.decodeOnlyFallback
                || has.prefill > 0 && scenario.prefillOnlyFallback)
        let isLate = now - record.since >= limits.setUpDeadline
        if isComplete || isLate { record.isSetUp = true }
        guard record.group.state == .forming else { return }
        let figures = "\(has.prefill) prefill- and \(has.decode) decode-workers are ready"
        if isComplete || fallsBack || isLate && has.prefill > 0 && has.decode > 0 {
            record.group.state = .open
            decided(.group, record.pool.scenario, "\(record.group.id) is open", figures)
        } else if isLate, !record.isLate {
            record.isLate = true
            decided(
                .delay, record.pool.scenario, "\(record.group.id) is still forming",
                "\(figures) of at least \(floor.prefill) and \(floor.decode)")
        }
    }

    /// Weights of open groups follow the number of workers they have.
    private mutating func share() {
        let open = Dictionary(grouping: groupBook.values.filter { $0.group.state == .open }) {
            $0.pool.scenario
        }
        for (id, record) in groupBook where record.group.state != .open {
            if record.group.weight != 0 { groupBook[id]?.group.weight = 0 }
        }
        for records in open.values {
            let sizes = records.map { size($0.group.id) }
            let total = sizes.reduce(0, +)
            for (record, size) in zip(records, sizes) {
                let weight =
                    records.count == 1
                    ? 100 : total == 0 ? 1 : size == 0 ? 0 : max(1, 1000 * size / total)
                if record.group.weight != weight {
                    groupBook[record.group.id]?.group.weight = weight
                }
            }
        }
    }

    /// Workers that are shown at work; none if requests can't be answered by them.
    private mutating func size(_ id: GroupID) -> Int {
        let shown = serving(id).map(\.shownRole).filter { $0 != .spare }
        let scenario = groupBook[id].flatMap { spec[$0.pool.scenario] }
        let hasPrefill = shown.contains(where: \.takesPrompts)
        let hasDecode = shown.contains(where: \.takesSequences)
        guard hasPrefill || scenario?.decodeOnlyFallback == true,
            hasDecode || scenario?.prefillOnlyFallback == true
        else { return 0 }
        return shown.count
    }
}
