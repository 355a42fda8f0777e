/// The part of a request that both workers need.
///
/// The tokens themselves (prompt, then output of earlier attempts) are the frame's payload.
package struct AttemptTerms: Hashable, Sendable {
    package var attempt: AttemptID
    /// How many tokens at the end of the payload are output of earlier attempts.
    package var outputTokens: Int
    /// How many tokens may still be generated, the first one included; at least 1.
    package var maximumNewTokens: Int
    package var sampling: SamplingParameters
    /// Time left until the request must have ended.
    package var deadline: Duration

    package init(
        attempt: AttemptID, outputTokens: Int, maximumNewTokens: Int,
        sampling: SamplingParameters, deadline: Duration
    ) {
        self.attempt = attempt
        self.outputTokens = outputTokens
        self.maximumNewTokens = maximumNewTokens
        self.sampling = sampling
        self.deadline = deadline
    }
}

/// Gateway to decode-worker: promise room for the sequence's KV.
///
/// Payload: the tokens.
package struct ReserveKV: Hashable, Sendable {
    package var terms: AttemptTerms
    /// No worker that decodes is left: a worker of another role takes it too, if it can.
    package var isFallback: Bool

    package init(terms: AttemptTerms, isFallback: Bool = false) {
        self.terms = terms
        self.isFallback = isFallback
    }
}

/// Decode-worker to gateway: the room is promised until the deadline.
package struct ReservationGranted: Hashable, Sendable {
    package var attempt: AttemptID
    /// The prefill-worker shows it when it brings the KV.
    package var secret: ReservationSecret
    package var kvBytes: Int
    /// Leading tokens whose KV the worker holds from an earlier turn; they need not be sent.
    package var heldTokens: Int

    package init(
        attempt: AttemptID, secret: ReservationSecret, kvBytes: Int, heldTokens: Int = 0
    ) {
        self.attempt = attempt
        self.secret = secret
        self.kvBytes = kvBytes
        self.heldTokens = heldTokens
    }
}

/// Decode-worker to gateway: no room, or not possible at all.
package struct ReservationRefused: Hashable, Sendable {
    package var attempt: AttemptID
    package var code: FailureCode
    package var neededBytes: Int
    package var freeBytes: Int

    package init(attempt: AttemptID, code: FailureCode, neededBytes: Int, freeBytes: Int) {
        self.attempt = attempt
        self.code = code
        self.neededBytes = neededBytes
        self.freeBytes = freeBytes
    }
}

/// Where a prompt's KV goes.
package struct KVTarget: Hashable, Sendable {
    package var instance: InstanceID
    package var bulkAddress: NetworkAddress
    package var secret: ReservationSecret
    /// As in `ReservationGranted`.
    package var heldTokens: Int

    package init(
        instance: InstanceID, bulkAddress: NetworkAddress, secret: ReservationSecret,
        heldTokens: Int = 0
    ) {
        self.instance = instance
        self.bulkAddress = bulkAddress
        self.secret = secret
        self.heldTokens = heldTokens
    }
}

/// Gateway to prefill-worker: compute this prompt now, or say no at once.
///
/// Payload: the tokens. A worker that is its own target computes the prompt where it decodes.
package struct PrefillOffer: Hashable, Sendable {
    package var terms: AttemptTerms
    /// Nil: the KV stays in its slot until `PlaceKV` says where it goes (late placement).
    package var target: KVTarget?
    /// No worker that prefills is left: a worker of another role takes it too, if it can.
    package var isFallback: Bool

    package init(terms: AttemptTerms, target: KVTarget?, isFallback: Bool = false) {
        self.terms = terms
        self.target = target
        self.isFallback = isFallback
    }

    package init(
        terms: AttemptTerms, decodeInstance: InstanceID, decodeBulkAddress: NetworkAddress,
        secret: ReservationSecret, heldTokens: Int = 0
    ) {
        self.init(
            terms: terms,
            target: KVTarget(
                instance: decodeInstance, bulkAddress: decodeBulkAddress, secret: secret,
                heldTokens: heldTokens))
    }
}

/// Gateway to prefill-worker: where the KV of a prompt that was offered without a target goes.
package struct PlaceKV: Hashable, Sendable {
    package var attempt: AttemptID
    package var target: KVTarget

    package init(attempt: AttemptID, target: KVTarget) {
        self.attempt = attempt
        self.target = target
    }
}

/// Prefill-worker to gateway: the prompt has a slot.
package struct PrefillAccepted: Hashable, Sendable {
    package var attempt: AttemptID
    /// Leading tokens of the prompt whose KV is there already and need not be computed.
    package var cachedTokens: Int

    package init(attempt: AttemptID, cachedTokens: Int = 0) {
        self.attempt = attempt
        self.cachedTokens = cachedTokens
    }
}

/// Prefill-worker to gateway: no slot is free, or the prompt can't be computed here.
package struct PrefillRejected: Hashable, Sendable {
    package var attempt: AttemptID
    package var code: FailureCode
    package var reason: String

    package init(attempt: AttemptID, code: FailureCode, reason: String) {
        self.attempt = attempt
        self.code = code
        self.reason = reason
    }
}

/// Prefill-worker to gateways: slots are free again after a rejection.
package struct SlotsOpen: Hashable, Sendable {
    package var freePrefillSlots: Int
    package init(freePrefillSlots: Int) { self.freePrefillSlots = freePrefillSlots }
}

/// Decode-worker to gateways: KV room is free again after a refusal.
package struct KVRoomOpen: Hashable, Sendable {
    package var freeKVBytes: Int
    package init(freeKVBytes: Int) { self.freeKVBytes = freeKVBytes }
}

/// Worker to gateway: sampled tokens in order.
package struct TokenBatch: Hashable, Sendable {
    package var attempt: AttemptID
    /// Index of the first token here in the request's whole output, earlier attempts included.
    package var firstIndex: Int
    package var tokens: [TokenOutput]
    /// Set when no token follows from anybody.
    package var finish: FinishReason?

    package init(
        attempt: AttemptID, firstIndex: Int, tokens: [TokenOutput], finish: FinishReason? = nil
    ) {
        self.attempt = attempt
        self.firstIndex = firstIndex
        self.tokens = tokens
        self.finish = finish
    }
}

/// Worker to gateway: this attempt ended without a result.
package struct RequestFailed: Hashable, Sendable {
    package var attempt: AttemptID
    package var code: FailureCode
    package var reason: String

    package init(attempt: AttemptID, code: FailureCode, reason: String) {
        self.attempt = attempt
        self.code = code
        self.reason = reason
    }
}

/// Gateway to worker: stop this attempt and free what it holds.
package struct CancelRequest: Hashable, Sendable {
    package var attempt: AttemptID
    package init(attempt: AttemptID) { self.attempt = attempt }
}
