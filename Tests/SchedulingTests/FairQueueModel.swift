import Scheduling
import ServingTypes

/// The same queue in plain arrays, where each question goes through everything.
struct FairQueueModel {
    struct Item {
        var id: Int
        var rank: QueueRank
        var arrival: Int
    }

    let limits: FairQueueLimits
    var items: [Item] = []
    /// Tokens served, by priority and tenant.
    var served: [Int: [String: Int]] = [:]
    var lastTaken: [Int: Int] = [:]
    var taken = 0
    var takenSinceLower = 0
    var arrivals = 0

    var priorities: [Int] { Set(items.map(\.rank.priority)).sorted(by: >) }

    func tenants(_ priority: Int) -> Set<String> {
        Set(items.filter { $0.rank.priority == priority }.map(\.rank.tenant))
    }

    func least(_ priority: Int) -> Int {
        tenants(priority).map { served[priority]?[$0] ?? 0 }.min() ?? 0
    }

    static func isBefore(_ left: Item, _ right: Item) -> Bool {
        (left.rank.deadline, left.arrival) < (right.rank.deadline, right.arrival)
    }

    /// Shed id, or the new one itself if it is refused.
    mutating func insert(_ id: Int, rank: QueueRank) -> Int? {
        var shed: Int?
        if items.count == limits.maximumWaiting {
            guard let lowest = priorities.last, lowest <= rank.priority else { return id }
            var victims = items.filter { $0.rank.priority == lowest }
            if lowest == rank.priority {
                let counts = Dictionary(grouping: victims, by: \.rank.tenant).mapValues(\.count)
                let most = counts.values.max() ?? 0
                guard most > (counts[rank.tenant] ?? 0) + 1 else { return id }
                let largest = counts.filter { $0.value == most }.keys.max()
                victims = victims.filter { $0.rank.tenant == largest }
            }
            shed = victims.max(by: Self.isBefore)?.id
            if let shed { remove(shed) }
        }
        if !priorities.contains(rank.priority) {
            served[rank.priority] = [:]
            lastTaken[rank.priority] = taken
        }
        if !tenants(rank.priority).contains(rank.tenant) {
            let known = served[rank.priority]?[rank.tenant] ?? 0
            let least = least(rank.priority)
            served[rank.priority]?[rank.tenant] = max(known, least)
        }
        arrivals += 1
        items.append(Item(id: id, rank: rank, arrival: arrivals))
        return shed
    }

    mutating func remove(_ id: Int) {
        guard let index = items.firstIndex(where: { $0.id == id }) else { return }
        let priority = items.remove(at: index).rank.priority
        forget(priority)
    }

    mutating func take(_ id: Int) {
        guard let item = items.first(where: { $0.id == id }) else { return }
        let priority = item.rank.priority
        taken += 1
        lastTaken[priority] = taken
        let isTop = priorities.first == priority && priorities.count > 1
        takenSinceLower = isTop ? takenSinceLower + 1 : 0
        served[priority]?[item.rank.tenant]? += item.rank.costTokens
        remove(id)
    }

    mutating func charge(_ tenant: String, _ priority: Int, _ tokens: Int) {
        guard let known = served[priority]?[tenant] else { return }
        served[priority]?[tenant] = max(0, known + tokens)
        forget(priority)
    }

    /// Idle tenants no further than the others are forgotten, all of them with the last request.
    mutating func forget(_ priority: Int) {
        let waiting = tenants(priority)
        let least = least(priority)
        served[priority] =
            waiting.isEmpty
            ? nil : served[priority]?.filter { waiting.contains($0.key) || $0.value > least }
    }

    /// All ids in the order in which they would be taken, priorities staying in today's order.
    func order() -> [Int] {
        var priorities = priorities
        if takenSinceLower >= limits.lowerPriorityTurn - 1 {
            let lower = priorities.dropFirst()
            let oldest = lower.map { lastTaken[$0] ?? 0 }.min()
            if let turn = lower.first(where: { lastTaken[$0] == oldest }) {
                priorities = [turn] + priorities.filter { $0 != turn }
            }
        }
        return priorities.flatMap { priority in
            var left = items.filter { $0.rank.priority == priority }
            var served = served[priority] ?? [:]
            var order: [Int] = []
            while let tenant = Set(left.map(\.rank.tenant)).min(by: {
                (served[$0] ?? 0, $0) < (served[$1] ?? 0, $1)
            }) {
                guard
                    let next = left.filter({ $0.rank.tenant == tenant }).min(by: Self.isBefore)
                else { break }
                served[tenant, default: 0] += next.rank.costTokens
                order.append(next.id)
                left.removeAll { $0.id == next.id }
            }
            return order
        }
    }
}
