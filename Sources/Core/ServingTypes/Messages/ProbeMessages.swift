/// Health-agent to worker: generate a few tokens if you have nothing else to do.
package struct Canary: Hashable, Sendable {
    package var number: UInt64

    package init(number: UInt64) { self.number = number }
}

/// What came of a canary.
package struct CanaryDone: Hashable, Sendable {
    package enum Outcome: UInt8, Sendable, CaseIterable {
        case generated = 1
        /// Work was there, or came in between; says nothing against the worker.
        case busy = 2
        case failed = 3
    }

    package var number: UInt64
    package var outcome: Outcome
    package var tokens: Int
    /// Why it failed; empty otherwise.
    package var reason: String

    package init(number: UInt64, outcome: Outcome, tokens: Int = 0, reason: String = "") {
        self.number = number
        self.outcome = outcome
        self.tokens = tokens
        self.reason = reason
    }
}

/// Health-agent to worker: end at once, so that whoever keeps you running starts you again.
package struct Exit: Hashable, Sendable {
    package var reason: String

    package init(reason: String) { self.reason = reason }
}
