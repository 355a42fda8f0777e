import ClusterRules
import ServingTypes

/// Seats: who joins where, who is gone, what was confirmed.
extension GroupController {
    // MARK: Looking

    func pools(of scenario: String) -> [Pool] {
        var pools = Set(poolGroups.keys.filter { $0.scenario == scenario })
        pools.formUnion(seats.pools(of: scenario))
        return pools.sorted {
            ($0.modelName, $0.fingerprint.description) < ($1.modelName, $1.fingerprint.description)
        }
    }

    /// The workers that the rest of this call works with.
    mutating func look(at list: [GroupWorker]) {
        examinedSeats += list.count
        workers = Dictionary(list.map { ($0.instance, $0) }, uniquingKeysWith: { $1 })
        for instance in seats.instances {
            seats.note(instance, isServing: workers[instance]?.isServing)
        }
    }

    /// All of a pool; its numbers alone come cheaper from the seats' counts.
    mutating func members(of pool: Pool) -> PoolMembers {
        var members = PoolMembers()
        let instances = seats.instances(of: pool).sorted()
        examinedSeats += instances.count
        for instance in instances {
            guard let seat = seats[instance], let worker = workers[instance] else { continue }
            let member = Member(worker: worker, seat: seat)
            if !worker.isServing {
                if seat.group != nil { members.absent.append(member) }
            } else if seat.group == nil {
                if seat.loadPath.isEmpty { members.spares.append(member) }
            } else {
                switch seat.home {
                case .prefill: members.prefill.append(member)
                case .decode: members.decode.append(member)
                case .mixed: members.mixed.append(member)
                case .spare: members.spares.append(member)
                }
            }
        }
        return members
    }

    func isFlipping(_ scenario: String) -> Bool {
        seats.flips(ofScenario: scenario) > 0
    }

    func occupancy(of members: PoolMembers) -> PerRole<Double> {
        func part(_ taken: Int, _ all: Int) -> Double {
            all > 0 ? min(1, max(0, Double(taken) / Double(all))) : 0
        }
        let prefill = members.prefill + members.mixed
        let slots = prefill.reduce(0) { $0 + $1.worker.description.prefillSlots }
        let free = prefill.reduce(0) { $0 + $1.worker.status.freePrefillSlots }
        let decode = members.decode + members.mixed
        let sequences = decode.reduce(0) { $0 + $1.worker.description.decodeSequences }
        let running = decode.reduce(0) { $0 + $1.worker.status.runningSequences }
        return PerRole(prefill: part(slots - free, slots), decode: part(running, sequences))
    }

    // MARK: Following the workers

    /// - Parameter list: the workers, sorted.
    mutating func syncSeats(_ list: [GroupWorker]) {
        for worker in list { lastNumber = max(lastNumber, worker.status.assignment) }
        for instance in seats.instances.filter({ workers[$0] == nil }).sorted() {
            guard let seat = seats[instance] else { continue }
            seats[instance] = nil
            guard let group = seat.group, seat.home != .spare else { continue }
            _ = replace(instance, seat, in: group, why: "is gone")
        }
        for worker in list {
            if let seat = seats[worker.instance] {
                follow(worker, seat)
            } else if worker.isServing {
                seatNewcomer(worker)
            }
        }
    }

    private mutating func follow(_ worker: GroupWorker, _ old: Seat) {
        var seat = old
        let description = worker.description
        if description.incarnation != seat.incarnation
            || description.fingerprint != seat.pool.fingerprint
        {
            let isSameModel =
                description.fingerprint == seat.pool.fingerprint
                && description.modelName == seat.pool.modelName && seat.loadPath.isEmpty
            guard isSameModel, description.can(seat.role) else {
                seats[worker.instance] = nil
                if worker.isServing { seatNewcomer(worker) }
                return
            }
            // Its process was started again: it knows nothing of its assignment.
            seat.incarnation = description.incarnation
            seat.isConfirmed = false
            seat.isFlip = false
            seat.shown = worker.status.role == seat.role ? seat.role : .spare
            seat.orderDue = now
            seat.since = now
        }
        if seat.number > 0, !seat.isConfirmed, seat.orderDue == nil,
            worker.status.assignment == seat.number, worker.status.role == seat.role
        {
            confirmed(worker.instance, &seat)
        }
        if worker.isServing {
            let isBack = !seat.isServing
            seat.isServing = true
            seat.absentSince = nil
            if isBack, !seat.isConfirmed, seat.orderDue == nil { seat.orderDue = now }
        } else {
            seat.isServing = false
            seat.absentSince = seat.absentSince ?? now
        }
        seats[worker.instance] = seat
    }

    private mutating func confirmed(_ instance: InstanceID, _ seat: inout Seat) {
        seat.isConfirmed = true
        guard seat.isFlip else { return }
        seat.isFlip = false
        decided(
            .role, seat.pool.scenario, "\(instance) is \(seat.role.name) now",
            "the change took \((now - seat.since).seconds.figure(1)) s")
    }

