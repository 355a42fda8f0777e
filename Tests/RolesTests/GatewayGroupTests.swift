import ClusterRules
import Roles
import ServingTypes
import Testing

/// Scenarios, groups of workers, and roles that change.
@Suite struct GatewayGroupTests {
    static let chat1 = GroupID("chat/1")
    static let chat2 = GroupID("chat/2")

    func group(
        _ id: GroupID, _ fingerprint: ModelFingerprint = model, scenario: String = "chat",
        state: ServingGroup.State = .open, weight: Int = 100
    ) -> ServingGroup {
        ServingGroup(
            id: id, scenario: scenario, modelName: "small", fingerprint: fingerprint, state: state,
            weight: weight)
    }

    /// A pair of workers for each group: `p-chat/1` and `d-chat/1` in `chat/1`.
    func members(
        _ groups: [(GroupID, ModelFingerprint)], incarnation: UInt64 = 1
    ) -> [GroupMember] {
        groups.flatMap { id, fingerprint in
            [
                serving(
                    worker(
                        InstanceID("d-\(id)"), .decodeWorker, sequences: 99, capacity: 10_000,
                        fingerprint: fingerprint), group: id),
                serving(
                    worker(
                        InstanceID("p-\(id)"), .prefillWorker, slots: 99,
                        fingerprint: fingerprint), group: id),
            ]
        }.sorted { $0.description.instance < $1.description.instance }
    }

    func bench(
        _ groups: [ServingGroup], limits: GatewayLimits = GatewayLimits()
    ) -> GatewayBench {
        var bench = GatewayBench([], limits: limits)
        let members = members(groups.map { ($0.id, $0.fingerprint) })
        _ = bench.show(members, groups: groups)
        for member in members { _ = bench.connect(member.description.instance) }
        return bench
    }

    func submit(
        _ number: UInt64, _ scenario: String = "chat", to bench: inout GatewayBench,
        mayChangeRevision: Bool = true
    ) -> [GatewayAction] {
        bench.submit(number) { job in
            job.scenario = scenario
            job.mayChangeRevision = mayChangeRevision
        }
    }

