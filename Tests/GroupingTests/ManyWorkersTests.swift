import ClusterRules
import Grouping
import ServingTypes
import Testing

/// Work is counted in seats looked at, so that no clock decides.
@Suite("Thousands of workers")
struct ManyWorkersTests {
    /// A cluster of one prefill-worker to three decode-workers, and what its start has cost.
    private static func cluster(_ count: Int) -> (cluster: TestCluster, examined: Int) {
        var cluster = TestCluster()
        for number in 0..<count { cluster.add("w\(number)", number % 4 == 0 ? .prefill : .decode) }
        cluster.tick()
        return (cluster, cluster.controller.examinedSeats)
    }

    @Test("ten times the workers cost ten times the work to seat")
    func arrivals() {
        let (small, few) = Self.cluster(1000)
        let (large, many) = Self.cluster(10_000)
        for (cluster, count) in [(small, 1000), (large, 10_000)] {
            #expect(cluster.shown(.prefill) == count / 4)
            #expect(cluster.shown(.decode) == count - count / 4)
            #expect(cluster.orders.count == count)
        }
        #expect(many <= 11 * few, "\(few) for 1 000, \(many) for 10 000")
        #expect(many <= 10 * 10_000)
    }

    @Test("a death and its spare cost no look at everybody for each dead worker")
    func deaths() {
        var costs: [Int] = []
        for count in [300, 3000] {
            var cluster = TestCluster(GroupTests.scenario { $0.spares = count / 10 })
            for number in 0..<count {
                cluster.add(
                    "w\(number)",
                    number % 10 == 0 ? .spare : number % 2 == 0 ? .prefill : .decode)
            }
            cluster.run(.seconds(1))
            let before = cluster.controller.examinedSeats
            // As many as there are spares: every tenth, which is a prefill- or a decode-worker.
            for number in stride(from: 1, to: count, by: 10) { cluster.remove("w\(number)") }
            cluster.tick()
            costs.append(cluster.controller.examinedSeats - before)
            #expect(cluster.says("a spare takes the place"))
        }
        #expect(costs[1] <= 12 * costs[0], "\(costs)")
    }
}
