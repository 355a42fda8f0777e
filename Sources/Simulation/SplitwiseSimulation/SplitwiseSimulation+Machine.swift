/// What a machine does: takes tasks, runs iterations.
extension SplitwiseSimulation {
    // MARK: Tasks come

    mutating func takeTask(_ task: TaskRef, on machine: Int) {
        let slot = task.slot
        if task.isDecode {
            live[slot].decodeState = .queued
        } else {
            live[slot].prefillState = .queued
        }
        // A chained decode comes after its prefill, which has entered the request.
        if !task.isDecode || !live[slot].isChained { requestsChanged(on: machine, by: 1) }
        addPending(task, on: machine)

        let limits = cluster.limits
        let batch = machines[machine].batch.count
        guard batch > 0 else { return startIfRoom(for: task, on: machine) }
        let tokens = task.isDecode ? 1 : Int(live[slot].promptTokens)
        if batch < limits.batchSize, machines[machine].batchTokens + tokens <= limits.batchTokens {
            return cutShort(machine)
        }
        let prefills = machines[machine].prefillsInBatch
        let prefillTokens = machines[machine].batchTokens - (batch - prefills)
        if !task.isDecode, prefills < batch, prefillTokens + tokens <= limits.batchTokens {
            cutShort(machine)
        }
    }

    /// A KV transfer has left and freed memory, so that the first pending task may fit.
    mutating func roomWasMade(on machine: Int) {
        guard let first = machines[machine].pending.first else { return }
        if machines[machine].batch.isEmpty {
            startIfRoom(for: first, on: machine)
        } else if machines[machine].batch.count < cluster.limits.batchSize,
            machines[machine].batchTokens < cluster.limits.batchTokens
        {
            cutShort(machine)
        }
    }

    private mutating func startIfRoom(for task: TaskRef, on machine: Int) {
        guard machines[machine].memoryBytes + bytes(task) <= cluster.memoryBytes else { return }
        startIteration(machine)
    }

    // MARK: Iterations

    private mutating func startIteration(_ machine: Int) {
        if machines[machine].pending.isEmpty {
            // Whoever was in the batch stays.
            machines[machine].batchTokens = machines[machine].batch.count
        } else if !addOnlyPending(machine) {
            selectBatch(machine)
        }
        let batch = machines[machine].batch.count
        guard batch > 0 else {
            if iterations.contains(machine) { iterations.remove(machine) }
            if machines[machine].requests == 0 { becameIdle(machine) }
            return
        }
        let prefills = machines[machine].prefillsInBatch
        let curves = times[machines[machine].kind]
        if prefills == 0 {
            machines[machine].stepSeconds = curves.decodeSeconds(sequences: batch)
        } else {
            let seconds = curves.prefillSeconds(tokens: machines[machine].batchTokens)
            machines[machine].stepSeconds = prefills == batch ? seconds : seconds * 1.1
        }
        var first = Int32.max
        for entry in machines[machine].batch where entry.end < first { first = entry.end }
        machines[machine].plannedSteps = Double(first - machines[machine].steps)
        plan(machine, after: machines[machine].stepSeconds * machines[machine].plannedSteps)
    }

    private mutating func plan(_ machine: Int, after seconds: Double) {
        machines[machine].endTime = now + seconds
        iterations.renew(machine, key: machines[machine].endTime)
    }

    /// Ends decode steps that run on in one event at the next boundary.
    private mutating func cutShort(_ machine: Int) {
        guard !machines[machine].isCutShort, machines[machine].prefillsInBatch == 0 else { return }
        machines[machine].isCutShort = true
        let step = machines[machine].stepSeconds
        let begin = machines[machine].endTime - step * machines[machine].plannedSteps
        let elapsed = now - begin
        let steps = Self.quotient(elapsed, step) + 1
        machines[machine].plannedSteps = min(steps, machines[machine].plannedSteps)
        plan(machine, after: step * machines[machine].plannedSteps - elapsed)
    }

    /// Whole divisions, as Python rounds them.
    private static func quotient(_ dividend: Double, _ divisor: Double) -> Double {
        let quotient = (dividend - dividend.truncatingRemainder(dividingBy: divisor)) / divisor
        let floor = quotient.rounded(.down)
        return quotient - floor > 0.5 ? floor + 1 : floor
    }

    mutating func endIteration(_ machine: Int) {
        machines[machine].steps += Int32(machines[machine].plannedSteps)
        removeEnded(machine)
        machines[machine].isCutShort = false
        startIteration(machine)
    }

    private mutating func removeEnded(_ machine: Int) {
        // Apart from the machine, so that nothing is looked up for those that stay.
        var batch: [BatchEntry] = []
        swap(&batch, &machines[machine].batch)
        let steps = machines[machine].steps
        var kept = batch.firstIndex { $0.end == steps } ?? batch.count
        for index in kept..<batch.count {
            let entry = batch[index]
            if entry.end == steps {
                if !entry.task.isDecode { machines[machine].prefillsInBatch -= 1 }
                endTask(entry.task, on: machine)
            } else {
                batch[kept] = entry
                kept += 1
            }
        }
        batch.removeLast(batch.count - kept)
        swap(&batch, &machines[machine].batch)
    }

    private mutating func endTask(_ task: TaskRef, on machine: Int) {
        let slot = task.slot
        if task.isDecode || !live[slot].isChained || live[slot].outputTokens == 1 {
            requestsChanged(on: machine, by: -1)
        }
        if task.isDecode { endDecode(slot, on: machine) } else { endPrefill(slot, on: machine) }
    }
}
