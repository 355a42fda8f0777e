import Provisioning
import RequestTraces
import SplitwiseSimulation
import Testing

@Suite("SplitwiseSim's own results")
struct ReferenceTests {
    @Test("the three requests of its example, to a microsecond")
    func example() throws {
        let trace = try RequestTrace(text: Reference.text("splitwise_test_trace.csv"))
        let base = try simulate(.baselineH100, 1, 0, trace)
        let split = try simulate(.ha, 1, 1, trace)
        let wanted: [(RequestOutcome, Double, Double, Double)] = [
            (base[0], 0.6495983, 1.7447430, 0), (base[1], 0.2519640, 0.4992547, 0),
            (base[2], 0.2519640, 0.7818727, 0), (split[0], 0.6495983, 2.1992263, 0.0765625),
            (split[1], 0.2519640, 0.6228730, 0.0382812),
            (split[2], 0.2519640, 1.0030189, 0.0382812),
        ]
        for (outcome, ttft, e2e, gap) in wanted {
            #expect(abs(outcome.ttftSeconds - ttft) < 1e-6)
            #expect(abs(outcome.e2eSeconds - e2e) < 1e-6)
            #expect(abs(Double(outcome.gapSeconds) - gap) < 1e-6)
        }
        #expect(abs(split[2].tbtSeconds - 0.0469409) < 1e-6)
    }

