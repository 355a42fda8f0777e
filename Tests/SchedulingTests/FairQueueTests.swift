import Scheduling
import ServingTypes
import Testing

@Suite struct FairQueueTests {
    typealias Queue = FairQueue<Int, String>

    private func queue(_ change: (inout FairQueueLimits) -> Void = { _ in }) -> Queue {
        var limits = FairQueueLimits()
        change(&limits)
        return Queue(limits: limits)
    }

    private func rank(
        _ tenant: String = "a", priority: Int = 50, due: Int64 = 0, cost: Int = 10
    ) -> QueueRank {
        QueueRank(
            priority: priority, tenant: tenant, deadline: MonotonicTime(nanoseconds: due),
            costTokens: cost)
    }

    private func order(_ queue: Queue) -> [Int] {
        var queue = queue
        var ids: [Int] = []
        while let next = queue.popFirst() { ids.append(next.id) }
        return ids
    }

    /// Whether it waits, and whom it has displaced.
    private func outcome(_ admission: Queue.Admission) -> String {
        switch admission {
        case .waiting: "waiting"
        case .refused: "refused"
        case .shed(let id, let entry): "shed \(id) \(entry)"
        }
    }

    @Test func `one tenant's requests go by deadline and then by arrival`() {
        var queue = queue()
        for (id, due) in [(1, 30), (2, 10), (3, 20), (4, 10)] {
            _ = queue.insert(id, "", rank: rank(due: Int64(due)))
        }
        #expect(order(queue) == [2, 4, 3, 1])
    }

    @Test func `higher priority goes first whatever the deadline`() {
        var queue = queue()
        _ = queue.insert(1, "", rank: rank(priority: 10, due: 1))
        _ = queue.insert(2, "", rank: rank(priority: 90, due: 9))
        _ = queue.insert(3, "", rank: rank(priority: 50, due: 5))
        #expect(order(queue) == [2, 3, 1])
    }

    @Test func `tenants get equal tokens and not equal requests`() {
        var queue = queue()
        for id in 0..<40 {
            _ = queue.insert(id, "", rank: rank("heavy", due: 1, cost: 300))
            _ = queue.insert(100 + id, "", rank: rank("light", due: 2, cost: 100))
        }
        let first = order(queue).prefix(40)
        #expect(first.count { $0 < 100 } == 10, "\(first)")
    }

    @Test func `a tenant that comes later does not catch up what it never asked for`() {
        var queue = queue()
        for id in 0..<20 { _ = queue.insert(id, "", rank: rank("early")) }
        for _ in 0..<10 { _ = queue.popFirst() }
        for id in 100..<110 { _ = queue.insert(id, "", rank: rank("late")) }
        let next = order(queue).prefix(10)
        #expect(next.count { $0 >= 100 } == 5, "\(next)")
    }

    @Test func `a tenant with one request at a time pays for each`() {
        var queue = queue()
        for id in 0..<100 { _ = queue.insert(id, "", rank: rank("many", cost: 10)) }
        var taken: [Int] = []
        for id in 100..<140 {
            if !(100..<140).contains(where: { queue.contains($0) }) {
                _ = queue.insert(id, "", rank: rank("few", cost: 40))
            }
            if let next = queue.popFirst() { taken.append(next.id) }
        }
        #expect((7...9).contains(taken.count { $0 >= 100 }), "\(taken)")
    }

    @Test func `a wrong estimate is made good`() {
        var queue = queue()
        for id in 0..<10 {
            _ = queue.insert(id, "", rank: rank("a", cost: 10))
            _ = queue.insert(100 + id, "", rank: rank("b", cost: 10))
        }
        #expect(queue.popFirst()?.id == 0)
        queue.charge("a", priority: 50, tokens: 45)
        #expect(Array(order(queue).prefix(7)) == [100, 101, 102, 103, 104, 105, 1])
        queue.charge("a", priority: 50, tokens: -55)
        #expect(queue.first?.id == 1)
        queue.charge("nobody", priority: 50, tokens: 5)
        queue.charge("a", priority: 51, tokens: 5)
        #expect(queue.first?.id == 1)
    }

