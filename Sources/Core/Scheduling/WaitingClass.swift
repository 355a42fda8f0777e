import ServingTypes

/// Order of one tenant's requests.
struct WaitingKey: Comparable, Sendable {
    let deadline: MonotonicTime
    let arrival: Int

    static func < (left: WaitingKey, right: WaitingKey) -> Bool {
        (left.deadline, left.arrival) < (right.deadline, right.arrival)
    }
}

/// Order of tenants: fewest served tokens first.
struct TenantKey: Comparable, Sendable {
    var servedTokens: Int
    let name: String

    static func < (left: TenantKey, right: TenantKey) -> Bool {
        (left.servedTokens, left.name) < (right.servedTokens, right.name)
    }
}

/// The waiting requests of one priority, fair between tenants.
struct WaitingClass: Sendable {
    fileprivate struct Tenant: Sendable {
        var servedTokens: Int
        var waiting = OrderedTree<WaitingKey>()
    }

    let priority: Int
    private let maximumIdleTenants: Int
    /// How many requests of the whole queue had been taken when one of these was last taken.
    var lastTaken: Int
    fileprivate private(set) var tenants: [String: Tenant] = [:]
    /// Tenants with requests waiting.
    fileprivate private(set) var active = OrderedTree<TenantKey>()
    /// Tenants that were served more than all active ones: to be remembered.
    private var idle = OrderedTree<TenantKey>()
    /// Requests of all tenants.
    private var waiting = OrderedTree<WaitingKey>()

    init(priority: Int, maximumIdleTenants: Int, lastTaken: Int) {
        self.priority = priority
        self.maximumIdleTenants = maximumIdleTenants
        self.lastTaken = lastTaken
    }

    var isEmpty: Bool { waiting.isEmpty }
    var mostUrgent: WaitingKey? { waiting.first?.key }
    var leastUrgent: WaitingKey? { waiting.last?.key }

    func count(of tenant: String) -> Int { tenants[tenant]?.waiting.count ?? 0 }

    /// The least urgent request of the tenant with most requests, if they are more than `count`.
    ///
    /// Looks at all tenants; only a full queue asks.
    func lastOfLargestTenant(above count: Int) -> WaitingKey? {
        let largest = tenants.max {
            ($0.value.waiting.count, $0.key) < ($1.value.waiting.count, $1.key)
        }
        guard let largest, largest.value.waiting.count > count else { return nil }
        return largest.value.waiting.last?.key
    }

    mutating func insert(_ key: WaitingKey, tenant: String) {
        let known = tenants[tenant]?.servedTokens
        // Whoever is remembered was served more than the least.
        let served = known ?? active.first?.key.servedTokens ?? 0
        if count(of: tenant) == 0 {
            let order = TenantKey(servedTokens: served, name: tenant)
            if known != nil { idle.remove(order) }
            active.insert(order, 0)
        }
        if known == nil { tenants[tenant] = Tenant(servedTokens: served) }
        tenants[tenant]?.waiting.insert(key, key.arrival)
        waiting.insert(key, key.arrival)
    }

    mutating func remove(_ key: WaitingKey, tenant: String) {
        waiting.remove(key)
        tenants[tenant]?.waiting.remove(key)
        guard let left = tenants[tenant], left.waiting.isEmpty else { return }
        let order = TenantKey(servedTokens: left.servedTokens, name: tenant)
        active.remove(order)
        idle.insert(order, 0)
        forget()
    }

    /// Changes what a tenant was served; not below zero.
    mutating func charge(_ tenant: String, tokens: Int) {
        guard let known = tenants[tenant] else { return }
        var order = TenantKey(servedTokens: known.servedTokens, name: tenant)
        let isIdle = known.waiting.isEmpty
        if isIdle { idle.remove(order) } else { active.remove(order) }
        order.servedTokens = max(0, order.servedTokens + tokens)
        tenants[tenant]?.servedTokens = order.servedTokens
        if isIdle { idle.insert(order, 0) } else { active.insert(order, 0) }
        forget()
    }

    /// Forgets idle tenants that would start level with the others anyway, and those least ahead
    /// beyond the bound.
    private mutating func forget() {
        let least = active.first?.key.servedTokens ?? 0
        while let first = idle.first?.key,
            first.servedTokens <= least || idle.count > maximumIdleTenants
        {
            idle.remove(first)
            tenants[first.name] = nil
        }
    }
}

/// Goes through a priority's requests in the order in which they would be taken.
struct WaitingCursor {
    private struct Open {
        var tenant: TenantKey
        var key: WaitingKey
    }

    /// Tenants that were reached, with the next request of each.
    private var open: [Open] = []
    private var unopened: TenantKey?
    private var current = 0

    init(_ waiting: WaitingClass) { unopened = waiting.active.first?.key }

    /// The arrival number of the next request; the same one until it is passed.
    mutating func next(in waiting: WaitingClass) -> Int? {
        let least = open.indices.min { open[$0].tenant < open[$1].tenant }
        if let tenant = unopened, least.map({ tenant < open[$0].tenant }) ?? true {
            guard let key = waiting.tenants[tenant.name]?.waiting.first?.key else { return nil }
            open.append(Open(tenant: tenant, key: key))
            unopened = waiting.active.next(after: tenant)?.key
            current = open.count - 1
        } else {
            guard let least else { return nil }
            current = least
        }
        return open[current].key.arrival
    }

    /// Goes on as if the request `next` gave had been taken.
    mutating func pass(costTokens: Int, in waiting: WaitingClass) {
        open[current].tenant.servedTokens += max(1, costTokens)
        let next = waiting.tenants[open[current].tenant.name]?.waiting.next(
            after: open[current].key)
        if let key = next?.key { open[current].key = key } else { open.remove(at: current) }
    }
}
