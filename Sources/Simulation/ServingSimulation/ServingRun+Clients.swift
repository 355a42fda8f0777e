import ClusterRules
import RequestTraces
import Roles
import ServingTypes

/// The clients of a simulated cluster.
extension ServingRun {
    func begin() {
        switch plan.load {
        case .open(let trace): expect(trace.entries[...])
        case .users(let count, let trace):
            for index in 0..<count {
                // Not all at once, so that the beginning is no burst.
                let seconds = Double(index) / Double(count) * min(5, plan.seconds / 4)
                after(seconds) { [self] in askAsUser(of: trace) }
            }
        }
    }

    /// One request is in the queue at a time, however long the trace is.
    private func expect(_ entries: ArraySlice<RequestTrace.Entry>) {
        guard let next = entries.first, next.arrivalSeconds < plan.seconds else { return }
        after(max(0, next.arrivalSeconds - now.seconds)) { [self] in
            expect(entries.dropFirst())
            ask(next)
        }
    }

    private func askAsUser(of trace: RequestTrace) {
        guard now.seconds < plan.seconds else { return }
        ask(trace.sample(at: now.seconds, using: &generator))
    }

    private func ask(_ entry: RequestTrace.Entry) {
        requests += 1
        let request = RequestID(high: plan.seed, low: requests)
        let gateway = generator.below(gateways.count)
        clients[request] = Client(
            outcome: RequestOutcome(
                promptTokens: entry.promptTokens, outputTokens: entry.outputTokens,
                arrival: now.seconds), gateway: gateway)
        let prompt = prompt(of: entry)
        if plan.network.gatewaySeconds > 0 {
            after(plan.network.gatewaySeconds) { [self] in
                submit(request, prompt, entry, gateway)
            }
        } else {
            submit(request, prompt, entry, gateway)
        }
        guard let patience = plan.patienceSeconds else { return }
        after(patience) { [self] in
            guard let client = clients[request], client.outcome.ttft == nil else { return }
            perform(gateways[client.gateway].cancel(request), client.gateway)
            over(request)
        }
    }

    private func submit(
        _ request: RequestID, _ prompt: [TokenID], _ entry: RequestTrace.Entry, _ gateway: Int
    ) {
        var sampling = SamplingParameters()
        sampling.ignoresEndOfGeneration = true
        var job = GenerationJob(
            request: request, modelName: Self.model, promptTokens: prompt,
            maximumNewTokens: entry.outputTokens, sampling: sampling)
        job.ttftLimit = plan.scenario.ttftLimit
        job.scenario = plan.scenario.name
        perform(gateways[gateway].submit(job, now: now), gateway)
    }

    /// Tokens of a block that a trace's hash stands for (Mooncake).
    private static let hashedTokens = 512

    /// Tokens that begin like those of prompts with the same first hashes, and like no other's.
    private func prompt(of entry: RequestTrace.Entry) -> [TokenID] {
        let own = TokenID(truncatingIfNeeded: requests & 0xfff_ffff)
        guard !entry.prefixHashes.isEmpty else {
            var tokens = [TokenID](repeating: 1, count: entry.promptTokens)
            tokens[0] = own
            return tokens
        }
        var tokens: [TokenID] = []
        tokens.reserveCapacity(entry.promptTokens)
        for hash in entry.prefixHashes where tokens.count < entry.promptTokens {
            let token = TokenID(truncatingIfNeeded: (hash ^ hash >> 29) & 0x1fff_ffff)
            let count = min(Self.hashedTokens, entry.promptTokens - tokens.count)
            tokens.append(contentsOf: repeatElement(token, count: count))
        }
        let rest = entry.promptTokens - tokens.count
        tokens.append(contentsOf: repeatElement(own, count: rest))
        // The last token is the request's own: a prompt is never wholly known.
        tokens[tokens.count - 1] = own
        return tokens
    }

    // MARK: Answers

    func delivered(_ request: RequestID) {
        guard let client = clients[request], client.outcome.ttft == nil else { return }
        clients[request]?.outcome.ttft = now.seconds - client.outcome.arrival
    }

    func finished(_ request: RequestID) {
        guard let client = clients[request] else { return }
        clients[request]?.outcome.endToEnd = now.seconds - client.outcome.arrival
        over(request)
    }

    func over(_ request: RequestID, pause: Double = 0) {
        guard let client = clients.removeValue(forKey: request) else { return }
        report(client.outcome)
        streams[client.gateway].close(request)
        if case .users(_, let trace) = plan.load {
            after(pause) { [self] in askAsUser(of: trace) }
        }
    }
}
