package import ServingTypes

/// Bounds of the queue of waiting requests.
package struct FairQueueLimits: Sendable, Hashable {
    /// Requests that wait at once; for another one somebody is refused or shed.
    package var maximumWaiting = 4096
    /// Requests looked at to find one that fits.
    package var lookAhead = 32
    /// Of so many taken at least one is of a lower priority, if any waits; at least 2.
    package var lowerPriorityTurn = 16
    /// Tenants of one priority remembered while they have nothing waiting.
    package var maximumIdleTenants = 1024

    package init() {}
}

/// What decides how soon a waiting request goes on.
package struct QueueRank: Sendable, Hashable {
    /// Greater goes first.
    package var priority: Int
    package var tenant: String
    /// When its first token is due.
    package var deadline: MonotonicTime
    /// Tokens it is expected to take, prompt and answer; counts as at least 1.
    package var costTokens: Int

    package init(priority: Int, tenant: String, deadline: MonotonicTime, costTokens: Int) {
        self.priority = priority
        self.tenant = tenant
        self.deadline = deadline
        self.costTokens = costTokens
    }
}

/// Requests that wait for a worker, in the order in which they are to be tried.
///
/// Higher priority goes first; between tenants of one priority the one that was served fewest
/// tokens; of one tenant the earliest deadline, then the earliest arrival.
///
/// No priority starves: of every `lowerPriorityTurn` taken one is of a lower priority than the
/// highest, the one that has waited longest for its turn. So with `n` priorities waiting, each of
/// the lower ones is served at least once in `lowerPriorityTurn · (n − 1)` taken.
///
/// Served tokens are counted while a priority has requests waiting. A tenant that comes later
/// starts level with the one served least, so that nobody saves up a claim.
///
/// Adding, removing and taking cost O(log n).
package struct FairQueue<ID: Hashable & Sendable, Entry: Sendable>: Sendable {
    package enum Admission: Sendable {
        case waiting
        /// The queue is full and nobody in it has less of a claim.
        case refused
        /// It waits; this one has lost its place to it.
        case shed(ID, Entry)
    }

    private struct Item: Sendable {
        let id: ID
        var entry: Entry
        let rank: QueueRank
        let arrival: Int

        var key: WaitingKey { WaitingKey(deadline: rank.deadline, arrival: arrival) }
    }

    package let limits: FairQueueLimits
    private var arrivals: [ID: Int] = [:]
    private var items: [Int: Item] = [:]
    /// Priorities with requests waiting, the highest first.
    private var classes: [WaitingClass] = []
    private var lastArrival = 0
    private var taken = 0
    private var takenSinceLower = 0

    package init(limits: FairQueueLimits = FairQueueLimits()) {
        precondition(limits.lowerPriorityTurn >= 2, "the highest priority has a turn too")
        self.limits = limits
    }

    package var count: Int { items.count }
    package var isEmpty: Bool { items.isEmpty }

    package func contains(_ id: ID) -> Bool { arrivals[id] != nil }

    /// The entry of a waiting request; may be changed, its rank stays.
    package subscript(id: ID) -> Entry? {
        get { arrivals[id].flatMap { items[$0]?.entry } }
        set {
            guard let arrival = arrivals[id], let newValue else { return }
            items[arrival]?.entry = newValue
        }
    }

    // MARK: In and out

    /// Adds a request that is not in the queue.
    ///
    /// If the queue is full, one of the lowest priority below the new one's loses its place: the
    /// one with the latest deadline. If none is of lower priority, a tenant of the same priority
    /// with more requests than the new one's tenant would have loses its last one, so that one
    /// tenant can't fill the queue. Otherwise the new one is refused.
    package mutating func insert(_ id: ID, _ entry: Entry, rank: QueueRank) -> Admission {
        precondition(arrivals[id] == nil, "a request waits once")
        var shed: Item?
        if items.count >= limits.maximumWaiting {
            guard let victim = victim(for: rank) else { return .refused }
            shed = removed(victim, asTaken: false)
        }
        lastArrival += 1
        let item = Item(id: id, entry: entry, rank: rank, arrival: lastArrival)
        arrivals[id] = lastArrival
        items[lastArrival] = item
        let index = classIndex(of: rank.priority)
        if index == classes.count || classes[index].priority != rank.priority {
            classes.insert(
                WaitingClass(
                    priority: rank.priority, maximumIdleTenants: limits.maximumIdleTenants,
                    lastTaken: taken),
                at: index)
        }
        classes[index].insert(item.key, tenant: rank.tenant)
        return shed.map { .shed($0.id, $0.entry) } ?? .waiting
    }

    /// Takes a request out because it goes on: its tenant is charged with its cost.
    @discardableResult package mutating func take(_ id: ID) -> Entry? {
        arrivals[id].flatMap { removed($0, asTaken: true) }?.entry
    }

    /// Takes a request out because it is gone; nobody is charged.
    @discardableResult package mutating func remove(_ id: ID) -> Entry? {
        arrivals[id].flatMap { removed($0, asTaken: false) }?.entry
    }

    package mutating func popFirst() -> (id: ID, entry: Entry)? {
        guard let first else { return nil }
        take(first.id)
        return first
    }

    /// Removes the request whose deadline came first, if it has come.
    package mutating func popOverdue(now: MonotonicTime) -> (id: ID, entry: Entry)? {
        guard let earliest = classes.compactMap(\.mostUrgent).min(), earliest.deadline <= now else {
            return nil
        }
        return removed(earliest.arrival, asTaken: false).map { ($0.id, $0.entry) }
    }

    /// Charges a tenant with tokens it took beyond those it was charged with; negative: gives back.
    ///
    /// Without effect if the tenant's served tokens are no longer remembered.
    package mutating func charge(_ tenant: String, priority: Int, tokens: Int) {
        let index = classIndex(of: priority)
        guard index < classes.count, classes[index].priority == priority else { return }
        classes[index].charge(tenant, tokens: tokens)
    }

    // MARK: Looking

    /// The request that goes on next.
    package var first: (id: ID, entry: Entry)? {
        var room = 1
        return walk(room: &room) { _ in true }.map { ($0.id, $0.entry) }
    }

    /// The first request that fits, of the next `lookAhead`; `take` it if it goes on.
    ///
    /// The order is the one in which they would go on if all were taken.
    package func first(where fits: (ID, Entry) -> Bool) -> (id: ID, entry: Entry)? {
        var room = limits.lookAhead
        return walk(room: &room) { fits($0.id, $0.entry) }.map { ($0.id, $0.entry) }
    }

    private func walk(room: inout Int, where fits: (Item) -> Bool) -> Item? {
        let preferred = preferredClass
        if let preferred, let found = walk(classes[preferred], room: &room, where: fits) {
            return found
        }
        for index in classes.indices where index != preferred && room > 0 {
            if let found = walk(classes[index], room: &room, where: fits) { return found }
        }
        return nil
    }

    private func walk(
        _ waiting: WaitingClass, room: inout Int, where fits: (Item) -> Bool
    ) -> Item? {
        var cursor = WaitingCursor(waiting)
        while room > 0, let arrival = cursor.next(in: waiting), let item = items[arrival] {
            room -= 1
            if fits(item) { return item }
            cursor.pass(costTokens: item.rank.costTokens, in: waiting)
        }
        return nil
    }

    /// The lower priority whose turn it is.
    private var preferredClass: Int? {
        guard takenSinceLower >= limits.lowerPriorityTurn - 1 else { return nil }
        return classes.indices.dropFirst().min { classes[$0].lastTaken < classes[$1].lastTaken }
    }

    // MARK: Inside

    /// Where a priority is, or belongs.
    private func classIndex(of priority: Int) -> Int {
        classes.firstIndex { $0.priority <= priority } ?? classes.count
    }

    /// Who has to leave a full queue for a new request.
    private func victim(for rank: QueueRank) -> Int? {
        guard let lowest = classes.last, lowest.priority <= rank.priority else { return nil }
        return lowest.priority < rank.priority
            ? lowest.leastUrgent?.arrival
            : lowest.lastOfLargestTenant(above: lowest.count(of: rank.tenant) + 1)?.arrival
    }

    private mutating func removed(_ arrival: Int, asTaken: Bool) -> Item? {
        guard let item = items.removeValue(forKey: arrival) else { return nil }
        arrivals[item.id] = nil
        let index = classIndex(of: item.rank.priority)
        if asTaken {
            taken += 1
            takenSinceLower = index == 0 && classes.count > 1 ? takenSinceLower + 1 : 0
            classes[index].lastTaken = taken
            classes[index].charge(item.rank.tenant, tokens: max(1, item.rank.costTokens))
        }
        // Charged while it still has the request: an idle tenant may be forgotten.
        classes[index].remove(item.key, tenant: item.rank.tenant)
        if classes[index].isEmpty { classes.remove(at: index) }
        return item
    }
}
