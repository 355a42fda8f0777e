import Logging
import ServiceRuntime
import ServiceStart
import ServingTypes
import Synchronization
import Transport
import WireProtocol

/// Certificates and address with which a benchmark plays the services of a cluster.
struct PlayedServices: Sendable {
    let cluster: String
    let scheduler: NetworkAddress
    let logger: Logger
    private let contexts: [Role: TLSContext]

    /// - Parameter folder: with certificates of each role, good for any name.
    init(
        cluster: String, scheduler: NetworkAddress, certificates folder: String
    ) throws(TransportError) {
        self.cluster = cluster
        self.scheduler = scheduler
        var logger = Logger(label: "benchmark")
        logger.logLevel = .critical
        self.logger = logger
        let authority = CertificateAuthority(folder: folder)
        var contexts: [Role: TLSContext] = [:]
        for role in [Role.prefillWorker, .decodeWorker, .gateway, .administrator] {
            contexts[role] = try TLSContext(
                TLSIdentity(authority.paths(of: InstanceID(role.name))))
        }
        self.contexts = contexts
    }

    func client(
        _ role: Role, _ instance: InstanceID, incarnation: UInt64
    ) throws(TransportError) -> ControlClient {
        guard let context = contexts[role] else { throw .noIdentity }
        let hello = Hello(
            cluster: cluster, role: role, instance: instance, incarnation: incarnation,
            productVersion: Product.version)
        return try ControlClient(
            address: scheduler, context: context, hello: hello,
            expects: PeerExpectation(.scheduler), logger: logger)
    }
}

/// Many workers without engines, each with a connection of its own to the scheduler.
///
/// They register, beat once a second with other readings each time, and take up every assignment.
final class SimulatedFleet: Sendable {
    private struct Instance {
        let description: InstanceDescription
        var status = InstanceStatus()
        var session: ControlSession?
        var isDead = false
        var lastBeat = MonotonicTime.start
    }

    struct Counts: Sendable {
        var heartbeats = 0
        var connected = 0
        var dead = 0
        var sessions = 0
    }

    private struct State {
        var instances: [Instance]
        var heartbeats = 0
        var sessions = 0
    }

    /// Heartbeats of all are spread over the second in so many steps.
    private static let steps = 100
    private static let step = Duration.milliseconds(10)

    private let links: LinkSet
    private let services: PlayedServices
    private let numbers: [InstanceID: Int]
    private let state: Mutex<State>

    init(count: Int, services: PlayedServices) {
        self.services = services
        let descriptions = (0..<count).map { number in
            SimulatedInstances.description(number: number, incarnation: .random(in: 1 ... .max))
        }
        let instances = descriptions.map { description in
            var instance = Instance(description: description)
            instance.status.role = description.initialRole
            instance.status.freePrefillSlots = description.prefillSlots
            instance.status.freeKVBytes = description.kvCapacityBytes
            return instance
        }
        numbers = Dictionary(
            uniqueKeysWithValues: descriptions.enumerated().map { ($1.instance, $0) })
        state = Mutex(State(instances: instances))
        links = LinkSet(logger: services.logger) { instance, role, _ throws(TransportError) in
            try services.client(role, instance, incarnation: .random(in: 1 ... .max))
        }
    }

    var counts: Counts {
        state.withLock { state in
            Counts(
                heartbeats: state.heartbeats,
                connected: state.instances.count { $0.session != nil && !$0.isDead },
                dead: state.instances.count(where: \.isDead),
                sessions: state.sessions)
        }
    }

    func name(_ number: Int) -> InstanceID {
        state.withLock { $0.instances[number].description.instance }
    }

    /// All connect at once.
    func connect() {
        let all = state.withLock { $0.instances.map(\.description) }
        for one in all { links.add(one.instance, role: one.role, at: services.scheduler) }
    }

    /// Keeps connections and heartbeats until the task is cancelled.
    func run() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.links.run { try await self.serve($0, $1) } }
            group.addTask { try await self.beat() }
            try await group.next()
            group.cancelAll()
        }
    }

    // MARK: Deaths

    /// Its connection ends without a word; gives when.
    func disconnect(_ number: Int) -> MonotonicTime {
        let (session, name) = state.withLock { state in
            state.instances[number].isDead = true
            return (
                state.instances[number].session, state.instances[number].description.instance
            )
        }
        let now = ProcessClock.now()
        session?.close()
        links.remove(name)
        return now
    }

    /// It beats no more, its connection stays; gives when it was heard of last.
    func silence(_ number: Int) -> MonotonicTime {
        state.withLock { state in
            state.instances[number].isDead = true
            return state.instances[number].lastBeat
        }
    }

    /// Closes the connections of those that fell silent.
    func bury() {
        let dead = state.withLock { state in
            state.instances.filter(\.isDead).map(\.description.instance)
        }
        for name in dead { links.remove(name) }
    }

    // MARK: Life

    private func serve(_ session: ControlSession, _ instance: InstanceID) async throws {
        guard let number = numbers[instance] else { return }
        let register = state.withLock { state -> Register? in
            guard !state.instances[number].isDead else { return nil }
            state.instances[number].session = session
            state.instances[number].lastBeat = ProcessClock.now()
            // A scheduler that was started again counts its assignments anew.
            state.instances[number].status.assignment = 0
            state.sessions += 1
            return Register(
                description: state.instances[number].description,
                status: state.instances[number].status)
        }
        guard let register else { return }
        defer { state.withLock { $0.instances[number].session = nil } }
        session.post(.register(register))
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await session.keepAlive() }
            group.addTask { try await self.follow(session, number) }
            try await group.next()
            group.cancelAll()
        }
    }

    private func follow(_ session: ControlSession, _ number: Int) async throws {
        for try await frame in session.inbound {
            guard case .assign(let assign) = frame.message else { continue }
            let status = state.withLock { state in
                state.instances[number].status.assignment = assign.number
                state.instances[number].status.role = assign.role
                state.instances[number].lastBeat = ProcessClock.now()
                state.heartbeats += 1
                return state.instances[number].status
            }
            session.post(.heartbeat(Heartbeat(status: status)))
        }
    }

    private func beat() async throws {
        let start = ContinuousClock.now
        var done = 0
        while true {
            // What was missed while nobody ran is sent late, as by a worker whose host is busy.
            let due = Int((ContinuousClock.now - start) / Self.step)
            while done < due {
                beat(step: done % Self.steps)
                done += 1
            }
            try await Task.sleep(for: Self.step)
        }
    }

    private func beat(step: Int) {
        let now = ProcessClock.now()
        let beats = state.withLock { state in
            var beats: [(ControlSession, InstanceStatus)] = []
            for number in stride(from: step, to: state.instances.count, by: Self.steps) {
                guard let session = state.instances[number].session,
                    !state.instances[number].isDead
                else { continue }
                state.instances[number].status.engineSteps += 17
                state.instances[number].status.freeKVBytes -= 1
                state.instances[number].lastBeat = now
                beats.append((session, state.instances[number].status))
            }
            state.heartbeats += beats.count
            return beats
        }
        for (session, status) in beats { session.post(.heartbeat(Heartbeat(status: status))) }
    }
}
