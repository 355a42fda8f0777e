import ClusterRules
import Grouping
import ServingTypes
import Testing

/// A controller that takes over what another one saved.
@Suite("Restoring")
struct RestoreTests {
    /// Another scheduler: it knows what was saved, and its workers come back one after the other.
    static func restart(
        _ cluster: inout TestCluster, spec: ScenarioSpec, back: Duration = .seconds(5),
        without missing: Set<String> = [], seed: UInt64 = 1,
        each: (inout TestCluster) -> Void = { _ in }
    ) {
        var generator = SeededGenerator(seed: seed)
        var waiting = cluster.processes
        for name in missing { waiting[InstanceID(name)] = nil }
        cluster.processes = [:]
        cluster.controller = GroupController(limits: cluster.limits)
        cluster.controller.restore(cluster.saved, now: cluster.now)
        cluster.controller.rulesChanged(ClusterSpec(scenarios: [spec]))
        cluster.orders = []
        cluster.tick()
        let names = waiting.keys.sorted().shuffled(using: &generator)
        for name in names {
            cluster.processes[name] = waiting[name]
            cluster.run(back / max(1, names.count), each: each)
        }
    }

    private func places(_ cluster: TestCluster) -> [InstanceID: String] {
        cluster.processes.mapValues { process in
            let place = cluster.controller.place(of: process.description.instance)
            return "\(place.role.name) in \(place.group?.name ?? "none")"
        }
    }

    @Test(arguments: 1...20)
    func `workers that come back keep role and group without a flip`(seed: UInt64) {
        let spec = GroupTests.scenario {
            $0.spares = 1
            $0.groups = 2
        }
        var cluster = TestCluster(spec)
        for number in 0..<6 { cluster.add("p\(number)", .prefill) }
        for number in 0..<6 { cluster.add("d\(number)", .decode) }
        cluster.run(.seconds(60))
        #expect(cluster.command("assign", ["worker": "p1", "role": "decode"]).isAccepted)
        cluster.run(.seconds(20))
        #expect(
            cluster.command("scale", ["scenario": "chat", "prefill": "4", "decode": "7"])
                .isAccepted)
        cluster.run(.seconds(90))
        let before = places(cluster)
        #expect(cluster.shown(.prefill) == 4 && cluster.shown(.decode) == 7)
        #expect(Set(cluster.controller.groups.map(\.id.name)).count == 2)

