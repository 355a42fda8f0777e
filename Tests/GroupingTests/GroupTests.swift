import ClusterRules
import Grouping
import ServingTypes
import Testing

@Suite("Groups and roles")
struct GroupTests {
    static func scenario(_ change: (inout ScenarioSpec) -> Void = { _ in }) -> ScenarioSpec {
        var scenario = ScenarioSpec(name: "chat")
        scenario.decodeOnlyFallback = false
        scenario.prefillOnlyFallback = false
        change(&scenario)
        return scenario
    }

    @Test("without rules there is one open group per model, with the roles as started")
    func noRules() {
        var cluster = TestCluster()
        cluster.add("p1", .prefill)
        cluster.add("d1", .decode)
        cluster.add("p2", .prefill, path: "/models/b")
        cluster.run(.seconds(200))
        #expect(cluster.controller.groups.map(\.id.name) == ["default/1", "default/2"])
        #expect(cluster.controller.groups.allSatisfy { $0.state == .open })
        #expect(cluster.role("p1") == .prefill && cluster.role("d1") == .decode)
        #expect(cluster.role("p2") == .prefill)
        #expect(cluster.group("p1") == cluster.group("d1"))
        #expect(cluster.group("p2") != cluster.group("d1"))
        #expect(cluster.orders.count == 3)
    }

    @Test("a group opens when the minimum of both roles has confirmed")
    func opening() {
        var cluster = TestCluster(Self.scenario { $0.decode.minimum = 2 })
        cluster.add("p1", .prefill)
        cluster.add("d1", .decode)
        cluster.run(.seconds(5))
        #expect(cluster.controller.groups.map(\.state) == [.forming])
        cluster.add("d2", .decode)
        cluster.tick()
        #expect(cluster.controller.groups.map(\.state) == [.forming])
        cluster.run(.seconds(1))
        #expect(cluster.controller.groups.map(\.state) == [.open])
    }

    @Test("with fallback one confirmed worker opens it")
    func fallback() {
        var cluster = TestCluster(Self.scenario { $0.decodeOnlyFallback = true })
        cluster.add("d1", .decode)
        cluster.run(.seconds(1))
        #expect(cluster.controller.groups.map(\.state) == [.open])
        var strict = TestCluster(Self.scenario())
        strict.add("d1", .decode)
        strict.run(.seconds(150))
        #expect(strict.controller.groups.map(\.state) == [.forming])
        #expect(strict.says("still forming"))
    }

    @Test("a worker that names a scenario joins no other")
    func named() {
        var cluster = TestCluster(Self.scenario())
        cluster.add("p1", .prefill, scenario: "chat")
        cluster.add("p2", .prefill, scenario: "other")
        cluster.run(.seconds(1))
        #expect(cluster.group("p1") == "chat/1")
        #expect(cluster.group("p2") == nil && cluster.role("p2") == .spare)
    }

    @Test("newcomers complete one scenario before they begin another")
    func completion() {
        let names = ["chat", "batch"]
        for order in [
            ["p1", "d1", "p2", "d2"], ["p1", "p2", "d1", "d2"], ["d1", "p1", "d2", "p2"],
        ] {
            var cluster = TestCluster()
            cluster.controller.rulesChanged(
                ClusterSpec(
                    scenarios: names.map { name in Self.scenario { $0.name = name } }))
            for (number, name) in order.enumerated() {
                cluster.add(name, name.hasPrefix("p") ? .prefill : .decode)
                cluster.run(.seconds(1))
                let open = cluster.controller.groups.filter { $0.state == .open }
                let pairs = min(
                    order.prefix(number + 1).count { $0.hasPrefix("p") },
                    order.prefix(number + 1).count { $0.hasPrefix("d") })
                #expect(open.count == pairs, "\(order.prefix(number + 1))")
            }
        }
    }

