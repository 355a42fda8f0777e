import Scheduling
import ServingTypes

/// The gateway's lists over its requests and workers, so that no event looks at all of them.
///
/// Workers have positions that stay while anything refers to them.
struct GatewayBoard: Sendable {
    /// Where requests wait.
    struct Place: Hashable, Sendable {
        var group: GroupID
        var need: GatewayNeed
    }

    /// One of those who wait.
    struct Waiting: Sendable {
        var neededTokens: Int
    }

    /// Which groups serve a request.
    struct Demand: Hashable, Sendable {
        var scenario: String
        var modelName: String
    }

    /// A worker that opened for one kind of work.
    struct Opening: Hashable, Sendable {
        var position: Int
        var need: GatewayNeed
    }

    private let queueLimits: FairQueueLimits
    var workers: [GatewayWorker] = []
    var positions: [InstanceID: Int] = [:]
    var freePositions: [Int] = []
    var connected: Set<InstanceID> = []
    /// Number of the view that was taken over last.
    var viewNumber: UInt64 = 0
    var groups: [GroupID: GatewayGroup] = [:]
    /// Groups by what they serve, sorted; all of a model by the empty scenario.
    var serving: [Demand: [GroupID]] = [:]
    /// Scenarios that have groups of their own.
    var scenarios: Set<String> = []
    /// Those with a group that is more than forming.
    var openedScenarios: Set<String> = []

    /// Who waits for a worker of a group.
    private(set) var waiting: [Place: FairQueue<RequestID, Waiting>] = [:]
    /// Who found its queue full, or had to leave it for somebody more urgent.
    private(set) var turnedAway: [RequestID] = []
    /// Who waits until a group can serve it, by arrival.
    private(set) var unassigned: [Demand: OrderedQueue<UInt64, RequestID>] = [:]
    /// All of them of each group, by arrival.
    private(set) var waitingIn: [GroupID: OrderedQueue<UInt64, RequestID>] = [:]
    /// The next deadline of each, by arrival.
    private(set) var timers = DeadlineWheel<RequestID>()
    /// Workers that were asked for all they had, and when they may be tried although silent.
    private var silent = DeadlineWheel<Opening>()
    private(set) var placedCount = 0
    /// Workers that may take more than before; whoever waits has not heard of it yet.
    private var opened: Set<Opening> = []
    /// Groups whose state changed, or whose first or last worker of a role came or went.
    var changedGroups: Set<GroupID> = []

    init(maximumWaiting: Int) {
        var limits = FairQueueLimits()
        limits.maximumWaiting = maximumWaiting
        queueLimits = limits
    }

    // MARK: Requests

    /// - Parameter isBack: a worker said no to it; what its tenant was charged is given back.
    mutating func add(
        _ footprint: GatewayFootprint, of flight: GatewayFlight, isBack: Bool
    ) {
        let request = flight.job.request
        if let group = footprint.group {
            if !footprint.waitsFor.isEmpty {
                waitingIn[group, default: OrderedQueue()].insert(flight.order, request)
            }
            for need in GatewayNeed.allCases where footprint.waitsFor.contains(need) {
                enqueue(flight, Place(group: group, need: need), isBack: isBack)
            }
        } else {
            unassigned[flight.demand, default: OrderedQueue()].insert(flight.order, request)
        }
        timers.insert(request, number: flight.order, at: footprint.timer)
        if footprint.isPlaced { placedCount += 1 }
        if let decode = footprint.decode.flatMap({ positions[$0] }) {
            workers[decode].requests.insert(flight.order, request)
            workers[decode].standing.changeReserved(by: flight.neededTokens)
        }
        if let prefill = footprint.prefill.flatMap({ positions[$0] }) {
            workers[prefill].requests.insert(flight.order, request)
        }
        if let prefill = footprint.openPrompt.flatMap({ positions[$0] }) {
            workers[prefill].standing.openPrompts += 1
            workers[prefill].standing.openPromptTokens += flight.job.promptTokens.count
        }
        if let asked = footprint.asked, let position = positions[asked.instance] {
            workers[position].standing[asked.need].openQuestions += 1
            refresh(position, asked.need)
        }
    }

    /// - Parameter isTaken: it goes on, so its tenant has had a turn.
    mutating func remove(
        _ footprint: GatewayFootprint, of flight: GatewayFlight, isTaken: Bool
    ) {
        if let group = footprint.group {
            if !footprint.waitsFor.isEmpty { waitingIn[group]?.remove(flight.order) }
            for need in GatewayNeed.allCases where footprint.waitsFor.contains(need) {
                dequeue(flight, Place(group: group, need: need), isTaken: isTaken)
            }
        } else {
            unassigned[flight.demand]?.remove(flight.order)
            if unassigned[flight.demand]?.isEmpty == true { unassigned[flight.demand] = nil }
        }
        timers.remove(number: flight.order, at: footprint.timer)
        if footprint.isPlaced { placedCount -= 1 }
        if let decode = footprint.decode.flatMap({ positions[$0] }) {
            workers[decode].requests.remove(flight.order)
            workers[decode].standing.changeReserved(by: -flight.neededTokens)
        }
        if let prefill = footprint.prefill.flatMap({ positions[$0] }) {
            workers[prefill].requests.remove(flight.order)
        }
        if let prefill = footprint.openPrompt.flatMap({ positions[$0] }) {
            workers[prefill].standing.openPrompts -= 1
            workers[prefill].standing.openPromptTokens -= flight.job.promptTokens.count
        }
        if let asked = footprint.asked, let position = positions[asked.instance] {
            workers[position].standing[asked.need].openQuestions -= 1
            refresh(position, asked.need)
            opened.insert(Opening(position: position, need: asked.need))
        }
    }

