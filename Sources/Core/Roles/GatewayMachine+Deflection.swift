import Scheduling
import ServingTypes

/// Whether a decode-worker computes a prompt itself.
extension GatewayMachine {
    /// Compares what the first token takes by a prefill-worker and where room was granted.
    ///
    /// - Parameter prefill: position of the worker that would be asked; nil while all are taken.
    func isSoonerLocally(
        _ flight: GatewayFlight, _ target: InstanceID, insteadOf prefill: Int?,
        in group: GroupID
    ) -> Bool {
        guard let local = board[target], local.standing.canBeAsked(.prompts) else { return false }
        var comparison = DeflectionCase(promptTokens: flight.tokens.count)
        comparison.kvBytesPerToken = local.description.kvBytesPerToken
        comparison.heldTokens = flight.heldTokens
        comparison.localTokensPerSecond = local.standing.prefillTokensPerSecond
        comparison.localPendingTokens = local.standing.openPromptTokens
        comparison.runningSequences = local.standing.runningSequences
        comparison.decodeStepMilliseconds = local.standing.decodeStepMilliseconds
        comparison.stepLimit = settings(of: flight.job.scenario).stepLimit
        let members = board.groups[group]?.members(.prompts) ?? []
        comparison.hasPrefillWorker = board.hasUsable(.prompts, in: group)
        if let position = prefill ?? members.first {
            let worker = board.workers[position]
            let rate = worker.standing.prefillTokensPerSecond
            comparison.prefillTokensPerSecond = rate
            if rate > 0 {
                // While all slots are taken, its turn comes after those who wait already.
                let place = GatewayBoard.Place(group: group, need: .prompts)
                let before = prefill == nil ? board.waiting[place]?.count ?? 0 : 0
                let waits = Double(before * comparison.promptTokens / max(1, members.count))
                comparison.queueWait = .seconds(
                    (Double(worker.standing.openPromptTokens) + waits) / rate)
            }
            comparison.hitTokens =
                promptIndex.hits(for: flight.blocks)[worker.description.instance] ?? 0
        }
        return comparison.choice(limits: limits.deflection).isLocal
    }
}
