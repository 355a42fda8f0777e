import ServingTypes

/// What a policy calls a machine's load.
enum LoadKey: Sendable {
    case none, requests, tokens

    init(_ policy: SplitwiseCluster.Policy) {
        switch policy {
        case .random, .roundRobin, .kvRoundRobin: self = .none
        case .shortestQueue, .kvShortestQueue: self = .requests
        case .fewestTokens, .kvFewestTokens, .mixedPool: self = .tokens
        }
    }
}

extension SplitwiseSimulation {
    /// Chooses the machines of a request, and promises their memory and time.
    mutating func place(_ slot: Int) {
        switch cluster.policy {
        case .random:
            assign(slot, generator.below(machines.count))
        case .roundRobin:
            assign(slot, nextMachine)
            nextMachine = (nextMachine + 1) % machines.count
        case .shortestQueue:
            assign(slot, least(byLoad, .prompt))
        case .fewestTokens:
            let machine = least(byLoad, .prompt)
            assign(slot, machine)
            promise(machine, tokens: Int(live[slot].promptTokens) + 1)
        case .kvRoundRobin:
            assign(slot, promptMachines[nextMachine], tokenMachines[nextTokenMachine])
            nextMachine = (nextMachine + 1) % promptMachines.count
            nextTokenMachine = (nextTokenMachine + 1) % tokenMachines.count
        case .kvShortestQueue, .kvFewestTokens:
            assign(slot, least(byLoad, .prompt), least(byLoad, .token))
        case .mixedPool:
            placeInPools(slot)
        }
    }

    private mutating func assign(_ slot: Int, _ prompt: Int, _ token: Int? = nil) {
        live[slot].promptMachine = Int32(prompt)
        live[slot].tokenMachine = Int32(token ?? prompt)
    }

    private func least(_ heaps: [IndexedHeap<Int>], _ pool: Pool) -> Int {
        heaps[pool.rawValue].least?.item ?? 0
    }

    // MARK: Mixed pool

    private mutating func placeInPools(_ slot: Int) {
        let tokens = Int(live[slot].promptTokens)
        let bytes = prefillBytes(slot) + decodeBytes(slot)
        var prompt = promptMachine(in: .prompt, tokens) ?? promptMachine(in: .mixed, tokens)
        var token = tokenMachine(in: .token, bytes) ?? tokenMachine(in: .mixed, bytes)
        if prompt == nil, let taken = byLoad[Pool.token.rawValue].least?.item {
            move(taken, to: .mixed)
            prompt = taken
        }
        if token == nil, let taken = byMemory[Pool.prompt.rawValue].least?.item {
            move(taken, to: .mixed)
            token = taken
        }
        guard let prompt, let token, prompt != token else {
            let machine = prompt != nil && prompt == token ? prompt ?? 0 : leastOfAll()
            assign(slot, machine)
            promise(machine, bytes: bytes)
            promise(machine, tokens: tokens + 1)
            return
        }
        assign(slot, prompt, token)
        promise(prompt, bytes: prefillBytes(slot))
        promise(token, bytes: bytes)
        promise(prompt, tokens: tokens)
        promise(token, tokens: 1)
    }

    private func promptMachine(in pool: Pool, _ tokens: Int) -> Int? {
        guard let (load, machine) = byLoad[pool.rawValue].least else { return nil }
        let isLong =
            !machines[machine].pending.isEmpty
            && load + tokens > cluster.limits.promptQueueTokens
        return isLong ? nil : machine
    }

    private func tokenMachine(in pool: Pool, _ bytes: Int) -> Int? {
        guard let (promised, machine) = byMemory[pool.rawValue].least else { return nil }
        return promised + bytes >= cluster.memoryBytes ? nil : machine
    }

    /// The machine with the fewest tokens; of equals one of the prompt pool, then a mixed one.
    private func leastOfAll() -> Int {
        var best: (key: Int, item: Int)?
        for heap in byLoad {
            guard let least = heap.least else { continue }
            if let known = best, known.key <= least.key { continue }
            best = least
        }
        return best?.item ?? 0
    }

    /// A mixed machine without work goes back to where it belongs.
    mutating func becameIdle(_ machine: Int) {
        guard machines[machine].pool == .mixed else { return }
        move(machine, to: machines[machine].home)
    }

    private mutating func move(_ machine: Int, to pool: Pool) {
        let old = machines[machine].pool.rawValue
        byLoad[old].remove(machine)
        byMemory[old].remove(machine)
        enter(pool, machine)
    }

    mutating func enter(_ pool: Pool, _ machine: Int) {
        machines[machine].pool = pool
        if loadKey != .none { byLoad[pool.rawValue].insert(machine, key: load(of: machine)) }
        guard cluster.policy == .mixedPool else { return }
        byMemory[pool.rawValue].insert(machine, key: machines[machine].promisedBytes)
    }

    // MARK: Loads

    private func load(of machine: Int) -> Int {
        loadKey == .requests ? machines[machine].requests : machines[machine].promisedTokens
    }

    mutating func promise(_ machine: Int, tokens: Int) {
        machines[machine].promisedTokens += tokens
        guard loadKey == .tokens else { return }
        byLoad[machines[machine].pool.rawValue].update(
            machine, key: machines[machine].promisedTokens)
    }

    mutating func promise(_ machine: Int, bytes: Int) {
        machines[machine].promisedBytes += bytes
        guard cluster.policy == .mixedPool else { return }
        byMemory[machines[machine].pool.rawValue].update(
            machine, key: machines[machine].promisedBytes)
    }

    mutating func requestsChanged(on machine: Int, by change: Int) {
        machines[machine].requests += change
        guard loadKey == .requests else { return }
        byLoad[machines[machine].pool.rawValue].update(machine, key: machines[machine].requests)
    }
}
