package import InferenceEngine
import ServingTypes

/// How fast an engine has been lately, by its own count.
package struct EngineRates: Sendable, Hashable {
    /// A running average of amounts and the time they took.
    private struct Average: Hashable {
        var amount = 0.0
        var seconds = 0.0

        mutating func add(_ amount: Int, in duration: Duration) {
            let new = duration.seconds
            guard amount > 0, new > 0 else { return }
            let weight = max(0, 1 - new / EngineRates.memorySeconds)
            self.amount = self.amount * weight + Double(amount)
            seconds = seconds * weight + new
        }
    }

    /// Busy time after which a reading has little weight left.
    private static let memorySeconds = 10.0

    private var last = EngineProgress(steps: 0, stepAge: nil, openSequences: 0, usedKVTokens: 0)
    private var prefill = Average()
    private var decode = Average()

    package init() {}

    /// What was done until now doesn't count.
    package init(since progress: EngineProgress) { last = progress }

    /// Takes in what has been done since the last call; called a few times a second.
    package mutating func record(_ progress: EngineProgress) {
        prefill.add(
            progress.prefillTokens - last.prefillTokens,
            in: progress.prefillDuration - last.prefillDuration)
        decode.add(
            progress.decodeSteps - last.decodeSteps,
            in: progress.decodeDuration - last.decodeDuration)
        last = progress
    }

    /// 0 until something was measured.
    package var prefillTokensPerSecond: Double {
        prefill.seconds > 0 ? prefill.amount / prefill.seconds : 0
    }

    /// 0 until something was measured.
    package var decodeStepMilliseconds: Double {
        decode.amount > 0 ? 1000 * decode.seconds / decode.amount : 0
    }
}
