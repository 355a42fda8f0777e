/// Who takes part in the next iteration of a machine.
extension SplitwiseSimulation {
    /// What the tasks chosen so far take.
    private struct Selection {
        var tasks: [TaskRef] = []
        var tokens = 0
        var memoryBytes: Int
    }

    /// Takes tasks in SplitwiseSim's order: those passed over too often, prompts, decodes that
    /// were preempted, those that run, and the rest.
    mutating func selectBatch(_ machine: Int) {
        selections &+= 1
        var chosen = Selection(memoryBytes: machines[machine].memoryBytes)
        chooseOftenSkipped(machine, &chosen)
        choosePrefills(machine, &chosen)
        for task in machines[machine].blocked {
            guard hasRoom(for: task, chosen) else { break }
            if !isChosen(task) { choose(task, &chosen) }
        }
        for entry in machines[machine].batch {
            guard hasRoom(for: entry.task, chosen) else { break }
            if !isChosen(entry.task) { choose(entry.task, &chosen) }
        }
        chooseRest(machine, &chosen)
        machines[machine].batchTokens = chosen.tokens
        preemptUnchosen(machine)
        for task in chosen.tasks where state(task) != .running { begin(task, on: machine) }
        countSkips(machine)
    }

    /// Does the same for the usual case that one request waits and fits.
    mutating func addOnlyPending(_ machine: Int) -> Bool {
        let count = machines[machine].pending.count
        let first = machines[machine].pending[0]
        guard count == 1 || (count == 2 && machines[machine].pending[1].slot == first.slot) else {
            return false
        }
        let task = count == 1 ? first : .prefill(first.slot)
        let batch = machines[machine].batch.count
        guard batch < cluster.limits.batchSize,
            batch == 0 || batch + tokens(task) <= cluster.limits.batchTokens,
            state(task) == .blocked
                || machines[machine].memoryBytes + bytes(task) <= cluster.memoryBytes
        else { return false }
        machines[machine].batchTokens = batch + tokens(task)
        begin(task, on: machine)
        return true
    }

    // MARK: Choosing

    private func hasRoom(for task: TaskRef, _ chosen: Selection) -> Bool {
        guard chosen.tasks.count < cluster.limits.batchSize else { return false }
        return chosen.tasks.isEmpty || chosen.tokens + tokens(task) <= cluster.limits.batchTokens
    }

    private func hasMemory(for task: TaskRef, _ chosen: Selection) -> Bool {
        chosen.memoryBytes + bytes(task) <= cluster.memoryBytes
    }

    private func isChosen(_ task: TaskRef) -> Bool { live[task.slot].selection == selections }

    private mutating func choose(_ task: TaskRef, _ chosen: inout Selection) {
        live[task.slot].selection = selections
        chosen.tasks.append(task)
        chosen.tokens += tokens(task)
    }

    private mutating func chooseOftenSkipped(_ machine: Int, _ chosen: inout Selection) {
        for task in machines[machine].pending {
            guard skips(task) >= cluster.limits.preemptions, hasRoom(for: task, chosen) else {
                return
            }
            guard !isChosen(task) else { continue }
            if state(task) != .blocked {
                guard hasMemory(for: task, chosen) else { continue }
                chosen.memoryBytes += bytes(task)
            }
            choose(task, &chosen)
        }
    }

    private mutating func choosePrefills(_ machine: Int, _ chosen: inout Selection) {
        for slot in machines[machine].pendingPrefills {
            let task = TaskRef.prefill(Int(slot))
            guard hasRoom(for: task, chosen) else { return }
            guard !isChosen(task) else { continue }
            guard hasMemory(for: task, chosen) else { return }
            chosen.memoryBytes += bytes(task)
            choose(task, &chosen)
        }
    }