        let groups = cluster.controller.groups.map(\.id)
        Self.restart(&cluster, spec: spec, seed: seed) { cluster in
            #expect(cluster.controller.groups.map(\.id) == groups)
        }
        #expect(cluster.controller.awaitedWorkers == 0)
        #expect(places(cluster) == before)
        cluster.run(.seconds(120))
        #expect(places(cluster) == before)
        for order in cluster.orders {
            let place = cluster.controller.place(of: order.instance)
            #expect(order.assign.role == place.role && order.assign.group == place.group)
        }
        // Numbers go on where they were.
        let numbers = cluster.orders.map(\.assign.number)
        #expect(Set(numbers).count == numbers.count && (numbers.min() ?? 0) > 12)
        // What a person pinned stays pinned, what they set stays set.
        #expect(cluster.command("assign", ["worker": "p1", "role": "decode"]).isAccepted)
        #expect(cluster.shown(.prefill) == 4 && cluster.shown(.decode) == 7)
    }

    @Test func `half a cluster is not made into a whole one`() {
        let spec = GroupTests.scenario()
        var cluster = TestCluster(spec)
        for number in 0..<2 { cluster.add("p\(number)", .prefill) }
        for number in 0..<4 { cluster.add("d\(number)", .decode) }
        cluster.run(.seconds(30))
        let decode = cluster.processes
        // Only prefill-workers are back for ten seconds.
        Self.restart(
            &cluster, spec: spec, back: .seconds(10), without: ["d0", "d1", "d2", "d3"])
        #expect(cluster.controller.awaitedWorkers == 4)
        #expect(cluster.orders.allSatisfy { $0.assign.role == .prefill })
        for name in ["d0", "d1", "d2", "d3"] { cluster[name] = decode[InstanceID(name)] }
        cluster.run(.seconds(60))
        #expect(cluster.shown(.prefill) == 2 && cluster.shown(.decode) == 4)
    }

    @Test func `a worker that stays away is replaced by a spare, and forgotten`() {
        let spec = GroupTests.scenario { $0.spares = 1 }
        var cluster = TestCluster(spec)
        for number in 0..<2 { cluster.add("p\(number)", .prefill) }
        for number in 0..<2 { cluster.add("d\(number)", .decode) }
        cluster.add("s", .spare)
        cluster.run(.seconds(30))
        #expect(cluster.role("s") == .spare)
        Self.restart(&cluster, spec: spec, back: .seconds(4), without: ["d1"])
        #expect(cluster.role("s") == .spare)
        cluster.run(cluster.limits.recall)
        #expect(cluster.role("s") == .decode)
        #expect(cluster.saved[.seat(InstanceID("d1"))] == nil)
        #expect(cluster.allDecisions.contains { $0.reason.contains("has not come back") })
        #expect(cluster.controller.awaitedWorkers == 0)
    }

    @Test func `a process that was started again takes its role up again`() {
        let spec = GroupTests.scenario()
        var cluster = TestCluster(spec)
        for number in 0..<3 { cluster.add("p\(number)", .prefill) }
        cluster.add("d0", .decode)
        cluster.run(.seconds(30))
        #expect(cluster.command("assign", ["worker": "p2", "role": "decode"]).isAccepted)
        cluster.run(.seconds(20))
        #expect(cluster.role("p2") == .decode)
        // Scheduler and worker end together.
        cluster["p2"]?.description.incarnation += 1
        cluster["p2"]?.status = InstanceStatus()
        cluster["p2"]?.status.role = .prefill
        Self.restart(&cluster, spec: spec)
        cluster.run(.seconds(20))
        #expect(cluster.role("p2") == .decode)
        #expect(cluster["p2"]?.status.role == .decode)
    }

    @Test func `a worker with another model is a newcomer`() {
        let spec = GroupTests.scenario()
        var cluster = TestCluster(spec)
        cluster.add("p0", .prefill)
        cluster.add("d0", .decode)
        cluster.run(.seconds(10))
        cluster["d0"]?.description.fingerprint = TestCluster.fingerprint("/models/c")
        Self.restart(&cluster, spec: spec)
        cluster.run(.seconds(5))
        #expect(cluster.group("d0") != cluster.group("p0"))
    }

    @Test(arguments: [0, 3, 6, 9, 12, 15, 20, 25, 30, 40])
    func `an upgrade goes on where it was`(seconds: Int) {
        let spec = GroupTests.scenario { $0.spares = 1 }
        var cluster = UpgradeTests.cluster(prefill: 3, decode: 3, spares: 1)
        #expect(cluster.command("upgrade", UpgradeTests.request).isAccepted)
        cluster.run(.seconds(seconds) + .milliseconds(100))
        let before = cluster.controller.upgradeLines
        #expect(before.count == 1)
        Self.restart(&cluster, spec: spec, seed: UInt64(seconds)) {
            UpgradeTests.checkGroups($0)
        }
        cluster.run(.seconds(200)) { cluster in
            UpgradeTests.checkGroups(cluster)
            #expect(UpgradeTests.serving(cluster, .prefill) >= 1)
            #expect(UpgradeTests.serving(cluster, .decode) >= 1)
        }
        #expect(cluster.processes.values.allSatisfy { $0.description.modelPath == "/models/b" })
        #expect(cluster.controller.upgradeLines.first?.hasSuffix("done") == true)
        #expect(cluster.controller.groups.map(\.modelPath) == ["/models/b"])
    }

    @Test func `a paused upgrade stays paused, with its reason`() {
        let spec = GroupTests.scenario()
        var cluster = UpgradeTests.cluster(prefill: 2, decode: 2)
        #expect(cluster.command("upgrade", UpgradeTests.request).isAccepted)
        #expect(cluster.command("pause", ["scenario": "chat"]).isAccepted)
        cluster.run(.seconds(10))
        let lines = cluster.controller.upgradeLines
        Self.restart(&cluster, spec: spec)
        cluster.run(.seconds(30))
        #expect(cluster.controller.upgradeLines == lines)
        #expect(lines.first?.contains("a person asked for it") == true)
        #expect(cluster.command("abort", ["scenario": "chat"]).isAccepted)
        cluster.run(.seconds(100))
        #expect(cluster.processes.values.allSatisfy { $0.description.modelPath == "/models/a" })
    }

    @Test func `only what changed is written`() {
        var cluster = TestCluster(GroupTests.scenario { $0.ratio = .asStarted })
        for number in 0..<50 {
            cluster.add("p\(number)", .prefill)
            cluster.add("d\(number)", .decode)
        }
        cluster.run(.seconds(20))
        // Counters, scenario, group, and a seat each.
        #expect(cluster.saved.count == 103)
        cluster.writes = []
        cluster.run(.seconds(20))
        #expect(cluster.writes.allSatisfy { $0 == 0 })
        #expect(cluster.command("assign", ["worker": "p7", "role": "decode"]).isAccepted)
        cluster.writes = []
        cluster.run(.seconds(20))
        #expect((2...6).contains(cluster.writes.reduce(0, +)))
        cluster.remove("p7")
        cluster.writes = []
        cluster.tick()
        #expect(cluster.saved[.seat(InstanceID("p7"))] == nil && cluster.writes == [1])
    }

    @Test func `keys are read back`() {
        for key in [
            SavedKey.counters, .scenario("a/b"), .group(GroupID("chat/1")),
            .seat(InstanceID("d 1")),
        ] { #expect(SavedKey(key.text) == key) }
        for text in ["", "format", "rules", "seats", "other/x"] { #expect(SavedKey(text) == nil) }
    }
}
