import ClusterRules
package import ServingTypes

/// What people ask for.
extension GroupController {
    /// Carries out what a person asks for: `upgrade`, `pause`, `resume`, `abort`, `assign`,
    /// `scale`; its orders come with the next `decide`.
    package mutating func command(
        _ request: AdminRequest, workers: [GroupWorker], now: MonotonicTime, clock: WallClock
    ) -> AdminReply {
        self.now = now
        self.clock = clock
        look(at: workers)
        hasNews = true
        do throws(CommandError) {
            return AdminReply(isAccepted: true, text: try perform(request))
        } catch {
            return AdminReply(isAccepted: false, text: error.text)
        }
    }

    /// Says what is wrong and what to do.
    struct CommandError: Error {
        var text: String
    }

    private mutating func perform(_ request: AdminRequest) throws(CommandError) -> String {
        switch request.command {
        case "upgrade": return try upgrade(request)
        case "pause", "resume", "abort": return try steer(request)
        case "assign": return try assign(request)
        case "scale": return try scale(request)
        default:
            throw CommandError(
                text: "'\(request.command)' is not known; there are upgrade, pause, resume, abort, "
                    + "assign and scale")
        }
    }

    // MARK: Reading arguments

    private func scenario(_ request: AdminRequest) throws(CommandError) -> ScenarioSpec {
        let names = spec.scenarios.map(\.name).joined(separator: ", ")
        guard let name = request["scenario"] else {
            guard spec.scenarios.count == 1, let only = spec.scenarios.first else {
                throw CommandError(text: "name a scenario: \(names)")
            }
            return only
        }
        guard let scenario = spec[name] else {
            throw CommandError(text: "there is no scenario '\(name)'; there are \(names)")
        }
        return scenario
    }

    private func number(
        _ request: AdminRequest, _ name: String, in range: ClosedRange<Int>
    ) throws(CommandError) -> Int? {
        guard let text = request[name] else { return nil }
        guard let value = Int(text), range.contains(value) else {
            throw CommandError(
                text: "\(name) is '\(text)'; give a number from \(range.lowerBound) to "
                    + "\(range.upperBound)")
        }
        return value
    }

    // MARK: Upgrades

    private mutating func upgrade(_ request: AdminRequest) throws(CommandError) -> String {
        let scenario = try scenario(request)
        guard let path = request["model"], !path.isEmpty else {
            throw CommandError(text: "give the new model's file: model=PATH")
        }
        guard path.utf8.count <= limits.maximumPathBytes else {
            throw CommandError(text: "the path is longer than \(limits.maximumPathBytes) bytes")
        }
        if let plan = upgrades[scenario.name], plan.isUnderWay {
            throw CommandError(
                text: "an upgrade is under way (\(line(of: plan))); abort it or let it end")
        }
        let step = try number(request, "step", in: 1...limits.maximumUpgradeStep) ?? 1
        let settle = try number(request, "settle", in: 0...86_400).map { Duration.seconds($0) }
        let present = seats.instances(ofScenario: scenario.name)
            .compactMap { workers[$0]?.description }.sorted { $0.instance < $1.instance }
        guard let first = present.first else {
            throw CommandError(text: "scenario '\(scenario.name)' has no workers")
        }
        if let mute = present.first(where: \.modelPath.isEmpty) {
            throw CommandError(
                text: "\(mute.instance) does not say which model file it has, so it could not go "
                    + "back; start it with a model file")
        }
        guard Set(present.map(\.modelName)).count == 1 else {
            throw CommandError(
                text: "scenario '\(scenario.name)' serves several models; give each a scenario of "
                    + "its own first")
        }
        let left = present.filter { $0.modelPath != path }
        guard let origin = left.first?.modelPath else {
            throw CommandError(text: "all workers of '\(first.modelName)' have \(path) already")
        }
        upgrades[scenario.name] = UpgradePlan(
            scenario: scenario.name, modelName: first.modelName, target: path, origin: origin,
            step: step, settle: settle ?? limits.upgradeSettle, old: Set(left.map(\.fingerprint)))
        decided(
            .upgrade, scenario.name, "an upgrade to \(path) begins",
            "a person asked for it; \(present.count) workers, \(step) of each role at a time")
        return "\(present.count) workers of \(scenario.name) move to \(path), \(step) of each role "
            + "at a time"
    }

    private mutating func steer(_ request: AdminRequest) throws(CommandError) -> String {
        let scenario = try scenario(request)
        guard var plan = upgrades[scenario.name], plan.isUnderWay else {
            throw CommandError(text: "no upgrade of '\(scenario.name)' is under way")
        }
        switch request.command {
        case "pause":
            guard plan.phase == .running else {
                throw CommandError(text: "it is paused already: \(line(of: plan))")
            }
            plan.phase = .paused("a person asked for it")
        case "resume":
            guard plan.phase != .running else { throw CommandError(text: "it is not paused") }
            plan.phase = .running
            plan.awaitsReturn = false
            for instance in plan.movers.keys {
                plan.movers[instance]?.since = now
                plan.movers[instance]?.goneSince = nil
                if seats[instance]?.loadPath == plan.target { seats[instance]?.orderDue = now }
            }
        default:
            guard !plan.isGoingBack else {
                throw CommandError(text: "it is going back already: \(line(of: plan))")
            }
            turnBack(&plan)
        }
        upgrades[scenario.name] = plan
        decided(
            .upgrade, scenario.name, "\(request.command) of the upgrade", "a person asked for it")
        return line(of: plan)
    }

