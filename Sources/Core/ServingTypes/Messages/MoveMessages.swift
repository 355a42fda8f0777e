/// Decode-worker to gateway: a sequence would outlast its worker, which asks for another place.
///
/// Decoding goes on meanwhile. Nobody answers if there is none; the worker asks again.
package struct MoveWanted: Hashable, Sendable {
    package var attempt: AttemptID
    package init(attempt: AttemptID) { self.attempt = attempt }
}

/// Gateway to decode-worker: decode the sequence no further and hold its KV until `PlaceKV`.
///
/// From then on it is the attempt `successor`, like a prompt that was offered without a target.
package struct HoldSequence: Hashable, Sendable {
    package var attempt: AttemptID
    /// Number of the attempt in which another worker goes on.
    package var successor: UInt32

    package init(attempt: AttemptID, successor: UInt32) {
        self.attempt = attempt
        self.successor = successor
    }

    package var successorID: AttemptID {
        AttemptID(request: attempt.request, number: successor)
    }
}

/// Decode-worker to gateway: the sequence stands still; all of its tokens were sent before.
package struct SequenceHeld: Hashable, Sendable {
    package var attempt: AttemptID
    package var successor: UInt32
    /// Tokens of the whole output so far; the KV of the last one is yet to be computed.
    package var outputTokens: Int

    package init(attempt: AttemptID, successor: UInt32, outputTokens: Int) {
        self.attempt = attempt
        self.successor = successor
        self.outputTokens = outputTokens
    }
}

/// Draining worker to gateway: the decode-worker has all KV of the attempt; its sender may go.
package struct KVDelivered: Hashable, Sendable {
    package var attempt: AttemptID
    package init(attempt: AttemptID) { self.attempt = attempt }
}
