import Foundation
import HTTPClient
import LocalCluster
import NIOCore
import NIOPosix
import ServiceStart
import ServingTypes
import Synchronization

/// The cluster's processes and relays, and what is done to them.
final class ChaosProcesses: Sendable {
    /// One life of a gateway.
    struct Gateway: Sendable {
        var name: String
        var address: NetworkAddress
        /// Faults that had befallen it.
        var faults: Int
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
    private static let localHost = "127.0.0.1"

    private let settings: ChaosSettings
    private let cluster: LocalCluster
    private let state = Mutex(State())
    private let newRelays = AsyncStream.makeStream(of: NewRelay.self)

    init(settings: ChaosSettings, cluster: LocalCluster) {
        self.settings = settings
        self.cluster = cluster
    }

    // MARK: Start

    func start() async throws {
        try cluster.makeCertificates()
        let listen = NetworkAddress(host: Self.localHost, port: try await Self.freePort())
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
                let faults = state.gateways[target.name]?.faults ?? 0
                state.gateways[target.name] = Gateway(
                    name: target.name, address: address, faults: faults)
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
        let host = ChaosSettings.host(of: target)
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
        let address = NetworkAddress(host: ChaosSettings.host(of: target), port: port)
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

    private static func freePort() async throws -> Int {
        let channel = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
            .bind(host: localHost, port: 0).get()
        let port = channel.localAddress?.port ?? 0
        try await channel.close()
        return port
    }

    // MARK: Clients

    func gateway(_ index: Int) -> Gateway {
        let gateways = state.withLock { $0.gateways.values.sorted { $0.name < $1.name } }
        return gateways[index % gateways.count]
    }

    /// Whether something befell this gateway since.
    func hasSuffered(_ gateway: Gateway) -> Bool {
        state.withLock { $0.gateways[gateway.name]?.faults != gateway.faults }
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

    // MARK: Faults

    private func process(of target: ChaosTarget) -> ManagedProcess? {
        let name: String
        switch target.role {
        case .scheduler: name = "scheduler"
        case .healthAgent: name = "health-agent"
        default: name = target.name
        }
        return cluster.all.first { $0.name == name }
    }

    /// Lets a fault happen and heals it; gives what was wrong with how the process took it.
    func suffer(_ event: ChaosEvent) async throws -> String? {
        state.withLock { $0.gateways[event.target.name]?.faults += 1 }
        switch event.fault {
        case .kill:
            return try await end(event, by: SIGKILL)
        case .terminate:
            return try await end(event, by: SIGTERM)
        case .stop:
            process(of: event.target)?.signal(SIGSTOP)
            try await Task.sleep(for: event.lasts)
            process(of: event.target)?.signal(SIGCONT)
            return nil
        case .cut: return try await disturb(event, .cut)
        case .stall: return try await disturb(event, .stalled)
        case .slow: return try await disturb(event, .slow(settings.slowBytesPerSecond))
        case .corrupt:
            return try await disturb(
                event, .corrupt(minimumBytes: settings.smallestDamagedBytes))
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
    ) async throws -> String? {
        set(condition, of: event.target)
        try await Task.sleep(for: event.lasts)
        set(.healthy, of: event.target)
        return nil
    }

    private func set(_ condition: FaultyRelay.Condition, of target: ChaosTarget) {
        let relays = state.withLock { state in
            state.conditions[target] = condition == .healthy ? nil : condition
            return state.relays[target] ?? []
        }
        for relay in relays { relay.set(condition) }
    }
}