    @Test("a spare takes a dead worker's role at once; who comes back is the spare")
    func replacement() {
        var cluster = TestCluster(Self.scenario { $0.spares = 1 })
        for name in ["p1", "p2"] { cluster.add(name, .prefill) }
        cluster.add("d1", .decode)
        cluster.add("s1", .spare)
        cluster.run(.seconds(5))
        #expect(cluster.role("s1") == .spare)
        cluster["d1"]?.isServing = false
        cluster.tick()
        #expect(cluster.says("a spare takes the place of d1"))
        cluster.run(.seconds(5))
        #expect(cluster.role("s1") == .decode)
        cluster["d1"]?.isServing = true
        cluster.run(.seconds(60))
        #expect(cluster.role("d1") == .spare && cluster.role("s1") == .decode)
        #expect(cluster.shown(.prefill) == 2)
    }

    @Test("a missing role without a spare is taken from the other, above its floor, view first")
    func missingRole() {
        var cluster = TestCluster(Self.scenario())
        cluster.add("p1", .prefill)
        for name in ["d1", "d2"] { cluster.add(name, .decode) }
        cluster.run(.seconds(5))
        cluster.remove("p1")
        let before = cluster.orders.count
        cluster.tick()
        #expect(cluster.shown(.spare) == 1 && cluster.shown(.decode) == 1)
        #expect(cluster.orders.count == before)
        cluster.tick()
        #expect(cluster.orders.count == before + 1)
        #expect(cluster.shown(.spare) == 1)
        cluster.run(.seconds(5))
        #expect(cluster.shown(.prefill) == 1 && cluster.shown(.decode) == 1)
        #expect(cluster.says("has no prefill-worker"))
        #expect(cluster.says("the change took 2."))
        cluster.add("p1", .prefill)
        cluster.run(.seconds(60))
        #expect(cluster.shown(.prefill) + cluster.shown(.decode) == 3)
    }

    @Test("a change that takes too long is told, asked again, and waited for")
    func slowFlip() {
        var cluster = TestCluster(Self.scenario())
        cluster.flipTime = .seconds(130)
        cluster.add("p1", .prefill)
        for name in ["d1", "d2"] { cluster.add(name, .decode) }
        cluster.run(.seconds(5))
        cluster.remove("p1")
        cluster.run(.seconds(122))
        #expect(cluster.says("has not become prefill yet"))
        #expect(cluster.shown(.spare) == 1)
        cluster.run(.seconds(135))
        #expect(cluster.shown(.prefill) == 1)
        #expect(cluster.orders.count == 5, "three at the start, two for the change")
    }

