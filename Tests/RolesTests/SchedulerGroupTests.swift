import ClusterRules
import Grouping
import Roles
import ServingTypes
import Testing

/// A worker that can do both.
func flexible(
    _ name: String, _ role: Role = .decodeWorker, host: String = "host", incarnation: UInt64 = 1
) -> InstanceDescription {
    var description = worker(InstanceID(name), role, incarnation: incarnation, host: host)
    description.prefillSlots = 2
    description.decodeSequences = 4
    return description
}

/// What machine and group decisions do together: assign, show, confirm.
@Suite struct SchedulerGroupTests {
    private static let names: [(InstanceID, UInt64)] = [
        (InstanceID("decode-1"), 11), (InstanceID("decode-2"), 12), (InstanceID("prefill-1"), 13),
        (InstanceID("prefill-2"), 14),
    ]

    /// A gateway on link 1 and two workers of each role that have taken up their work.
    private func cluster(_ spec: ClusterSpec? = nil) -> SchedulerBench {
        var bench = SchedulerBench()
        if let spec { _ = bench.rules(spec) }
        _ = bench.subscribe(on: 1)
        for (name, link) in Self.names {
            let role = name.name.hasPrefix("decode") ? Role.decodeWorker : .prefillWorker
            _ = bench.register(flexible(name.name, role), on: link)
        }
        _ = bench.run(.seconds(3), Self.names)
        return bench
    }

    @Test func `a worker is told what to do, and shown once it says that it does it`() throws {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        let description = flexible("decode-1")
        let actions = bench.hear(
            .register(Register(description: description, status: InstanceStatus())),
            from: decode1, .decodeWorker, on: 2)
        #expect(bench.shown(decode1)?.role == .spare)
        let order = try #require((actions + bench.tick(.seconds(1))).assigns.only)
        #expect(order.instance == decode1)
        #expect(order.assign.role == .decode)
        #expect(order.assign.group != nil)
        #expect(bench.shown(decode1)?.role == .spare, "it has not said so yet")
        let confirmed = bench.beat(decode1, on: 2)
        #expect(bench.shown(decode1)?.role == .decode)
        #expect(bench.shown(decode1)?.group == order.assign.group)
        let took = confirmed.contains { action in
            if case .tookUp(decode1, .decode, _) = action { true } else { false }
        }
        #expect(took)
    }

