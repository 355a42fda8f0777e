import ClusterSimulation
import Foundation
import ServingTypes
import Testing

@Suite struct ClusterSimulationTests {
    /// More with `SIMULATION_SEEDS=n`; from another one on with `SIMULATION_START=n`.
    static let seeds: ClosedRange<UInt64> = {
        let environment = ProcessInfo.processInfo.environment
        let count = environment["SIMULATION_SEEDS"].flatMap(UInt64.init) ?? 240
        let start = environment["SIMULATION_START"].flatMap(UInt64.init) ?? 1
        return start...(start + max(1, count) - 1)
    }()

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
        // The seeds must reach what they are meant to reach.
        guard Self.seeds == 1...240 else { return }
        #expect(counts.finished > 3000)
        #expect(counts.resumed > 50)
        #expect(counts.restarted > 300)
        #expect(counts.left > 100)
        #expect(counts.lost > 20)
        #expect(counts.turns > 500)
        #expect(counts.resends > 50)
        #expect(counts.reconnects > 100)
        #expect(counts.heldTokens > 5000)
        #expect(counts.credits > 5000)
        #expect(counts.discardedChunks > 50)
        #expect(counts.cutChunks > 50)
        #expect(counts.strandedLooks > 0)
        #expect(counts.early > 500)
        #expect(counts.late > 500)
        #expect(counts.deflected > 100)
        #expect(counts.decodeOnly > 10)
        #expect(counts.prefillOnly > 10)
        #expect(counts.moved > 50)
        #expect(counts.cachedTokens > 1000)
        for failure in [
            "too many requests", "overloaded", "too long", "attempts exhausted", "no worker",
        ] {
            #expect(counts.failed[failure, default: 0] > 0, "\(failure)")
        }
    }

    @Test func `equal seeds give equal runs, other seeds other ones`() {
        var digests: Set<UInt64> = []
        for seed in UInt64(1)...8 {
            let runs = (0..<2).map { _ in
                let simulation = ClusterSimulation(plan: ClusterPlan(seed: seed))
                simulation.run()
                return simulation
            }
            #expect(runs[0].digest == runs[1].digest)
            #expect(runs[0].counts == runs[1].counts)
            digests.insert(runs[0].digest)
        }
        #expect(digests.count == 8)
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

extension SimulationCounts {
    mutating func add(_ other: SimulationCounts) {
        events += other.events
        submitted += other.submitted
        finished += other.finished
        failed.merge(other.failed, uniquingKeysWith: +)
        left += other.left
        lost += other.lost
        restarted += other.restarted
        resumed += other.resumed
        tokens += other.tokens
        faults += other.faults
        turns += other.turns
        resends += other.resends
        reconnects += other.reconnects
        heldTokens += other.heldTokens
        credits += other.credits
        discardedChunks += other.discardedChunks
        cutChunks += other.cutChunks
        strandedLooks += other.strandedLooks
        early += other.early
        late += other.late
        deflected += other.deflected
        decodeOnly += other.decodeOnly
        prefillOnly += other.prefillOnly
        reportedArrivals += other.reportedArrivals
        reportedEnds += other.reportedEnds
        moved += other.moved
        cachedTokens += other.cachedTokens
    }
}
