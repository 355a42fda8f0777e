package import InferenceEngine
package import ServingTypes

/// What a worker's shell has to do.
package enum WorkerAction: Sendable, Hashable {
    /// Send to the gateway at this link.
    case send(ControlMessage, to: LinkID)
    /// Send to every connected gateway.
    case broadcast(ControlMessage)
    /// Give the job to the engine.
    case run(SequenceJob)
    /// Take the sequence out of the engine; the engine answers when its KV is free.
    case cancelSequence(SequenceID)

    /// Prefill: offer the sequence's KV to the decode-worker.
    case openTransfer(TransferPlan)
    /// Prefill: all blocks were exported; finish the transfer with this.
    case endTransfer(KVEnd)
    /// Prefill: give the transfer up; the decode-worker is told.
    case abortTransfer(AttemptID, reason: String)

    /// Decode: the sender of the KV gets this as the last word on its transfer.
    case answerTransfer(KVDone)
    /// Nothing is left to do and the worker is draining.
    case drained
}

/// A transfer the prefill side has to make.
package struct TransferPlan: Sendable, Hashable {
    package var attempt: AttemptID
    package var sequence: SequenceID
    package var decodeInstance: InstanceID
    package var address: NetworkAddress
    package var secret: ReservationSecret
    /// Tokens whose KV will be sent.
    package var tokens: Int

    package init(
        attempt: AttemptID, sequence: SequenceID, decodeInstance: InstanceID,
        address: NetworkAddress, secret: ReservationSecret, tokens: Int
    ) {
        self.attempt = attempt
        self.sequence = sequence
        self.decodeInstance = decodeInstance
        self.address = address
        self.secret = secret
        self.tokens = tokens
    }
}
