/// Every bound of the gateway's decisions.
package struct GatewayLimits: Sendable, Hashable {
    /// Requests in flight or waiting; more are answered 429 at once.
    package var maximumRequests = 4096
    /// Time a request may wait for a reservation and a slot before it is answered 503.
    package var placementDeadline: Duration = .seconds(30)
    /// Time a whole request may take.
    package var requestDeadline: Duration = .seconds(600)
    /// Time a worker may take to answer a reservation or an offer.
    package var answerDeadline: Duration = .seconds(5)
    /// How often workers that said no are asked again without having called.
    package var askAgainInterval: Duration = .milliseconds(250)
    /// Times a request starts, the first included.
    package var maximumAttempts: UInt32 = 4
    /// Time a new scheduler may take to hear of the workers its predecessor knew.
    package var schedulerGrace: Duration = .seconds(5)

    package init() {}
}
