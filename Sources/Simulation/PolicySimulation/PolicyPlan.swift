package import ClusterRules
import Roles
package import RequestTraces
import ServingTypes

/// One simulated cluster and the load on it.
package struct PolicyPlan: Sendable {
    /// How requests come.
    package enum Load: Sendable {
        /// At the trace's own times.
        case open(RequestTrace)
        /// So many users, each of whom asks again as soon as the last request has ended.
        case users(Int, RequestTrace)
    }

    /// Who waits where.
    package enum Waiting: Sendable {
        /// Workers have so many slots and refuse; requests wait in the gateway.
        case slots(Int)
        /// Workers take everything and work in order of arrival.
        case localQueues
    }

    package var load: Load
    /// Time until a user asks again whose request was refused; one that timed out is asked again at
    /// once.
    package var retrySeconds = 1.0
    package var gateways = 4
    package var prefill: [DeviceCurves]
    package var decode: [DeviceCurves]
    package var scenario: ScenarioSpec
    package var waiting = Waiting.slots(2)
    package var decodeSequences = 64
    package var kvCapacityTokens = 1 << 20
    /// Prompt tokens of one iteration (Splitwise's machines batch up to 2048).
    package var iterationTokens = 2048
    /// What mixed iterations may hold of prompts.
    package var mixedPromptTokens = 512
    /// Conversations whose KV a worker keeps.
    package var keptSequences = 0
    /// Simulated time, and the beginning that is not measured.
    package var seconds: Double
    package var warmUpSeconds = 0.0
    package var seed: UInt64 = 1

    package init(
        load: Load, prefill: [DeviceCurves], decode: [DeviceCurves], scenario: ScenarioSpec,
        seconds: Double
    ) {
        self.load = load
        self.prefill = prefill
        self.decode = decode
        self.scenario = scenario
        self.seconds = seconds
    }

    var ttftLimit: Double { scenario.ttftLimit.seconds }

    var workerLimits: WorkerLimits {
        var slots = 1 << 11
        if case .slots(let count) = waiting { slots = count }
        var limits = WorkerLimits(
            prefillSlots: slots, decodeSequences: decodeSequences,
            kvCapacityTokens: kvCapacityTokens, contextTokens: 1 << 17,
            kvBytesPerToken: prefill.first?.kvBytesPerToken ?? 1)
        limits.landingBytes = 1 << 50
        limits.landingWindowBytes = 1 << 45
        limits.keptSequences = keptSequences
        return limits
    }

    /// Sequences an engine may have open at once: running, and kept.
    var maximumOpenSequences: Int {
        max(workerLimits.prefillSlots, decodeSequences) + keptSequences
    }

    var gatewayLimits: GatewayLimits {
        var limits = GatewayLimits()
        limits.maximumRequests = 1 << 20
        limits.placementDeadline = scenario.ttftLimit
        limits.requestDeadline = .seconds(3600)
        limits.answerDeadline = .seconds(3600)
        return limits
    }
}
