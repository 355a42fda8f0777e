package import ServingTypes

/// Roles that the scheduler assigns.
extension WorkerMachine {
    /// Takes no more work that the assigned role doesn't have, at once; the role changes when the
    /// last such work has ended.
    ///
    /// Prompts and sequences that both roles take go on coming meanwhile. A lower number than the
    /// latest is ignored: it has been overtaken.
    package mutating func assigned(_ assign: Assign, now: MonotonicTime) -> [WorkerAction] {
        guard assign.number >= latestAssignment else { return [] }
        latestAssignment = assign.number
        pending = assign
        assignedAt = now
        let isNew = assign.stepLimit != stepLimit
        stepLimit = assign.stepLimit
        return follow { _ in isNew ? [.limitStep(assign.stepLimit)] : [] }
    }

    /// Another scheduler, or the same one on a new connection, may count from anew.
    package mutating func schedulerChanged() { latestAssignment = 0 }

    /// The shell has answered `loadModel`.
    ///
    /// - Parameter isLoaded: false if the old model is still there and the assignment given up; the
    ///   status then bears its number with the old role.
    package mutating func modelLoaded(_ isLoaded: Bool) -> [WorkerAction] {
        guard isLoading, let assign = pending else { return [] }
        isLoading = false
        if isLoaded {
            modelPath = assign.modelPath
        } else {
            assignment = assign.number
            pending = nil
        }
        return follow { _ in [] }
    }

    func changesModel(_ assign: Assign) -> Bool {
        !assign.modelPath.isEmpty && assign.modelPath != modelPath
    }

    /// Takes up the assigned role once nothing is open that it doesn't have.
    mutating func carryOutAssignment() -> [WorkerAction] {
        guard let assign = pending else { return [] }
        if changesModel(assign) { return load(assign) }
        guard assign.role.takesPrompts || !prefill.hasOwnWork,
            assign.role.takesSequences || !decode.hasOwnWork
        else { return [] }
        pending = nil
        assignment = assign.number
        role = assign.role
        closeSides()
        return [.roleChanged(role)]
    }

    /// The weights change only when nothing is open; kept KV is of the old ones.
    private mutating func load(_ assign: Assign) -> [WorkerAction] {
        guard isIdle, !isLoading else { return [] }
        isLoading = true
        return room.empty() + [.loadModel(assign.modelPath)]
    }
}
