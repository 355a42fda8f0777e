import DeviceProfile
import InferenceEngine
import KVHandOver
import Roles
import ServingTypes

/// KV from one simulated machine to another.
extension SimulatedInstance {
    /// A block leaves; each end's link carries it after what it has already.
    func leave(_ sequence: SequenceID, tokens: Int) {
        guard let attempt = machine.exportingAttempt(sequence),
            let transfer = transfers[attempt],
            let receiver = run.instance(transfer.plan.decodeInstance)
        else { return }
        let raw = Double(tokens * plan.model.kvBytesPerToken)
        let landed: MonotonicTime
        if let host = plan.host, host == receiver.plan.host {
            landed =
                run.now + .nanoseconds(Int64(raw / run.plan.network.hostBytesPerSecond * 1e9))
        } else {
            let bytes = raw * run.plan.network.wireBytesPerByte
            landed = max(
                outward.carry(bytes, from: run.now), receiver.inward.carry(bytes, from: run.now))
        }
        transfers[attempt]?.landed = max(transfer.landed, landed)
    }

    /// All blocks are exported: the KV is there when the links have carried the last of them.
    func finishTransfer(_ end: KVEnd) {
        guard let transfer = transfers[end.attempt] else { return }
        let wait = max(0, (transfer.landed - run.now).seconds)
        run.after(wait + run.plan.network.handOverSeconds) { [self] in
            guard !isLost, let transfer = transfers[end.attempt] else { return }
            run.handOver(end, transfer.plan, from: name)
        }
    }

    func abort(_ attempt: AttemptID, _ reason: String) {
        guard let transfer = transfers.removeValue(forKey: attempt) else { return }
        run.abort(attempt, from: name, to: transfer.plan.decodeInstance)
        ended(attempt, KVDone(attempt: attempt, code: .cancelled, reason: reason))
    }

    func ended(_ attempt: AttemptID, _ done: KVDone) {
        transfers[attempt] = nil
        change { $0.transferEnded(attempt, failure: done.code == nil ? nil : done) }
    }

    /// A machine is gone; what was on its way there has no receiver any more.
    func lost(_ receiver: InstanceID) {
        let attempts = transfers.filter { $0.value.plan.decodeInstance == receiver }.keys
        for attempt in attempts.sorted(by: { $0.request.low < $1.request.low }) {
            let reason = "\(receiver) is gone"
            ended(attempt, KVDone(attempt: attempt, code: .transfer, reason: reason))
        }
    }

    func senderAborted(_ attempt: AttemptID, by sender: InstanceID) {
        change { $0.kvAborted(attempt, by: sender) }
    }

    /// The whole KV lands at once, at the moment its last byte would.
    func land(_ end: KVEnd, _ transfer: TransferPlan, from sender: InstanceID) {
        guard !isLost else { return }
        let link = KVLinkID(1)
        let now = run.now
        let count = transfer.tokens - transfer.heldTokens
        let fingerprint = description.fingerprint
        let offer = KVOffer(
            attempt: end.attempt, secret: transfer.secret, fingerprint: fingerprint,
            tokens: transfer.tokens, startToken: transfer.heldTokens, chunkTokens: max(1, count))
        change { $0.kvOffered(offer, from: sender, fingerprint: fingerprint, on: link, now: now) }
        let chunk = ChunkFacts(
            tokenStart: transfer.heldTokens, tokenCount: count,
            bytes: count * plan.model.kvBytesPerToken, checksum: 0, round: 1)
        var isWanted = false
        change {
            let (wanted, actions) = $0.kvBegins(
                chunk, of: end.attempt, from: sender, on: link, now: now)
            isWanted = wanted
            return actions
        }
        guard isWanted else { return }
        run.landed(chunk, of: end.attempt)
        change { $0.kvLanded(chunk, of: end.attempt, on: link, now: now).actions }
        var whole = end
        whole.digest = PayloadDigest([chunk]).value
        change { $0.kvEnded(whole, from: sender, on: link, now: now) }
    }

    func importKV(_ sequence: SequenceID, _ attempt: AttemptID) {
        guard let chunk = run.takeLanded(attempt) else {
            preconditionFailure("KV is imported that has not landed")
        }
        submit(
            .importKV(
                sequence,
                KVBlock(
                    tokenStart: chunk.tokenStart, tokenCount: chunk.tokenCount,
                    bytes: run.emptyBuffer, checksum: 0)))
    }
}
