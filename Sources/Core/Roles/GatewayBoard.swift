import Scheduling
import ServingTypes

/// What the gateway knows of one worker and has placed there.
struct GatewayWorker: Sendable {
    fileprivate(set) var description: InstanceDescription
    /// It is in the view.
    fileprivate var isMember = true
    fileprivate var state: InstanceState
    fileprivate var isConnected: Bool
    /// Number of its model's fingerprint, for quick comparison.
    fileprivate var revision = 0
    /// Requests that depend on it, in order of arrival.
    fileprivate(set) var requests = OrderedQueue<UInt64, RequestID>()
    fileprivate var openPromptTokens = 0
    fileprivate var reservedTokens = 0
    /// Free KV by its last status, less what was reserved since.
    fileprivate var statusFreeTokens = 0
    /// Questions it has not answered.
    fileprivate var openQuestions = 0
    /// What it may still be asked for: offers of a prefill-worker, KV tokens of a decode-worker.
    ///
    /// `.max` until it says no; then what it calls, or a little when `askAgainAt` comes.
    fileprivate(set) var allowance = Int.max
    fileprivate var askAgainAt = MonotonicTime.start

    fileprivate init(_ member: GroupMember, isConnected: Bool) {
        description = member.description
        state = member.state
        self.isConnected = isConnected
        update(member.status)
    }

    /// It serves by the view and is connected.
    fileprivate var isUsable: Bool { isMember && isConnected && state == .serving }

    /// Most questions it is sent before it answers: what an idle worker could say yes to.
    ///
    /// A decode-worker that said no is asked one by one, since it may lack sequences, not room.
    private var maximumQuestions: Int {
        guard description.role == .decodeWorker else { return max(1, description.prefillSlots) }
        return allowance == .max ? max(1, description.decodeSequences) : 1
    }

    var canBeAsked: Bool { isUsable && allowance > 0 && openQuestions < maximumQuestions }

    fileprivate var capacityTokens: Int {
        description.kvCapacityBytes / max(1, description.kvBytesPerToken)
    }

    fileprivate var freeKVBytes: Int {
        min(capacityTokens - reservedTokens, statusFreeTokens) * description.kvBytesPerToken
    }

    /// Longest sequence its description allows.
    fileprivate var maximumTokens: Int {
        description.role == .decodeWorker
            ? min(description.contextTokens, capacityTokens) : description.contextTokens
    }

    fileprivate mutating func update(_ status: InstanceStatus) {
        statusFreeTokens = status.freeKVBytes / max(1, description.kvBytesPerToken)
    }

    fileprivate mutating func changeReserved(by tokens: Int) {
        reservedTokens += tokens
        statusFreeTokens -= tokens
    }
}

/// The gateway's lists over its requests and workers, so that no event looks at all of them.
struct GatewayBoard: Sendable {
    struct Waiting: Sendable {
        var request: RequestID
        var neededTokens: Int
    }

    struct Timer: Comparable, Sendable {
        var time: MonotonicTime
        var order: UInt64

        static func < (left: Timer, right: Timer) -> Bool {
            (left.time, left.order) < (right.time, right.order)
        }
    }

    private struct Pool: Hashable {
        var role: Role
        var modelName: String
    }

    private var workers: [GatewayWorker] = []
    private var positions: [InstanceID: Int] = [:]
    /// Positions of the view's workers, in its order.
    private var members: [Int] = []
    private var connected: Set<InstanceID> = []
    /// Positions of usable workers by role and model, sorted by name; decode-workers only if a
    /// prefill-worker can feed them.
    private var pools: [Pool: [Int]] = [:]
    /// Everybody in the pools.
    private var pooled: Set<InstanceID> = []
    /// Who waits for a worker of this pool, by arrival: for room, or with room for a slot.
    private var waiting: [Pool: OrderedQueue<UInt64, Waiting>] = [:]
    private(set) var timers = OrderedQueue<Timer, RequestID>()
    private(set) var placedCount = 0
    /// Workers that may take more than before; whoever waits has not heard of it yet.
    private(set) var opened: Set<InstanceID> = []

    // MARK: Requests

    mutating func add(_ footprint: GatewayFootprint, of flight: GatewayFlight) {
        if let role = footprint.waitsFor {
            waiting[Pool(role: role, modelName: flight.job.modelName), default: OrderedQueue()]
                .insert(
                    flight.order,
                    Waiting(request: flight.job.request, neededTokens: flight.neededTokens))
        }
        timers.insert(
            Timer(time: footprint.timer, order: flight.order), flight.job.request)
        if footprint.isPlaced { placedCount += 1 }
        if let decode = footprint.decode.flatMap({ positions[$0] }) {
            workers[decode].requests.insert(flight.order, flight.job.request)
            workers[decode].changeReserved(by: flight.neededTokens)
        }
        if let prefill = footprint.prefill.flatMap({ positions[$0] }) {
            workers[prefill].requests.insert(flight.order, flight.job.request)
            workers[prefill].openPromptTokens += flight.job.promptTokens.count
        }
        if let asked = footprint.asked.flatMap({ positions[$0] }) {
            workers[asked].openQuestions += 1
        }
    }

