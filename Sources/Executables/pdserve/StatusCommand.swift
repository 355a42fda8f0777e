import ArgumentParser
import Foundation
import Logging
import ServiceStart
import ServingTypes
import Transport
import WireProtocol

/// Shows what the scheduler knows.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the workers and hosts of a cluster.")

    @Option(help: "Control address of the scheduler.")
    var scheduler = "127.0.0.1:7400"

    @Option(help: "Folder with ca.pem, administrator.pem and administrator.key.")
    var certificates: String

    @Option(help: "Name of the cluster.")
    var cluster = "pdserve"

    func run() async throws {
        guard let address = NetworkAddress(scheduler) else {
            throw ValidationError("'\(scheduler)' is not an address like 127.0.0.1:7400.")
        }
        let status = try await ClusterStatusQuery(
            scheduler: address, certificates: certificates, cluster: cluster
        ).run()
        show(status)
    }

    private func show(_ status: ClusterStatus) {
        print("view \(status.view.epoch).\(status.view.version)")
        print("gateways: \(status.gateways.map(\.name).joined(separator: ", "))")
        let rows = status.view.members.map { member in
            let worker = member.description
            let now = member.status
            return [
                worker.instance.name, worker.role.name, member.state.name, worker.modelName,
                worker.controlAddress.description,
                worker.role == .prefillWorker
                    ? "\(now.freePrefillSlots)/\(worker.prefillSlots) slots free"
                    : "\(now.runningSequences) running, "
                        + "\(now.freeKVBytes >> 20)/\(worker.kvCapacityBytes >> 20) MiB KV free",
                worker.device, member.reason,
            ]
        }
        let head = ["worker", "role", "state", "model", "address", "load", "device", "reason"]
        print(table([head] + rows))
        for report in status.hosts {
            let host = report.host
            print(
                "host \(host.host): \(host.cores) cores \(Int(host.busyFraction * 100)) % busy, "
                    + "\(host.availableMemoryBytes >> 20) of "
                    + "\(host.totalMemoryBytes >> 20) MiB free"
            )
        }
    }

    private func table(_ rows: [[String]]) -> String {
        let widths = (rows.first ?? []).indices.map { column in
            rows.map { $0[column].count }.max() ?? 0
        }
        return rows.map { row in
            zip(row, widths).map { text, width in
                text + String(repeating: " ", count: width - text.count)
            }.joined(separator: "  ")
        }.joined(separator: "\n")
    }
}

/// Asks a scheduler once for all it knows.
struct ClusterStatusQuery {
    /// Time the scheduler has to answer.
    static let deadline: Duration = .seconds(10)

    let scheduler: NetworkAddress
    let certificates: String
    let cluster: String

    func run() async throws -> ClusterStatus {
        let name = InstanceID(Role.administrator.name)
        let authority = CertificateAuthority(folder: certificates)
        let context = try TLSContext(TLSIdentity(authority.paths(of: name)))
        let hello = Hello(
            cluster: cluster, role: .administrator, instance: name,
            incarnation: .random(in: 1 ... .max), productVersion: Product.version)
        let client = try ControlClient(
            address: scheduler, context: context, hello: hello,
            expects: PeerExpectation(.scheduler), logger: Logger(label: "pdserve"))
        return try await withThrowingTaskGroup(of: ClusterStatus?.self) { group in
            let (answers, answer) = AsyncStream.makeStream(of: ClusterStatus.self)
            group.addTask {
                await client.run { session in
                    session.post(.clusterStatusRequest(ClusterStatusRequest()))
                    for try await frame in session.inbound {
                        if case .clusterStatus(let status) = frame.message {
                            answer.yield(status)
                            return
                        }
                    }
                }
                return nil
            }
            group.addTask {
                for await status in answers { return status }
                return nil
            }
            group.addTask {
                try await Task.sleep(for: Self.deadline)
                throw ChatFailure(message: "no answer from \(scheduler) in \(Self.deadline)")
            }
            let status = try await group.next() ?? nil
            group.cancelAll()
            guard let status else { throw ChatFailure(message: "no answer from \(scheduler)") }
            return status
        }
    }
}
