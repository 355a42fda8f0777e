import Foundation
import LocalCluster
import ServiceRuntime
import ServiceStart
import ServingTypes
import Transport

/// Round trips over a control connection to a worker: TLS, one frame each way, two wake-ups.
struct ControlEcho: Sendable {
    /// Round trips before those that count.
    private static let warmUps = 5

    private let client: ControlClient

    init(to worker: ManagedProcess, of cluster: LocalCluster) throws {
        guard let address = worker.announcement.control else {
            throw MeasurementError.unexpectedAnswer(status: 0, body: "no control address")
        }
        client = try .administrator(of: cluster, to: worker.role, at: address)
    }

    func roundTrips(_ count: Int) async throws -> Samples {
        try await client.connectOnce { session in
            var times = Samples()
            let frames = session.inbound.makeAsyncIterator()
            for number in 0..<count + Self.warmUps {
                let start = ProcessClock.now()
                session.post(.ping(Ping(number: UInt64(number))))
                guard try await frames.next(isolation: nil) != nil else { break }
                if number >= Self.warmUps { times.add(ProcessClock.now() - start) }
            }
            return times
        }
    }
}
