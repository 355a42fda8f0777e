import Foundation
import HTTPClient
import LocalCluster
import Measurement
import ServiceStart
import ServingTypes
import Synchronization

/// The cluster's processes and relays, and what is done to them.
final class ChaosProcesses: Sendable {
    /// A gateway as a client finds it.
    struct Gateway: Sendable {
        var name: String
        var address: NetworkAddress
        /// Faults that had befallen it, and whether one went on.
        var faults = 0
        var isSuffering = false
    }

    private struct State {
        var gateways: [String: Gateway] = [:]
        var relays: [ChaosTarget: [FaultyRelay]] = [:]
        var conditions: [ChaosTarget: FaultyRelay.Condition] = [:]
    }

    private struct NewRelay: Sendable {
        var relay: FaultyRelay
        var address: NetworkAddress
    }

    /// Time a process may take from SIGTERM to its end.
    private static let endDeadline = Duration.seconds(60)

    private let settings: ChaosSettings
    let cluster: LocalCluster
    private let network: NamespaceNetwork?
    private let state = Mutex(State())
    private let newRelays = AsyncStream.makeStream(of: NewRelay.self)

    init(settings: ChaosSettings, cluster: LocalCluster, network: NamespaceNetwork?) {
        self.settings = settings
        self.cluster = cluster
        self.network = network
    }

    // MARK: Start

    func start() async throws {
        try cluster.makeCertificates()
        let scheduler = ChaosTarget(role: .scheduler, number: 1).processName
        let listen = NetworkAddress(
            host: network?.address(of: scheduler) ?? "127.0.0.1",
            // Nobody else is on a host of its own.
            port: network == nil ? try FreePort.take().port : NamespaceNetwork.schedulerPort)
        for target in settings.relayed {
            let relay = FaultyRelay(to: listen)
            add(relay, of: target, port: listen.port)
        }
        try await cluster.startScheduler(listen: listen.description)
        for target in settings.targets where target.role != .scheduler {
            try await start(target)
        }
        guard try await waitUntilWhole() else {
            throw LocalClusterError.notReady(
                name: "the cluster", seconds: Int(settings.recoveryDeadline.seconds), log: "")
        }
    }

    private func start(_ target: ChaosTarget) async throws {
        switch target.role {
        case .prefillWorker, .decodeWorker: try await startWorker(target)
        case .gateway:
            let process = try await cluster.startGateway(name: target.name)
            guard let address = process.announcement.http else { return }
            state.withLock { state in
                state.gateways[
                    target.name, default: Gateway(name: target.name, address: address)
                ].address = address
            }
        case .scheduler:
            guard let address = cluster.schedulerAddress else { return }
            try await cluster.startScheduler(listen: address.description)
        case .healthAgent: try await cluster.startHealthAgent()
        default: break
        }
    }

    private func startWorker(_ target: ChaosTarget) async throws {
        guard settings.relayed.contains(target), let scheduler = cluster.schedulerAddress else {
            try await cluster.startWorker(target.role, number: target.number)
            return
        }
        let host = settings.relayHost(of: target)
        let process = try await cluster.startWorker(
            target.role, number: target.number,
            arguments: [
                "--advertise", host, "--local-folder", "none",
                "--scheduler", "\(host):\(scheduler.port)",
            ])
        // The relays of its earlier life lead nowhere; the scheduler's stays.
        state.withLock { state in
            for relay in state.relays[target]?.dropFirst() ?? [] { relay.set(.cut) }
            state.relays[target] = state.relays[target].map { Array($0.prefix(1)) }
        }
        let announced = process.announcement
        for address in [announced.control, announced.bulk].compactMap({ $0 }) {
            add(FaultyRelay(to: address), of: target, port: address.port)
        }
    }

    private func add(_ relay: FaultyRelay, of target: ChaosTarget, port: Int) {
        state.withLock { state in
            relay.set(state.conditions[target] ?? .healthy)
            state.relays[target, default: []].append(relay)
        }
        let address = NetworkAddress(host: settings.relayHost(of: target), port: port)
        newRelays.continuation.yield(NewRelay(relay: relay, address: address))
    }

    /// Relays until it is cancelled.
    func runRelays() async throws {
        try await withThrowingDiscardingTaskGroup { group in
            for await new in newRelays.stream {
                group.addTask { try await new.relay.run(at: new.address) }
            }
        }
    }

    // MARK: Clients

    func gateway(_ index: Int) -> Gateway {
        let gateways = state.withLock { $0.gateways.values.sorted { $0.name < $1.name } }
        return gateways[index % gateways.count]
    }

    /// Whether something befell this gateway then or since.
    func hasSuffered(_ gateway: Gateway) -> Bool {
        gateway.isSuffering
            || state.withLock { $0.gateways[gateway.name]?.faults != gateway.faults }
    }

    /// Waits until all processes run and all gateways can serve; false if they don't in time.
    func waitUntilWhole() async throws -> Bool {
        let end = ContinuousClock.now + settings.recoveryDeadline
        while ContinuousClock.now < end {
            if try await isWhole() { return true }
            try await Task.sleep(for: .milliseconds(100))
        }
        return false
    }

