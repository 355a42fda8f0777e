package import Logging
package import ServingTypes
import Synchronization

/// Control connections to a changing set of workers, kept up until a worker is removed.
///
/// Adding and removing return at once; the connections live in the group that `run` owns.
package final class LinkSet: Sendable {
    private enum Command: Sendable {
        case add(InstanceID, ControlClient, stop: AsyncStream<Never>)
    }

    package typealias MakeClient =
        @Sendable (InstanceID, Role, NetworkAddress) throws(TransportError) -> ControlClient

    private let makeClient: MakeClient
    private let logger: Logger
    private let commands: AsyncStream<Command>
    private let continuation: AsyncStream<Command>.Continuation
    private let stops = Mutex<[InstanceID: AsyncStream<Never>.Continuation]>([:])

    /// - Parameter makeClient: makes the client for one worker.
    package init(logger: Logger, makeClient: @escaping MakeClient) {
        self.makeClient = makeClient
        self.logger = logger
        (commands, continuation) = AsyncStream.makeStream(bufferingPolicy: .unbounded)
    }

    /// Connects to the worker from now on; replaces an earlier connection of the same name.
    package func add(_ instance: InstanceID, role: Role, at address: NetworkAddress) {
        do {
            let client = try makeClient(instance, role, address)
            let (stop, stopper) = AsyncStream.makeStream(of: Never.self)
            let earlier = stops.withLock { $0.updateValue(stopper, forKey: instance) }
            earlier?.finish()
            continuation.yield(.add(instance, client, stop: stop))
        } catch {
            logger.error(
                "a worker can't be connected to",
                metadata: ["worker": "\(instance)", "reason": "\(error)"])
        }
    }

    /// Closes the connection to the worker and forgets it.
    package func remove(_ instance: InstanceID) {
        stops.withLock { $0.removeValue(forKey: instance) }?.finish()
    }

    /// Keeps the connections until the task is cancelled.
    ///
    /// - Parameter onSession: runs for each established connection; the connection closes when it
    ///   returns, and is made again unless the worker was removed.
    package func run(
        onSession: @escaping @Sendable (ControlSession, InstanceID) async throws -> Void
    ) async throws {
        await withDiscardingTaskGroup { group in
            for await command in commands {
                guard case .add(let instance, let client, let stop) = command else { continue }
                group.addTask {
                    await withTaskGroup(of: Void.self) { race in
                        race.addTask {
                            await client.run { try await onSession($0, instance) }
                        }
                        race.addTask { for await _ in stop {} }
                        await race.next()
                        race.cancelAll()
                    }
                }
            }
            group.cancelAll()
        }
    }
}