    /// Opens the old groups again; workers with the new model return as they left.
    private mutating func turnBack(_ plan: inout UpgradePlan) {
        let pools = pools(of: plan.scenario)
        let back = plan.origin
        for pool in pools {
            for record in records(of: pool) where record.group.modelPath == back {
                guard record.group.state == .draining else { continue }
                groupBook[record.group.id]?.group.state = .open
                groupBook[record.group.id]?.drainingSince = nil
            }
        }
        let waiting = plan.movers.keys.sorted().filter { instance in
            workers[instance]?.description.modelPath == back
        }
        let roles = plan.movers
        let new = Set(pools.map(\.fingerprint)).subtracting(plan.old)
        plan.turnBack(new: new)
        for instance in waiting {
            // It has not left yet: it is told to stay with the model it has.
            guard let seat = seats[instance], let scenario = spec[plan.scenario],
                let role = roles[instance]?.role
            else { continue }
            let group =
                role == .spare ? nil : group(for: role, of: seat.pool, scenario, path: back)
            change(instance, to: role, group: group, loading: back)
        }
    }

    // MARK: Roles and numbers

    private mutating func assign(_ request: AdminRequest) throws(CommandError) -> String {
        guard let name = request["worker"], let roleName = request["role"] else {
            throw CommandError(
                text: "give worker=NAME and role=prefill, decode, mixed, spare, auto")
        }
        let instance = InstanceID(name)
        guard let seat = seats[instance], let worker = workers[instance] else {
            throw CommandError(text: "there is no worker '\(name)' in any scenario")
        }
        if roleName == "auto" {
            seats[instance]?.isPinned = false
            return "\(name) follows the scenario's rules again"
        }
        guard let role = ServingRole(name: roleName) else {
            throw CommandError(
                text: "'\(roleName)' is no role; there are prefill, decode, mixed, spare and auto")
        }
        guard let scenario = spec[seat.pool.scenario] else {
            throw CommandError(text: "the scenario of '\(name)' is not in the rules any more")
        }
        if upgrades[scenario.name]?.isUnderWay ?? false {
            throw CommandError(text: "an upgrade of '\(scenario.name)' is under way; let it end")
        }
        guard worker.description.can(role) else {
            throw CommandError(text: "\(name) has no room for \(roleName)")
        }
        if role == seat.role {
            seats[instance]?.isPinned = true
            seats[instance]?.home = role
            return "\(name) is \(roleName) already and stays so"
        }
        try checkFloors(seat, scenario, to: role)
        let staysAtWork = role == .mixed && (seat.role == .prefill || seat.role == .decode)
        if staysAtWork {
            widen(instance, to: .mixed, home: seat.role)
            seats[instance]?.home = .mixed
        } else {
            let group =
                role == .spare
                ? nil
                : seat.group
                    ?? group(
                        for: role, of: seat.pool, scenario, path: worker.description.modelPath)
            change(instance, to: role, group: group)
        }
        seats[instance]?.isPinned = true
        decided(.role, scenario.name, "\(name) becomes \(roleName)", "a person asked for it")
        return "\(name) becomes \(roleName) and stays so until role=auto"
    }

    private mutating func checkFloors(
        _ seat: Seat, _ scenario: ScenarioSpec, to next: ServingRole
    ) throws(CommandError) {
        if isFlipping(scenario.name), seat.group != nil, next != .mixed {
            throw CommandError(
                text: "another worker of '\(scenario.name)' changes its role; try again after it")
        }
        let members = members(of: seat.pool)
        let floor = targets(of: scenario).floor
        for role in [ServingRole.prefill, .decode]
        where (seat.shownRole == role || seat.shownRole == .mixed) && next != .mixed {
            guard members.shown(role) > floor[role] else {
                throw CommandError(
                    text: "\(members.shown(role)) \(role.name)-workers serve, at least "
                        + "\(floor[role]) must stay; lower the minimum or add a worker")
            }
        }
    }

    private mutating func scale(_ request: AdminRequest) throws(CommandError) -> String {
        let scenario = try scenario(request)
        var scale = scales[scenario.name] ?? ScaleOverride()
        var parts: [String] = []
        let fields: [(String, WritableKeyPath<ScaleOverride, Int?>, Int)] = [
            ("prefill", \.prefill, 0), ("decode", \.decode, 0), ("spares", \.spares, 0),
            ("groups", \.groups, 1),
        ]
        for (name, path, least) in fields {
            if request[name] == "auto" {
                scale[keyPath: path] = nil
                parts.append("\(name) by the rules")
            } else if let value = try number(request, name, in: least...limits.maximumWanted) {
                scale[keyPath: path] = value
                parts.append("\(value) \(name)")
            }
        }
        guard !parts.isEmpty else {
            throw CommandError(
                text: "give prefill, decode, spares or groups, each a number or auto")
        }
        scales[scenario.name] = scale
        decided(
            .numbers, scenario.name, "other numbers: \(parts.joined(separator: ", "))",
            "a person asked for it")
        return "\(scenario.name): \(parts.joined(separator: ", "))"
    }
}