    @Test func `a request is served by a group of its scenario`() {
        let other = GroupID("batch/1")
        var bench = bench([group(Self.chat1), group(other, scenario: "batch")])
        #expect(submit(1, "batch", to: &bench).reservedAt == [InstanceID("d-batch/1")])
        #expect(
            bench.grant(attempt(1), from: InstanceID("d-batch/1")).offeredTo
                == [InstanceID("p-batch/1")])
        #expect(submit(2, "chat", to: &bench).reservedAt == [InstanceID("d-chat/1")])
    }

    @Test func `a scenario without groups is served by any group of its model`() {
        var bench = bench([group(Self.chat1)])
        #expect(submit(1, "unheard of", to: &bench).reservedAt == [InstanceID("d-chat/1")])
        let other = group(GroupID("own/1"), otherModel, scenario: "unheard of", state: .forming)
        _ = bench.show(bench.view.members, groups: [group(Self.chat1), other])
        #expect(submit(2, "unheard of", to: &bench) == [], "its own one has another revision")
    }

    @Test func `until its first group opens, a scenario uses those of its model revision`() {
        let own = GroupID("own/1")
        var bench = bench([
            group(Self.chat1), group(Self.chat2, otherModel),
            group(own, scenario: "own", state: .forming),
        ])
        let chat = [InstanceID("d-chat/1")]
        for number in UInt64(1)...8 {
            #expect(submit(number, "own", to: &bench).reservedAt == chat)
        }
        var groups = bench.view.groups
        groups[2].state = .open
        _ = bench.show(bench.view.members, groups: groups)
        #expect(submit(11, "own", to: &bench).reservedAt == [InstanceID("d-own/1")])
        // Its own group is waited for from now on, and so is what it lacks.
        let members = bench.view.members.filter { $0.group != own }
        _ = bench.show(members, groups: groups)
        #expect(submit(12, "own", to: &bench) == [])
        // Once it has none, who waits goes on elsewhere.
        groups.remove(at: 2)
        #expect(bench.show(members, groups: groups).reservations.contains(attempt(12)))
    }

    @Test func `open groups share requests by weight`() {
        var bench = bench([group(Self.chat1, weight: 30), group(Self.chat2, weight: 10)])
        var first = 0
        for number in UInt64(1)...400 {
            let asked = submit(number, to: &bench).reservedAt
            if asked == [InstanceID("d-chat/1")] { first += 1 }
            _ = bench.machine.cancel(request(number))
        }
        #expect((270...330).contains(first), "\(first) of 400")
    }

    @Test func `a group of no weight takes nothing beside others, and a lone one everything`() {
        var bench = bench([group(Self.chat1, weight: 0), group(Self.chat2, weight: 10)])
        for number in UInt64(1)...20 {
            #expect(submit(number, to: &bench).reservedAt == [InstanceID("d-chat/2")])
        }
        var lone = self.bench([group(Self.chat1, weight: 0)])
        #expect(submit(1, to: &lone).reservedAt == [InstanceID("d-chat/1")])
    }

    @Test(arguments: [ServingGroup.State.forming, .draining])
    func `a group that is not open takes no new requests`(state: ServingGroup.State) {
        var bench = bench([group(Self.chat1, state: state)])
        #expect(!bench.machine.canServe)
        #expect(submit(1, to: &bench) == [])
        let woken = bench.show(bench.view.members, groups: [group(Self.chat1)])
        #expect(woken.reservedAt == [InstanceID("d-chat/1")])
        #expect(bench.machine.canServe)
    }

    @Test func `a group that cannot serve now is passed over, and waited for if it is alone`() {
        var bench = bench([group(Self.chat1), group(Self.chat2)])
        _ = bench.disconnect(InstanceID("p-chat/1"))
        for number in UInt64(1)...10 {
            #expect(submit(number, to: &bench).reservedAt == [InstanceID("d-chat/2")])
        }
        _ = bench.disconnect(InstanceID("d-chat/2"))
        for number in UInt64(1)...10 { _ = bench.machine.cancel(request(number)) }
        #expect(submit(11, to: &bench) == [])
        #expect(
            bench.connect(InstanceID("p-chat/1")).reservedAt == [InstanceID("d-chat/1")])
    }

    @Test func `those who wait in a group that begins to drain go to an open one`() {
        var bench = bench([group(Self.chat1)])
        _ = submit(1, to: &bench)
        _ = bench.refuse(attempt(1), from: InstanceID("d-chat/1"))
        let members = members([(Self.chat1, model), (Self.chat2, otherModel)])
        _ = bench.show(members, groups: [group(Self.chat1), group(Self.chat2, otherModel)])
        _ = bench.connect(InstanceID("d-chat/2"))
        #expect(bench.connect(InstanceID("p-chat/2")).reservations == [])
        let moved = bench.show(
            members, groups: [group(Self.chat1, state: .draining), group(Self.chat2, otherModel)])
        #expect(moved.reservedAt == [InstanceID("d-chat/2")])
        #expect(moved.restarts == [], "no worker knew of it")
    }

    @Test func `what runs in a draining group ends there`() {
        var bench = bench([group(Self.chat1)])
        _ = submit(1, to: &bench)
        let members = members([(Self.chat1, model), (Self.chat2, otherModel)])
        _ = bench.show(
            members, groups: [group(Self.chat1, state: .draining), group(Self.chat2, otherModel)])
        #expect(
            bench.grant(attempt(1), from: InstanceID("d-chat/1")).offeredTo
                == [InstanceID("p-chat/1")])
        _ = bench.accept(attempt(1), from: InstanceID("p-chat/1"))
        let end = bench.tokens(
            attempt(1), at: 0, 7, 8, finish: .stop, from: InstanceID("d-chat/1"))
        #expect(end.last == .finish(request(1), .stop))
    }

    /// A request of group 1 with `tokens` delivered, and two groups of different revisions.
    private func upgraded(
        delivered tokens: Int, state: ServingGroup.State?
    ) -> GatewayBench {
        var bench = bench([group(Self.chat1)])
        _ = submit(1, to: &bench)
        _ = bench.grant(attempt(1), from: InstanceID("d-chat/1"))
        _ = bench.accept(attempt(1), from: InstanceID("p-chat/1"))
        if tokens > 0 { _ = bench.tokens(attempt(1), at: 0, 7, from: InstanceID("p-chat/1")) }
        var groups = [group(Self.chat2, otherModel)]
        if let state { groups.insert(group(Self.chat1, state: state), at: 0) }
        _ = bench.show(
            members([(Self.chat1, model), (Self.chat2, otherModel)]), groups: groups)
        for name in ["d-chat/2", "p-chat/2"] { _ = bench.connect(InstanceID(name)) }
        return bench
    }

    @Test func `a restart stays with its revision, even in a group that drains`() {
        for tokens in 0...1 {
            var bench = upgraded(delivered: tokens, state: .draining)
            let again = bench.fail(attempt(1), from: InstanceID("p-chat/1"))
            #expect(again.reservedAt == [InstanceID("d-chat/1")], "\(tokens) tokens")
        }
    }

    @Test func `without its revision a request begins anew on another one, if nothing is out`() {
        var bench = upgraded(delivered: 0, state: nil)
        let again = bench.fail(attempt(1), from: InstanceID("p-chat/1"))
        #expect(again.reservedAt == [InstanceID("d-chat/2")])
        bench = upgraded(delivered: 1, state: nil)
        let failures = bench.fail(attempt(1), from: InstanceID("d-chat/1")).failures
        guard case .attemptsExhausted(2, let reason) = failures.only else {
            Issue.record("\(failures)")
            return
        }
        #expect(reason.contains("revision"))
    }

    @Test func `a request that may not change its revision does not`() {
        var bench = bench([group(Self.chat1)])
        _ = submit(1, to: &bench, mayChangeRevision: false)
        _ = bench.grant(attempt(1), from: InstanceID("d-chat/1"))
        _ = bench.accept(attempt(1), from: InstanceID("p-chat/1"))
        _ = bench.show(
            members([(Self.chat2, otherModel)]), groups: [group(Self.chat2, otherModel)])
        for name in ["d-chat/2", "p-chat/2"] { _ = bench.connect(InstanceID(name)) }
        #expect(bench.machine.requestCount == 0, "there is no group of its revision any more")
    }

    @Test func `workers out of reach are waited for by what they began`() {
        var bench = bench([group(Self.chat1), group(Self.chat2, otherModel)])
        var number: UInt64 = 0
        repeat {
            number += 1
        } while submit(number, to: &bench).reservedAt != [InstanceID("d-chat/1")]
        _ = bench.grant(attempt(number), from: InstanceID("d-chat/1"))
        _ = bench.accept(attempt(number), from: InstanceID("p-chat/1"))
        _ = bench.tokens(attempt(number), at: 0, 7, 8, from: InstanceID("d-chat/1"))
        let lost = bench.disconnect(InstanceID("d-chat/1"))
        #expect(lost.restarts == [2])
        #expect(lost.reservations == [])
        _ = bench.connect(InstanceID("d-chat/1"))
        #expect(bench.tick(.milliseconds(250)).reservations.contains(attempt(number, 2)))
    }

    @Test func `a new scheduler's first views do not dissolve groups`() {
        var bench = bench([group(Self.chat1)])
        #expect(bench.show([], groups: [], epoch: 2) == [])
        #expect(submit(1, to: &bench).reservedAt == [InstanceID("d-chat/1")])
        #expect(bench.show(members([(Self.chat1, model)]), groups: [group(Self.chat1)]) == [])
        #expect(submit(2, to: &bench).reservedAt == [InstanceID("d-chat/1")])
    }

    // MARK: Roles

    @Test func `a spare takes nothing new and ends what it has`() {
        var bench = GatewayBench()
        bench.place(1)
        let members = [
            serving(worker(decode1, .decodeWorker), role: .spare),
            serving(worker(prefill1, .prefillWorker)),
        ]
        #expect(bench.show(members) == [])
        #expect(bench.submit(2) == [])
        #expect(bench.tokens(attempt(1), at: 0, 7, 8, from: decode1).delivered == [7, 8])
        #expect(
            bench.tokens(attempt(1), at: 2, 9, finish: .stop, from: decode1).last
                == .finish(request(1), .stop))
    }

    @Test func `a worker is used by the role it has, not by its kind`() {
        var bench = GatewayBench()
        let flipped = [
            serving(worker(decode1, .decodeWorker, slots: 2), role: .prefill),
            serving(worker(prefill1, .prefillWorker), role: .decode),
        ]
        _ = bench.show(flipped)
        #expect(bench.submit(1).reservedAt == [prefill1])
        #expect(bench.grant(attempt(1), from: prefill1).offeredTo == [decode1])
    }

    @Test func `a mixed worker is in both pools, and its own target`() throws {
        var bench = GatewayBench([worker(decode1, .decodeWorker)])
        _ = bench.show([serving(worker(decode1, .decodeWorker), role: .mixed)])
        #expect(bench.machine.canServe)
        #expect(bench.submit(1).reservedAt == [decode1])
        let offer = try #require(bench.grant(attempt(1)).prefillOffers.only)
        #expect(offer.target?.instance == decode1)
        #expect(!offer.isFallback)
        _ = bench.accept(attempt(1), from: decode1)
        #expect(
            bench.tokens(attempt(1), at: 0, 7, 8, finish: .stop, from: decode1)
                == [.deliver(request(1), outputs(7, 8)), .finish(request(1), .stop)])
        #expect(bench.machine.counts.deflected == 1)
    }

    @Test func `a worker that changed its role is asked without the limits of the old one`() {
        var bench = GatewayBench()
        _ = bench.submit(1)
        _ = bench.refuse(attempt(1))
        let other = serving(worker(prefill1, .prefillWorker))
        _ = bench.show([serving(worker(decode1, .decodeWorker), role: .spare), other])
        #expect(
            bench.show([serving(worker(decode1, .decodeWorker)), other]).reservations
                == [attempt(1)])
    }

    @Test func `readings change no list, and a changed group does`() {
        var bench = bench([group(Self.chat1)])
        var members = bench.view.members
        members[0].status.freeKVBytes = 10
        #expect(bench.show(members) == [])
        _ = submit(1, to: &bench)
        let none = bench.show(members, groups: [group(Self.chat1, state: .draining)])
        #expect(none == [], "what was asked goes on")
        #expect(submit(2, to: &bench) == [])
    }
}