    mutating func remove(_ footprint: GatewayFootprint, of flight: GatewayFlight) {
        if let role = footprint.waitsFor {
            let pool = Pool(role: role, modelName: flight.job.modelName)
            waiting[pool]?.remove(flight.order)
            if waiting[pool]?.isEmpty == true { waiting[pool] = nil }
        }
        timers.remove(Timer(time: footprint.timer, order: flight.order))
        if footprint.isPlaced { placedCount -= 1 }
        if let decode = footprint.decode.flatMap({ positions[$0] }) {
            workers[decode].requests.remove(flight.order)
            workers[decode].changeReserved(by: -flight.neededTokens)
        }
        if let prefill = footprint.prefill.flatMap({ positions[$0] }) {
            workers[prefill].requests.remove(flight.order)
            workers[prefill].openPromptTokens -= flight.job.promptTokens.count
        }
        if let asked = footprint.asked, let position = positions[asked] {
            workers[position].openQuestions -= 1
            opened.insert(asked)
        }
    }

    // MARK: Workers

    subscript(instance: InstanceID) -> GatewayWorker? {
        positions[instance].map { workers[$0] }
    }

    func isConnected(_ instance: InstanceID) -> Bool { connected.contains(instance) }

    mutating func setConnected(_ instance: InstanceID, _ isConnected: Bool) {
        if isConnected { connected.insert(instance) } else { connected.remove(instance) }
        guard let position = positions[instance] else { return }
        change(position) { $0.isConnected = isConnected }
        makePools()
    }

    /// Takes over what the scheduler says; a worker that left stays while requests depend on it.
    ///
    /// Says whether anything but readings has changed.
    mutating func setMembers(_ view: [GroupMember]) -> Bool {
        let view = view.filter(\.description.role.isWorker)
        let isSame =
            view.count == members.count
            && zip(view, members).allSatisfy { member, position in
                workers[position].state == member.state
                    && workers[position].description == member.description
            }
        if !isSame {
            forgetGone(except: view)
            for index in workers.indices { workers[index].isMember = false }
            members = view.map { setMember($0) }
            numberRevisions()
            makePools()
        }
        for (member, position) in zip(view, members) { workers[position].update(member.status) }
        return !isSame
    }

    private mutating func setMember(_ member: GroupMember) -> Int {
        let instance = member.description.instance
        guard let position = positions[instance] else {
            workers.append(GatewayWorker(member, isConnected: connected.contains(instance)))
            positions[instance] = workers.count - 1
            opened.insert(instance)
            return workers.count - 1
        }
        if workers[position].description.incarnation != member.description.incarnation {
            workers[position].allowance = .max
        }
        change(position) { worker in
            worker.description = member.description
            worker.state = member.state
            worker.isMember = true
        }
        return position
    }

    /// Changes whether a worker is usable; one that became so may be asked without limits.
    private mutating func change(_ position: Int, _ body: (inout GatewayWorker) -> Void) {
        let wasUsable = workers[position].isUsable
        body(&workers[position])
        guard workers[position].isUsable, !wasUsable else { return }
        workers[position].allowance = .max
        opened.insert(workers[position].description.instance)
    }

    private mutating func forgetGone(except view: [GroupMember]) {
        let names = Set(view.map(\.description.instance))
        workers.removeAll {
            $0.requests.isEmpty && !names.contains($0.description.instance)
        }
        positions = Dictionary(
            workers.indices.map { (workers[$0].description.instance, $0) },
            uniquingKeysWith: { $1 })
    }

    private mutating func numberRevisions() {
        var revisions: [ModelFingerprint: Int] = [:]
        for index in workers.indices {
            let fingerprint = workers[index].description.fingerprint
            workers[index].revision = revisions[fingerprint] ?? revisions.count
            revisions[fingerprint] = workers[index].revision
        }
    }

