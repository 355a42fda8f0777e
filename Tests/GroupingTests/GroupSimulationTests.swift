import ClusterRules
import Grouping
import ServingTypes
import Testing

/// Random churn over a `TestCluster`, with what must hold after each tick.
private struct Churn {
    var cluster: TestCluster
    var generator: SeededGenerator
    let scenario: ScenarioSpec
    /// Taken from work by the controller, and not in their new role yet.
    var withdrawn: Set<InstanceID> = []
    var lastOrder: [InstanceID: (order: GroupOrder, at: MonotonicTime)] = [:]
    /// Went away or was started again since its last order.
    var interrupted: Set<InstanceID> = []
    var removals: [InstanceID: MonotonicTime] = [:]
    var nextName = 0
    var problems: [String] = []
    var offered = 1.0
    var promptTokens = 1000

    init(seed: UInt64) {
        generator = SeededGenerator(seed: seed)
        var scenario = GroupTests.scenario()
        scenario.prefill.minimum = 1 + generator.below(2)
        scenario.decode.minimum = 1 + generator.below(2)
        scenario.spares = generator.below(2)
        scenario.groups = 1 + generator.below(2)
        let modes: [RatioMode] = [
            .automatic, .automatic, .asStarted, .fixed(prefill: 3, decode: 4),
        ]
        scenario.ratio = modes[generator.below(modes.count)]
        self.scenario = scenario
        cluster = TestCluster(scenario)
        for _ in 0..<3 + generator.below(4) {
            join(.prefill)
            join(.decode)
        }
    }

    mutating func join(_ role: ServingRole) {
        nextName += 1
        cluster.add("w\(nextName)", role)
    }

    /// What happens to workers and traffic before a tick.
    mutating func disturb() {
        cluster.flipTime = .milliseconds(100 + generator.below(20_000))
        let ids = cluster.processes.keys.sorted()
        for id in ids {
            guard let at = removals[id], at <= cluster.now else { continue }
            removals[id] = nil
            if generator.below(2) == 0 {
                cluster.processes[id]?.isServing = true
            } else {
                cluster.processes[id] = nil
            }
        }
        switch generator.below(60) {
        case 0 where ids.count > 4:
            let id = ids[generator.below(ids.count)]
            guard removals[id] == nil else { break }
            cluster.processes[id]?.isServing = false
            removals[id] = cluster.now + .milliseconds(200 + generator.below(8000))
            interrupted.insert(id)
        case 1 where ids.count < 14: join(generator.below(2) == 0 ? .prefill : .decode)
        case 2:
            offered = Double(1 + generator.below(40)) / 4
            promptTokens = 100 * (1 + generator.below(40))
        case 3 where generator.below(6) == 0:
            let model = generator.below(2) == 0 ? "/models/a" : "/models/b"
            _ = cluster.command("upgrade", ["model": model, "settle": "1"])
        case 4 where generator.below(6) == 0: _ = cluster.command("abort")
        case 5: _ = cluster.command("resume")
        default: break
        }
    }

    /// Loads and reports that fit the number of workers in each role.
    mutating func produceTraffic() {
        let prefillSeconds = Double(promptTokens) / 4000
        let decodeSeconds = 2.0
        let busy = (
            prefill: offered * prefillSeconds / Double(max(1, cluster.shown(.prefill))),
            decode: offered * decodeSeconds / Double(4 * max(1, cluster.shown(.decode)))
        )
        for id in cluster.processes.keys {
            cluster.processes[id]?.status.freePrefillSlots = busy.prefill >= 1 ? 0 : 1
            cluster.processes[id]?.status.runningSequences = Int(min(4, 4 * busy.decode))
            cluster.processes[id]?.status.prefillTokensPerSecond = 4000
            cluster.processes[id]?.status.decodeStepMilliseconds = 20
        }
        let isFull = busy.prefill > 1 || busy.decode > 1
        let open = cluster.controller.groups.filter { $0.state == .open }
        for group in open {
            cluster.report(
                traffic(
                    group.id.name, scenario: "chat", count: Int(2 * offered) / open.count + 1,
                    prefill: .milliseconds(Int(1000 * prefillSeconds * max(1, busy.prefill))),
                    endToEnd: .milliseconds(
                        Int(1000 * (prefillSeconds * max(1, busy.prefill) + decodeSeconds))),
                    prompt: promptTokens, waiting: isFull ? 3 : 0,
                    rejected: busy.prefill > 1 ? 10 : 0, refused: busy.decode > 1 ? 10 : 0))
        }
    }

