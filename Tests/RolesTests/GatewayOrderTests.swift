import ClusterRules
import Roles
import ServingTypes
import Testing

/// Who goes first among those who wait, and who waits no longer.
@Suite struct GatewayOrderTests {
    /// One prefill-worker that has said no; requests 2… wait for it with room.
    func bench(
        limits: GatewayLimits = GatewayLimits(), _ jobs: [(inout GenerationJob) -> Void]
    ) -> GatewayBench {
        var bench = GatewayBench(
            [worker(prefill1, .prefillWorker), worker(decode1, .decodeWorker, sequences: 9)],
            limits: limits)
        bench.hold(1)
        _ = bench.machine.cancel(request(1))
        for (number, adjust) in zip(UInt64(2)..., jobs) {
            _ = bench.submit(number, adjust: adjust)
            _ = bench.grant(attempt(number))
        }
        return bench
    }

    /// The order in which they go on.
    func order(_ bench: inout GatewayBench) -> [UInt64] {
        var order: [UInt64] = []
        while let next = bench.callSlots(1).offers.only {
            order.append(next.request.low)
            _ = bench.accept(next)
        }
        return order
    }

    @Test func `greater priority goes first`() {
        var bench = bench([{ $0.priority = 10 }, { $0.priority = 90 }, { $0.priority = 50 }])
        #expect(order(&bench) == [3, 4, 2])
    }

    @Test func `the earlier first token is due the earlier goes its request`() {
        var bench = bench([
            { _ in }, { $0.ttftLimit = .seconds(5) }, { $0.ttftLimit = .seconds(2) },
        ])
        #expect(order(&bench) == [4, 3, 2])
    }

    @Test func `tenants take turns`() {
        var bench = bench([
            { $0.tenant = "a" }, { $0.tenant = "a" }, { $0.tenant = "a" }, { $0.tenant = "b" },
        ])
        #expect(order(&bench) == [2, 5, 3, 4])
    }

    @Test func `a rejection gives the turn back`() {
        var bench = bench([{ $0.tenant = "a" }, { $0.tenant = "a" }, { $0.tenant = "b" }])
        #expect(bench.callSlots(1).offers == [attempt(2)])
        _ = bench.reject(attempt(2))
        #expect(order(&bench) == [2, 4, 3])
    }

    @Test func `a request without a slot when its first token is due is never forwarded again`() {
        var bench = bench([{ $0.ttftLimit = .seconds(3) }, { _ in }])
        _ = bench.tick(.milliseconds(200))
        let actions = bench.tick(.milliseconds(2800))
        #expect(actions.failures == [.overloaded(waited: .seconds(3))])
        #expect(actions.offers == [attempt(3)])
        #expect(bench.machine.counts.expired == 1)
        #expect(bench.machine.requestCount == 1)
    }

    @Test func `an answer that comes after that leads nowhere`() {
        var bench = GatewayBench()
        _ = bench.submit(1) { $0.ttftLimit = .seconds(1) }
        #expect(bench.tick(.seconds(2)) == [], "the decode-worker may still answer")
        let actions = bench.grant(attempt(1))
        #expect(actions.first == cancels(attempt(1), at: decode1))
        #expect(actions.failures == [.overloaded(waited: .seconds(2))])
        _ = bench.submit(2) { $0.ttftLimit = .seconds(1) }
        _ = bench.grant(attempt(2))
        bench.now = bench.now + .seconds(1)
        #expect(bench.reject(attempt(2)).failures == [.overloaded(waited: .seconds(1))])
    }

    @Test func `a slot in time is enough, whenever the first token comes`() {
        var bench = GatewayBench()
        _ = bench.submit(1) { $0.ttftLimit = .seconds(1) }
        _ = bench.grant(attempt(1))
        _ = bench.accept(attempt(1))
        #expect(bench.tick(.seconds(5)) == [])
        #expect(bench.tokens(attempt(1), at: 0, 7, from: prefill1).delivered == [7])
    }

    @Test func `a full queue turns new requests away`() {
        var limits = GatewayLimits()
        limits.maximumWaiting = 2
        var bench = bench(limits: limits, [{ _ in }, { _ in }])
        _ = bench.submit(4)
        #expect(bench.grant(attempt(4)).failures == [.tooManyRequests(limit: 2)])
        _ = bench.submit(5) { $0.priority = 90 }
        let shed = bench.grant(attempt(5))
        #expect(shed.failures == [.tooManyRequests(limit: 2)])
        #expect(order(&bench).first == 5)
    }

    // MARK: Reports

    @Test func `reports count what came, what ended and how long it took`() throws {
        var bench = GatewayBench()
        _ = bench.rule { spec in
            spec.ttftLimit = .seconds(3)
            spec.tpotLimit = .seconds(1)
        }
        _ = bench.submit(1)
        bench.now = seconds(1)
        _ = bench.grant(attempt(1))
        _ = bench.reject(attempt(1))
        let waiting = try #require(bench.machine.takeTraffic(now: bench.now).only)
        #expect(waiting.arrived == 1 && waiting.waiting == 1 && waiting.rejected == 1)
        _ = bench.callSlots(1)
        _ = bench.accept(attempt(1), cached: 2)
        bench.now = seconds(2.5)
        _ = bench.tokens(attempt(1), at: 0, 7, from: prefill1)
        bench.now = seconds(4.5)
        _ = bench.tokens(attempt(1), at: 1, 8, 9, finish: .stop, from: decode1)
        let report = try #require(bench.machine.takeTraffic(now: bench.now).only)
        var expected = GroupTraffic(group: report.group, scenario: "default")
        expected.completed = 1
        expected.good = 1
        expected.ttft = .milliseconds(2500)
        expected.prefill = .milliseconds(1500)
        expected.endToEnd = .milliseconds(3500)
        expected.promptTokens = 3
        expected.cachedTokens = 2
        expected.outputTokens = 3
        #expect(report == expected)
        #expect(bench.machine.takeTraffic(now: bench.now) == [])
    }

    @Test(arguments: [(4.0, 0.1), (1.0, 2.0)])
    func `an answer beyond its limits is no good one`(first: Double, perToken: Double) throws {
        var bench = GatewayBench()
        _ = bench.rule { spec in
            spec.ttftLimit = .seconds(3)
            spec.tpotLimit = .seconds(1)
        }
        bench.place(1)
        bench.now = seconds(first)
        _ = bench.tokens(attempt(1), at: 0, 7, from: prefill1)
        bench.now = seconds(first + perToken)
        _ = bench.tokens(attempt(1), at: 1, 8, finish: .stop, from: decode1)
        let report = try #require(bench.machine.takeTraffic(now: bench.now).only)
        #expect(report.completed == 1 && report.good == 0)
    }

    @Test func `failures and refusals are reported to their group`() throws {
        let chat = GroupID("chat/1")
        var bench = GatewayBench([])
        let members = [
            serving(worker(decode1, .decodeWorker), group: chat),
            serving(worker(prefill1, .prefillWorker), group: chat),
        ]
        _ = bench.show(
            members,
            groups: [
                ServingGroup(id: chat, scenario: "chat", modelName: "small", fingerprint: model)
            ])
        for instance in [decode1, prefill1] { _ = bench.connect(instance) }
        _ = bench.submit(1) { $0.scenario = "chat" }
        _ = bench.refuse(attempt(1))
        _ = bench.tick(.seconds(30))
        let report = try #require(bench.machine.takeTraffic(now: bench.now).only)
        #expect(report.group == chat && report.scenario == "chat")
        #expect(report.arrived == 1 && report.refused == 1 && report.failed == 1)
        #expect(report.waiting == 0)
    }
}
