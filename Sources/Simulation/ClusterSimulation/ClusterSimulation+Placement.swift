import Roles
import ServingTypes

/// What gateways say of their requests besides the answers.
extension ClusterSimulation {
    func started(_ request: RequestID, cachedTokens: Int) {
        guard let known = requests[request] else { return }
        expect(!known.hasStarted, "\(request) starts twice")
        // One token is computed, if only one that was delivered by an attempt before.
        let computed = known.received.isEmpty ? 1 : 0
        expect(
            (0...known.job.promptTokens.count - computed).contains(cachedTokens),
            "\(request) has \(cachedTokens) of \(known.job.promptTokens.count) tokens cached")
        requests[request]?.hasStarted = true
        counts.cachedTokens += cachedTokens
    }

    func note(_ placements: PlacementCounts) {
        counts.early += placements.early
        counts.late += placements.late
        counts.deflected += placements.deflected
        counts.decodeOnly += placements.decodeOnly
        counts.prefillOnly += placements.prefillOnly
        counts.moved += placements.moved
    }

    func note(_ traffic: [GroupTraffic]) {
        for report in traffic {
            counts.reportedArrivals += report.arrived
            counts.reportedEnds += report.completed + report.failed
            expect(
                report.good <= report.completed && report.waiting >= 0
                    && report.prefill <= report.endToEnd && report.prefill <= report.ttft
                    && report.cachedTokens <= report.promptTokens,
                "a report does not fit together: \(report)")
        }
    }
}

extension GenerationFailure {
    var name: String {
        switch self {
        case .tooManyRequests: "too many requests"
        case .noWorker: "no worker"
        case .overloaded: "overloaded"
        case .tooLate: "too late"
        case .tooLong: "too long"
        case .attemptsExhausted: "attempts exhausted"
        case .deadline: "deadline"
        case .shuttingDown: "shutting down"
        }
    }
}
