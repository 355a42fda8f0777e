package import Scheduling

/// Every bound of the gateway's decisions.
package struct GatewayLimits: Sendable, Hashable {
    /// Requests in flight or waiting; more are answered 429 at once.
    package var maximumRequests = 4096
    /// Requests of one group that wait for the same kind of worker; more are answered 429 at once.
    package var maximumWaiting = 4096
    /// Time a request may wait for a reservation and a slot before it is answered 503, unless it
    /// brings a limit for its first token.
    package var placementDeadline: Duration = .seconds(30)
    /// Time a whole request may take.
    package var requestDeadline: Duration = .seconds(600)
    /// Time a worker may take to answer a reservation or an offer.
    package var answerDeadline: Duration = .seconds(5)
    /// How often workers that said no are asked again without having called.
    package var askAgainInterval: Duration = .milliseconds(250)
    /// How long the fastest rate of a group's prefill-workers is taken as it is.
    package var rateInterval: Duration = .seconds(1)
    /// Times a request starts, the first included.
    package var maximumAttempts: UInt32 = 4
    /// Times its decode-workers may hand a request on.
    package var maximumMoves = 16
    /// Time a new scheduler may take to hear of the workers its predecessor knew.
    ///
    /// Those whose old scheduler hangs leave it when another leads, or after ten silent seconds.
    package var schedulerGrace: Duration = .seconds(15)
    /// Workers a policy compares for one question.
    package var maximumCandidates = 64
    /// Workers looked at to find those candidates.
    package var maximumLooks = 1024
    /// A prefill-worker with a free slot may begin while no decode-worker has room, and keep the
    /// KV in its slot until one has; for scenarios with early placement.
    package var beginsWithoutRoom = false
    /// Of the memory of who holds which prompt's KV; there are two of them.
    package var prefixIndex = PrefixIndexLimits()
    /// When a decode-worker computes a prompt itself.
    package var deflection = DeflectionLimits()

    package init() {}
}
