import ClusterRules
import ServingTypes

/// The times that the ratio formula of one pool needs: measured if possible, else as workers
/// predicted them, else expected.
struct RateBook: Sendable {
    /// Means of the last window with enough requests.
    private var measured: (newTokens: Double, outputTokens: Double, decodeSeconds: Double)?
    private var measuredPrefillSeconds = 0.0

    /// Whether there was a window with enough requests.
    var isMeasured: Bool { measured != nil }

    mutating func note(_ recent: TrafficSums, limits: GroupLimits) {
        guard recent.completed >= limits.minimumSamples, recent.endToEndSeconds > 0 else { return }
        measured = (
            recent.meanNewTokens, recent.meanOutputTokens,
            max(0, recent.meanEndToEndSeconds - recent.meanPrefillSeconds)
        )
        measuredPrefillSeconds = recent.meanPrefillSeconds
    }

    /// Nil while a rate that is needed was neither measured or predicted by a worker nor seen in
    /// traffic.
    ///
    /// A worker with b_p slots that computes R tokens/s needs T_p = b_p·tokens/R for b_p prompts at
    /// once. T_d is what requests took after their prefill, so that it contains the transfer ξ.
    func times(of members: PoolMembers, spec: ScenarioSpec) -> PhaseTimes? {
        let all = members.prefill + members.decode + members.mixed + members.spares
        let newTokens = max(1, measured?.newTokens ?? Double(spec.expectedPromptTokens))
        let outputTokens = max(1, measured?.outputTokens ?? Double(spec.expectedOutputTokens))
        let slots = mean(
            all.filter { $0.can(.prefill) }.map { Double($0.worker.description.prefillSlots) })
        let sequences = mean(
            all.filter { $0.can(.decode) }.map {
                $0.worker.description.sequences(ofTokens: newTokens + outputTokens)
            })
        guard let slots, let sequences else { return nil }
        let tokensPerSecond = mean(
            all.map(\.worker.prefillTokensPerSecond).filter { $0 > 0 && $0.isFinite })
        // Half of the output is there on average.
        let context = sequences * (newTokens + outputTokens / 2)
        let step = mean(
            all.map {
                $0.worker.decodeStepMilliseconds(sequences: sequences, contextTokens: context)
            }.filter { $0 > 0 && $0.isFinite })
        let prefillSeconds =
            tokensPerSecond.map { slots * newTokens / $0 } ?? measuredPrefillSeconds
        let decodeSeconds = measured?.decodeSeconds ?? step.map { outputTokens * $0 / 1000 } ?? 0
        guard prefillSeconds > 0, decodeSeconds > 0 else { return nil }
        return PhaseTimes(
            prefillSeconds: prefillSeconds, decodeSeconds: decodeSeconds, prefillBatch: slots,
            decodeBatch: sequences)
    }

    private func mean(_ values: [Double]) -> Double? {
        values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
    }
}

extension GroupWorker {
    /// Measured in service, else predicted; 0: unknown.
    fileprivate var prefillTokensPerSecond: Double {
        status.prefillTokensPerSecond > 0
            ? status.prefillTokensPerSecond : description.predicted?.prefillTokensPerSecond ?? 0
    }

    /// Measured in service, else predicted for so many sequences; 0: unknown.
    fileprivate func decodeStepMilliseconds(sequences: Double, contextTokens: Double) -> Double {
        guard status.decodeStepMilliseconds <= 0, let predicted = description.predicted else {
            return status.decodeStepMilliseconds
        }
        return predicted.decodeStepMilliseconds(
            sequences: sequences, contextTokens: contextTokens)
    }
}

extension InstanceDescription {
    /// Sequences of this length that it decodes at once: b_d.
    func sequences(ofTokens tokens: Double) -> Double {
        let bytes = Double(kvBytesPerToken) * tokens
        let fitting = bytes > 0 ? Double(kvCapacityBytes) / bytes : .infinity
        return max(1, min(Double(decodeSequences), fitting))
    }
}

/// The number of workers an autoscaler should provide for one role of one scenario.
struct Wish: Sendable, Hashable {
    private(set) var wanted = 0
    private var highest = 0
    private var highestAt = MonotonicTime.start

    /// Rises at once, falls after the wish has been lower for a while.
    mutating func set(_ value: Int, now: MonotonicTime, hold: Duration) {
        if value >= wanted {
            wanted = value
            highestAt = now
            highest = 0
        } else {
            highest = max(highest, value)
            guard now - highestAt >= hold else { return }
            wanted = highest
            highestAt = now
            highest = 0
        }
    }
}