    @Test func `without a cluster file workers do what they were started as, in an open group`() {
        let bench = cluster()
        #expect(
            bench.readers[1]?.view?.members.map(\.role) == [.decode, .decode, .prefill, .prefill])
        #expect(bench.readers[1]?.view?.groups.map(\.state) == [.open])
        #expect(Set(bench.readers[1]?.view?.members.map(\.group) ?? []).count == 1)
        #expect(Set(bench.assigned.values.map(\.number)).count == 4, "each number once")
    }

    @Test func `a worker that changes its role leaves the view before it is told`() throws {
        var bench = cluster()
        bench.assigned = [:]
        let reply = bench.ask("assign", ["worker": "decode-2", "role": "prefill"])
        #expect(reply?.isAccepted == true, "\(reply?.text ?? "")")
        #expect(bench.shown(decode2)?.role == .spare)
        #expect(bench.assigned[decode2] == nil, "gateways hear of it first")
        let actions = bench.tick(.milliseconds(200))
        let order = try #require(actions.assigns.only)
        #expect(order.instance == decode2 && order.assign.role == .prefill)
        _ = bench.beat(decode2, on: 12, isObedient: false)
        _ = bench.tick(.seconds(1))
        #expect(bench.shown(decode2)?.role == .spare, "its old work goes on")
        let done = bench.beat(decode2, on: 12)
        #expect(bench.shown(decode2)?.role == .prefill)
        let times = done.compactMap { action in
            if case .tookUp(_, .prefill, let time) = action { time } else { nil }
        }
        #expect(times.only == .milliseconds(1100), "since the order")
        #expect(bench.machine.status.decisions.contains { $0.action.contains("decode-2") })
        #expect(
            bench.machine.memberCounts[MemberKind(state: .serving, role: .prefill)] == 3)
    }

    @Test func `numbers of assignments rise`() {
        var bench = cluster()
        var numbers = bench.assigned.values.map(\.number).sorted()
        for role in ["prefill", "decode", "prefill"] {
            #expect(bench.ask("assign", ["worker": "decode-2", "role": role])?.isAccepted == true)
            let actions = bench.run(.seconds(2), Self.names)
            numbers += actions.assigns.map(\.assign.number)
        }
        #expect(numbers.count > 6)
        #expect(zip(numbers, numbers.dropFirst()).allSatisfy { $0 < $1 }, "\(numbers)")
    }

    @Test func `a spare takes the place of a worker that is gone`() {
        var scenario = ScenarioSpec(name: "chat")
        scenario.ratio = .asStarted
        scenario.spares = 1
        var bench = cluster(ClusterSpec(scenarios: [scenario]))
        let spare = InstanceID("decode-9")
        let all = Self.names + [(spare, UInt64(19))]
        _ = bench.register(flexible("decode-9"), on: 19)
        _ = bench.run(.seconds(2), all)
        #expect(bench.shown(spare)?.role == .spare)
        #expect(bench.shown(spare)?.group == nil)
        let lost = bench.close(12)
        #expect(lost.states == [.suspect])
        let actions = lost + bench.run(.seconds(8), all.filter { $0.0 != decode2 })
        #expect(bench.shown(decode2) == nil)
        #expect(bench.shown(spare)?.role == .decode)
        #expect(bench.shown(spare)?.group == bench.shown(decode1)?.group)
        #expect(actions.decisions.contains("decode-9 becomes decode"), "\(actions.decisions)")
    }

    @Test func `a worker that connects again is told again what it may have missed`() throws {
        var bench = cluster()
        _ = bench.ask("assign", ["worker": "decode-2", "role": "prefill"])
        let order = try #require(bench.tick(.milliseconds(200)).assigns.only?.assign)
        // It did not get the order: its status bears an older number.
        let again = bench.register(flexible("decode-2"), on: 22)
        #expect(again.assigns.only?.assign == order)
        _ = bench.close(22)
        let late = bench.register(flexible("decode-2"), on: 32) + bench.tick(.seconds(1))
        #expect(late.assigns.allSatisfy { $0.assign.role == .prefill })
        #expect(late.assigns.first?.assign.number ?? 0 >= order.number)
        _ = bench.beat(decode2, on: 32)
        #expect(bench.shown(decode2)?.role == .prefill)
        let calm = bench.close(32) + bench.register(flexible("decode-2"), on: 42)
        #expect(calm.assigns.allSatisfy { $0.assign.number > order.number }, "it was carried out")
    }

    @Test func `a new life of a worker is not told what the old one was`() {
        var bench = cluster()
        _ = bench.ask("assign", ["worker": "decode-2", "role": "prefill"])
        let old = bench.tick(.milliseconds(200)).assigns.map(\.assign.number)
        _ = bench.close(12)
        let next = bench.register(flexible("decode-2", incarnation: 2), on: 22)
        #expect(next.assigns.allSatisfy { !old.contains($0.assign.number) })
    }

    @Test func `rules reach gateways on subscribing and on each change`() {
        var bench = cluster()
        _ = bench.subscribe(host: "host", on: 5)
        var scenario = ScenarioSpec(name: "chat")
        scenario.ratio = .asStarted
        let actions = bench.rules(ClusterSpec(scenarios: [scenario]), text: "new")
        #expect(actions.first == .rules(ClusterRules(text: "new"), to: [LinkID(1)]))
        #expect(bench.subscribe(on: 2).first == .rules(ClusterRules(text: "new"), to: [LinkID(2)]))
        _ = bench.run(.seconds(3), Self.names)
        #expect(bench.readers[1]?.view?.groups.map(\.scenario) == ["chat"])
        #expect(bench.readers[1]?.view?.members.allSatisfy { $0.role != .spare } == true)
    }

    @Test func `what can't be done is answered with a sentence`() {
        var bench = cluster()
        let reply = bench.ask("assign", ["worker": "nobody", "role": "prefill"])
        #expect(reply?.isAccepted == false)
        #expect(reply?.text.contains("nobody") == true)
        #expect(bench.ask("dance", [:])?.isAccepted == false)
    }

    @Test func `traffic of subscribed gateways leads to wanted numbers`() throws {
        var bench = cluster()
        let group = try #require(bench.readers[1]?.view?.groups.first)
        var traffic = GroupTraffic(group: group.id, scenario: group.scenario)
        traffic.arrived = 500
        traffic.completed = 100
        traffic.good = 100
        traffic.waiting = 400
        traffic.prefill = .seconds(100)
        traffic.ttft = .seconds(400)
        traffic.endToEnd = .seconds(800)
        traffic.promptTokens = 100_000
        traffic.outputTokens = 10_000
        let report = TrafficReport(interval: .seconds(2), groups: [traffic])
        func wanted(from link: UInt64) -> [SchedulerAction] {
            var actions: [SchedulerAction] = []
            for _ in 0..<10 {
                _ = bench.hear(
                    .trafficReport(report), from: InstanceID("gateway-\(link)"), .gateway, on: link)
                actions += bench.run(.seconds(2), Self.names)
            }
            return actions.filter { if case .wanted = $0 { true } else { false } }
        }
        let before = bench.machine.status.wanted
        #expect(before.map(\.present) == [2, 2])
        #expect(wanted(from: 8) == [], "nobody knows this gateway")
        #expect(!wanted(from: 1).isEmpty)
        let after = bench.machine.status.wanted
        #expect(zip(before, after).contains { $0.wanted < $1.wanted }, "\(after)")
    }
}