    private mutating func enqueue(_ flight: GatewayFlight, _ place: Place, isBack: Bool) {
        // Who comes back keeps its place among those whose token is due at the same time.
        let rank = QueueRank(
            priority: flight.job.priority, tenant: flight.job.tenant,
            deadline: flight.due + .nanoseconds(Int64(flight.order & 0xffff)),
            costTokens: flight.neededTokens)
        let request = flight.job.request
        let admission = waiting[place, default: FairQueue(limits: queueLimits)]
            .insert(request, Waiting(neededTokens: flight.neededTokens), rank: rank)
        switch admission {
        case .waiting: break
        case .refused: turnedAway.append(request)
        case .shed(let other, _): turnedAway.append(other)
        }
        if isBack {
            waiting[place]?.charge(
                rank.tenant, priority: rank.priority, tokens: -rank.costTokens)
        }
    }

    private mutating func dequeue(_ flight: GatewayFlight, _ place: Place, isTaken: Bool) {
        let request = flight.job.request
        if isTaken { waiting[place]?.take(request) } else { waiting[place]?.remove(request) }
        guard groups[place.group] == nil, waiting[place]?.isEmpty == true else { return }
        waiting[place] = nil
        if waitingIn[place.group]?.isEmpty == true { waitingIn[place.group] = nil }
    }

    mutating func takeTurnedAway() -> [RequestID] {
        guard !turnedAway.isEmpty else { return [] }
        defer { turnedAway = [] }
        return turnedAway
    }

    // MARK: Workers

    subscript(instance: InstanceID) -> GatewayWorker? {
        positions[instance].map { workers[$0] }
    }

    var connectedCount: Int { connected.count }

    func isConnected(_ instance: InstanceID) -> Bool { connected.contains(instance) }

    mutating func setConnected(_ instance: InstanceID, _ isConnected: Bool) {
        if isConnected { connected.insert(instance) } else { connected.remove(instance) }
        guard let position = positions[instance] else { return }
        change(position) { $0.standing.isConnected = isConnected }
    }

    /// Changes what decides where a worker is listed; one that became usable is asked without
    /// limits.
    mutating func change(_ position: Int, _ body: (inout GatewayWorker) -> Void) {
        let wasUsable = workers[position].standing.isUsable
        unlist(position)
        body(&workers[position])
        list(position)
        guard workers[position].standing.isUsable, !wasUsable else { return }
        for need in GatewayNeed.allCases { apply(.lift, to: position, need) }
    }

    // MARK: Allowances

    mutating func apply(
        _ answer: GatewayStanding.Answer, to instance: InstanceID, _ need: GatewayNeed
    ) {
        guard let position = positions[instance] else { return }
        apply(answer, to: position, need)
    }

    mutating func apply(
        _ answer: GatewayStanding.Answer, to position: Int, _ need: GatewayNeed
    ) {
        let order = UInt64(position * GatewayNeed.allCases.count + need.rawValue)
        let before = workers[position].standing[need].tryAt
        workers[position].standing.apply(answer, to: need)
        let after = workers[position].standing[need].tryAt
        if before != after {
            if let before { silent.remove(number: order, at: before) }
            if let after {
                silent.insert(
                    Opening(position: position, need: need), number: order, at: after)
            }
        }
        refresh(position, need)
        switch answer {
        case .open, .tryNow, .lift: opened.insert(Opening(position: position, need: need))
        case .spend, .limit: break
        }
    }

    /// Workers that said no, or were asked for all they had, and have not called for long.
    mutating func trySilent(now: MonotonicTime) {
        for opening in silent.due(now: now) {
            // One that computes prompts only where it decodes them never calls for more.
            let calls =
                opening.need == .sequences || workers[opening.position].standing.serves(.prompts)
            apply(calls ? .tryNow : .lift, to: opening.position, opening.need)
        }
    }

    /// Takes the workers that opened since the last call, in a fixed order.
    mutating func takeOpened() -> [Opening] {
        guard !opened.isEmpty else { return [] }
        defer { opened = [] }
        return opened.sorted { left, right in
            let names = [left, right].map { workers[$0.position].instance }
            return names[0] == names[1]
                ? left.need.rawValue < right.need.rawValue : names[0] < names[1]
        }
    }

    /// Takes the groups that changed since the last call, in a fixed order.
    mutating func takeChangedGroups() -> [GroupID] {
        guard !changedGroups.isEmpty else { return [] }
        defer { changedGroups = [] }
        return changedGroups.sorted()
    }
}
