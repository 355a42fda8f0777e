import ClusterRules
import Roles
import Scheduling
import ServingTypes

/// A gateway's machine among many workers that accept everything at once.
struct PlacementScene {
    /// Where the time of one request goes, in seconds.
    struct Costs {
        /// From its arrival to the question to a decode-worker.
        var submit = Samples()
        /// From that one's answer to the offer to a prefill-worker.
        var grant = Samples()
        /// From then on: accepted, first token, end.
        var rest = Samples()
    }

    private struct Open {
        var attempt: AttemptID
        var decode: InstanceID
    }

    static let promptTokens = 512
    private static let sharedTokens = 256
    private static let beginnings = 64
    private static let newTokens = 128

    private(set) var machine: GatewayMachine
    private var view: GroupView
    private var now = MonotonicTime.start
    private var open: [Open?]
    private var requests: UInt64 = 0
    private var generator: SeededGenerator

    /// - Parameter workers: half of them decode, at least one of each.
    init(workers: Int, placement: PlacementName, seed: UInt64) {
        var limits = GatewayLimits()
        limits.maximumRequests = max(limits.maximumRequests, 2 * workers)
        machine = GatewayMachine(limits: limits, policy: placement.makePolicy(), seed: seed)
        generator = SeededGenerator(seed: seed)
        open = Array(repeating: nil, count: workers)
        let members = (0..<max(2, workers)).map { number in
            let description = SimulatedInstances.description(number: number)
            var status = InstanceStatus()
            status.role = description.initialRole
            status.freePrefillSlots = description.prefillSlots
            status.freeKVBytes = description.kvCapacityBytes
            return GroupMember(description: description, state: .serving, status: status)
        }.sorted { $0.description.instance < $1.description.instance }
        view = GroupView(epoch: 1, version: 1, members: members)
        _ = machine.viewChanged(view, now: now)
        for member in members { _ = machine.connected(member.description.instance, now: now) }
    }

    /// Places one request after another; as many as there are workers stay open.
    ///
    /// - Throws: if the machine does not place one.
    mutating func place(_ count: Int) throws(MeasurementError) -> Costs {
        var costs = Costs()
        let clock = ContinuousClock()
        for _ in 0..<count {
            let slot = Int(requests % UInt64(open.count))
            requests += 1
            now = now + .microseconds(100)
            let job = nextJob()
            let attempt = AttemptID(request: job.request, number: 1)
            let begin = clock.now
            let reserved = machine.submit(job, now: now)
            let asked = clock.now
            guard let decode = Self.addressee(reserved) else { throw notPlaced("decode") }
            let granting = clock.now
            let offered = machine.received(
                .reservationGranted(
                    ReservationGranted(
                        attempt: attempt, secret: ReservationSecret(high: 1, low: requests),
                        kvBytes: 1)), from: decode, now: now)
            let offeredAt = clock.now
            guard let prefill = Self.addressee(offered) else { throw notPlaced("prefill") }
            let rest = clock.measure {
                _ = machine.received(
                    .prefillAccepted(PrefillAccepted(attempt: attempt)), from: prefill, now: now)
                _ = machine.received(
                    .tokenBatch(
                        TokenBatch(
                            attempt: attempt, firstIndex: 0, tokens: [TokenOutput(token: 7)])),
                    from: prefill, now: now)
                if let old = open[slot] { finish(old) }
            }
            open[slot] = Open(attempt: attempt, decode: decode)
            costs.submit.add(asked - begin)
            costs.grant.add(offeredAt - granting)
            costs.rest.add(rest)
        }
        return costs
    }

    /// New readings of all workers, as the scheduler pushes them; gives the machine's time.
    mutating func changeReadings() -> Duration {
        view.version += 1
        for index in view.members.indices {
            view.members[index].status.engineSteps += 1
            view.members[index].status.freeKVBytes -= 1
        }
        let new = view
        return ContinuousClock().measure { _ = machine.viewChanged(new, now: now) }
    }

    var openRequests: Int { machine.requestCount }

    private mutating func finish(_ old: Open) {
        let last = TokenBatch(
            attempt: old.attempt, firstIndex: 1, tokens: [TokenOutput(token: 7)], finish: .stop)
        _ = machine.received(.tokenBatch(last), from: old.decode, now: now)
    }

    private mutating func nextJob() -> GenerationJob {
        let beginning = TokenID(generator.below(Self.beginnings))
        let own = TokenID(truncatingIfNeeded: generator.next() & 0xff_ffff)
        let prompt = (0..<Self.promptTokens).map { index in
            TokenID(index) &+ (index < Self.sharedTokens ? beginning : own)
        }
        return GenerationJob(
            request: RequestID(high: 1, low: requests),
            modelName: SimulatedInstances.modelName, promptTokens: prompt,
            maximumNewTokens: Self.newTokens, sampling: SamplingParameters())
    }

    private static func addressee(_ actions: [GatewayAction]) -> InstanceID? {
        for action in actions {
            guard case .send(let message, let instance, _) = action else { continue }
            switch message {
            case .reserveKV, .prefillOffer: return instance
            default: continue
            }
        }
        return nil
    }

    private func notPlaced(_ kind: String) -> MeasurementError {
        .notReached(
            instances: view.members.count,
            "request \(requests) found no \(kind)-worker; \(machine.requestCount) are open")
    }
}

/// What instances of a benchmark say of themselves.
enum SimulatedInstances {
    static let modelName = "simulated"
    private static let perHost = 8

    /// Those of even numbers prefill, the others decode.
    static func description(number: Int, incarnation: UInt64 = 1) -> InstanceDescription {
        let role: Role = number.isMultiple(of: 2) ? .prefillWorker : .decodeWorker
        return InstanceDescription(
            instance: InstanceID("\(role.name)-\(number)"), role: role, incarnation: incarnation,
            host: "host-\(number / perHost)",
            controlAddress: NetworkAddress(host: "127.0.0.1", port: 1),
            bulkAddress: NetworkAddress(host: "127.0.0.1", port: 1), modelName: modelName,
            fingerprint: ModelFingerprint(
                Array(repeating: 7, count: ModelFingerprint.byteCount)),
            contextTokens: 8192, kvBytesPerToken: 1 << 17, kvCapacityBytes: 64 << 30,
            prefillSlots: 16, decodeSequences: 64, device: "simulated")
    }
}