    private func atWork(_ role: ServingRole) -> Set<InstanceID> {
        Set(
            cluster.processes.filter { id, process in
                let shown = cluster.controller.place(of: id).role
                return process.isServing && process.backAt == nil
                    && (shown == role || shown == .mixed)
            }.keys)
    }

    private var isUpgrading: Bool {
        cluster.controller.upgradeLines.contains { !$0.hasSuffix("done") && !$0.hasSuffix("back") }
    }

    mutating func tick() {
        let before = (prefill: atWork(.prefill), decode: atWork(.decode))
        let incarnations = cluster.processes.mapValues(\.description.incarnation)
        let count = cluster.orders.count
        cluster.tick()
        let after = (prefill: atWork(.prefill), decode: atWork(.decode))
        let steady = Set(
            cluster.processes.filter { id, process in
                process.isServing && process.backAt == nil
                    && incarnations[id] == process.description.incarnation
            }.keys)
        for (role, was, isNow) in [
            (ServingRole.prefill, before.prefill, after.prefill),
            (.decode, before.decode, after.decode),
        ] {
            let taken = was.subtracting(isNow).intersection(steady)
            let floor = role == .prefill ? scenario.prefill.minimum : scenario.decode.minimum
            if !taken.isEmpty, isNow.count < floor {
                note("\(taken) left \(role.name), which has \(isNow.count) of at least \(floor)")
            }
            let all = after.prefill.union(after.decode)
            if !isUpgrading { withdrawn.formUnion(taken.subtracting(all)) }
        }
        checkFlips(steady)
        for order in cluster.orders[count...] { check(order) }
        for process in cluster.processes.values where process.backAt == nil {
            let place = cluster.controller.place(of: process.description.instance)
            let group = cluster.controller.groups.first { $0.id == place.group }
            if place.group != nil, group == nil { note("\(place) in a group that is not there") }
            if let group, place.role != .spare,
                group.fingerprint != process.description.fingerprint
            {
                note("\(process.description.instance) is in a group of another model")
            }
        }
    }

    private mutating func checkFlips(_ steady: Set<InstanceID>) {
        withdrawn.formIntersection(steady)
        withdrawn = withdrawn.filter { id in
            let place = cluster.controller.place(of: id)
            let isSpare = place.group == nil && cluster.processes[id]?.status.role == .spare
            return place.role == .spare && !isSpare
        }
        if isUpgrading { withdrawn = [] }
        if withdrawn.count > 1 { note("\(withdrawn) change their roles at once") }
    }

    private mutating func check(_ order: GroupOrder) {
        defer {
            lastOrder[order.instance] = (order, cluster.now)
            interrupted.remove(order.instance)
        }
        guard let last = lastOrder[order.instance] else { return }
        if order.assign.number <= last.order.assign.number { note("\(order) has an old number") }
        var same = last.order.assign
        same.number = order.assign.number
        let incarnation = cluster.processes[order.instance]?.description.incarnation ?? 0
        if same == order.assign, !interrupted.contains(order.instance), incarnation < 2,
            cluster.now - last.at < cluster.limits.flipDeadline, cluster.says("upgrade") == false
        {
            note("\(order) again, after \(last)")
        }
    }

    private mutating func note(_ problem: String) {
        if problems.count < 3 { problems.append("\(cluster.now): \(problem)") }
    }
}

@Suite("Random churn")
struct GroupSimulationTests {
    @Test(
        "floors, one change at a time, one group each, no order twice, calm at last",
        arguments: 1...12)
    func churn(seed: Int) {
        var churn = Churn(seed: UInt64(seed))
        for step in 0..<2000 {
            churn.disturb()
            if step % 20 == 0 { churn.produceTraffic() }
            churn.tick()
            if !churn.problems.isEmpty { break }
        }
        #expect(churn.problems.isEmpty, "seed \(seed), \(churn.scenario.ratio): \(churn.problems)")
        churn.cluster.flipTime = .seconds(1)
        for id in churn.cluster.processes.keys { churn.cluster.processes[id]?.isServing = true }
        _ = churn.cluster.command("resume")
        var latest = churn.cluster.now
        let end = churn.cluster.now + .seconds(1800)
        var count = churn.cluster.orders.count
        while churn.cluster.now < end {
            churn.produceTraffic()
            for _ in 0..<2 { churn.cluster.tick(.seconds(1)) }
            if churn.cluster.orders.count != count { latest = churn.cluster.now }
            count = churn.cluster.orders.count
        }
        #expect(
            end - latest > .seconds(600),
            "seed \(seed): still ordering, \(churn.cluster.allDecisions.suffix(4))")
        #expect(churn.cluster.controller.groups.contains { $0.state == .open }, "seed \(seed)")
    }
}