    private mutating func makePools() {
        let before = pooled
        pooled = []
        pools = [:]
        let usable = workers.indices.filter { workers[$0].isUsable }
            .map { (name: workers[$0].description.instance, position: $0) }
            .sorted { $0.name < $1.name }.map(\.position)
        var fed: [String: Set<Int>] = [:]
        for role in [Role.prefillWorker, .decodeWorker] {
            for position in usable where workers[position].description.role == role {
                let modelName = workers[position].description.modelName
                let revision = workers[position].revision
                if role == .prefillWorker { fed[modelName, default: []].insert(revision) }
                guard fed[modelName]?.contains(revision) == true else { continue }
                pools[Pool(role: role, modelName: modelName), default: []].append(position)
                // A decode-worker may have become useful by its first prefill-worker.
                let instance = workers[position].description.instance
                pooled.insert(instance)
                if !before.contains(instance) { opened.insert(instance) }
            }
        }
    }

    /// Whether any worker of this role could take a request for the model.
    func hasUsable(_ role: Role, modelName: String) -> Bool {
        pools[Pool(role: role, modelName: modelName)] != nil
    }

    /// Whether any model has a pair of workers.
    var canServe: Bool { pools.keys.contains { $0.role == .decodeWorker } }

    /// Workers the flight may be offered to, or ask for room, now.
    func candidates(_ role: Role, for flight: GatewayFlight) -> [PlacementCandidate] {
        let pool = pools[Pool(role: role, modelName: flight.job.modelName)] ?? []
        let revision = flight.target.flatMap { positions[$0.instance] }
            .map { workers[$0].revision }
        let neededTokens = flight.neededTokens
        let isFree = flight.refused.isEmpty && flight.tooLongFor.isEmpty
        var candidates: [PlacementCandidate] = []
        candidates.reserveCapacity(pool.count)
        for position in pool {
            let fits =
                role == .prefillWorker
                ? workers[position].revision == revision
                : workers[position].allowance >= neededTokens
            guard fits, workers[position].canBeAsked,
                neededTokens <= workers[position].maximumTokens
            else { continue }
            let instance = workers[position].description.instance
            guard isFree || !flight.refused.union(flight.tooLongFor).contains(instance)
            else { continue }
            candidates.append(
                PlacementCandidate(
                    instance: instance, openPromptTokens: workers[position].openPromptTokens,
                    freeKVBytes: workers[position].freeKVBytes))
        }
        return candidates
    }

    /// Longest context of this role's workers, if each of them is too short for the flight.
    ///
    /// Workers that can't be reached now count too: they may come back.
    func contextTooShort(_ role: Role, for flight: GatewayFlight) -> Int? {
        var longest: Int?
        for position in members
        where workers[position].description.role == role
            && workers[position].description.modelName == flight.job.modelName
        {
            let context = workers[position].maximumTokens
            guard
                flight.neededTokens > context
                    || flight.tooLongFor.contains(workers[position].description.instance)
            else { return nil }
            longest = max(longest ?? 0, context)
        }
        return longest
    }

    // MARK: Allowances

    mutating func spend(_ amount: Int, of instance: InstanceID) {
        guard let position = positions[instance], workers[position].allowance != .max else {
            return
        }
        workers[position].allowance = max(0, workers[position].allowance - amount)
    }

    /// The worker said no: it is asked for less, or nothing, until it calls.
    mutating func limit(_ instance: InstanceID, to allowance: Int, until time: MonotonicTime) {
        guard let position = positions[instance] else { return }
        workers[position].allowance = min(workers[position].allowance, max(0, allowance))
        workers[position].askAgainAt = time
    }

    /// The worker called.
    mutating func open(_ instance: InstanceID, to allowance: Int, until time: MonotonicTime) {
        guard let position = positions[instance] else { return }
        workers[position].allowance = allowance
        workers[position].askAgainAt = time
        opened.insert(instance)
    }

    /// Workers that said no, or were asked for all they had, and have not called for long.
    mutating func openSilent(now: MonotonicTime, interval: Duration) {
        for (pool, queue) in waiting {
            guard let first = queue.first else { continue }
            let least = pool.role == .prefillWorker ? 1 : first.value.neededTokens
            for position in pools[pool] ?? []
            where workers[position].allowance != .max && now >= workers[position].askAgainAt {
                open(
                    workers[position].description.instance,
                    to: max(workers[position].allowance, least), until: now + interval)
            }
        }
    }

    /// Who waits for a worker like this one, by arrival.
    func queue(for worker: GatewayWorker) -> OrderedQueue<UInt64, Waiting> {
        let pool = Pool(role: worker.description.role, modelName: worker.description.modelName)
        return waiting[pool] ?? OrderedQueue()
    }

    /// Takes the workers that opened since the last call, in a fixed order.
    mutating func takeOpened() -> [InstanceID] {
        guard !opened.isEmpty else { return [] }
        defer { opened = [] }
        return opened.sorted()
    }
}
