package import ClusterRules
import DeviceProfile
package import RequestTraces
import Roles
import ServingTypes

/// One simulated cluster and the load on it.
package struct ServingPlan: Sendable {
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
    package var machines: [MachinePlan]
    package var network = NetworkPlan()
    package var contention = HostContention()
    package var faults: [MachineFault] = []
    package var scenario: ScenarioSpec
    /// Time until a user asks again whose request was refused; one that timed out is asked again at
    /// once.
    package var retrySeconds = 1.0
    /// Time after which a client leaves that has no first token; nil: it stays.
    package var patienceSeconds: Double?
    package var gateways = 4
    package var waiting = Waiting.slots(2)
    package var decodeSequences = 64
    /// Most tokens of KV of one machine, whatever its memory holds.
    package var kvCapacityTokens = 1 << 20
    /// Prompt tokens of one iteration (Splitwise's machines batch up to 2048).
    package var iterationTokens = 2048
    /// What mixed iterations may hold of prompts.
    package var mixedPromptTokens = 512
    /// Most tokens of a long prompt's last run.
    package var finalRunTokens = 0
    /// Conversations whose KV a worker keeps.
    package var keptSequences = 0
    /// Simulated time, and the beginning that is not measured.
    package var seconds: Double
    package var warmUpSeconds = 0.0
    /// Time after that in which requests may end; what is left then has failed.
    package var drainSeconds = 60.0
    /// Length of the timeline's steps; nil: there is no timeline.
    package var timelineStepSeconds: Double?
    package var seed: UInt64 = 1

    package init(
        load: Load, machines: [MachinePlan], scenario: ScenarioSpec, seconds: Double
    ) {
        self.load = load
        self.machines = machines
        self.scenario = scenario
        self.seconds = seconds
    }

    func workerLimits(_ machine: MachinePlan) -> WorkerLimits {
        var slots = 1 << 11
        if case .slots(let count) = waiting { slots = count }
        let capacity = min(kvCapacityTokens, machine.model.kvCapacityTokens)
        var limits = WorkerLimits(
            prefillSlots: slots, decodeSequences: decodeSequences, kvCapacityTokens: capacity,
            contextTokens: min(1 << 18, capacity), kvBytesPerToken: machine.model.kvBytesPerToken)
        limits.landingBytes = 1 << 50
        limits.landingWindowBytes = 1 << 45
        limits.keptSequences = keptSequences
        return limits
    }

    /// Sequences an engine may have open at once: running, and kept.
    func maximumOpenSequences(_ limits: WorkerLimits) -> Int {
        max(limits.prefillSlots, decodeSequences) + keptSequences
    }

    var gatewayLimits: GatewayLimits {
        var limits = GatewayLimits()
        limits.maximumRequests = 1 << 20
        limits.maximumWaiting = 1 << 20
        limits.placementDeadline = scenario.ttftLimit
        limits.requestDeadline = .seconds(3600)
        limits.answerDeadline = .seconds(3600)
        return limits
    }
}
