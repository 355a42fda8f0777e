import ClusterRules
import Grouping
import ServingTypes
import Testing

@Suite("Ratio and spikes")
struct RatioTests {
    static func cluster(
        prefill: Int, decode: Int, _ change: (inout ScenarioSpec) -> Void = { _ in }
    ) -> TestCluster {
        var cluster = TestCluster(GroupTests.scenario(change))
        for number in 0..<prefill { cluster.add("p\(number)", .prefill) }
        for number in 0..<decode { cluster.add("d\(number)", .decode) }
        cluster.run(.seconds(3))
        return cluster
    }

    /// Runs and reports the same traffic every 2 s.
    static func run(_ cluster: inout TestCluster, seconds: Int, _ report: GroupTraffic) {
        for _ in 0..<seconds / 2 {
            cluster.report(report)
            cluster.run(.seconds(2))
        }
    }

    @Test(
        "rates lead to the best ratio of eq. (1), one step at a time, and stay there",
        arguments: [(1, 7, 4000.0, 50.0), (6, 2, 500.0, 200.0), (2, 10, 200.0, 10.0)])
    func startingRatio(prefill: Int, decode: Int, rate: Double, step: Double) {
        var cluster = Self.cluster(prefill: prefill, decode: decode)
        cluster.setRates(prefillTokensPerSecond: rate, decodeStepMilliseconds: step)
        let total = prefill + decode
        let times = PhaseTimes(
            prefillSeconds: 1024 / rate, decodeSeconds: 128 * step / 1000, prefillBatch: 1,
            decodeBatch: 4)
        let best =
            (1..<total).map {
                times.requestsPerSecond(prefill: $0, decode: total - $0)
            }.max() ?? 0
        cluster.run(.seconds(32 * total)) { #expect($0.shown(.spare) <= 1) }
        let reached = times.requestsPerSecond(
            prefill: cluster.shown(.prefill), decode: cluster.shown(.decode))
        #expect(reached * (1 + cluster.limits.improvement) >= best)
        let orders = cluster.orders.count
        cluster.run(.seconds(300))
        #expect(cluster.orders.count == orders)
        #expect(cluster.allDecisions.allSatisfy { !$0.reason.isEmpty })
    }

    @Test("predicted rates lead to the ratio until workers have measured theirs")
    func predictedThenMeasured() {
        var cluster = Self.cluster(prefill: 3, decode: 3)
        // Of the expected 1024 and 128 tokens: 4 requests/s prefilled, 5 decoded by each.
        cluster.predictRates(prefillTokensPerSecond: 4096, decodeStepMilliseconds: 6.25)
        cluster.run(.seconds(120))
        #expect(cluster.shown(.prefill) == 3 && cluster.shown(.decode) == 3)
        // Five times as slow: 1 request/s decoded by each.
        cluster.predictRates(prefillTokensPerSecond: 4096, decodeStepMilliseconds: 31.25)
        cluster.run(.seconds(120))
        #expect(cluster.shown(.prefill) == 2 && cluster.shown(.decode) == 4)
        // What is measured wins over what was predicted.
        var measured = Self.cluster(prefill: 3, decode: 3)
        measured.predictRates(prefillTokensPerSecond: 4096, decodeStepMilliseconds: 31.25)
        measured.setRates(prefillTokensPerSecond: 4096, decodeStepMilliseconds: 6.25)
        measured.run(.seconds(120))
        #expect(measured.shown(.prefill) == 3 && measured.shown(.decode) == 3)
    }

    @Test("a step by what was expected does not hold up one by what was measured")
    func expectedThenMeasured() {
        var cluster = Self.cluster(prefill: 4, decode: 2)
        // Of the expected 1024 and 128 tokens: 16 requests/s prefilled, less than 1 decoded.
        cluster.setRates(prefillTokensPerSecond: 4000, decodeStepMilliseconds: 100)
        cluster.run(.seconds(5))
        #expect(cluster.shown(.prefill) == 3 && cluster.shown(.decode) == 3)
        // A step back would have to wait four times as long as the next one.
        Self.run(
            &cluster, seconds: 40,
            traffic(
                "chat/1", scenario: "chat", count: 10, prefill: .seconds(2),
                endToEnd: .seconds(3), prompt: 8000, output: 10))
        #expect(cluster.shown(.prefill) == 4 && cluster.shown(.decode) == 2)
    }

    @Test("E2E and T_p/E2E rise: one more prefill; the figures are told")
    func signalPrefill() {
        var cluster = Self.cluster(prefill: 2, decode: 4)
        // By rates: 4 requests/s of 2 prefill-workers, and no more of 3 and 3.
        cluster.setRates(prefillTokensPerSecond: 2000, decodeStepMilliseconds: 30)
        Self.run(
            &cluster, seconds: 60,
            traffic(
                "chat/1", scenario: "chat", count: 10, prefill: .milliseconds(500),
                endToEnd: .milliseconds(3500)))
        #expect(cluster.shown(.prefill) == 2)
        Self.run(
            &cluster, seconds: 40,
            traffic(
                "chat/1", scenario: "chat", count: 10, prefill: .milliseconds(1200),
                endToEnd: .milliseconds(4200)))
        #expect(cluster.shown(.prefill) == 3 && cluster.shown(.decode) == 3)
        #expect(cluster.says("T_p/E2E"))
        #expect(cluster.says("one more prefill; d"))
    }

    @Test("E2E rises and T_p/E2E falls: one more decode")
    func signalDecode() {
        var cluster = Self.cluster(prefill: 4, decode: 2)
        let calm = traffic(
            "chat/1", scenario: "chat", count: 10, prefill: .milliseconds(500),
            endToEnd: .milliseconds(2500))
        Self.run(&cluster, seconds: 60, calm)
        let before = cluster.shown(.decode)
        Self.run(
            &cluster, seconds: 40,
            traffic(
                "chat/1", scenario: "chat", count: 10, prefill: .milliseconds(500),
                endToEnd: .milliseconds(4500)))
        #expect(cluster.shown(.decode) == before + 1)
    }

    @Test("rejections while decode is idle ask for prefill, refusals for decode")
    func standingNeeds() {
        for isPrefill in [true, false] {
            var cluster = Self.cluster(prefill: 3, decode: 3)
            for id in cluster.processes.keys where !isPrefill {
                cluster.processes[id]?.status.runningSequences = 2
            }
            for id in cluster.processes.keys where isPrefill {
                cluster.processes[id]?.status.freePrefillSlots = 1
            }
            Self.run(
                &cluster, seconds: 30,
                traffic(
                    "chat/1", scenario: "chat", count: 0, prefill: .zero, endToEnd: .zero,
                    waiting: 1, rejected: isPrefill ? 9 : 0, refused: isPrefill ? 0 : 9))
            #expect(cluster.shown(isPrefill ? .prefill : .decode) == 4)
            #expect(cluster.says(isPrefill ? "offers rejected" : "reservations refused"))
        }
    }

    @Test("the started ratio stays where rules say so, and floors always hold")
    func asStarted() {
        var cluster = Self.cluster(prefill: 1, decode: 7) { $0.ratio = .asStarted }
        cluster.setRates(prefillTokensPerSecond: 100, decodeStepMilliseconds: 1)
        cluster.run(.seconds(200))
        #expect(cluster.shown(.prefill) == 1)
        var floored = Self.cluster(prefill: 1, decode: 4) { $0.decode.minimum = 3 }
        floored.setRates(prefillTokensPerSecond: 100, decodeStepMilliseconds: 1)
        floored.run(.seconds(300)) { #expect($0.shown(.decode) >= 3) }
        #expect(floored.shown(.prefill) == 2 && floored.shown(.decode) == 3)
    }

    @Test("signals back and forth come to an end while traffic is of one kind")
    func damping() {
        var cluster = Self.cluster(prefill: 3, decode: 3)
        for _ in 0..<60 {
            for isPrefill in [true, false] {
                for id in cluster.processes.keys {
                    cluster.processes[id]?.status.freePrefillSlots = isPrefill ? 0 : 1
                    cluster.processes[id]?.status.runningSequences = isPrefill ? 0 : 4
                }
                // Waiting is too short to be a spike.
                Self.run(
                    &cluster, seconds: 50,
                    traffic(
                        "chat/1", scenario: "chat", count: 0, prefill: .zero, endToEnd: .zero,
                        waiting: 1, rejected: isPrefill ? 9 : 0, refused: isPrefill ? 0 : 9))
            }
        }
        let steps = cluster.allDecisions.count {
            $0.action.contains("becomes prefill") || $0.action.contains("becomes decode")
        }
        #expect((1...16).contains(steps), "\(steps) steps")
    }

    @Test("a spike makes an idle decode-worker mixed at once; it returns when nothing waits")
    func spike() {
        var cluster = Self.cluster(prefill: 1, decode: 3)
        cluster["p0"]?.status.freePrefillSlots = 0
        var wave = traffic(
            "chat/1", scenario: "chat", count: 5, prefill: .milliseconds(500),
            endToEnd: .seconds(1), waiting: 12)
        cluster.report(wave)
        cluster.run(.seconds(1)) { #expect($0.shown(.decode) + $0.shown(.mixed) == 3) }
        #expect(cluster.shown(.mixed) == 1)
        let order = cluster.orders.last?.assign
        #expect(order?.role == .mixed && order?.stepLimit == .milliseconds(160))
        wave.waiting = 0
        cluster.report(wave)
        cluster["p0"]?.status.freePrefillSlots = 1
        cluster.run(.seconds(10)) { #expect($0.shown(.decode) + $0.shown(.mixed) == 3) }
        #expect(cluster.shown(.mixed) == 0 && cluster.shown(.decode) == 3)
    }

    @Test("a long stay as mixed becomes a change of role")
    func longSpike() {
        var cluster = Self.cluster(prefill: 1, decode: 3)
        cluster["p0"]?.status.freePrefillSlots = 0
        let wave = traffic(
            "chat/1", scenario: "chat", count: 1, prefill: .milliseconds(500),
            endToEnd: .milliseconds(501), waiting: 3)
        Self.run(&cluster, seconds: 80, wave)
        #expect(cluster.shown(.prefill) == 2)
        #expect(cluster.says("mixed for 6"))
    }

    @Test("wanted numbers follow traffic, with floors, and fall late")
    func wanted() {
        var cluster = Self.cluster(prefill: 1, decode: 2) {
            $0.decode.minimum = 2
            $0.ratio = .asStarted
        }
        func wanted(_ role: ServingRole, _ cluster: TestCluster) -> Int? {
            cluster.controller.wanted().first { $0.scenario == "chat" && $0.role == role }?.wanted
        }
        #expect(wanted(.decode, cluster) == 2)
        cluster.setRates(prefillTokensPerSecond: 1000, decodeStepMilliseconds: 20)
        // 5 requests/s of 1000 prompt tokens at 80 %: 6.25 prefill; T_d 2 s over 4: 3.1 decode.
        let busy = traffic(
            "chat/1", scenario: "chat", count: 10, prefill: .seconds(1), endToEnd: .seconds(3))
        Self.run(&cluster, seconds: 60, busy)
        #expect(wanted(.prefill, cluster) == 7)
        #expect(wanted(.decode, cluster) == 4)
        cluster.run(.seconds(50))
        #expect(wanted(.prefill, cluster) == 7)
        cluster.run(.seconds(120))
        #expect(wanted(.prefill, cluster) == 1)
        #expect(wanted(.decode, cluster) == 2)
        #expect(cluster.controller.wanted().first?.present == 1)
    }

    @Test("wanted numbers are those a person set, whatever the traffic")
    func wantedByScale() {
        var cluster = Self.cluster(prefill: 1, decode: 2)
        #expect(cluster.command("scale", ["prefill": "3", "decode": "1"]).isAccepted)
        cluster.run(.seconds(2))
        #expect(cluster.controller.wanted().map(\.wanted) == [3, 1])
    }

    @Test("a gateway that is gone leaves no waiting behind")
    func forgotten() {
        var cluster = Self.cluster(prefill: 1, decode: 3)
        cluster["p0"]?.status.freePrefillSlots = 0
        cluster.report(
            traffic(
                "chat/1", scenario: "chat", count: 0, prefill: .zero, endToEnd: .zero,
                waiting: 12))
        cluster.controller.forget(gateway: InstanceID("gateway-1"))
        cluster.run(.seconds(10))
        #expect(cluster.shown(.mixed) == 0 && cluster.shown(.decode) == 3)
    }
}