    /// Pending tasks by the arrival of their requests.
    ///
    /// Should a task of the batch not have been chosen, there is no room for any.
    private mutating func chooseRest(_ machine: Int, _ chosen: inout Selection) {
        guard chosen.tasks.count < cluster.limits.batchSize,
            chosen.tasks.isEmpty || chosen.tokens < cluster.limits.batchTokens
        else { return }
        var rest = machines[machine].pending.filter { !isChosen($0) && isNext($0, on: machine) }
        guard !rest.isEmpty else { return }
        rest.sort {
            let (one, other) = (live[$0.slot], live[$1.slot])
            return (one.arrival, one.number) < (other.arrival, other.number)
        }
        for task in rest {
            guard hasRoom(for: task, chosen) else { return }
            if state(task) != .blocked {
                guard hasMemory(for: task, chosen) else { return }
                chosen.memoryBytes += bytes(task)
            }
            choose(task, &chosen)
        }
    }

    // MARK: Changing the batch

    private mutating func preemptUnchosen(_ machine: Int) {
        guard machines[machine].batch.contains(where: { !isChosen($0.task) }) else { return }
        let batch = machines[machine].batch
        machines[machine].batch = batch.filter { isChosen($0.task) }
        for entry in batch where !isChosen(entry.task) {
            // Prefills end with their iteration, so it is a decode.
            live[entry.task.slot].decodeState = .blocked
            live[entry.task.slot].stepsLeft = entry.end - machines[machine].steps
            addPending(entry.task, on: machine)
            machines[machine].blocked.append(entry.task)
        }
    }

    private mutating func begin(_ task: TaskRef, on machine: Int) {
        let slot = task.slot
        removePending(task, on: machine)
        let steps = task.isDecode ? live[slot].stepsLeft : 1
        machines[machine].batch.append(
            BatchEntry(task: task, end: machines[machine].steps + steps))
        if !task.isDecode { machines[machine].prefillsInBatch += 1 }
        if state(task) == .queued {
            machines[machine].memoryBytes += bytes(task)
            live[slot].memoryBytes += bytes(task)
            if task.isDecode { live[slot].decodeStart = now }
        }
        if task.isDecode {
            live[slot].decodeState = .running
        } else {
            live[slot].prefillState = .running
        }
    }

    private mutating func countSkips(_ machine: Int) {
        for task in machines[machine].pending
        where !isChosen(task) && isNext(task, on: machine) {
            if task.isDecode {
                live[task.slot].decodeSkips += 1
            } else {
                live[task.slot].prefillSkips += 1
            }
        }
    }

    // MARK: The queue

    /// Searches by halves, though skips counted since may have disordered the queue.
    mutating func addPending(_ task: TaskRef, on machine: Int) {
        let skips = skips(task)
        let arrival = live[task.slot].arrival
        var low = 0
        var high = machines[machine].pending.count
        while low < high {
            let middle = (low + high) / 2
            let other = machines[machine].pending[middle]
            let otherSkips = self.skips(other)
            if skips < otherSkips || (skips == otherSkips && arrival < live[other.slot].arrival) {
                high = middle
            } else {
                low = middle + 1
            }
        }
        machines[machine].pending.insert(task, at: low)
        if !task.isDecode { machines[machine].pendingPrefills.append(Int32(task.slot)) }
    }

    private mutating func removePending(_ task: TaskRef, on machine: Int) {
        Self.remove(task, from: &machines[machine].pending)
        if state(task) == .blocked { Self.remove(task, from: &machines[machine].blocked) }
        if !task.isDecode {
            Self.remove(Int32(task.slot), from: &machines[machine].pendingPrefills)
        }
    }

    private static func remove(_ item: Int32, from items: inout [Int32]) {
        for index in items.indices where items[index] == item {
            items.remove(at: index)
            return
        }
    }

    // MARK: Tasks

    /// Whether a pending task is the next of its request on the machine.
    private func isNext(_ task: TaskRef, on machine: Int) -> Bool {
        !task.isDecode || !live[task.slot].isChained || live[task.slot].prefillState == .completed
    }

    private func tokens(_ task: TaskRef) -> Int {
        task.isDecode ? 1 : Int(live[task.slot].promptTokens)
    }

    private func skips(_ task: TaskRef) -> Int32 {
        task.isDecode ? live[task.slot].decodeSkips : live[task.slot].prefillSkips
    }

    private func state(_ task: TaskRef) -> TaskState {
        task.isDecode ? live[task.slot].decodeState : live[task.slot].prefillState
    }
}
