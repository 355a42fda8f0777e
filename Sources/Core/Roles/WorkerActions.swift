package import InferenceEngine
package import KVHandOver
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
    /// Decode the sequence no further and keep its KV.
    case holdSequence(SequenceID)
    /// Begin a sequence with the first tokens of a kept one, which stays.
    case fork(SequenceID, from: SequenceID, tokens: Int)
    /// Export what a sequence holds after its job has ended, from this token on.
    case export(SequenceID, from: Int)
    /// How long an iteration may take while sequences decode; nil: as long as it does.
    case limitStep(Duration?)

    /// Prefill: offer the sequence's KV to the decode-worker.
    case openTransfer(TransferPlan)
    /// Prefill: all blocks were exported; finish the transfer with this.
    case endTransfer(KVEnd)
    /// Prefill: give the transfer up; the decode-worker is told.
    case abortTransfer(AttemptID, reason: String)

    /// Decode: send to the prefill-worker on this connection.
    case sendKV(ControlMessage, to: KVLinkID)
    /// Decode: give the landed chunks that begin at these tokens to the engine, in this order.
    case importChunks(SequenceID, AttemptID, tokenStarts: [Int])
    /// Decode: forget what has landed of the attempt and is not with the engine.
    case dropChunks(AttemptID)
    /// An assignment is carried out: this is the role from now on. Tell the scheduler at once.
    case roleChanged(ServingRole)
    /// An assignment wants another model, and nothing is open any more: load this file, then call
    /// `modelLoaded`.
    case loadModel(String)
    /// Nothing is left to do and the worker is draining.
    case drained
}

/// A transfer the prefill side has to make.
package struct TransferPlan: Sendable, Hashable {
    package var attempt: AttemptID
    package var decodeInstance: InstanceID
    package var address: NetworkAddress
    package var secret: ReservationSecret
    /// Tokens whose KV the sequence will have.
    package var tokens: Int
    /// Leading tokens that the decode-worker holds already.
    package var heldTokens: Int
    /// When the request must have ended.
    package var expires: MonotonicTime

    package init(
        attempt: AttemptID, decodeInstance: InstanceID,
        address: NetworkAddress, secret: ReservationSecret, tokens: Int, heldTokens: Int,
        expires: MonotonicTime
    ) {
        self.attempt = attempt
        self.decodeInstance = decodeInstance
        self.address = address
        self.secret = secret
        self.tokens = tokens
        self.heldTokens = heldTokens
        self.expires = expires
    }
}