    private func isWhole() async throws -> Bool {
        for target in settings.targets {
            guard let process = process(of: target), process.isRunning else {
                // One that ended by itself, as a hung one may, is started again as by a supervisor.
                try await start(target)
                return false
            }
            guard let admin = process.announcement.http ?? process.announcement.admin,
                let answer = try? await HTTPCall("GET", admin, "/health").collect(),
                answer.head.status == 200
            else { return false }
        }
        return true
    }

    /// What workers still hold of requests, a sentence each.
    func heldByWorkers() async -> [String] {
        var held: [String] = []
        for process in cluster.all where process.role.isWorker && process.isRunning {
            guard let reading = try? await MetricsReading(of: process) else {
                held.append("\(process.name) does not answer")
                continue
            }
            for kind in ["prefill", "decode"] {
                for what in Self.heldMetrics {
                    let value = reading.sum("\(kind)_\(what)")
                    if value > 0 { held.append("\(process.name) has \(what) \(Int(value))") }
                }
            }
        }
        return held
    }

    private static let heldMetrics = [
        "running_sequences", "kv_reserved_bytes", "kv_stranded_transfers", "kv_held_bytes",
        "kv_landed_bytes",
    ]

    // MARK: Faults

    private func process(of target: ChaosTarget) -> ManagedProcess? {
        cluster.all.first { $0.name == target.processName }
    }

    /// Lets a fault happen and heals it; gives what was wrong with how the process took it.
    func suffer(_ event: ChaosEvent) async throws -> String? {
        let names = [event.target, event.peer].compactMap { $0?.name }
        state.withLock { state in
            for name in names {
                state.gateways[name]?.faults += 1
                state.gateways[name]?.isSuffering = true
            }
        }
        defer {
            state.withLock { state in
                for name in names { state.gateways[name]?.isSuffering = false }
            }
        }
        switch event.fault {
        case .kill: return try await end(event, by: SIGKILL)
        case .terminate: return try await end(event, by: SIGTERM)
        case .stop:
            process(of: event.target)?.signal(SIGSTOP)
            defer { process(of: event.target)?.signal(SIGCONT) }
            try await Task.sleep(for: event.lasts)
        case .cut: try await disturb(event, .cut)
        case .stall: try await disturb(event, .stalled)
        case .slow: try await disturb(event, .slow(settings.slowBytesPerSecond))
        case .late: try await disturb(event, .late(settings.delay))
        case .corrupt:
            try await disturb(event, .corrupt(minimumBytes: settings.smallestDamagedBytes))
        case .partition, .oneWay, .isolate, .linkDown, .loss, .rate, .delay:
            guard let network, let fault = networkFault(event, network) else { return nil }
            let host = event.target.processName
            try network.apply(fault, to: host)
            defer { try? network.heal(host) }
            try await Task.sleep(for: event.lasts)
        }
        return nil
    }

    private func networkFault(
        _ event: ChaosEvent, _ network: NamespaceNetwork
    ) -> NamespaceNetwork.Fault? {
        switch event.fault {
        case .partition, .oneWay:
            guard let peer = event.peer else { return nil }
            var addresses = [network.address(of: peer.processName)]
            if settings.relayed.contains(peer) { addresses.append(settings.relayHost(of: peer)) }
            let isBoth = event.fault == .partition
            return .drop(
                addresses: addresses, incoming: isBoth || event.isReversed,
                outgoing: isBoth || !event.isReversed)
        case .isolate: return .isolate
        case .linkDown: return .down
        case .loss: return .loss(settings.lostPackets)
        case .rate: return .rate(bitsPerSecond: settings.slowLinkBits)
        case .delay: return .delay(settings.delay)
        default: return nil
        }
    }

    private func end(_ event: ChaosEvent, by signal: Int32) async throws -> String? {
        guard let process = process(of: event.target) else { return nil }
        process.signal(signal)
        guard await process.waitUntilExit(within: Self.endDeadline) else {
            process.signal(SIGKILL)
            await process.waitUntilExit(within: Self.endDeadline)
            try await start(event.target)
            return "\(event.target.name) did not end within \(Self.endDeadline) of SIGTERM"
        }
        let status = process.exitStatus ?? 0
        try await Task.sleep(for: event.lasts)
        try await start(event.target)
        guard signal == SIGTERM, status != 0 else { return nil }
        return "\(event.target.name) ended with status \(status) after SIGTERM"
    }

    private func disturb(
        _ event: ChaosEvent, _ condition: FaultyRelay.Condition
    ) async throws {
        set(condition, of: event.target)
        defer { set(.healthy, of: event.target) }
        try await Task.sleep(for: event.lasts)
    }

    private func set(_ condition: FaultyRelay.Condition, of target: ChaosTarget) {
        let relays = state.withLock { state in
            state.conditions[target] = condition == .healthy ? nil : condition
            return state.relays[target] ?? []
        }
        for relay in relays { relay.set(condition) }
    }
}
