import ClusterRules
import ClusterSimulation
import InferenceEngine
import KVHandOver
import RequestTraces
import Roles
import Scheduling
package import ServingTypes

/// One run of a plan: gateways' and workers' machines in virtual time.
package final class ServingRun {
    static let fingerprint = ModelFingerprint(
        Array(repeating: 7, count: ModelFingerprint.byteCount))
    static let model = "simulated"
    /// Between two views of the cluster.
    private static let viewSeconds = 0.5
    private static let tickSeconds = 0.1

    struct Client {
        var outcome: RequestOutcome
        var gateway: Int
    }

    let plan: ServingPlan
    private var queue = EventQueue()
    private(set) var now = MonotonicTime.start
    var generator: SeededGenerator
    var gateways: [GatewayMachine] = []
    var streams: [OpenStreams] = []
    var instances: [InstanceID: SimulatedInstance] = [:]
    /// Names of all machines, sorted, and whether a machine is there.
    var order: [InstanceID] = []
    var changed: [SimulatedInstance] = []
    var viewVersion: UInt64 = 0
    var clients: [RequestID: Client] = [:]
    var requests: UInt64 = 0
    private var senders: [AttemptID: InstanceID] = [:]
    private var landing: [AttemptID: ChunkFacts] = [:]
    let emptyBuffer = KVBuffer(capacityBytes: 1)
    package internal(set) var timeline = Timeline()
    private var hosts: [String: SharedHost] = [:]
    var lastBusy = BusyTimes()
    /// Busy time of machines that were lost since.
    var lostBusy = BusyTimes()
    private var isStopped = false
    /// Called with what became of each request of the measured time, when it has ended.
    private let sink: (RequestOutcome) -> Void

    package init(_ plan: ServingPlan, sink: @escaping (RequestOutcome) -> Void) {
        self.plan = plan
        self.sink = sink
        generator = SeededGenerator(seed: plan.seed)
        for index in 0..<plan.gateways {
            streams.append(OpenStreams())
            gateways.append(
                GatewayMachine(
                    limits: plan.gatewayLimits, policy: policy(streams[index]),
                    seed: plan.seed &+ UInt64(index)))
        }
        for machine in plan.machines { add(machine, incarnation: 1) }
        order = instances.keys.sorted()
    }

    private func policy(_ streams: OpenStreams) -> any PlacementPolicy {
        let name = plan.scenario.placement
        return name == .leastConnections
            ? OpenStreamsPlacement(streams: streams) : name.makePolicy()
    }

    /// The requests that arrived in the measured time, by arrival.
    package static func outcomes(_ plan: ServingPlan) -> [RequestOutcome] {
        var outcomes: [RequestOutcome] = []
        ServingRun(plan) { outcomes.append($0) }.run()
        return outcomes.sorted { $0.arrival < $1.arrival }
    }

    /// Runs to the end, or until `progress` answers false.
    ///
    /// - Parameter progress: is told the simulated seconds, a few times per simulated second.
    package func run(progress: ((Double) -> Bool)? = nil) {
        showWholeView()
        for index in gateways.indices {
            // With rules a gateway takes the policy they name.
            if plan.scenario.placement != .leastConnections {
                let rules = ClusterSpec(scenarios: [plan.scenario])
                perform(gateways[index].rulesChanged(rules, now: now), index)
            }
            for name in order { perform(gateways[index].connected(name, now: now), index) }
        }
        every(Self.tickSeconds) { [unowned self] in
            for index in gateways.indices { perform(gateways[index].tick(now: now), index) }
        }
        every(Self.viewSeconds) { [unowned self] in
            showReadings()
            if progress?(now.seconds) == false { isStopped = true }
        }
        if let step = plan.timelineStepSeconds {
            every(step) { [unowned self] in notePoint(step: step) }
        }
        for fault in plan.faults {
            after(fault.atSeconds) { [unowned self] in happen(fault) }
        }
        begin()
        // Whoever came in the measured time may end after it.
        let end = Int64((plan.seconds + plan.drainSeconds) * 1e9)
        while !isStopped, let event = queue.next(), event.nanoseconds <= end {
            now = MonotonicTime(nanoseconds: event.nanoseconds)
            event.body()
            if clients.isEmpty, now.seconds >= plan.seconds { break }
        }
        for (_, client) in clients.sorted(by: { $0.key.low < $1.key.low }) {
            report(client.outcome)
        }
    }

    /// Part of the time in which the workers of a role computed.
    package func utilisation(_ role: Role) -> Double {
        let count = plan.machines.count { $0.processRole == role }
        let busy = busyTimes()
        return (role == .prefillWorker ? busy.prefill : busy.decode)
            / (Double(max(1, count)) * max(plan.seconds, now.seconds))
    }

    func report(_ outcome: RequestOutcome) {
        guard (plan.warmUpSeconds..<plan.seconds).contains(outcome.arrival) else { return }
        sink(outcome)
    }

    // MARK: Time

    func after(_ seconds: Double, _ body: @escaping () -> Void) {
        queue.add(at: now.nanoseconds + Int64(seconds * 1e9), body)
    }

    /// The host of this name, which its machines share.
    func host(_ name: String) -> SharedHost {
        if let known = hosts[name] { return known }
        let host = SharedHost(
            now: { [unowned self] in now.seconds },
            after: { [unowned self] in after($0, $1) })
        hosts[name] = host
        return host
    }

    private func every(_ seconds: Double, _ body: @escaping () -> Void) {
        after(seconds) { [self] in
            body()
            every(seconds, body)
        }
    }

    // MARK: Messages

    func perform(_ actions: [GatewayAction], _ gateway: Int) {
        for action in actions {
            switch action {
            case .send(let message, let instance, let tokens):
                if case .prefillOffer(let offer) = message {
                    streams[gateway].open(offer.terms.attempt.request, at: instance)
                }
                after(plan.network.messageSeconds) { [self] in
                    instances[instance]?.received(message, tokens: tokens ?? [], from: gateway)
                }
            case .deliver(let request, _): delivered(request)
            case .finish(let request, _): finished(request)
            case .fail(let request, _): over(request, pause: plan.retrySeconds)
            case .restarted(let request, _, _): clients[request]?.outcome.restarts += 1
            case .started: break
            }
        }
    }

    func toGateway(_ message: ControlMessage, from instance: InstanceID, to gateway: Int) {
        // Tokens are delivered without a further event: most of a run's messages are tokens.
        if case .tokenBatch = message {
            return perform(gateways[gateway].received(message, from: instance, now: now), gateway)
        }
        after(plan.network.messageSeconds) { [self] in
            perform(gateways[gateway].received(message, from: instance, now: now), gateway)
        }
    }

    func toGateways(_ message: ControlMessage, from instance: InstanceID) {
        for gateway in gateways.indices { toGateway(message, from: instance, to: gateway) }
    }

    // MARK: KV

    func instance(_ name: InstanceID) -> SimulatedInstance? { instances[name] }

    func handOver(_ end: KVEnd, _ transfer: TransferPlan, from sender: InstanceID) {
        senders[end.attempt] = sender
        instances[transfer.decodeInstance]?.land(end, transfer, from: sender)
    }

    func answered(_ message: ControlMessage) {
        guard case .kvDone(let done) = message,
            let sender = senders.removeValue(forKey: done.attempt)
        else { return }
        after(plan.network.messageSeconds) { [self] in instances[sender]?.ended(done.attempt, done)
        }
    }

    func abort(_ attempt: AttemptID, from sender: InstanceID, to receiver: InstanceID) {
        senders[attempt] = nil
        after(plan.network.messageSeconds) { [self] in
            instances[receiver]?.senderAborted(attempt, by: sender)
        }
    }

    func landed(_ chunk: ChunkFacts, of attempt: AttemptID) { landing[attempt] = chunk }
    func takeLanded(_ attempt: AttemptID) -> ChunkFacts? { landing.removeValue(forKey: attempt) }
    func forgetTransfer(_ attempt: AttemptID) { landing[attempt] = nil }
}

extension MonotonicTime {
    var seconds: Double { Double(nanoseconds) / 1e9 }
}
