import ServingTypes

/// KV that is there already and leaves: a retained sequence's, or what a job began with.
extension BatchPlanner {
    /// KV is there that still has to leave.
    package var hasExports: Bool { !exporters.isEmpty }

    /// How often `nextExport` is to be asked between two iterations, at most.
    package var exportsPerStep: Int {
        decoding.isEmpty ? Limits.exportsPerStep : Limits.exportsPerDecodeStep
    }

    /// The next block to export; the sequence that came first has all of its blocks first.
    ///
    /// The engine calls `exported` then, or `fail`.
    package func nextExport() -> Export? {
        guard let slot = exporters.first, let sequence = slots[slot],
            let tokens = sequence.exporting
        else { return nil }
        return Export(
            sequence: sequence.id, slot: slot, tokens: tokens.prefix(limits.microBatchTokens))
    }

    package mutating func exported(_ export: Export) -> [Action] {
        guard let tokens = slots[export.slot]?.exporting else { return [] }
        let rest = export.tokens.upperBound..<tokens.upperBound
        if !rest.isEmpty {
            slots[export.slot]?.exporting = rest
            return []
        }
        slots[export.slot]?.exporting = nil
        exporters.removeAll { $0 == export.slot }
        let isRetained = slots[export.slot]?.isRetained == true
        return isRetained ? [.report(.exportEnded(export.sequence))] : []
    }

    mutating func export(_ id: SequenceID, from start: Int) -> [Action] {
        guard let slot = slotOf[id], let present = slots[slot], present.isRetained else {
            return refuse(id, .invalidJob(reason: "the KV to export is not retained"))
        }
        if present.exporting != nil {
            return refuse(id, .invalidJob(reason: "the KV is being exported"))
        }
        guard 0...present.computedTokens ~= start else {
            return refuse(
                id,
                .invalidJob(
                    reason: "export from token \(start) on, \(present.computedTokens) are there"))
        }
        queueExport(of: slot, from: start)
        return hasExport(slot) ? [] : [.report(.exportEnded(id))]
    }

    /// Lets KV that is there from token `start` on leave, if there is any.
    mutating func queueExport(of slot: Int, from start: Int) {
        guard let present = slots[slot], start < present.computedTokens else { return }
        slots[slot]?.exporting = start..<present.computedTokens
        exporters.append(slot)
    }

    func hasExport(_ slot: Int) -> Bool { slots[slot]?.exporting != nil }
}
