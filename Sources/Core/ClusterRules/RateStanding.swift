/// What a client may still do of its rates now; nil: no limit.
package struct RateStanding: Sendable, Hashable {
    package struct Part: Sendable, Hashable {
        package var perMinute: Int
        package var left: Int
        /// Time until all of it is there again.
        package var reset: Duration

        package init(perMinute: Int, left: Int, reset: Duration) {
            self.perMinute = perMinute
            self.left = left
            self.reset = reset
        }

        /// - Parameter left: may be a fraction, or below zero.
        init(perMinute: Int, left: Double) {
            let missing = max(0, Double(perMinute) - left)
            self.init(
                perMinute: perMinute, left: max(0, Int(left)),
                reset: .milliseconds(
                    Int64((missing / Double(max(1, perMinute)) * 60_000).rounded(.up))))
        }
    }

    package var requests: Part?
    package var tokens: Part?

    package init(requests: Part? = nil, tokens: Part? = nil) {
        self.requests = requests
        self.tokens = tokens
    }

    /// Keeps of each the one of which less is left.
    mutating func narrow(requests other: Part?, tokens others: Part?) {
        requests = [requests, other].compactMap { $0 }.min { $0.left < $1.left }
        tokens = [tokens, others].compactMap { $0 }.min { $0.left < $1.left }
    }
}