    @Test("fixed numbers are reached one change at a time")
    func fixed() {
        var cluster = TestCluster(Self.scenario { $0.ratio = .fixed(prefill: 4, decode: 2) })
        cluster.add("p1", .prefill)
        for name in ["d1", "d2", "d3", "d4", "d5"] { cluster.add(name, .decode) }
        // Newcomers take up the roles that are short at once; from then on it is one at a time.
        cluster.run(.seconds(3))
        cluster.run(.seconds(300)) { #expect($0.shown(.spare) <= 1) }
        #expect(cluster.shown(.prefill) == 4 && cluster.shown(.decode) == 2)
    }

    @Test("the time of day sets other numbers, over midnight")
    func schedule() {
        var cluster = TestCluster(
            Self.scenario {
                $0.schedule = [
                    ScheduleEntry(
                        from: 22 * 60, to: 6 * 60, prefill: InstanceRange(minimum: 1, maximum: 1),
                        decode: InstanceRange(minimum: 1, maximum: 2))
                ]
            })
        cluster.clock.minuteOfDay = 12 * 60
        for name in ["p1", "p2"] { cluster.add(name, .prefill) }
        for name in ["d1", "d2", "d3"] { cluster.add(name, .decode) }
        cluster.run(.seconds(60))
        #expect(cluster.shown(.prefill) == 2 && cluster.shown(.decode) == 3)
        cluster.clock.minuteOfDay = 5
        cluster.run(.seconds(200))
        #expect(cluster.shown(.prefill) == 1 && cluster.shown(.decode) == 2)
        #expect(cluster.says("entry 1 of the schedule applies"))
        cluster.clock.minuteOfDay = 6 * 60
        cluster.run(.seconds(200))
        #expect(cluster.shown(.prefill) + cluster.shown(.decode) == 5)
    }

    @Test("a scenario's workers are divided evenly among its groups")
    func division() {
        var cluster = TestCluster(Self.scenario { $0.groups = 2 })
        for name in ["p1", "p2", "p3"] { cluster.add(name, .prefill) }
        for name in ["d1", "d2", "d3", "d4"] { cluster.add(name, .decode) }
        cluster.run(.seconds(10))
        let groups = cluster.controller.groups
        #expect(groups.map(\.id.name) == ["chat/1", "chat/2"])
        #expect(groups.allSatisfy { $0.state == .open })
        #expect(["d1", "d2", "d3", "d4"].count { cluster.group($0) == "chat/1" } == 2)
        #expect(groups.map(\.weight).reduce(0, +) >= 999)
        let reply = cluster.command("scale", ["groups": "1"])
        #expect(reply.isAccepted)
        cluster.tick()
        #expect(cluster.controller.groups.map(\.state) == [.open, .draining])
        cluster.run(.seconds(10))
        #expect(cluster.controller.groups.map(\.id.name) == ["chat/1"])
        #expect(cluster.shown(.prefill) == 3 && cluster.shown(.decode) == 4)
    }

    @Test("a scheduler that starts again takes over what workers do, at once")
    func restart() {
        var cluster = TestCluster(Self.scenario())
        cluster.add("p1", .prefill)
        for name in ["d1", "d2", "d3"] { cluster.add(name, .decode) }
        cluster.run(.seconds(5))
        #expect(cluster.command("assign", ["worker": "d3", "role": "prefill"]).isAccepted)
        cluster.run(.seconds(5))
        #expect(cluster.role("d3") == .prefill)
        let highest = cluster.orders.map(\.assign.number).max() ?? 0
        cluster.controller = GroupController()
        cluster.controller.rulesChanged(ClusterSpec(scenarios: [Self.scenario()]))
        cluster.orders = []
        cluster.tick()
        #expect(cluster.controller.groups.map(\.state) == [.open])
        #expect(cluster.role("d3") == .prefill && cluster.shown(.decode) == 2)
        #expect(cluster.orders.allSatisfy { $0.assign.number > highest })
        #expect(Set(cluster.orders.map(\.assign.number)).count == 4)
    }

    @Test("people's changes are refused where they break a floor, and kept otherwise")
    func assign() {
        var cluster = TestCluster(Self.scenario())
        cluster.add("p1", .prefill)
        for name in ["d1", "d2"] { cluster.add(name, .decode) }
        cluster.run(.seconds(5))
        #expect(!cluster.command("assign", ["worker": "p1", "role": "decode"]).isAccepted)
        #expect(!cluster.command("assign", ["worker": "x", "role": "decode"]).isAccepted)
        #expect(!cluster.command("assign", ["worker": "d1", "role": "chef"]).isAccepted)
        #expect(!cluster.command("dance").isAccepted)
        #expect(!cluster.command("scale", ["decode": "-1"]).isAccepted)
        #expect(!cluster.command("scale").isAccepted)
        #expect(cluster.command("assign", ["worker": "d1", "role": "prefill"]).isAccepted)
        cluster.run(.seconds(10))
        #expect(cluster.role("d1") == .prefill)
        cluster.run(.seconds(200))
        #expect(cluster.role("d1") == .prefill)
    }

    @Test("decisions are bounded and new ones are told once")
    func bounded() {
        var limits = GroupLimits()
        limits.decisions = 10
        var cluster = TestCluster(Self.scenario(), limits: limits)
        cluster.add("p1", .prefill)
        for count in 1...30 { _ = cluster.command("scale", ["spares": "\(count)"]) }
        #expect(cluster.controller.decisions.count == 10)
        #expect(cluster.controller.takeNewDecisions().count == 10)
        #expect(cluster.controller.takeNewDecisions().isEmpty)
    }
}
