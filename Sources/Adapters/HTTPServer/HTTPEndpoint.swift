package import CoreMetrics
import FileBudget
import HummingbirdCore
package import Logging
package import NIOCore
import NIOPosix
import ServiceLifecycle
package import ServingTypes
import Synchronization

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// Serves HTTP/1.1 on one address.
///
/// Graceful shutdown stops accepting, lets running answers end within `drainTime`, then closes.
package final class HTTPEndpoint: Service {
    private struct State {
        var result: Result<NetworkAddress, HTTPServerError>?
        var waiting: [CheckedContinuation<Result<NetworkAddress, HTTPServerError>, Never>] = []
    }

    private let address: NetworkAddress
    private let limits: HTTPLimits
    private let logger: Logger
    private let connections: OpenConnections
    private let serving: ConnectionServing
    private let bound = Mutex(State())

    /// - Parameters:
    ///   - address: port 0 takes any free port, see `boundAddress`.
    ///   - metrics: counts requests, refusals and clients that left early.
    ///   - prepare: adds handlers in front of HTTP, for example for TLS.
    package init(
        address: NetworkAddress, limits: HTTPLimits = HTTPLimits(), routes: HTTPRoutes,
        logger: Logger, metrics: (any MetricsFactory)? = nil,
        prepare: @escaping @Sendable (any Channel) throws -> Void = { _ in }
    ) {
        self.address = address
        self.limits = limits
        self.logger = logger
        let (served, refused) = limits.connections(ofFiles: OpenFiles.forConnections)
        connections = OpenConnections(limit: served, refused: refused)
        if served < limits.connections {
            logger.notice(
                "open files bound the number of HTTP connections; allow more with ulimit -n",
                metadata: ["connections": "\(served)", "wanted": "\(limits.connections)"])
        }
        serving = ConnectionServing(
            routes: routes, limits: limits, connections: connections, logger: logger,
            prepare: prepare, count: HTTPCounting(metrics: metrics))
    }

    package var openConnections: Int { connections.count }

    /// The address once it is bound; `run` must have been called or be called soon.
    package func boundAddress() async throws(HTTPServerError) -> NetworkAddress {
        let result = await withCheckedContinuation { continuation in
            let known = bound.withLock { state in
                if state.result == nil { state.waiting.append(continuation) }
                return state.result
            }
            if let known { continuation.resume(returning: known) }
        }
        return try result.get()
    }

    private func announce(_ result: Result<NetworkAddress, HTTPServerError>) {
        let waiting = bound.withLock { state in
            // The first failure stays: it says why.
            if case .failure? = state.result { return state.waiting }
            state.result = result
            let waiting = state.waiting
            state.waiting = []
            return waiting
        }
        for continuation in waiting { continuation.resume(returning: result) }
    }

    package func run() async throws {
        let server = serving.server(
            configuration: ServerConfiguration(
                address: .hostname(address.host, port: address.port),
                backlog: HTTPLimits.backlog),
            onServerRunning: { channel in
                await self.guardFiles(channel)
                let port = channel.localAddress?.port ?? self.address.port
                self.announce(.success(NetworkAddress(host: self.address.host, port: port)))
            }, eventLoopGroup: MultiThreadedEventLoopGroup.singleton, logger: logger)
        defer { announce(.failure(.notRunning)) }
        // Ends with the server: leaving this scope cancels and awaits it.
        async let _ = closeAfterDrain()
        do {
            try await server.run()
        } catch {
            let failure = listenFailure(error)
            announce(.failure(failure))
            throw failure
        }
    }

    private func guardFiles(_ server: any Channel) async {
        let shortage = FileShortage(listener: "HTTP", logger: logger)
        try? await server.eventLoop.submit {
            try server.pipeline.syncOperations.addHandler(
                AcceptGate(shortage), position: .first)
        }.get()
    }

    /// Waits for the shutdown and its limit, then cuts off what still runs.
    private func closeAfterDrain() async {
        guard (try? await gracefulShutdown()) != nil,
            (try? await Task.sleep(for: limits.drainTime)) != nil
        else { return }
        let count = connections.count
        guard count > 0 else { return }
        logger.warning(
            "Connections are cut off at the shutdown limit.", metadata: ["count": "\(count)"])
        connections.closeAll()
    }

    private func listenFailure(_ error: any Error) -> HTTPServerError {
        guard let error = error as? IOError else {
            return .cannotListen(address, reason: "\(error)")
        }
        return error.errnoCode == EADDRINUSE
            ? .addressInUse(address)
            : .cannotListen(address, reason: unsafe String(cString: strerror(error.errnoCode)))
    }
}
