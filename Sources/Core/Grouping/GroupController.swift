package import ClusterRules
package import ServingTypes

/// Which worker serves which group in which role, and why.
///
/// Each step that takes a worker from somewhere shows it as a spare first. Floors are never broken
/// by a step of its own, and one worker of a scenario changes its role at a time.
package struct GroupController: Sendable {
    let limits: GroupLimits
    var spec: ClusterSpec
    var scales: [String: ScaleOverride] = [:]
    var seats = SeatBook()
    var groupBook: [GroupID: GroupRecord] = [:]
    /// The groups of each pool.
    var poolGroups: [Pool: Set<GroupID>] = [:]
    /// Number of each scenario's latest group.
    var lastGroup: [String: Int] = [:]
    var histories: [Pool: TrafficHistory] = [:]
    var rates: [Pool: RateBook] = [:]
    var ratios: [Pool: RatioController] = [:]
    var wishes: [String: PerRole<Wish>] = [:]
    var presence: [String: PerRole<Int>] = [:]
    var upgrades: [String: UpgradePlan] = [:]
    var scheduleEntries: [String: Int] = [:]
    var log: DecisionLog

    /// The workers, the time and the clock of the current call.
    var workers: [InstanceID: GroupWorker] = [:]
    var now = MonotonicTime.start
    var clock = WallClock()

    var lastNumber: UInt64 = 0

    // What outlives this controller; see `takeChanges`.
    var savedSeats: [InstanceID: SavedSeat] = [:]
    var savedOthers: [SavedKey: SavedRecord] = [:]
    /// Seats of an earlier scheduler whose workers have not come back yet, and how long they may.
    var recalled: [InstanceID: SavedSeat] = [:]
    var recallEnd = MonotonicTime.start
    /// Scenarios of those workers.
    var awaited: Set<String> = []

    /// Seats looked at so far: what the work of this controller grows with.
    package internal(set) var examinedSeats = 0
    private var lastLook: MonotonicTime?
    private var signatures: [WorkerSignature] = []
    /// Something other than the workers changed.
    var hasNews = true

    package init(limits: GroupLimits = GroupLimits()) {
        self.limits = limits
        var scenario = ScenarioSpec(name: ScenarioSpec.defaultName)
        scenario.ratio = .asStarted
        spec = ClusterSpec(scenarios: [scenario])
        log = DecisionLog(capacity: limits.decisions)
    }

    // MARK: Events

    /// The cluster file's scenarios; before the first call there is the default one, with the
    /// roles that processes were started in.
    package mutating func rulesChanged(_ spec: ClusterSpec) {
        self.spec = spec
        hasNews = true
        scales = scales.filter { spec[$0.key] != nil }
        upgrades = upgrades.filter { spec[$0.key] != nil }
        wishes = wishes.filter { spec[$0.key] != nil }
        presence = presence.filter { spec[$0.key] != nil }
        scheduleEntries = [:]
    }

    package mutating func record(
        _ report: TrafficReport, from gateway: InstanceID, now: MonotonicTime
    ) {
        for traffic in report.groups {
            guard let pool = groupBook[traffic.group]?.pool else { continue }
            histories[pool, default: TrafficHistory(limits: limits)].add(
                traffic, from: gateway, now: now)
        }
        hasNews = true
    }

    package mutating func forget(gateway: InstanceID) {
        for pool in histories.keys { histories[pool]?.forget(gateway: gateway, now: now) }
        hasNews = true
    }

    /// Gives the orders that are due.
    ///
    /// Call it on each change of the membership and every tenth of a second, push the view it
    /// leads to, then send the orders.
    ///
    /// - Parameter workers: sorted by instance.
    package mutating func decide(
        _ workers: [GroupWorker], now: MonotonicTime, clock: WallClock
    ) -> [GroupOrder] {
        self.now = now
        self.clock = clock
        let signatures = workers.map(WorkerSignature.init)
        let isLook = lastLook.map { now - $0 >= limits.lookInterval } ?? true
        let isDue = seats.unsettled.contains { seats[$0]?.orderDue.map { $0 <= now } ?? false }
        guard isLook || isDue || hasNews || signatures != self.signatures else { return [] }
        self.signatures = signatures
        hasNews = false
        if isLook { lastLook = now }
        pass(workers)
        return dueOrders()
    }

    private mutating func pass(_ list: [GroupWorker]) {
        look(at: list)
        noteSchedules()
        releaseUnruled()
        syncSeats(list)
        noteAwaited()
        for scenario in spec.scenarios where !awaited.contains(scenario.name) {
            advanceUpgrade(of: scenario)
            for pool in pools(of: scenario.name) { plan(pool, scenario) }
        }
        tendGroups()
        noteWishes()
    }

    // MARK: What it decided

    /// Sorted by id.
    package var groups: [ServingGroup] {
        groupBook.values.map(\.group).sorted { $0.id < $1.id }
    }

    /// As the view must show it: `spare` while its role changes.
    package func place(of instance: InstanceID) -> (role: ServingRole, group: GroupID?) {
        guard let seat = seats[instance], seat.group != nil else { return (.spare, nil) }
        return (seat.shownRole, seat.group)
    }

    /// How many workers there should be, for an outside autoscaler.
    package func wanted() -> [WantedInstances] {
        spec.scenarios.flatMap { scenario -> [WantedInstances] in
            guard let wishes = wishes[scenario.name], let presence = presence[scenario.name] else {
                return []
            }
            return [ServingRole.prefill, .decode].map { role in
                WantedInstances(
                    scenario: scenario.name, role: role, present: presence[role],
                    wanted: wishes[role].wanted)
            }
        }
    }

    /// Oldest first.
    package var decisions: [Decision] { log.decisions }

    /// Decisions since the last call, for the log.
    package mutating func takeNewDecisions() -> [Decision] { log.takeNew() }

    /// One line per upgrade, for people.
    package var upgradeLines: [String] {
        upgrades.keys.sorted().compactMap { scenario in
            upgrades[scenario].map { line(of: $0) }
        }
    }

    mutating func decided(
        _ kind: Decision.Kind, _ scenario: String, _ action: String, _ reason: String
    ) {
        var decision = Decision(
            unixMilliseconds: clock.unixMilliseconds, scenario: scenario, action: action,
            reason: reason)
        decision.kind = kind
        log.add(decision)
    }

    // MARK: Rules and time of day

    func targets(of scenario: ScenarioSpec) -> Targets {
        Targets(
            scenario, minuteOfDay: clock.minuteOfDay,
            scale: scales[scenario.name] ?? ScaleOverride())
    }

    private mutating func noteSchedules() {
        for scenario in spec.scenarios where !scenario.schedule.isEmpty {
            let entry = targets(of: scenario).scheduleEntry ?? -1
            let before = scheduleEntries.updateValue(entry, forKey: scenario.name)
            guard before != entry, before != nil || entry >= 0 else { continue }
            decided(
                .numbers, scenario.name, "other numbers for this time of day",
                entry < 0
                    ? "no entry of the schedule applies any more"
                    : "entry \(entry + 1) of the schedule applies, at minute "
                        + "\(clock.minuteOfDay) of the day")
        }
    }

    /// The numbers an autoscaler should reach, from traffic and what waits.
    private mutating func noteWishes() {
        for scenario in spec.scenarios where !awaited.contains(scenario.name) {
            let targets = targets(of: scenario)
            var needed = PerRole(prefill: 0, decode: 0)
            var present = PerRole(prefill: 0, decode: 0)
            for pool in pools(of: scenario.name) {
                let need = need(of: pool, scenario: scenario)
                let counts = seats.counts(of: pool)
                for role in [ServingRole.prefill, .decode] {
                    needed[role] += need[role]
                    present[role] += counts.count(role)
                }
            }
            presence[scenario.name] = present
            for role in [ServingRole.prefill, .decode] {
                let most = min(targets.ceiling[role], limits.maximumWanted)
                // Numbers that a person set are to be reached, whatever the traffic.
                let scale = scales[scenario.name] ?? ScaleOverride()
                let goal = (role == .prefill ? scale.prefill : scale.decode).map { min($0, most) }
                wishes[
                    scenario.name,
                    default: PerRole(prefill: Wish(), decode: Wish())][role].set(
                        goal ?? max(targets.floor[role], min(most, needed[role])), now: now,
                        hold: goal == nil ? limits.wantedHold : .zero)
            }
        }
    }

    /// Workers of each role that the pool's traffic needs; those it has while rates are unknown.
    private mutating func need(of pool: Pool, scenario: ScenarioSpec) -> PerRole<Int> {
        let counts = seats.counts(of: pool)
        let count = PerRole(prefill: counts.count(.prefill), decode: counts.count(.decode))
        guard let history = histories[pool], let book = rates[pool] else { return count }
        let members = members(of: pool)
        guard let times = book.times(of: members, spec: scenario) else { return count }
        let arrived = history.sums(from: now - limits.window, to: now).arrived
        let perSecond = Double(arrived) / max(limits.window.seconds, 0.001) / limits.targetUse
        func instances(_ seconds: Double, _ batch: Double) -> Int {
            Int(min(Double(limits.maximumWanted), (perSecond * seconds / batch).rounded(.up)))
        }
        var need = PerRole(
            prefill: instances(times.prefillSeconds, times.prefillBatch),
            decode: instances(times.decodeSeconds, times.decodeBatch))
        if history.waiting > 0 {
            // What waits although the formula is content shows that a rate is too good.
            let occupancy = occupancy(of: members)
            let short: ServingRole = occupancy.decode > occupancy.prefill ? .decode : .prefill
            need[short] = max(need[short], count[short] + 1)
        }
        return need
    }
}

/// What of a worker makes a look necessary at once.
private struct WorkerSignature: Hashable, Sendable {
    var instance: InstanceID
    var incarnation: UInt64
    var isServing: Bool
    var role: ServingRole
    var assignment: UInt64

    init(_ worker: GroupWorker) {
        instance = worker.instance
        incarnation = worker.description.incarnation
        isServing = worker.isServing
        role = worker.status.role
        assignment = worker.status.assignment
    }
}