    @Test func `no priority starves`() {
        var queue = queue { $0.lowerPriorityTurn = 4 }
        for id in 0..<100 { _ = queue.insert(id, "", rank: rank(priority: 90)) }
        for id in 100..<110 { _ = queue.insert(id, "", rank: rank(priority: 50)) }
        for id in 200..<210 { _ = queue.insert(id, "", rank: rank(priority: 10)) }
        #expect(
            Array(order(queue).prefix(16))
                == [0, 1, 2, 100, 3, 4, 5, 200, 6, 7, 8, 101, 9, 10, 11, 201])
    }

    @Test func `a turn that did not fit is not lost`() {
        var queue = queue { $0.lowerPriorityTurn = 2 }
        for id in 0..<5 { _ = queue.insert(id, "", rank: rank(priority: 90)) }
        _ = queue.insert(100, "", rank: rank(priority: 10))
        queue.take(0)
        #expect(queue.first?.id == 100)
        let other = queue.first { id, _ in id != 100 }
        #expect(other?.id == 1)
        queue.take(1)
        #expect(queue.first?.id == 100)
    }

    @Test func `a full queue sheds the lowest priority with the latest deadline`() {
        var queue = queue { $0.maximumWaiting = 3 }
        _ = queue.insert(1, "one", rank: rank(priority: 10, due: 5))
        _ = queue.insert(2, "two", rank: rank(priority: 10, due: 9))
        _ = queue.insert(3, "three", rank: rank(priority: 20, due: 99))
        #expect(outcome(queue.insert(4, "", rank: rank(priority: 5))) == "refused")
        #expect(outcome(queue.insert(4, "", rank: rank(priority: 10))) == "refused")
        #expect(outcome(queue.insert(4, "four", rank: rank(priority: 20))) == "shed 2 two")
        #expect(outcome(queue.insert(5, "five", rank: rank(priority: 30))) == "shed 1 one")
        #expect(outcome(queue.insert(6, "six", rank: rank(priority: 30))) == "shed 3 three")
        #expect(queue.count == 3)
        #expect(queue[4] == "four" && queue[1] == nil)
    }

    @Test func `one tenant can't keep others out of a full queue`() {
        var queue = queue { $0.maximumWaiting = 4 }
        for id in 1...4 { _ = queue.insert(id, "", rank: rank("flood", due: Int64(id))) }
        #expect(outcome(queue.insert(5, "", rank: rank("flood"))) == "refused")
        #expect(outcome(queue.insert(6, "", rank: rank("other"))) == "shed 4 ")
        #expect(outcome(queue.insert(7, "", rank: rank("other"))) == "shed 3 ")
        #expect(outcome(queue.insert(8, "", rank: rank("other"))) == "refused")
        #expect(outcome(queue.insert(9, "", rank: rank("third"))) == "shed 7 ")
        #expect(outcome(queue.insert(10, "", rank: rank("fourth"))) == "shed 2 ")
        #expect(outcome(queue.insert(11, "", rank: rank("fifth"))) == "refused")
    }

    @Test func `what does not fit is passed over as far as the bound`() {
        var queue = queue { $0.lookAhead = 3 }
        for id in 0..<10 { _ = queue.insert(id, "\(id)", rank: rank(due: Int64(id))) }
        #expect(queue.first { id, _ in id >= 2 }?.entry == "2")
        #expect(queue.first { id, _ in id >= 3 } == nil)
    }

    @Test func `the overdue leave, the earliest first`() {
        var queue = queue()
        _ = queue.insert(1, "", rank: rank("a", priority: 90, due: 20))
        _ = queue.insert(2, "", rank: rank("b", priority: 10, due: 10))
        _ = queue.insert(3, "", rank: rank("c", priority: 10, due: 30))
        let now = MonotonicTime(nanoseconds: 20)
        #expect(queue.popOverdue(now: now)?.id == 2)
        #expect(queue.popOverdue(now: now)?.id == 1)
        #expect(queue.popOverdue(now: now) == nil)
        #expect(queue.count == 1)
    }

    @Test(arguments: 1...9)
    func `it agrees with a model that sorts everything each time`(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var limits = FairQueueLimits()
        limits.maximumWaiting = [6, 25, 60][Int(seed % 3)]
        limits.lookAhead = 5 + Int(seed % 20)
        limits.lowerPriorityTurn = 2 + Int(seed % 4)
        var queue = Queue(limits: limits)
        var model = FairQueueModel(limits: limits)
        var (sheds, refusals, turns) = (0, 0, 0)
        for step in 0..<900 {
            let known = generator.below(4) > 0 ? model.items.map(\.id) : []
            let some = known.isEmpty ? -1 : known[generator.below(known.count)]
            let tenant = "tenant-\(generator.below(4))"
            let priority = generator.below(3) * 10
            switch generator.below(step % 300 < 200 ? 10 : 16) {
            case 0: #expect((queue.remove(some) != nil) == (some >= 0)); model.remove(some)
            case 1: queue.take(some); model.take(some)
            case 2:
                let tokens = generator.below(60) - 30
                queue.charge(tenant, priority: priority, tokens: tokens)
                model.charge(tenant, priority, tokens)
            case 3, 10...15:
                if model.takenSinceLower >= limits.lowerPriorityTurn - 1 { turns += 1 }
                if let next = queue.popFirst() { model.take(next.id) }
            default:
                let rank = rank(
                    tenant, priority: priority, due: Int64(generator.below(20)),
                    cost: 1 + generator.below(30))
                let displaced = model.insert(step, rank: rank)
                switch queue.insert(step, "\(step)", rank: rank) {
                case .waiting: #expect(displaced == nil)
                case .refused:
                    refusals += 1
                    #expect(displaced == step)
                case .shed(let id, let entry):
                    sheds += 1
                    #expect(displaced == id && entry == "\(id)")
                }
            }
            let expected = Array(model.order().prefix(limits.lookAhead))
            var seen: [Int] = []
            _ = queue.first { id, _ in
                seen.append(id)
                return false
            }
            guard seen == expected, queue.first?.id == expected.first,
                queue.count == model.items.count
            else {
                Issue.record("seed \(seed), step \(step): \(seen) is not \(expected)")
                return
            }
        }
        #expect(turns > 3, "seed \(seed) has tried too little")
        if limits.maximumWaiting < 60 { #expect(sheds > 10 && refusals > 10, "seed \(seed)") }
    }

    @Test func `many requests go in and out`() {
        var queue = queue { $0.maximumWaiting = 5000 }
        var generator = SeededGenerator(seed: 3)
        for id in 0..<5000 {
            _ = queue.insert(
                id, "",
                rank: rank(
                    "tenant-\(generator.below(500))", priority: generator.below(3),
                    due: Int64(generator.below(1000)), cost: 1 + generator.below(100)))
        }
        for id in stride(from: 0, to: 5000, by: 2) { #expect(queue.remove(id) != nil) }
        let order = order(queue)
        #expect(order.count == 2500 && order.allSatisfy { $0 % 2 == 1 })
    }
}
