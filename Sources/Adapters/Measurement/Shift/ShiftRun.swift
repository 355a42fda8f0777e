import ServingTypes

/// A request as its client saw it.
struct ShiftRequest: Sendable {
    /// Seconds since the start of the run.
    var sent: Double
    var ended: Double
    /// Seconds; nil if it failed.
    var ttft: Double?
    /// Mean seconds per further token; nil if it failed or has one token.
    var tpot: Double?
    /// Why it failed.
    var failure: String?

    func isGood(_ settings: ShiftSettings) -> Bool {
        guard failure == nil, let ttft else { return false }
        return ttft <= settings.ttftLimit.seconds && (tpot ?? 0) <= settings.tpotLimit.seconds
    }
}

/// The cluster at one moment.
struct ShiftSample: Sendable {
    /// Seconds since the start of the run.
    var time: Double
    /// What each worker may be used for; `spare` while its role changes.
    var roles: [InstanceID: ServingRole]
    /// Prompt tokens per second of each worker that has computed prompts alone.
    var prefillRates: [Double] = []
    /// Milliseconds of an iteration, and running sequences, of workers that only decode.
    var steps: [(milliseconds: Double, sequences: Int)] = []

    func count(_ role: ServingRole) -> Int { roles.values.count { $0 == role } }
}

/// A change of a worker's role.
struct ShiftFlip: Sendable {
    /// Seconds since the start of the run, when it was decided.
    var time: Double
    var instance: InstanceID
    var role: ServingRole
    /// Seconds until gateways could use it in the new role; nil: not within the run.
    var duration: Double?
    var reason: String
}

/// What was seen of one run.
struct ShiftRun: Sendable {
    var mode: ShiftMode
    /// Milliseconds since 1970.
    var startedAt = 0.0
    var requests: [ShiftRequest] = []
    var samples: [ShiftSample] = []
    var decisions: [Decision] = []
    /// Rise of processor time of the workers in seconds.
    var workerProcessorSeconds = 0.0

    init(mode: ShiftMode) { self.mode = mode }

    func time(of decision: Decision) -> Double {
        (Double(decision.unixMilliseconds) - startedAt) / 1000
    }

    /// Changes between prefill and decode; workers that only help for a while are not among them.
    var flips: [ShiftFlip] {
        decisions.compactMap { decision in
            let words = decision.action.split(separator: " ")
            guard words.count == 3, words[1] == "becomes",
                let role = ServingRole(name: String(words[2])), role == .prefill || role == .decode
            else { return nil }
            let instance = InstanceID(String(words[0]))
            let time = time(of: decision)
            guard time >= 0 else { return nil }
            let end = samples.first { $0.time > time && $0.roles[instance] == role }
            return ShiftFlip(
                time: time, instance: instance, role: role, duration: end.map { $0.time - time },
                reason: decision.reason)
        }
    }

    /// Requests that ended in a span of time.
    func requests(from: Double, to: Double) -> [ShiftRequest] {
        requests.filter { $0.ended >= from && $0.ended < to }
    }

    func sample(at time: Double) -> ShiftSample? { samples.last { $0.time <= time } }
}

/// Requests of a span of time, summed up.
struct ShiftSpan: Sendable {
    var completedPerSecond: Double
    var goodPerSecond: Double
    var ttft = Samples()
    var tpot = Samples()
    var failed = 0

    init(_ run: ShiftRun, from: Double, to: Double, settings: ShiftSettings) {
        let requests = run.requests(from: from, to: to)
        let seconds = max(to - from, 1e-9)
        failed = requests.count { $0.failure != nil }
        completedPerSecond = Double(requests.count - failed) / seconds
        goodPerSecond = Double(requests.count { $0.isGood(settings) }) / seconds
        for request in requests {
            if let time = request.ttft { ttft.add(time) }
            if let time = request.tpot { tpot.add(time) }
        }
    }
}
