import ClusterRules
import ClusterSimulation
import InferenceEngine
import KVHandOver
import RequestTraces
import Roles
import Scheduling
package import ServingTypes

/// One run of a plan: gateways' and workers' machines in virtual time, without faults.
package final class PolicyRun {
    /// Time of a control message from process to process.
    private static let latency = 0.0003
    private static let fingerprint = ModelFingerprint(
        Array(repeating: 7, count: ModelFingerprint.byteCount))
    private static let model = "simulated"

    private struct Client {
        var outcome: RequestOutcome
        var gateway: Int
        var isOver = false
    }

    private let plan: PolicyPlan
    private var queue = EventQueue()
    private(set) var now = MonotonicTime.start
    private var generator: SeededGenerator
    private var gateways: [GatewayMachine] = []
    private var streams: [OpenStreams] = []
    private var instances: [InstanceID: SimulatedInstance] = [:]
    private var order: [InstanceID] = []
    private var clients: [RequestID: Client] = [:]
    private var finished: [RequestOutcome] = []
    private var requests: UInt64 = 0
    private var version: UInt64 = 0
    private var senders: [AttemptID: InstanceID] = [:]
    var landing: [AttemptID: ChunkFacts] = [:]
    let emptyBuffer = KVBuffer(capacityBytes: 1)

    package init(_ plan: PolicyPlan) {
        self.plan = plan
        generator = SeededGenerator(seed: plan.seed)
        for index in 0..<plan.gateways {
            streams.append(OpenStreams())
            gateways.append(
                GatewayMachine(
                    limits: plan.gatewayLimits, policy: policy(streams[index]),
                    seed: plan.seed &+ UInt64(index)))
        }
        for (index, curves) in plan.prefill.enumerated() {
            add("prefill-\(index + 1)", .prefillWorker, curves)
        }
        for (index, curves) in plan.decode.enumerated() {
            add("decode-\(index + 1)", .decodeWorker, curves)
        }
    }

    private func policy(_ streams: OpenStreams) -> any PlacementPolicy {
        let name = plan.scenario.placement
        return name == .leastConnections
            ? OpenStreamsPlacement(streams: streams) : name.makePolicy()
    }

    /// The requests that arrived in the measured time.
    package func outcomes() -> [RequestOutcome] {
        showView()
        for index in gateways.indices {
            // With rules a gateway takes the policy they name.
            if plan.scenario.placement != .leastConnections {
                let rules = ClusterSpec(scenarios: [plan.scenario])
                perform(gateways[index].rulesChanged(rules, now: now), index)
            }
            for name in order { perform(gateways[index].connected(name, now: now), index) }
        }
        every(0.1) { [unowned self] in
            for index in gateways.indices { perform(gateways[index].tick(now: now), index) }
        }
        every(0.5) { [unowned self] in showView() }
        begin()
        // Whoever came in the measured time may end after it.
        let end = Int64((plan.seconds + plan.ttftLimit + 60) * 1e9)
        while let event = queue.next(), event.nanoseconds <= end {
            now = MonotonicTime(nanoseconds: event.nanoseconds)
            event.body()
        }
        let unfinished = clients.values.map(\.outcome)
        return (finished + unfinished)
            .filter { (plan.warmUpSeconds..<plan.seconds).contains($0.arrival) }
            .sorted { $0.arrival < $1.arrival }
    }

    /// Part of the time in which the workers of a role computed.
    package func utilisation(_ role: Role) -> Double {
        let workers = order.compactMap { instances[$0] }.filter { $0.description.role == role }
        return workers.reduce(0) { $0 + $1.busySeconds }
            / (Double(max(1, workers.count)) * max(plan.seconds, now.seconds))
    }

    // MARK: Time

    func after(_ seconds: Double, _ body: @escaping () -> Void) {
        queue.add(at: now.nanoseconds + Int64(seconds * 1e9), body)
    }

    private func every(_ seconds: Double, _ body: @escaping () -> Void) {
        after(seconds) { [self] in
            body()
            every(seconds, body)
        }
    }

    // MARK: Cluster

    private func add(_ name: String, _ role: Role, _ curves: DeviceCurves) {
        let limits = plan.workerLimits
        let address = NetworkAddress(host: name, port: 1)
        let description = InstanceDescription(
            instance: InstanceID(name), role: role, incarnation: 1, host: name,
            controlAddress: address, bulkAddress: address, modelName: Self.model,
            fingerprint: Self.fingerprint, contextTokens: limits.contextTokens,
            kvBytesPerToken: curves.kvBytesPerToken,
            kvCapacityBytes: limits.kvCapacityTokens * curves.kvBytesPerToken,
            prefillSlots: limits.prefillSlots, decodeSequences: limits.decodeSequences,
            device: curves.name)
        order.append(description.instance)
        instances[description.instance] = SimulatedInstance(
            description, curves: curves, plan: plan, run: self)
    }

    private func showView() {
        version += 1
        let members = order.sorted().compactMap { instances[$0] }.map {
            GroupMember(description: $0.description, state: .serving, status: $0.status())
        }
        let view = GroupView(epoch: 1, version: version, members: members)
        for index in gateways.indices {
            perform(gateways[index].viewChanged(view, now: now), index)
        }
    }

    // MARK: Clients

    private func begin() {
        switch plan.load {
        case .open(let trace):
            for entry in trace.entries where entry.arrivalSeconds < plan.seconds {
                after(entry.arrivalSeconds) { [self] in ask(entry) }
            }
        case .users(let count, let trace):
            for index in 0..<count {
                // Not all at once, so that the beginning is no burst.
                let seconds = Double(index) / Double(count) * min(5, plan.seconds / 4)
                after(seconds) { [self] in askAsUser(of: trace) }
            }
        }
    }

    private func askAsUser(of trace: RequestTrace) {
        guard now.seconds < plan.seconds else { return }
        ask(trace.sample(at: now.seconds, using: &generator))
    }

    private func ask(_ entry: RequestTrace.Entry) {
        requests += 1
        let request = RequestID(high: plan.seed, low: requests)
        let gateway = generator.below(gateways.count)
        clients[request] = Client(
            outcome: RequestOutcome(
                promptTokens: entry.promptTokens, outputTokens: entry.outputTokens,
                arrival: now.seconds), gateway: gateway)
        var sampling = SamplingParameters()
        sampling.ignoresEndOfGeneration = true
        var job = GenerationJob(
            request: request, modelName: Self.model,
            promptTokens: prompt(of: entry.promptTokens),
            maximumNewTokens: entry.outputTokens, sampling: sampling)
        job.ttftLimit = plan.scenario.ttftLimit
        job.scenario = plan.scenario.name
        perform(gateways[gateway].submit(job, now: now), gateway)
        after(plan.ttftLimit) { [self] in
            guard let client = clients[request], client.outcome.ttft == nil else { return }
            perform(gateways[client.gateway].cancel(request), client.gateway)
            over(request)
        }
    }

    /// Tokens that no other prompt begins with.
    private func prompt(of count: Int) -> [TokenID] {
        var tokens = [TokenID](repeating: 1, count: count)
        tokens[0] = TokenID(truncatingIfNeeded: requests & 0xfff_ffff)
        return tokens
    }

    private func over(_ request: RequestID, pause: Double = 0) {
        guard let client = clients.removeValue(forKey: request) else { return }
        finished.append(client.outcome)
        streams[client.gateway].close(request)
        if case .users(_, let trace) = plan.load {
            after(pause) { [self] in askAsUser(of: trace) }
        }
    }

    // MARK: Messages

    private func perform(_ actions: [GatewayAction], _ gateway: Int) {
        for action in actions {
            switch action {
            case .send(let message, let instance, let tokens):
                if case .prefillOffer(let offer) = message {
                    streams[gateway].open(offer.terms.attempt.request, at: instance)
                }
                after(Self.latency) { [self] in
                    instances[instance]?.received(message, tokens: tokens ?? [], from: gateway)
                }
            case .deliver(let request, _):
                guard let client = clients[request], client.outcome.ttft == nil else { continue }
                clients[request]?.outcome.ttft = now.seconds - client.outcome.arrival
            case .finish(let request, _):
                guard let client = clients[request] else { continue }
                clients[request]?.outcome.endToEnd = now.seconds - client.outcome.arrival
                over(request)
            case .fail(let request, _): over(request, pause: plan.retrySeconds)
            case .started, .restarted: break
            }
        }
    }

    func toGateway(_ message: ControlMessage, from instance: InstanceID, to gateway: Int) {
        // Tokens are delivered without a further event: most of a run's messages are tokens.
        if case .tokenBatch = message {
            return perform(gateways[gateway].received(message, from: instance, now: now), gateway)
        }
        after(Self.latency) { [self] in
            perform(gateways[gateway].received(message, from: instance, now: now), gateway)
        }
    }

    func toGateways(_ message: ControlMessage, from instance: InstanceID) {
        for gateway in gateways.indices { toGateway(message, from: instance, to: gateway) }
    }

    // MARK: KV

    func handOver(_ end: KVEnd, _ transfer: TransferPlan, from sender: InstanceID) {
        senders[end.attempt] = sender
        after(Self.latency) { [self] in
            instances[transfer.decodeInstance]?.land(end, transfer, from: sender)
        }
    }

    func kvDone(_ done: KVDone) {
        guard let sender = senders.removeValue(forKey: done.attempt) else { return }
        after(Self.latency) { [self] in instances[sender]?.ended(done.attempt, done) }
    }

    func abort(_ attempt: AttemptID, from sender: InstanceID, to receiver: InstanceID) {
        senders[attempt] = nil
        after(Self.latency) { [self] in
            instances[receiver]?.senderAborted(attempt, by: sender)
        }
    }

    func forgetTransfer(_ attempt: AttemptID) { landing[attempt] = nil }
}

extension MonotonicTime {
    fileprivate var seconds: Double { Double(nanoseconds) / 1e9 }
}
