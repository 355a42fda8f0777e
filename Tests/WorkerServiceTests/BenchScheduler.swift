import Logging
import ServiceStart
import ServingTypes
import Synchronization
import Transport
import WireProtocol

/// The test as scheduler: it hears its workers and tells them what to do.
final class BenchScheduler: Sendable {
    private struct State {
        var sessions: [InstanceID: ControlSession] = [:]
        var statuses: [InstanceID: InstanceStatus] = [:]
        var descriptions: [InstanceID: InstanceDescription] = [:]
        var strays: [MessageKind] = []
    }

    private let listener: ControlListener
    private let state = Mutex(State())

    init(_ certificates: BenchCertificates) throws {
        let name = InstanceID("scheduler")
        listener = try ControlListener(
            address: NetworkAddress(host: "127.0.0.1", port: 0),
            context: certificates.context(.scheduler, name),
            hello: certificates.hello(.scheduler, name),
            allowedRoles: [.prefillWorker, .decodeWorker],
            logger: Logger(label: "scheduler") { _ in SwiftLogNoOpLogHandler() })
    }

    func start() async throws -> NetworkAddress { try await listener.start() }

    /// Serves until the task is cancelled.
    func run() async throws {
        try await listener.run { session in
            for try await frame in session.inbound { self.take(frame.message, session) }
        }
    }

    private func take(_ message: ControlMessage, _ session: ControlSession) {
        let instance = session.peer.instance
        state.withLock { state in
            switch message {
            case .register(let register):
                state.sessions[instance] = session
                state.descriptions[instance] = register.description
                state.statuses[instance] = register.status
            case .heartbeat(let heartbeat): state.statuses[instance] = heartbeat.status
            case .deregister: state.sessions[instance] = nil
            case .ping(let ping): session.post(.pong(Pong(number: ping.number)))
            default: state.strays.append(message.kind)
            }
        }
    }

    /// Messages that no worker sends to a scheduler.
    var strays: [MessageKind] { state.withLock { $0.strays } }

    func description(of worker: BenchWorker) -> InstanceDescription? {
        state.withLock { $0.descriptions[worker.instance] }
    }

    /// Waits until the worker's own word is so.
    func wait(
        for worker: BenchWorker, within deadline: Duration = .seconds(20),
        _ isWanted: (InstanceStatus) -> Bool
    ) async throws -> InstanceStatus {
        let end = ContinuousClock.now + deadline
        while true {
            let status = state.withLock { $0.statuses[worker.instance] }
            if let status, isWanted(status) { return status }
            guard ContinuousClock.now < end else {
                throw BenchFailure("\(worker.instance) says \(String(describing: status))")
            }
            try await Task.sleep(for: .milliseconds(5))
        }
    }

    /// Closes the worker's connection; it makes another one.
    func disconnect(_ worker: BenchWorker) {
        let session = state.withLock { state in
            state.statuses[worker.instance] = nil
            return state.sessions.removeValue(forKey: worker.instance)
        }
        session?.close()
    }

    func assign(_ assign: Assign, to worker: BenchWorker) {
        state.withLock { _ = $0.sessions[worker.instance]?.post(.assign(assign)) }
    }
}
