package import ClusterRules
import KVHandOver
import Roles
import Scheduling
import ServingTypes

/// What one simulated cluster is made of and what happens to it; drawn from a seed.
package struct ClusterPlan: Sendable, Hashable {
    /// How much goes wrong.
    package enum Weather: Int, Sendable, CaseIterable {
        case calm
        /// KV is damaged and its connections are cut, each transfer once: nothing starts again.
        case showers
        case windy, stormy

        /// Nothing goes wrong that a request would notice.
        var isHarmless: Bool { self == .calm || self == .showers }
    }

    package var seed: UInt64
    package var weather: Weather
    package var gateways: Int
    package var prefillWorkers: Int
    package var decodeWorkers: Int
    package var hasHealthAgents: Bool
    package var prefillSlots: Int
    package var decodeSequences: Int
    package var kvCapacityTokens: Int
    package var contextTokens: Int
    package var microBatchTokens: Int
    /// Ended sequences whose KV a decode-worker keeps.
    package var keptSequences: Int
    /// KV connections of a prefill-worker to a decode-worker.
    package var connections: Int
    /// Largest chunks that a decode-worker's landing area holds, and one transfer's part of it.
    package var landingChunks: Int
    package var windowChunks: Int
    /// Time of the engine compared with the fastest.
    package var engineSlowness: Int
    /// Longest time a crashed process takes to come back.
    package var longestOutage: Duration
    package var requests: Int
    /// Time in which the requests arrive, and in which things go wrong.
    package var arrivals: Duration
    package var maximumRequests: Int
    /// Part of the clients that leave before the end.
    package var leavingClients: Double
    /// Part of the clients that ask again after an answer, with all that was said before.
    package var talkingClients: Double
    /// Tokens with which all prompts begin.
    package var commonTokens: Int
    /// What the cluster file says: one scenario or two.
    package var rules: ClusterSpec
    /// The gateways may begin with a prompt before there is room for its KV.
    package var beginsWithoutRoom: Bool
    /// Longest answer that is asked for.
    package var longestAnswer: Int
    /// Workers that are told to end, besides all other faults.
    package var drains: Int
    /// Requests bring priorities, tenants and limits of their own.
    package var hasClasses: Bool

    package init(seed: UInt64) {
        var generator = SeededGenerator(seed: seed &* 0x2545_F491_4F6C_DD1D &+ 1)
        func draw(_ range: ClosedRange<Int>) -> Int { .random(in: range, using: &generator) }
        self.seed = seed
        weather = Weather(rawValue: draw(0...6) / 2) ?? .calm
        gateways = draw(1...3)
        prefillWorkers = draw(1...4)
        decodeWorkers = draw(1...4)
        hasHealthAgents = draw(0...2) > 0
        prefillSlots = draw(1...3)
        decodeSequences = draw(1...6)
        kvCapacityTokens = draw(60...400)
        contextTokens = draw(50...200)
        microBatchTokens = draw(4...32)
        engineSlowness = draw(0...2) == 0 ? draw(5...30) : draw(1...4)
        longestOutage = .seconds(draw(0...4) == 0 ? 20 : 3)
        requests = draw(4...40)
        arrivals = .milliseconds(draw(100...5000))
        maximumRequests = draw(0...5) == 0 ? draw(2...8) : 4096
        leavingClients = draw(0...2) == 0 ? Double(draw(5...60)) / 100 : 0
        talkingClients = draw(0...2) == 0 ? 0 : Double(draw(10...80)) / 100
        commonTokens = draw(0...2) == 0 ? draw(10...30) : 0
        keptSequences = draw(0...1) == 0 ? 0 : draw(1...4)
        connections = draw(0...1) == 0 ? 1 : draw(2...3)
        landingChunks = draw(0...1) == 0 ? draw(1...3) : draw(4...20)
        windowChunks = draw(1...4)
        beginsWithoutRoom = draw(0...3) == 0
        hasClasses = draw(0...1) == 0
        let names = draw(0...1) == 0 ? ["chat", "batch"] : [ScenarioSpec.defaultName]
        let placements = PlacementName.allCases
        rules = ClusterSpec(
            scenarios: names.map { name in
                var spec = ScenarioSpec(name: name)
                spec.decodePlacement = draw(0...1) == 0 ? .late : .early
                spec.placement = placements[draw(0...placements.count * 2) % placements.count]
                spec.deflection = draw(0...1) == 0
                spec.decodeOnlyFallback = draw(0...1) == 0
                spec.prefillOnlyFallback = draw(0...1) == 0
                return spec
            })
        longestAnswer = draw(0...2) == 0 ? 90 : 32
        drains = weather.isHarmless ? 0 : draw(0...6)
    }

    /// Shorter than in service, so that little virtual time covers them.
    var gatewayLimits: GatewayLimits {
        var limits = GatewayLimits()
        limits.maximumRequests = maximumRequests
        limits.placementDeadline = .seconds(8)
        limits.requestDeadline = .seconds(40)
        limits.answerDeadline = .seconds(1)
        limits.askAgainInterval = .milliseconds(250)
        limits.schedulerGrace = .seconds(2)
        limits.beginsWithoutRoom = beginsWithoutRoom
        limits.prefixIndex.blockTokens = 4
        return limits
    }

    var workerLimits: WorkerLimits {
        var limits = WorkerLimits(
            prefillSlots: prefillSlots, decodeSequences: decodeSequences,
            kvCapacityTokens: kvCapacityTokens, contextTokens: contextTokens,
            kvBytesPerToken: 16)
        limits.chunkOverheadBytes = 5
        let chunkBytes = limits.chunkBytes(tokens: microBatchTokens)
        limits.landingBytes = landingChunks * chunkBytes
        limits.landingWindowBytes = windowChunks * chunkBytes
        limits.keptSequences = keptSequences
        limits.handOver = handOverLimits
        return limits
    }

    var handOverLimits: KVHandOverLimits {
        var limits = KVHandOverLimits()
        limits.connections = connections
        // A small landing area is no fault, however long transfers wait for it.
        limits.stallDeadline = weather.isHarmless ? .seconds(30) : .seconds(3)
        limits.resumeDeadline = .seconds(1)
        limits.idleDeadline = .seconds(1)
        return limits
    }

    var schedulerLimits: SchedulerLimits {
        var limits = SchedulerLimits()
        limits.lease = .milliseconds(1500)
        limits.readingsInterval = .milliseconds(300)
        limits.ownPause = .milliseconds(500)
        return limits
    }

    var healthLimits: HealthLimits {
        var limits = HealthLimits()
        limits.probeInterval = .milliseconds(250)
        limits.reportInterval = limits.probeInterval
        limits.silenceDeadline = .milliseconds(1000)
        limits.downMisses = 3
        // Tokens that are no request's would count as strays.
        limits.canaryInterval = .zero
        limits.ownPause = .milliseconds(600)
        return limits
    }

    /// Longest request this cluster can serve.
    var longestRequestTokens: Int { min(contextTokens, kvCapacityTokens) }
}