    /// Orders whose time has come, with the numbers they bear; overdue ones once more.
    mutating func dueOrders() -> [GroupOrder] {
        var orders: [GroupOrder] = []
        for instance in seats.unsettled.sorted() {
            examinedSeats += 1
            guard var seat = seats[instance], workers[instance]?.isServing == true else { continue }
            if seat.orderDue == nil, !seat.isConfirmed, seat.loadPath.isEmpty,
                now - seat.asked >= limits.flipDeadline
            {
                decided(
                    .delay, seat.pool.scenario, "\(instance) has not become \(seat.role.name) yet",
                    "told to \((now - seat.since).seconds.figure(0)) s ago; "
                        + "it keeps its work, and is asked again")
                seat.orderDue = now
            }
            guard let due = seat.orderDue, due <= now else { continue }
            lastNumber += 1
            seat.number = lastNumber
            seat.asked = now
            seat.toldGroup = seat.group
            seat.orderDue = nil
            seats[instance] = seat
            orders.append(
                GroupOrder(
                    instance: instance,
                    assign: Assign(
                        number: seat.number, role: seat.role, group: seat.group,
                        scenario: seat.pool.scenario, stepLimit: seat.stepLimit,
                        modelPath: seat.loadPath)))
        }
        return orders
    }

    // MARK: Changing seats

    func stepLimit(_ role: ServingRole, _ scenario: String) -> Duration? {
        role.takesSequences ? spec[scenario]?.stepLimit : nil
    }

    /// Takes a worker out of what it does and gives it something else, the view first.
    mutating func change(
        _ instance: InstanceID, to role: ServingRole, group: GroupID?, loading path: String = ""
    ) {
        guard var seat = seats[instance] else { return }
        let wasWorking = seat.group != nil && seat.shownRole != .spare
        let wasUntold = seat.orderDue != nil
        seat.isFlip = seat.isFlip || wasWorking
        seat.role = role
        seat.home = role
        seat.group = group
        seat.shown = .spare
        seat.isConfirmed = false
        seat.orderDue = wasWorking ? now + limits.viewLead : now
        seat.since = now
        seat.loadPath = path
        seat.stepLimit = stepLimit(role, seat.pool.scenario)
        if wasUntold, path.isEmpty, seat.number > 0, seat.toldGroup == group,
            let status = workers[instance]?.status, status.assignment == seat.number,
            status.role == role
        {
            // It never heard of the change that is taken back.
            seat.isConfirmed = true
            seat.isFlip = false
            seat.orderDue = nil
        }
        seats[instance] = seat
    }

    /// Changes what a worker does without taking its present work from it.
    mutating func widen(_ instance: InstanceID, to role: ServingRole, home: ServingRole) {
        guard var seat = seats[instance] else { return }
        // What it did before and goes on doing is shown meanwhile.
        seat.shown = home
        seat.role = role
        seat.home = home
        seat.isConfirmed = false
        seat.orderDue = now
        seat.since = now
        seat.stepLimit = stepLimit(role, seat.pool.scenario)
        seats[instance] = seat
    }

    /// Lets a spare take the role of a worker that does not serve; false if there is none.
    mutating func replace(
        _ gone: InstanceID, _ lost: Seat, in group: GroupID, why: String
    ) -> Bool {
        guard groupBook[group].map({ $0.group.state != .draining }) ?? false,
            let spare = spare(for: lost.home, of: lost.pool, besides: gone)
        else { return false }
        change(spare, to: lost.home, group: group)
        // Its return is waited for, before numbers are corrected.
        ratios[lost.pool, default: RatioController()].disturbed(now: now)
        decided(
            .substitution, lost.pool.scenario, "\(spare) becomes \(lost.home.name)",
            "a spare takes the place of \(gone), which \(why)")
        return true
    }

    private mutating func spare(
        for role: ServingRole, of pool: Pool, besides gone: InstanceID
    ) -> InstanceID? {
        for instance in seats.spares(of: pool) {
            examinedSeats += 1
            if instance != gone, seats[instance]?.isPinned == false,
                workers[instance]?.description.can(role) == true
            {
                return instance
            }
        }
        return nil
    }

    /// Gives back the workers that their scenario's rules do not cover any more.
    mutating func releaseUnruled() {
        for instance in seats.instances {
            guard let seat = seats[instance] else { continue }
            let scenario = seat.pool.scenario
            guard let rules = spec[scenario] else {
                seats[instance] = nil
                continue
            }
            guard let worker = workers[instance] else { continue }
            let due = seat.orderDue ?? now
            if !fits(worker, rules) {
                seats[instance] = nil
            } else if seat.stepLimit != stepLimit(seat.role, scenario) {
                let limit = stepLimit(seat.role, scenario)
                seats[instance]?.stepLimit = limit
                seats[instance]?.orderDue = due
            }
        }
    }

    func fits(_ worker: GroupWorker, _ scenario: ScenarioSpec) -> Bool {
        let named = worker.description.scenario
        guard named.isEmpty || named == scenario.name else { return false }
        if scenario.model.isEmpty || scenario.model == worker.description.modelName { return true }
        return upgrades[scenario.name]?.isNew(worker.description) ?? false
    }
}
