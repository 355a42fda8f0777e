import ServingTypes

/// All seats, with what is often asked of them counted as they change.
///
/// So a newcomer costs the same whether there are ten workers or ten thousand.
struct SeatBook: Sendable {
    /// What members of a pool count as; see `PoolMembers`.
    struct Counts: Hashable, Sendable {
        var prefill = 0
        var decode = 0
        var mixed = 0
        var spares = 0
        var absent = 0
        /// Of those above, the ones that are mixed for a spike.
        var helpers = 0

        /// Workers that count as the role; those that were started as mixed count as both.
        func count(_ role: ServingRole) -> Int {
            switch role {
            case .prefill: prefill + mixed
            case .decode: decode + mixed
            case .mixed: mixed + mixed
            case .spare: spares + mixed
            }
        }
    }

    private struct Entry: Sendable {
        var seat: Seat
        /// Of its worker; nil: there is none.
        var isServing: Bool?
    }

    private struct PoolIndex: Sendable {
        var instances: Set<InstanceID> = []
        /// In order.
        var spares: [InstanceID] = []
        var counts = Counts()
    }

    private struct GroupIndex: Sendable {
        var instances: Set<InstanceID> = []
        var homes: [ServingRole: Int] = [:]
    }

    private struct ScenarioIndex: Sendable {
        var pools: [Pool: Int] = [:]
        var homes: [ServingRole: Int] = [:]
        var size = 0
        var flips = 0
        var restless = 0
    }

    private var entries: [InstanceID: Entry] = [:]
    private var pools: [Pool: PoolIndex] = [:]
    private var groups: [GroupID: GroupIndex] = [:]
    private var scenarios: [String: ScenarioIndex] = [:]
    /// Those with an order to be sent or to be confirmed.
    private(set) var unsettled: Set<InstanceID> = []
    private var touched: Set<InstanceID> = []

    var instances: [InstanceID] { Array(entries.keys) }

    subscript(instance: InstanceID) -> Seat? {
        get { entries[instance]?.seat }
        set {
            let old = entries[instance]
            guard old?.seat != newValue else { return }
            let new = newValue.map { Entry(seat: $0, isServing: old?.isServing) }
            replace(old, with: new, of: instance)
        }
    }

    /// Notes whether the worker of a seat serves; nil: there is no worker.
    mutating func note(_ instance: InstanceID, isServing: Bool?) {
        guard let old = entries[instance], old.isServing != isServing else { return }
        replace(old, with: Entry(seat: old.seat, isServing: isServing), of: instance)
    }

    /// Seats that have changed since the last call, those that are gone among them.
    mutating func takeTouched() -> Set<InstanceID> {
        defer { touched.removeAll(keepingCapacity: true) }
        return touched
    }

    /// Counts it as changed, whether it has a seat or not.
    mutating func touch(_ instance: InstanceID) { touched.insert(instance) }

    // MARK: What is asked

    func counts(of pool: Pool) -> Counts { pools[pool]?.counts ?? Counts() }

    func instances(of pool: Pool) -> Set<InstanceID> { pools[pool]?.instances ?? [] }

    /// In order.
    func spares(of pool: Pool) -> [InstanceID] { pools[pool]?.spares ?? [] }

    func instances(in group: GroupID) -> Set<InstanceID> { groups[group]?.instances ?? [] }

    /// Workers of a group that count as the role, whether they serve or not.
    func count(_ role: ServingRole, in group: GroupID) -> Int {
        guard let homes = groups[group]?.homes else { return 0 }
        return homes[role, default: 0] + (role == .mixed ? 0 : homes[.mixed, default: 0])
    }

    func pools(of scenario: String) -> [Pool] {
        scenarios[scenario].map { Array($0.pools.keys) } ?? []
    }

    func instances(ofScenario scenario: String) -> [InstanceID] {
        pools(of: scenario).flatMap { instances(of: $0) }
    }

    /// Workers of a scenario, spares among them.
    func size(ofScenario scenario: String) -> Int { scenarios[scenario]?.size ?? 0 }

    /// Workers of a scenario's groups that count as this role only.
    func count(_ role: ServingRole, ofScenario scenario: String) -> Int {
        scenarios[scenario]?.homes[role] ?? 0
    }

    /// Workers that serve and change their role.
    func flips(ofScenario scenario: String) -> Int { scenarios[scenario]?.flips ?? 0 }

    /// Workers that serve and have not confirmed what they are to do in a group.
    func restless(ofScenario scenario: String) -> Int { scenarios[scenario]?.restless ?? 0 }

    // MARK: Counting

    private mutating func replace(_ old: Entry?, with new: Entry?, of instance: InstanceID) {
        if old?.seat != new?.seat { touched.insert(instance) }
        if let old { count(old, instance, by: -1) }
        entries[instance] = new
        if let new { count(new, instance, by: 1) }
    }

    private mutating func count(_ entry: Entry, _ instance: InstanceID, by step: Int) {
        let seat = entry.seat
        countInPool(entry, instance, by: step)
        if let group = seat.group {
            groups[group, default: GroupIndex()].instances.toggle(instance, step > 0)
            groups[group]?.homes[seat.home, default: 0] += step
            if groups[group]?.instances.isEmpty == true { groups[group] = nil }
        }
        countInScenario(entry, by: step)
        unsettled.toggle(
            instance,
            step > 0 && (seat.orderDue != nil || !seat.isConfirmed && seat.loadPath.isEmpty))
    }

    private mutating func countInPool(_ entry: Entry, _ instance: InstanceID, by step: Int) {
        let seat = entry.seat
        var index = pools.removeValue(forKey: seat.pool) ?? PoolIndex()
        index.instances.toggle(instance, step > 0)
        if entry.isServing == false {
            if seat.group != nil { index.counts.absent += step }
        } else if entry.isServing == true {
            let home = seat.group == nil ? .spare : seat.home
            switch home {
            case .prefill: index.counts.prefill += step
            case .decode: index.counts.decode += step
            case .mixed: index.counts.mixed += step
            case .spare where seat.group != nil || seat.loadPath.isEmpty:
                index.counts.spares += step
                index.spares.toggle(instance, step > 0)
            case .spare: break
            }
            if seat.group != nil, seat.isMixedForSpike { index.counts.helpers += step }
        }
        if !index.instances.isEmpty { pools[seat.pool] = index }
    }

    private mutating func countInScenario(_ entry: Entry, by step: Int) {
        let seat = entry.seat
        let name = seat.pool.scenario
        var index = scenarios.removeValue(forKey: name) ?? ScenarioIndex()
        index.size += step
        index.pools[seat.pool, default: 0] += step
        if index.pools[seat.pool] == 0 { index.pools[seat.pool] = nil }
        if seat.group != nil { index.homes[seat.home, default: 0] += step }
        if entry.isServing == true {
            if seat.isFlip { index.flips += step }
            if !seat.isConfirmed, seat.group != nil { index.restless += step }
        }
        if index.size > 0 { scenarios[name] = index }
    }
}

extension [InstanceID] {
    /// Of a sorted array.
    fileprivate mutating func toggle(_ member: InstanceID, _ isIn: Bool) {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if self[middle] < member { low = middle + 1 } else { high = middle }
        }
        let isThere = low < count && self[low] == member
        if isIn, !isThere {
            insert(member, at: low)
        } else if !isIn, isThere {
            remove(at: low)
        }
    }
}

extension Set {
    fileprivate mutating func toggle(_ member: Element, _ isIn: Bool) {
        if isIn { insert(member) } else { remove(member) }
    }
}
