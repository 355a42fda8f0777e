import InferenceEngine
import KVHandOver
import Roles
import ServingTypes

/// KV on its way out and in.
extension SimulatedWorker {
    // MARK: Sending

    func open(_ transfer: TransferPlan) {
        let instance = transfer.decodeInstance
        let destination =
            destinations[instance]
            ?? SimulatedDestination(instance, of: self, limits: plan.handOverLimits)
        destinations[instance] = destination
        sending[transfer.attempt] = destination
        destination.open(
            SendingPlan(
                attempt: transfer.attempt, secret: transfer.secret,
                fingerprint: cluster.fingerprint, tokens: transfer.tokens,
                startToken: transfer.heldTokens, chunkTokens: plan.microBatchTokens,
                expires: transfer.expires))
    }

    func transferEnded(_ attempt: AttemptID, failure: KVDone?) {
        sending[attempt] = nil
        perform(machine.transferEnded(attempt, failure: failure))
    }

    // MARK: Receiving

    /// The frame of a chunk has come, its payload has not.
    func chunkBegins(
        _ chunk: KVChunk, bytes: Int, from sender: InstanceID, on link: SimulatedLink
    ) {
        let id = KVLinkID(link.id)
        let (isWanted, actions) = machine.kvBegins(
            ChunkFacts(chunk, bytes: bytes), of: chunk.attempt, from: sender, on: id, now: now)
        if isWanted { reading.insert(id) } else { cluster.note(.discardedChunk) }
        perform(actions)
    }

    /// The payload has come, after much may have happened; nil if it was broken off.
    func chunkEnds(
        _ chunk: KVChunk, bytes: Int, tokens: [TokenID]?, on link: SimulatedLink
    ) {
        let id = KVLinkID(link.id)
        guard reading.remove(id) != nil else { return }
        let facts = ChunkFacts(chunk, bytes: bytes)
        let isDamaged = tokens != nil && cluster.happens(.damageOnTheWay, to: chunk.attempt)
        guard let tokens, !isDamaged else {
            return perform(
                machine.kvMissed(
                    facts, of: chunk.attempt, on: id, isDamaged: isDamaged, reason: "damaged",
                    now: now))
        }
        let (isKept, actions) = machine.kvLanded(facts, of: chunk.attempt, on: id, now: now)
        if isKept { landed[chunk.attempt, default: [:]][chunk.tokenStart] = tokens }
        perform(actions)
    }

    func lostBulk(_ link: SimulatedLink) {
        let id = KVLinkID(link.id)
        if inbound.removeValue(forKey: id) != nil {
            reading.remove(id)
            perform(machine.kvLinkLost(id, now: now))
        } else {
            destinations[link.acceptor.name]?.closed(link)
        }
    }

    /// Gives landed chunks to the engine.
    func importChunks(_ starts: [Int], of attempt: AttemptID, as sequence: SequenceID) {
        for start in starts {
            guard let tokens = landed[attempt]?.removeValue(forKey: start) else {
                cluster.expect(false, "\(name) imports a chunk that is not here")
                continue
            }
            engine?.submit(
                .importKV(
                    sequence, start: start, tokens: tokens,
                    isDamaged: cluster.happens(.damagedBlock, to: attempt)))
        }
        if landed[attempt]?.isEmpty == true { landed[attempt] = nil }
    }
}
