import Roles
import ServingTypes
import Testing

@Suite struct SchedulerTests {
    let decode = worker(decode1, .decodeWorker)

    @Test func `a subscriber gets the view now and after each change`() throws {
        var bench = SchedulerBench()
        let empty = GroupView(epoch: 7, version: 0, members: [])
        let first = bench.subscribe(on: 1)
        #expect(
            first == [
                .rules(ClusterRules(text: ""), to: [LinkID(1)]), .push(empty, to: [LinkID(1)]),
            ])
        _ = bench.register(decode, on: 2)
        let view = try #require(bench.views.only)
        #expect(view.epoch == 7)
        #expect(view.version == 1)
        #expect(view.members.map(\.description) == [decode])
        #expect(view.members.map(\.state) == [.serving])
        #expect(bench.subscribe(on: 3).last == .push(view, to: [LinkID(3)]))
        let second = bench.register(worker(prefill1, .prefillWorker), on: 4)
        guard case .pushChange(let change, let links) = second.pushes.only else {
            Issue.record("\(second)")
            return
        }
        #expect(links == [LinkID(1), LinkID(3)])
        #expect(change.members.map(\.description.instance) == [prefill1])
        let both = try #require(bench.views.only)
        #expect(bench.readers[3]?.view == both)
        #expect(both.members.map(\.description.instance) == [decode1, prefill1])
        #expect(both.isNewer(than: view))
    }

    @Test func `a closed subscriber gets nothing more`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        #expect(bench.machine.status.gateways == [InstanceID("gateway-1")])
        _ = bench.close(1)
        #expect(bench.machine.status.gateways == [])
        #expect(bench.register(decode, on: 2).pushes == [])
    }

    @Test func `a worker without a heartbeat leaves the view when its lease ends`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        #expect(bench.tick(.milliseconds(2900)).states == [])
        let actions = bench.tick(.milliseconds(100))
        #expect(actions.refusals == [.deadline])
        #expect(actions.states == [nil])
        #expect(bench.views.map(\.members) == [[]])
        #expect(bench.close(2) == [])
    }

    @Test func `heartbeats renew the lease`() {
        var bench = SchedulerBench()
        _ = bench.register(decode, on: 2)
        for _ in 0..<5 {
            #expect(bench.tick(.seconds(2)).states == [])
            #expect(bench.beat(decode1, on: 2).states == [])
        }
    }

    @Test func `a scheduler that was away itself holds nobody's silence against him`() {
        var bench = SchedulerBench()
        _ = bench.register(decode, on: 2)
        _ = bench.tick(.seconds(1))
        bench.now = bench.now + .seconds(60)
        #expect(bench.tickOnce().states == [])
        #expect(bench.tick(.milliseconds(1900)).states == [])
        #expect(bench.tick(.milliseconds(100)).states == [nil])
    }

    @Test func `who beats without having registered is told to`() {
        var bench = SchedulerBench()
        #expect(bench.beat(decode1, on: 2).refusals == [.unknownRequest])
        _ = bench.register(decode, on: 2)
        _ = bench.tick(.seconds(3))
        #expect(bench.beat(decode1, on: 2).refusals == [.unknownRequest])
    }

    @Test func `a worker whose connection is lost is suspect until its lease ends`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        let actions = bench.close(2)
        #expect(actions.states == [.suspect])
        #expect(bench.views.first?.members.map(\.state) == [.suspect])
        #expect(bench.tick(.milliseconds(2900)).states == [])
        let gone = bench.tick(.milliseconds(100))
        #expect(gone.states == [nil])
        #expect(gone.refusals == [])
        #expect(bench.views.first?.members == [])
    }

    @Test func `a worker that comes back in its lease serves again`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        _ = bench.close(2)
        _ = bench.tick(.seconds(2))
        _ = bench.register(decode, on: 3)
        #expect(bench.views.first?.members.map(\.state) == [.serving])
        #expect(bench.tick(.seconds(2)).states == [])
    }

    @Test func `the old connection's end does not touch a worker that came back before it`() {
        var bench = SchedulerBench()
        _ = bench.register(decode, on: 2)
        _ = bench.register(decode, on: 3)
        #expect(bench.beat(decode1, on: 2).refusals == [.unknownRequest])
        #expect(bench.close(2) == [])
        #expect(bench.machine.status.view.members.map(\.state) == [.serving])
        #expect(bench.beat(decode1, on: 3).refusals == [])
    }

    @Test func `a restarted worker takes its name over once the old connection is gone`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        let next = worker(decode1, .decodeWorker, incarnation: 2)
        #expect(bench.register(next, on: 3).refusals == [.busy])
        #expect(bench.machine.status.view.members.map(\.description.incarnation) == [1])
        _ = bench.close(2)
        _ = bench.register(next, on: 4)
        #expect(bench.views.first?.members.map(\.description) == [next])
    }

    @Test func `a worker can't register under another name or role`() {
        var bench = SchedulerBench()
        #expect(bench.register(decode, on: 2, as: decode2).refusals == [.role])
        let actions = bench.hear(
            .register(Register(description: decode, status: InstanceStatus())), from: decode1,
            .prefillWorker, on: 2)
        #expect(actions.refusals == [.role])
        #expect(bench.machine.status.view.members == [])
    }

    @Test func `the cluster has a bound`() {
        var limits = SchedulerLimits()
        limits.maximumInstances = 1
        var bench = SchedulerBench(limits: limits)
        _ = bench.register(decode, on: 2)
        #expect(bench.register(worker(decode2, .decodeWorker), on: 3).refusals == [.busy])
        #expect(bench.register(decode, on: 4).refusals == [])
    }

    @Test func `a worker that leaves is gone at once`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        let leave = ControlMessage.deregister(Deregister(reason: "stopped"))
        let actions = bench.hear(leave, from: decode1, .decodeWorker, on: 2)
        #expect(actions.first == .changed(decode1, nil, reason: "stopped"))
        #expect(bench.views.first?.members == [])
        #expect(bench.hear(leave, from: decode1, .decodeWorker, on: 2) == [])
        #expect(bench.close(2) == [])
    }

    @Test func `a draining worker is shown at once`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        _ = bench.beat(decode1, on: 2, isDraining: true)
        let view = bench.views.first
        #expect(view?.members.map(\.state) == [.draining])
    }

    @Test func `readings alone are pushed at intervals, and none is lost`() {
        var bench = SchedulerBench()
        bench.now = seconds(10)
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        _ = bench.run(.seconds(4), [(decode1, 2)])
        _ = bench.beat(decode1, on: 2, running: 0)
        _ = bench.tick(.milliseconds(600))
        #expect(bench.beat(decode1, on: 2, running: 1).pushes.count == 1)
        let version = bench.readers[1]?.view?.version ?? 0
        bench.now = bench.now + .milliseconds(100)
        #expect(bench.beat(decode1, on: 2, running: 2) == [])
        #expect(bench.beat(decode1, on: 2, running: 3) == [])
        #expect(bench.tick(.milliseconds(300)) == [])
        let actions = bench.tick(.milliseconds(100))
        guard case .pushChange(let change, [LinkID(1)]) = actions.only else {
            Issue.record("\(actions)")
            return
        }
        #expect(change.members == [])
        #expect(change.readings.map(\.status.runningSequences) == [3])
        #expect(change.version == version + 1)
        #expect(bench.shown(decode1)?.status.runningSequences == 3)
        #expect(bench.beat(decode1, on: 2, running: 3) == [], "nothing is new")
    }

    @Test func `a change of members takes waiting readings with it`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        _ = bench.beat(decode1, on: 2, running: 5, isObedient: false)
        _ = bench.register(worker(decode2, .decodeWorker), on: 3)
        #expect(bench.views.only?.members.first?.status.runningSequences == 5)
    }

    @Test func `the same version always has the same content`() {
        var bench = SchedulerBench()
        #expect(bench.register(decode, on: 2).pushes == [], "nobody subscribed")
        _ = bench.beat(decode1, on: 2, running: 5, isObedient: false)
        _ = bench.subscribe(on: 1)
        #expect(bench.views.map(\.version) == [1])
        #expect(bench.views.first?.members.first?.status.runningSequences == 0)
    }

    @Test func `a health-agent's complaint takes a worker down until it answers again`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        let down = bench.report([finding(decode1, complaint: "silent")])
        #expect(down.states == [.down])
        #expect(bench.views.first?.members.map(\.reason) == ["silent"])
        #expect(bench.report([finding(decode1, complaint: "silent")]) == [])
        let up = bench.report([finding(decode1)])
        #expect(up.states == [.serving])
        #expect(bench.views.first?.members.map(\.state) == [.serving])
        #expect(bench.report([finding(decode1)]) == [])
    }

    @Test func `a complaint concerns one life of a worker on the agent's own host`() {
        var bench = SchedulerBench()
        _ = bench.register(decode, on: 2)
        #expect(bench.report([finding(decode1, complaint: "x")], host: "other") == [])
        #expect(bench.report([finding(decode1, incarnation: 9, complaint: "x")]) == [])
        #expect(bench.report([finding(decode2, complaint: "x")]) == [])
    }

    @Test func `a complaint survives a new connection of the same life, not a restart`() {
        var bench = SchedulerBench()
        _ = bench.register(decode, on: 2)
        _ = bench.report([finding(decode1, complaint: "hung")])
        #expect(bench.register(decode, on: 3).states == [.down])
        _ = bench.close(3)
        let next = worker(decode1, .decodeWorker, incarnation: 2)
        #expect(bench.register(next, on: 4).states == [.serving])
    }

    @Test func `a complaint that nobody repeats is forgotten`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(on: 1)
        _ = bench.register(decode, on: 2)
        _ = bench.report([finding(decode1, complaint: "hung")])
        _ = bench.close(90)
        _ = bench.tick(.seconds(2))
        _ = bench.beat(decode1, on: 2)
        #expect(bench.tick(.milliseconds(900)).states == [])
        let actions = bench.tick(.milliseconds(100))
        #expect(actions.states == [.serving])
        #expect(bench.views.first?.members.map(\.state) == [.serving])
    }

    @Test func `the status shows hosts while their agents are connected`() {
        var bench = SchedulerBench()
        _ = bench.report([], host: "b", on: 91)
        _ = bench.report([], host: "a", on: 90)
        #expect(bench.machine.status.hosts.map(\.host.host) == ["a", "b"])
        let answer = bench.hear(
            .clusterStatusRequest(ClusterStatusRequest()), from: InstanceID("me"), .administrator,
            on: 5)
        #expect(answer == [.answer(.clusterStatus(bench.machine.status), to: LinkID(5))])
        _ = bench.report([], host: "a", on: 92)
        _ = bench.close(90)
        #expect(bench.machine.status.hosts.map(\.host.host) == ["a", "b"])
        _ = bench.close(92)
        #expect(bench.machine.status.hosts.map(\.host.host) == ["b"])
    }

    @Test func `hosts have a bound`() {
        var limits = SchedulerLimits()
        limits.maximumHosts = 1
        var bench = SchedulerBench(limits: limits)
        _ = bench.report([], host: "a", on: 90)
        _ = bench.report([], host: "b", on: 91)
        #expect(bench.machine.status.hosts.map(\.host.host) == ["a"])
    }

    @Test func `a ping is answered, other messages are ignored`() {
        var bench = SchedulerBench()
        #expect(
            bench.hear(.ping(Ping(number: 3)), from: decode1, .decodeWorker, on: 2)
                == [.answer(.pong(Pong(number: 3)), to: LinkID(2))])
        #expect(
            bench.hear(
                .slotsOpen(SlotsOpen(freePrefillSlots: 1)), from: prefill1, .prefillWorker, on: 2)
                == [])
    }
}
