import ClusterRules
import Grouping
import Roles
import ServingTypes
import Testing
import WireProtocol

/// Views at scale: pages, changes, hosts, and work that does not grow with the members.
@Suite struct SchedulerViewTests {
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func `subscribers miss nothing, whatever happens`(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        func draw(_ range: ClosedRange<Int>) -> Int { .random(in: range, using: &generator) }
        var limits = SchedulerLimits()
        // Half of the runs collect changes.
        limits.promptInstances = seed % 2 == 0 ? 4 : 256
        var bench = SchedulerBench(limits: limits)
        var links: [InstanceID: UInt64] = [:]
        var nextLink: UInt64 = 1000
        var incarnation: UInt64 = 1
        _ = bench.subscribe(on: 1)
        _ = bench.subscribe(host: "a", on: 2)
        for step in 0..<600 {
            let instance = InstanceID("worker-\(draw(1...20))")
            let host = ["a", "b", "c"][draw(0...2)]
            switch draw(0...9) {
            case 0...2:
                nextLink += 1
                incarnation += 1
                if let old = links.removeValue(forKey: instance) { _ = bench.close(old) }
                links[instance] = nextLink
                _ = bench.register(
                    flexible(
                        instance.name, draw(0...1) == 0 ? .decodeWorker : .prefillWorker,
                        host: host, incarnation: incarnation), on: nextLink)
            case 3: if let link = links.removeValue(forKey: instance) { _ = bench.close(link) }
            case 4...6:
                if let link = links[instance] {
                    _ = bench.beat(
                        instance, on: link, running: draw(0...3), isDraining: draw(0...30) == 0)
                }
            case 7:
                _ = bench.report(
                    [finding(instance, incarnation: incarnation, complaint: "hung")], host: host)
            case 8: _ = bench.subscribe(on: 3)
            default: _ = bench.tick(.milliseconds(100 * draw(1...8)))
            }
            let whole = bench.machine.status.view
            #expect(bench.readers[1]?.view == whole, "seed \(seed), step \(step)")
            if let late = bench.readers[3] { #expect(late.view == whole) }
            let own = whole.members.filter { $0.description.host == "a" }.map(\.withoutStatus)
            let seen = bench.readers[2]?.view?.members.map(\.withoutStatus)
            #expect(seen == own, "seed \(seed), step \(step)")
        }
        #expect(bench.outOfStep == [])
        #expect(bench.machine.status.view.version > 50)
    }

    @Test func `readings are not pushed to those who want one host`() {
        var bench = SchedulerBench()
        _ = bench.subscribe(host: "a", on: 2)
        _ = bench.register(flexible("decode-1", host: "a"), on: 11)
        _ = bench.register(flexible("decode-2", host: "b"), on: 12)
        let workers = [(decode1, UInt64(11)), (decode2, UInt64(12))]
        _ = bench.run(.seconds(3), workers)
        #expect(bench.readers[2]?.view?.members.map(\.description.instance) == [decode1])
        _ = bench.beat(decode1, on: 11, running: 3)
        #expect(bench.tick(.seconds(1)).pushes == [])
        #expect(bench.close(12).pushes == [], "of another host")
        #expect(bench.close(11).pushes.count == 1)
        #expect(bench.shown(decode1, on: 2)?.state == .suspect)
    }

    @Test func `a large view and a large status travel in messages that can be sent`() throws {
        var bench = SchedulerBench()
        _ = bench.rules(Self.withoutRoles)
        let long = String(repeating: "x", count: 100)
        for number in 0..<1600 {
            var description = flexible("worker-\(number)-\(long)", host: "host-\(number / 8)")
            description.device = long
            _ = bench.register(description, on: UInt64(1000 + number))
        }
        _ = bench.tick(.seconds(1))
        for host in 0..<200 {
            let findings = (0..<8).map {
                finding(
                    InstanceID("worker-\(host * 8 + $0)-\(long)"), complaint: long + long + long)
            }
            _ = bench.report(findings, host: "host-\(host)", on: UInt64(10_000 + host))
        }
        _ = bench.tick(.seconds(1))
        let pages = bench.subscribe(on: 1).pushes
        #expect(pages.count > 1)
        for case .push(let page, _) in pages { _ = try encodeFrame(.groupView(page)) }
        let whole = bench.machine.status
        #expect(bench.readers[1]?.view == whole.view)
        let parts = whole.pages()
        #expect(parts.count > 3)
        for part in parts { _ = try encodeFrame(.clusterStatus(part)) }
        #expect(parts.map(\.view.isPartial) == parts.indices.map { $0 < parts.count - 1 })
        var sum = try #require(parts.first)
        for part in parts.dropFirst() { sum.append(part) }
        #expect(sum == whole)
    }

    /// No worker has the scenario's model, so that all are spares.
    private static var withoutRoles: ClusterSpec {
        var scenario = ScenarioSpec(name: "other")
        scenario.model = "another"
        return ClusterSpec(scenarios: [scenario])
    }

    /// What the machine looked at, in members, for one heartbeat, for a tick and for a push.
    private func work(members: Int) -> (beat: Int, ticks: [Int], pushed: [SchedulerAction]) {
        var limits = SchedulerLimits()
        limits.lease = .seconds(60)
        var bench = SchedulerBench(limits: limits)
        _ = bench.rules(Self.withoutRoles)
        _ = bench.subscribe(on: 1)
        for number in 0..<members {
            // Each beats at another time, as in life.
            bench.now = MonotonicTime.start + .microseconds(Int64(number * 100))
            let role = number % 2 == 0 ? Role.prefillWorker : .decodeWorker
            _ = bench.register(
                flexible("worker-\(number)", role), on: UInt64(1000 + number))
        }
        bench.now = seconds(1.2)
        _ = bench.tickOnce()
        _ = bench.tick(.milliseconds(300))
        func looked(_ body: () -> Void) -> Int {
            let before = bench.machine.examinedMembers
            body()
            return bench.machine.examinedMembers - before
        }
        let beat = looked { _ = bench.beat(InstanceID("worker-0"), on: 1000, isObedient: false) }
        _ = bench.tick(.milliseconds(500))
        _ = bench.beat(InstanceID("worker-1"), on: 1001, running: 2, isObedient: false)
        let pushed = bench.tick(.milliseconds(500)).pushes
        return (beat, (0..<9).map { _ in looked { _ = bench.tick(.milliseconds(100)) } }, pushed)
    }

    @Test func `a heartbeat and a tick cost the same in a large cluster as in a small one`() throws
    {
        for members in [20, 10_000] {
            let (beat, ticks, pushed) = work(members: members)
            #expect(beat == 1, "\(members) members")
            // Nobody's lease ends; one look at all of them in a second.
            #expect(ticks.count { $0 >= members } <= 1, "\(members) members: \(ticks)")
            #expect(ticks.count { $0 == 0 } >= 8, "\(members) members: \(ticks)")
            let changes = pushed.compactMap { action in
                if case .pushChange(let change, _) = action { change } else { nil }
            }
            #expect(changes.reduce(0) { $0 + $1.readings.count + $1.members.count } <= 1)
        }
    }

    @Test func `losses in a large cluster are shown at once and decided upon together`() {
        let members = 4000
        var limits = SchedulerLimits()
        limits.lease = .seconds(60)
        var bench = SchedulerBench(limits: limits)
        _ = bench.rules(Self.withoutRoles)
        _ = bench.subscribe(on: 1)
        for number in 0..<members {
            bench.now = MonotonicTime.start + .microseconds(Int64(number * 100))
            _ = bench.register(
                flexible("worker-\(number)", .decodeWorker), on: UInt64(1000 + number))
        }
        _ = bench.tick(.seconds(3))
        let before = bench.machine.examinedMembers
        for number in 0..<20 {
            _ = bench.close(UInt64(1000 + number))
            _ = bench.tick(.milliseconds(100))
            let lost = bench.readers[1]?.view?.members.count { $0.state == .suspect }
            #expect(lost == number + 1)
        }
        // 2 s; one decision takes the losses of 400 ms together.
        let decisions = (bench.machine.examinedMembers - before) / members
        #expect((1...7).contains(decisions), "\(decisions)")
    }
}

extension GroupMember {
    fileprivate var withoutStatus: GroupMember {
        var member = self
        member.status = InstanceStatus()
        return member
    }
}
