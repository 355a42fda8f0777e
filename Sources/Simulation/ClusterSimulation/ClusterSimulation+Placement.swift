import InferenceEngine
import Roles
import ServingTypes

/// What gateways and workers do with requests besides the answers.
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

    /// A job must be the beginning of the right answer, and ask for what is missing of it.
    func checkJob(_ job: SequenceJob) {
        let prompt = Array(job.tokens.dropLast(job.outputTokens))
        guard let known = requests.values.first(where: { $0.job.promptTokens == prompt }) else {
            return expect(false, "a job has a prompt that nobody sent")
        }
        let missing = known.job.maximumNewTokens - job.outputTokens
        expect(
            job.tokens == prompt + known.answer.tokens.prefix(job.outputTokens)
                && job.sampling == known.job.sampling
                // A prefill samples one token, whoever decodes all that are missing.
                && (job.maximumNewTokens == 1 || job.maximumNewTokens == missing)
                && job.maximumNewTokens >= 1 && job.importedTokens < job.tokens.count
                // An answer of one token needs no KV elsewhere.
                && !(job.exportsKV && missing == 1)
                && (job.retainsKV || plan.keptSequences == 0),
            "\(known.job.request) is computed with wrong numbers: \(job)")
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
