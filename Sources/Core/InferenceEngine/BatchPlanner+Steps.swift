import ServingTypes

extension BatchPlanner {
    /// One iteration: sequences that no longer fit, then what to compute.
    package struct Step: Sendable {
        package var actions: [Action] = []
        /// Empty if there is nothing to compute.
        package var runs: [Run] = []
        /// Sequences that decode in it.
        package var decodingSequences = 0

        package var promptTokens: Int { tokens - decodingSequences }
        package var tokens: Int { runs.reduce(0) { $0 + $1.tokens.count } }
    }

    /// Chooses the next iteration.
    ///
    /// All decoding sequences take part. Prompt tokens fill the rest in order of arrival, so a
    /// prompt that is alone is always cut at the same places, multiples of the micro-batch and the
    /// start of a short last run: the cut decides the last digits of the logits. Sequences whose
    /// KV still has to leave wait.
    package mutating func nextStep() -> Step {
        var step = Step()
        while let (victim, needed) = sequenceWithoutRoom() {
            step.actions += fail(
                victim, .noRoom(neededTokens: needed, freeTokens: freeKVTokens))
        }
        for slot in decoding where !hasExport(slot) { takeRun(slot, upTo: 1, into: &step) }
        step.decodingSequences = step.runs.count
        var budget = limits.microBatchTokens - step.decodingSequences
        if step.decodingSequences > 0 {
            budget = stepBudget.promptTokens(atMost: min(budget, limits.prefillBudgetTokens))
        }
        for slot in prompts where budget > 0 && !hasExport(slot) {
            budget -= takeRun(slot, upTo: budget, into: &step)
        }
        return step
    }

    mutating func limitStep(_ limit: Duration?) -> [Action] {
        stepBudget.limit = limit
        return []
    }

    /// Takes in how long the iteration took that `nextStep` chose.
    package mutating func measured(_ step: Step, duration: Duration) {
        stepBudget.measured(
            duration, decodingSequences: step.decodingSequences, promptTokens: step.promptTokens)
    }

    /// Takes the results of the iteration that `nextStep` chose.
    ///
    /// - Parameters:
    ///   - samples: one per run that samples, in order.
    ///   - failures: sequences that failed while computing or exporting.
    package mutating func complete(
        _ runs: [Run], samples: [Result<Sample, EngineError>],
        failures: [SequenceID: EngineError] = [:]
    ) -> [Action] {
        var actions: [Action] = []
        var rest = samples[...]
        for run in runs {
            let sample = run.samples ? rest.popFirst() : nil
            if let error = failures[run.sequence] {
                actions += fail(run.sequence, error)
                continue
            }
            slots[run.slot]?.computedTokens += run.tokens.count
            slots[run.slot]?.remaining.removeFirst(run.tokens.count)
            switch sample {
            case .none: break
            case .failure(let error): actions += fail(run.sequence, error)
            case .success(let sample): actions += accept(sample, for: run)
            }
        }
        return actions
    }

    /// Adds the run of the slot's next tokens; says how many.
    @discardableResult
    private mutating func takeRun(_ slot: Int, upTo tokens: Int, into step: inout Step) -> Int {
        guard let sequence = slots[slot] else { return 0 }
        let taken = sequence.remaining.prefix(nextRunTokens(of: sequence, upTo: tokens))
        let start = sequence.computedTokens
        let end = start + taken.count
        commit(slot, tokens: end)
        step.runs.append(
            Run(
                sequence: sequence.id, slot: slot, tokenStart: start, tokens: taken,
                samples: taken.count == sequence.remaining.count,
                exported: min(max(start, sequence.exportedFrom ?? end), end)..<end))
        return taken.count
    }

    /// As many as go, but so that the last run of a long prompt is a short one.
    private func nextRunTokens(of sequence: OpenSequence, upTo tokens: Int) -> Int {
        let rest = sequence.remaining.count
        let final = limits.finalRunTokens
        let isLastButOne = rest > final && rest <= tokens
        guard sequence.isLongPrompt, final > 0, isLastButOne else { return min(rest, tokens) }
        return rest - final
    }

    private mutating func accept(_ sample: Sample, for run: Run) -> [Action] {
        guard var sequence = slots[run.slot] else { return [] }
        sequence.generatedTokens += 1
        let finish = finishReason(of: sample, for: sequence)
        let event = EngineEvent.token(run.sequence, sample.output, finish: finish)
        guard finish == nil else {
            return sequence.retainsKV
                ? retain(run.slot, reporting: event) : close(run.sequence, reporting: event)
        }
        sequence.remaining = [sample.output.token]
        if !sequence.isDecoding {
            sequence.isDecoding = true
            prompts.removeAll { $0 == run.slot }
            decoding.append(run.slot)
        }
        slots[run.slot] = sequence
        return [.report(event)]
    }

    private func finishReason(of sample: Sample, for sequence: OpenSequence) -> FinishReason? {
        if sample.endsGeneration && !sequence.ignoresEndOfGeneration { return .stop }
        if sequence.generatedTokens >= sequence.maximumNewTokens { return .length }
        // The sampled token would need the position after the last computed one.
        return sequence.computedTokens >= limits.contextTokens ? .length : nil
    }

    /// The sequence whose job came last, if the decoding sequences' next tokens don't all fit,
    /// and how much room these need.
    private func sequenceWithoutRoom() -> (SequenceID, neededTokens: Int)? {
        let growth = decoding.reduce(0) { sum, slot in
            guard let sequence = slots[slot] else { return sum }
            return sum + max(0, sequence.computedTokens + 1 - sequence.committedTokens)
        }
        guard growth > freeKVTokens else { return nil }
        let last = slots.compactMap { $0 }.filter { $0.arrival != nil }
            .max { ($0.arrival ?? 0) < ($1.arrival ?? 0) }
        return last.map { ($0.id, growth) }
    }
}
