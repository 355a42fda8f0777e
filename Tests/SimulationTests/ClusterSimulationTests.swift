import ClusterSimulation
import ServingTypes
import Testing

@Suite struct ClusterSimulationTests {
    /// Few, since `simulate` runs a thousand in a release build.
    static let seeds: ClosedRange<UInt64> = 1...24

    @Test func `whatever goes wrong, each request ends once and rightly and nothing is left`() {
        var counts = SimulationCounts()
        for seed in Self.seeds {
            let simulation = ClusterSimulation(plan: ClusterPlan(seed: seed))
            simulation.run()
            #expect(
                simulation.violations.isEmpty,
                """
                seed \(seed), \(simulation.plan):
                \(simulation.violations.joined(separator: "\n"))
                """)
            counts.add(simulation.counts)
        }
        print("\(Self.seeds.count) simulations: \(counts)")
        #expect(counts.finished > 300)
        #expect(counts.restarted > 10 && counts.resumed > 3)
        #expect(counts.turns > 50)
        #expect(counts.credits > 500)
        #expect(counts.early > 50 && counts.late > 50 && counts.deflected > 10)
    }

    @Test func `a trace tells what happens and changes nothing`() {
        let silent = ClusterSimulation(plan: ClusterPlan(seed: 3))
        silent.run()
        let told = ClusterSimulation(plan: ClusterPlan(seed: 3))
        var lines: [String] = []
        told.trace = { lines.append($0) }
        told.run()
        #expect(told.digest == silent.digest && told.counts == silent.counts)
        #expect(lines.contains { $0.hasSuffix("scheduler starts") })
        #expect(lines.count { $0.hasSuffix(" finished") } == told.counts.finished)
    }

    @Test func `equal seeds give equal runs, other seeds other ones`() {
        var digests: Set<UInt64> = []
        for seed in UInt64(1)...4 {
            let runs = (0..<2).map { _ in
                let simulation = ClusterSimulation(plan: ClusterPlan(seed: seed))
                simulation.run()
                return simulation
            }
            #expect(runs[0].digest == runs[1].digest)
            #expect(runs[0].counts == runs[1].counts)
            digests.insert(runs[0].digest)
        }
        #expect(digests.count == 4)
    }

    @Test func `the model's answer depends on every token before`() {
        let answer = ModelFunction.answer(to: [1, 2, 3], maximumNewTokens: 20, seed: 5)
        #expect(
            answer.tokens
                == ModelFunction.answer(to: [1, 2, 3], maximumNewTokens: 20, seed: 5).tokens)
        #expect(
            answer.tokens
                != ModelFunction.answer(to: [1, 2, 4], maximumNewTokens: 20, seed: 5).tokens)
        #expect(
            answer.tokens
                != ModelFunction.answer(to: [1, 2, 3], maximumNewTokens: 20, seed: 6).tokens)
        #expect(ModelFunction.answer(to: [1], maximumNewTokens: 1, seed: 2).tokens.count == 1)
    }
}
