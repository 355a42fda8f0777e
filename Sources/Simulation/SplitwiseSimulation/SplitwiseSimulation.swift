package import RequestTraces
import ServingTypes

/// SplitwiseSim's model of a cluster, event by event (github.com/Mutinifni/splitwise-sim, 8f99e7d).
///
/// Each request is a prefill, possibly a KV transfer, and a decode of all tokens but the first.
/// Decode runs many iterations in one event, until a request ends or a task comes, which cuts it
/// at the next iteration. Memory for the whole answer is reserved at once. Two rules differ: a
/// request of one token ends with its prefill, and events at one time happen in the order they
/// were planned.
///
/// Memory is that of the live requests: arrivals come one by one, and outcomes leave.
package struct SplitwiseSimulation: Sendable {
    /// Why a run stopped.
    package enum Ending: Sendable, Hashable {
        /// Every request has ended.
        case finished
        /// Whoever takes the outcomes knows enough.
        case stopped
        /// More live requests than the limit.
        case overloaded
        /// The events of this call are used up; call again to go on.
        case paused
        /// Nothing happens any more, but requests wait for memory that they'll never get: each
        /// holds what another needs, or one needs more than a machine has.
        case stuck(requests: Int)
    }

    let cluster: SplitwiseCluster
    let times: [IterationTimes]
    var machines: [MachineState]
    var live: [LiveRequest] = []
    var freeSlots: [Int32] = []
    var selections: Int32 = 0

    package internal(set) var now = 0.0
    /// Requests that came, including those that ended.
    package private(set) var arrivals = 0
    package private(set) var events = 0

    private var nextArrival: RequestTrace.Entry?
    private var hasBegun = false
    var iterations: IndexedHeap<Double>
    var transfers = EventHeap()
    private var transfersUnderWay = 0
    /// Attempts that found no room, since one began or ended or a machine was done with a step.
    private var failedTransfers = 0
    /// Machines of each pool by what they have to do, and by promised memory.
    var byLoad: [IndexedHeap<Int>]
    var byMemory: [IndexedHeap<Int>]
    let loadKey: LoadKey
    /// Machines by their tag, for round robin.
    let promptMachines: [Int]
    let tokenMachines: [Int]
    var nextMachine = 0
    var nextTokenMachine = 0
    var generator = SeededGenerator(seed: 0)
    /// Outcomes of one event, in their order.
    var outcomes: [RequestOutcome] = []

    package init(_ cluster: SplitwiseCluster) {
        self.cluster = cluster
        times = cluster.kinds.map { IterationTimes($0, batchSize: cluster.limits.batchSize) }
        let count = cluster.machines.count
        iterations = IndexedHeap(items: count)
        byLoad = Pool.allCases.map { _ in IndexedHeap(items: count) }
        byMemory = byLoad
        loadKey = LoadKey(cluster.policy)
        if case .random(let seed) = cluster.policy { generator = SeededGenerator(seed: seed) }
        machines = cluster.machines.map { machine in
            let home: Pool = machine.tag == .token ? .token : .prompt
            return MachineState(
                kind: machine.kind, home: home, pool: home,
                memoryBytes: cluster.model.weightBytes, promisedBytes: cluster.model.weightBytes)
        }
        promptMachines = machines.indices.filter { cluster.machines[$0].tag != .token }
        tokenMachines = machines.indices.filter { cluster.machines[$0].tag == .token }
        for machine in machines.indices { enter(machines[machine].home, machine) }
    }

    /// Live requests.
    package var requestsInside: Int { live.count - freeSlots.count }

    /// Runs on, at most so many events.
    ///
    /// `next` gives requests by their arrival, `record` takes what became of each and returns
    /// whether to go on.
    package mutating func run(
        next: () -> RequestTrace.Entry?, record: (RequestOutcome) -> Bool,
        events limit: Int = .max
    ) -> Ending {
        if !hasBegun {
            hasBegun = true
            nextArrival = next()
        }
        let last = limit == .max ? Int.max : events + limit
        while events < last {
            let arrival = nextArrival?.arrivalSeconds ?? .infinity
            let iteration = iterations.least?.key ?? .infinity
            let transfer = transfers.first?.time ?? .infinity
            guard min(arrival, iteration, transfer) < .infinity else {
                return requestsInside == 0 ? .finished : .stuck(requests: requestsInside)
            }
            events += 1
            if arrival <= iteration, arrival <= transfer, let entry = nextArrival {
                guard requestsInside < cluster.limits.liveRequests else { return .overloaded }
                now = arrival
                arrive(entry)
                nextArrival = next()
            } else if transfer <= iteration, let event = transfers.first {
                transfers.removeFirst()
                now = transfer
                if event.isEnd {
                    endTransfer(Int(event.slot))
                } else {
                    transferKV(Int(event.slot))
                    if arrival == .infinity, isStuck {
                        return .stuck(requests: requestsInside)
                    }
                }
            } else if let machine = iterations.least?.item {
                now = iteration
                failedTransfers = 0
                endIteration(machine)
            }
            guard !outcomes.isEmpty else { continue }
            for outcome in outcomes where !record(outcome) { return .stopped }
            outcomes.removeAll(keepingCapacity: true)
        }
        return .paused
    }

    // MARK: Requests

    private mutating func arrive(_ entry: RequestTrace.Entry) {
        let request = LiveRequest(
            arrival: now, number: UInt32(truncatingIfNeeded: arrivals),
            promptTokens: entry.promptTokens, outputTokens: entry.outputTokens)
        arrivals += 1
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = Int(free)
            let selection = live[slot].selection
            live[slot] = request
            live[slot].selection = selection
        } else {
            slot = live.count
            live.append(request)
        }
        place(slot)
        let machine = Int(live[slot].promptMachine)
        takeTask(.prefill(slot), on: machine)
        if live[slot].isChained, entry.outputTokens > 1 {
            takeTask(.decode(slot), on: machine)
        }
    }

    /// The prefill has ended; decode follows, on another machine after a KV transfer.
    mutating func endPrefill(_ slot: Int, on machine: Int) {
        live[slot].prefillState = .completed
        live[slot].prefillEnd = now
        promise(machine, tokens: -Int(live[slot].promptTokens))
        guard live[slot].outputTokens > 1 else { return endAtFirstToken(slot, on: machine) }
        if !live[slot].isChained { transferKV(slot) }
    }

    mutating func endDecode(_ slot: Int, on machine: Int) {
        live[slot].decodeState = .completed
        promise(machine, tokens: -1)
        free(live[slot].memoryBytes, of: machine)
        end(slot)
    }

    /// A request of one token needs no decode; what was promised for that is given back.
    private mutating func endAtFirstToken(_ slot: Int, on machine: Int) {
        live[slot].decodeStart = now
        let target = Int(live[slot].tokenMachine)
        promise(target, tokens: -1)
        if target != machine { promise(target, bytes: -prefillBytes(slot)) }
        free(live[slot].memoryBytes, of: machine)
        end(slot)
    }

    private mutating func end(_ slot: Int) {
        let request = live[slot]
        freeSlots.append(Int32(slot))
        outcomes.append(
            RequestOutcome(
                number: request.number, promptTokens: UInt32(request.promptTokens),
                outputTokens: UInt32(request.outputTokens),
                gapSeconds: Float(request.decodeStart - request.prefillEnd),
                ttftSeconds: request.prefillEnd - request.arrival,
                e2eSeconds: now - request.arrival))
    }

    // MARK: KV transfer

    /// Begins a transfer as soon as its target has room; any number share a link unhindered.
    private mutating func transferKV(_ slot: Int) {
        let target = Int(live[slot].tokenMachine)
        let bytes = live[slot].memoryBytes
        guard machines[target].memoryBytes + bytes <= cluster.memoryBytes else {
            failedTransfers += 1
            return transfers.insert(
                time: now + cluster.transferRetrySeconds, slot: Int32(slot), isEnd: false)
        }
        failedTransfers = 0
        transfersUnderWay += 1
        machines[target].memoryBytes += bytes
        let sent = Double(Int(live[slot].promptTokens) * cluster.model.kvBytesPerToken)
        transfers.insert(
            time: now + sent / cluster.linkBytesPerSecond, slot: Int32(slot), isEnd: true)
    }

    private mutating func endTransfer(_ slot: Int) {
        let source = Int(live[slot].promptMachine)
        failedTransfers = 0
        transfersUnderWay -= 1
        free(live[slot].memoryBytes, of: source)
        takeTask(.decode(slot), on: Int(live[slot].tokenMachine))
        roomWasMade(on: source)
    }

    /// Whether all transfers have failed to begin since anything else happened.
    private var isStuck: Bool {
        iterations.isEmpty && transfersUnderWay == 0 && failedTransfers > transfers.count
    }

    // MARK: Memory

    func prefillBytes(_ slot: Int) -> Int {
        (Int(live[slot].promptTokens) + 1) * cluster.model.kvBytesPerToken
    }

    func decodeBytes(_ slot: Int) -> Int {
        (Int(live[slot].outputTokens) - 1) * cluster.model.kvBytesPerToken
    }

    /// What a task reserves when it begins: for its tokens and, of prefill, the first of decode.
    func bytes(_ task: TaskRef) -> Int {
        task.isDecode ? decodeBytes(task.slot) : prefillBytes(task.slot)
    }

    private mutating func free(_ bytes: Int, of machine: Int) {
        machines[machine].memoryBytes -= bytes
        promise(machine, bytes: -bytes)
    }
}
