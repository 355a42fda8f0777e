import Foundation
import LocalCluster
import ServiceStart
import ServingTypes
import Transport
import WireProtocol

/// Asks the scheduler for its status over and over, on one connection.
struct ShiftWatch: Sendable {
    private let client: ControlClient

    init(_ cluster: LocalCluster) throws {
        guard let address = cluster.schedulerAddress else {
            throw MeasurementError.unexpectedAnswer(status: 0, body: "no scheduler")
        }
        client = try .administrator(of: cluster, to: .scheduler, at: address)
    }

    /// Gives each status to `take`, until cancelled or `take` gives false.
    func run(_ take: @escaping @Sendable (ClusterStatus) -> Bool) async throws {
        try await client.connectOnce { session in
            let frames = session.inbound.makeAsyncIterator()
            while !Task.isCancelled {
                session.post(.clusterStatusRequest(ClusterStatusRequest()))
                var whole: ClusterStatus?
                while let frame = try await frames.next(isolation: nil) {
                    guard case .clusterStatus(let page) = frame.message else { continue }
                    // Members and decisions come in different parts.
                    whole?.view.members += page.view.members
                    whole?.decisions += page.decisions
                    whole = whole ?? page
                    if !page.view.isPartial { break }
                }
                guard let whole else {
                    throw MeasurementError.connectionLost(
                        request: "cluster status", "the scheduler closed it")
                }
                guard take(whole) else { return }
                try await Task.sleep(for: ShiftSettings.watchInterval)
            }
        }
    }
}

extension ShiftSample {
    init(_ status: ClusterStatus, time: Double) {
        self.init(
            time: time,
            roles: Dictionary(
                status.view.members.map { ($0.description.instance, $0.role) },
                uniquingKeysWith: { $1 }))
        for member in status.view.members {
            let now = member.status
            if member.role == .prefill, now.prefillTokensPerSecond > 0 {
                prefillRates.append(now.prefillTokensPerSecond)
            }
            if member.role == .decode, now.localPrefills == 0, now.runningSequences > 0,
                now.decodeStepMilliseconds > 0
            {
                steps.append((now.decodeStepMilliseconds, now.runningSequences))
            }
        }
    }
}
