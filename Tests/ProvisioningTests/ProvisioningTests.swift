import Foundation
import Provisioning
import Synchronization
import Testing

@Suite("How many machines")
struct ProvisioningTests {
    typealias Search = ProvisioningSearch<Double>

    static let split = ClusterDesign(
        name: "split",
        machines: .split(
            prefill: MachinePrice(cost: 4.76, power: 44),
            decode: MachinePrice(cost: 2.21, power: 24.8)))

    /// A cluster serves what its scarcer side does; `bend` makes the sides help each other.
    static func search(
        prefill: Double, decode: Double, bend: Double = 0, threads: Int = 1,
        design: ClusterDesign = Self.split
    ) -> Search {
        var limits = ProvisioningLimits()
        limits.threads = threads
        limits.machinesPerUse = 40
        return Search(design: design, limits: limits) { counts, rate in
            let one = Double(counts.prefill) * prefill + Double(counts.mixed) * 2
            let other = Double(counts.decode) * decode + Double(counts.mixed) * 2
            let able = min(one, other) + bend * (one + other)
            return Verdict(meetsGoals: rate <= able, figures: able)
        }
    }

    @Test("the least machines are those of asking about all numbers, with fewer questions")
    func least() async {
        for (index, measure) in [Measure.cost, .power, .machines].enumerated() {
            for (prefill, decode, bend) in [(1.0, 3.0, 0.0), (2.7, 0.9, 0.05), (0.8, 0.8, 0.3)] {
                for rate in [1.0, 13, 20 + Double(index)] {
                    let search = Self.search(prefill: prefill, decode: decode, bend: bend)
                    let quick = await search.least(measure, perSecond: rate)
                    let full = await search.everything(
                        upTo: MachineCounts(prefill: 40, decode: 40), measure, perSecond: rate)
                    let one = quick.best.map { search.design.amount(measure, of: $0.counts) }
                    let other = full.best.map { search.design.amount(measure, of: $0.counts) }
                    #expect(one == other && one != nil)
                    #expect(full.evaluations == 1600 && quick.evaluations < 250)
                    #expect(quick.isComplete)
                }
            }
        }
    }

    @Test("a rate that no number of machines reaches has no answer")
    func impossible() async {
        let answer = await Self.search(prefill: 1, decode: 1).least(.cost, perSecond: 41)
        #expect(answer.best == nil && answer.isComplete)
    }

    @Test("the highest rate within a budget, over all splits of it")
    func throughput() async {
        for (prefill, decode) in [(1.0, 3.0), (2.7, 0.9)] {
            let search = Self.search(prefill: prefill, decode: decode)
            let answer = await search.mostThroughput(within: Budget(.cost, 60))
            var best = 0.0
            for first in 1...12 {
                let second = Int((60 - Double(first) * 4.76) / 2.21)
                if second > 0 {
                    best = max(best, min(Double(first) * prefill, Double(second) * decode))
                }
            }
            #expect(answer.best?.perSecond == best.rounded(.down))
            #expect(answer.best.map { $0.cost <= 60 } == true)
            #expect(answer.best.map { $0.figures >= $0.perSecond } == true)
        }
        let mixed = ClusterDesign(name: "mixed", machines: .mixed(MachinePrice(cost: 2, power: 1)))
        let answer = await Self.search(prefill: 0, decode: 0, design: mixed)
            .mostThroughput(within: Budget(.cost, 21))
        #expect(answer.best?.counts == MachineCounts(mixed: 10))
        #expect(answer.best?.perSecond == 20)
    }

    @Test("answers don't depend on the number of threads")
    func threads() async {
        for threads in [2, 5] {
            let one = Self.search(prefill: 1.3, decode: 2.1, bend: 0.1)
            let many = Self.search(prefill: 1.3, decode: 2.1, bend: 0.1, threads: threads)
            let budget = Budget(.power, 900)
            let (first, second) = (
                await one.mostThroughput(within: budget), await many.mostThroughput(within: budget)
            )
            #expect(first.best?.counts == second.best?.counts)
            #expect(first.equals == second.equals && first.evaluations == second.evaluations)
            let (third, fourth) = (
                await one.least(.power, perSecond: 30), await many.least(.power, perSecond: 30)
            )
            #expect(third.best?.counts == fourth.best?.counts)
            #expect(third.evaluations == fourth.evaluations)
        }
    }

    @Test("a search that is cancelled answers with what it has")
    func cancelled() async {
        let count = Counter()
        var limits = ProvisioningLimits()
        limits.machinesPerUse = 40
        let search = Search(design: Self.split, limits: limits) { counts, rate in
            if count.next() == 20 {
                while !Task.isCancelled { usleep(100) }
            }
            return Verdict(
                meetsGoals: rate <= Double(min(counts.prefill, counts.decode)), figures: 0)
        }
        let task = Task { await search.least(.cost, perSecond: 3) }
        while count.value < 20 { await Task.yield() }
        task.cancel()
        let answer = await task.value
        #expect(!answer.isComplete)
        #expect(answer.best != nil)
        #expect(answer.evaluations == 20)
    }
}

final class Counter: Sendable {
    private let current = Mutex(0)

    var value: Int { current.withLock { $0 } }

    func next() -> Int {
        current.withLock {
            $0 += 1
            return $0
        }
    }
}