    @Test("every request of seven runs")
    func golden() throws {
        let rows = try Dictionary(grouping: Reference.rows("splitwise_sim_golden_small.csv.gz")) {
            $0[0...3].joined(separator: " ")
        }
        #expect(rows.count == 7)
        for (name, rows) in rows {
            let run = rows[0]
            let design = try #require(SplitwiseDesign(rawValue: run[0]))
            let outcomes = try simulate(
                design, #require(Int(run[1])), #require(Int(run[2])), Reference.trace(run[3])
            ).sorted { $0.number < $1.number }
            try #require(outcomes.count == 249 && rows.count == 249)
            var worst = 0.0
            for row in rows {
                let outcome = try outcomes[#require(Int(row[4]))]
                let times = [
                    outcome.e2eSeconds, outcome.ttftSeconds, outcome.tbtSeconds,
                    Double(outcome.gapSeconds),
                ]
                for (time, text) in zip(times, row[5...8]) {
                    let wanted = try #require(Double(text))
                    worst = max(worst, abs(time - wanted) / max(wanted, 1e-3))
                }
            }
            #expect(worst < 1e-6, "\(name)")
        }
    }

    /// A scheduler, the machines it has, and what it serves.
    struct Scheduled: Sendable {
        var name: String
        var policy: SplitwiseCluster.Policy
        var machines = (prompt: 3, token: 2)
        var trace = "rr_code_4_1min"
        var model = ServedModel.bloom176B
        var linkRate = 1.0
    }

    static let scheduled = [
        Scheduled(name: "shortest_queue", policy: .shortestQueue, machines: (3, 0)),
        Scheduled(name: "round_robin", policy: .roundRobin, machines: (3, 0)),
        Scheduled(name: "kv_shortest_queue", policy: .kvShortestQueue),
        Scheduled(name: "kv_round_robin", policy: .kvRoundRobin),
        Scheduled(name: "kv_fewest_tokens", policy: .kvFewestTokens, linkRate: 10),
        Scheduled(
            name: "mixed_pool_llama", policy: .mixedPool, machines: (1, 1),
            trace: "rr_conv_4_1min", model: .llama2With70B),
    ]

    @Test("every request with the other schedulers, and of another model")
    func policies() throws {
        let rows = try Dictionary(
            grouping: Reference.rows("splitwise_sim_golden_policies.csv.gz")
        ) { $0[0] }
        #expect(rows.count == Self.scheduled.count)
        for run in Self.scheduled {
            let curves = try Reference.table.curves(
                .init(model: run.model.name, hardware: "h100-80gb", tensorParallel: 8))
            let tag: SplitwiseCluster.Tag = run.policy.separatesPhases ? .prompt : .any
            var cluster = SplitwiseCluster(
                kinds: [curves],
                machines: Array(repeating: .init(kind: 0, tag: tag), count: run.machines.prompt)
                    + Array(repeating: .init(kind: 0, tag: .token), count: run.machines.token),
                model: run.model, policy: run.policy)
            cluster.linkBytesPerSecond *= run.linkRate
            let outcomes = try Run(cluster, Reference.trace(run.trace)).outcomes
                .sorted { $0.number < $1.number }
            let wanted = try #require(rows[run.name])
            try #require(outcomes.count == 249 && wanted.count == 249)
            for (outcome, row) in zip(outcomes, wanted) {
                let times = [
                    outcome.e2eSeconds, outcome.ttftSeconds, Double(outcome.gapSeconds),
                ]
                for (time, text) in zip(times, row[2...4]) {
                    #expect(abs(time - (try #require(Double(text)))) < 1e-6, "\(row)")
                }
            }
        }
    }

    @Test(
        "percentiles and verdicts of runs",
        arguments: [("rr_code_70_2min", "27"), ("rr_code_4_1min", "2"), ("rr_conv_4_1min", "1")])
    func percentiles(trace: String, machines: String) throws {
        let reference = try SplitwiseEvaluator.reference(
            model: .bloom176B, table: Reference.table)
        let rows = try Reference.rows("splitwise_sim_percentiles.csv")
            .filter { $0[0] == trace && $0[2] == machines }
        let requests = try Reference.trace(trace)
        #expect(!rows.isEmpty)
        for row in rows {
            let design = try #require(SplitwiseDesign(rawValue: row[1]))
            var judge = ServiceJudge(reference: reference)
            let outcomes = try simulate(
                design, #require(Int(row[2])), #require(Int(row[3])), requests)
            for outcome in outcomes { judge.record(outcome) }
            let figures = judge.figures
            let mine =
                figures.ttftSlowdown.all + figures.tbtSlowdown.all + figures.e2eSlowdown.all
            for (value, text) in zip(mine, row[4...12]) {
                // Two places are given.
                #expect(abs(value - (try #require(Double(text)))) < 0.0056, "\(row)")
            }
            #expect(figures.meets(.splitwise) == (row[13] == "1"), "\(row)")
        }
    }

    @Test("times between and outside of the measured points")
    func curves() throws {
        let table = Reference.table
        let curves = try table.curves(
            .init(model: "bloom-176b", hardware: "h100-80gb", tensorParallel: 8))
        #expect(abs(curves.prefill(2048) - 0.2519640) < 1e-6)
        let below = curves.decode(128) * 2 - curves.decode(256)
        #expect(abs(curves.decode(0) - below) < 1e-9)
        #expect(throws: PerformanceTable.Failure.self) {
            try table.curves(.init(model: "bloom-176b", hardware: "abacus", tensorParallel: 8))
        }
        #expect(throws: PerformanceTable.Failure.missingColumn("model")) {
            try PerformanceTable(text: "hardware,tensor_parallel\n")
        }
        #expect(throws: PerformanceTable.Failure.malformed(line: 2)) {
            try PerformanceTable(
                text: "model,hardware,tensor_parallel,prompt_size,batch_size,prompt_time,"
                    + "token_time\nbloom,h100,8,x,1,1,1\n")
        }
    }

    @Test("the least machines are those of asking about all numbers")
    func search() async throws {
        var lengths = try RequestTrace(text: Reference.text("rr_code_4_1min.csv.gz"))
        lengths.entries.removeAll { $0.outputTokens > 60 }
        for design in [SplitwiseDesign.hh, .ha, .baselineA100] {
            var evaluator = try SplitwiseEvaluator(
                design, model: .bloom176B, table: Reference.table, lengths: lengths)
            evaluator.seconds = 12
            let fixed = evaluator
            var limits = ProvisioningLimits()
            limits.machinesPerUse = design.isBaseline ? 16 : 7
            limits.threads = 2
            let search = ProvisioningSearch(design: design.priced, limits: limits) {
                fixed.evaluate($0, perSecond: $1)
            }
            let quick = await search.least(.cost, perSecond: 8)
            let limit = MachineCounts(prefill: 7, decode: 7, mixed: 16)
            let full = await search.everything(upTo: limit, .cost, perSecond: 8)
            #expect(quick.best?.counts == full.best?.counts)
            #expect(quick.best != nil && quick.best?.figures.meets(.splitwise) == true)
            #expect(quick.evaluations < full.evaluations)
        }
    }
}
