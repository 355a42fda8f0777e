import ArgumentParser
import Logging
import Roles
import ServiceStart
import ServingTypes
import Transport
import WireProtocol

/// How the commands for a running cluster find its scheduler.
struct SchedulerOptions: ParsableArguments {
    @Option(help: "Control addresses of the schedulers, separated by commas; one of them leads.")
    var scheduler = "127.0.0.1:7400"

    @Option(help: "Folder with ca.pem, administrator.pem and administrator.key.")
    var certificates: String

    @Option(help: "Name of the cluster.")
    var cluster = "pdserve"

    func query() throws -> SchedulerQuery {
        let parts = scheduler.split(separator: ",", omittingEmptySubsequences: false)
        let addresses = parts.compactMap { NetworkAddress(String($0)) }
        guard addresses.count == parts.count else {
            throw ValidationError(
                "'\(scheduler)' is not an address like 127.0.0.1:7400, or several with commas.")
        }
        return SchedulerQuery(
            schedulers: addresses, certificates: certificates, cluster: cluster)
    }

    /// Asks for something, prints the answer, and ends with failure if it is refused.
    func carryOut(_ command: String, _ arguments: [(String, String?)]) async throws {
        let given = arguments.compactMap { name, value in
            value.map { AdminRequest.Argument(name: name, value: $0) }
        }
        let reply = try await query().ask(AdminRequest(command: command, arguments: given))
        print(reply.text)
        if !reply.isAccepted { throw ExitCode.failure }
    }
}

/// Asks a scheduler once.
struct SchedulerQuery {
    /// Time the scheduler has to answer.
    static let deadline: Duration = .seconds(10)

    let schedulers: [NetworkAddress]
    let certificates: String
    let cluster: String

    private var place: String { schedulers.map(\.description).joined(separator: ", ") }

    /// All it knows.
    func status() async throws -> ClusterStatus {
        var whole: ClusterStatus?
        return try await answer(to: .clusterStatusRequest(ClusterStatusRequest())) { message in
            guard case .clusterStatus(let page) = message else { return nil }
            if whole == nil { whole = page } else { whole?.append(page) }
            return page.view.isPartial ? nil : whole
        }
    }

    func ask(_ request: AdminRequest) async throws -> AdminReply {
        try await answer(to: .adminRequest(request)) { message in
            if case .adminReply(let reply) = message { reply } else { nil }
        }
    }

    /// - Parameter read: gives the answer once it is complete, nil before.
    private func answer<Answer: Sendable>(
        to message: ControlMessage, _ read: @escaping (ControlMessage) -> Answer?
    ) async throws -> Answer {
        let file = InstanceID(Role.administrator.name)
        let authority = CertificateAuthority(folder: certificates)
        let context = try TLSContext(TLSIdentity(authority.paths(of: file)))
        // A certificate of a person's own says who asks.
        let named = context.identity.map(\.instance) ?? file
        let hello = Hello(
            cluster: cluster, role: .administrator,
            instance: named == PeerIdentity.anyInstance ? file : named,
            incarnation: .random(in: 1 ... .max), productVersion: Product.version)
        // Standbys refuse, which is no news.
        var logger = Logger(label: "pdserve")
        logger.logLevel = schedulers.count > 1 ? .error : .warning
        // All at once: one that hangs takes a connection and says nothing.
        let clients = try schedulers.map { address in
            try ControlClient(
                address: address, context: context, hello: hello,
                expects: PeerExpectation(.scheduler), logger: logger)
        }
        let (messages, inbox) = AsyncStream.makeStream(of: ControlMessage.self)
        return try await withThrowingTaskGroup(of: Void.self) { group in
            for client in clients {
                group.addTask {
                    await client.run(spread: .zero) { session in
                        session.post(message)
                        for try await frame in session.inbound { inbox.yield(frame.message) }
                    }
                }
            }
            group.addTask {
                try await Task.sleep(for: Self.deadline)
                inbox.finish()
            }
            defer { group.cancelAll() }
            for await message in messages {
                if let answer = read(message) { return answer }
            }
            throw ChatFailure(message: "no answer from \(place) in \(Self.deadline)")
        }
    }
}
