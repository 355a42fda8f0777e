import DeviceProfile

/// Requests per second that one machine can take, by P/D-Serve's model of a phase (b / T, arXiv
/// 2408.08147, section 3.1), before anything is simulated.
package struct CapacityEstimate: Sendable, Hashable {
    /// As a prefill machine; its link may be what limits it.
    package var prefill: Double
    /// As a decode machine.
    package var decode: Double
    /// Doing both.
    package var mixed: Double
    /// Sequences at once, and seconds per step then.
    package var batch: Int
    package var stepSeconds: Double
    package var promptSeconds: Double
    /// Seconds that a mean prompt's KV takes over the link.
    package var transferSeconds: Double

    /// Most of its time in which a machine may be busy with what comes at random.
    static let busyPart = 0.9

    init(_ kind: Int, of task: PlanningTask, traffic: TrafficProfile) {
        let model = task.kinds[kind].model
        promptSeconds = traffic.promptSeconds(model)
        transferSeconds =
            traffic.meanPrompt * Double(model.kvBytesPerToken) / max(1, task.link(of: kind))
        prefill = Self.busyPart / max(promptSeconds, transferSeconds, 1e-12)
        let limit = task.goals.tpotLimit(traffic)
        (batch, stepSeconds) = Self.batch(
            model, traffic, limit: limit, atMost: task.decodeSequences)
        let perRequest = traffic.meanOutput * stepSeconds / Double(max(1, batch))
        decode = batch == 0 ? 0 : Self.busyPart / max(perRequest, transferSeconds, 1e-12)
        // Steps in which a part of a prompt is computed keep within the limit, too.
        let part = 0...min(task.mixedPromptTokens, max(1, Int(traffic.meanPrompt)))
        let together = model.mixedSeconds(
            [Range(part)], sequences: 1, contextTokens: Int(traffic.meanContext))
        let slower = together > limit ? limit / together : 1
        mixed = batch == 0 ? 0 : Self.busyPart * slower / (promptSeconds + perRequest)
    }

    /// The largest batch whose steps keep the limit and whose KV fits.
    private static func batch(
        _ model: any PerformanceModel, _ traffic: TrafficProfile, limit: Double, atMost: Int
    ) -> (Int, Double) {
        func seconds(_ sequences: Int) -> Double {
            model.decodeSeconds(
                sequences: sequences,
                contextTokens: Int(traffic.meanContext * Double(sequences)))
        }
        guard model.kvCapacityTokens >= traffic.longestSequence else { return (0, 0) }
        let fitting = Int(Double(model.kvCapacityTokens) / max(1, traffic.meanContext))
        var (low, high) = (0, max(1, min(atMost, fitting)))
        while low < high {
            let middle = (low + high + 1) / 2
            if seconds(middle) <= limit { low = middle } else { high = middle - 1 }
        }
        return (low, seconds(max(1, low)))
    }
}
