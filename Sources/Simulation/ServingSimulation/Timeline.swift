/// What a simulated cluster did over time, in steps of equal length.
package struct Timeline: Sendable, Hashable {
    /// One step; parts are of all machines of a role, range 0…1.
    package struct Point: Sendable, Hashable {
        /// End of the step.
        package var seconds: Double
        /// Part of the time in which prefill- and decode-workers computed.
        package var prefillBusy = 0.0
        package var decodeBusy = 0.0
        /// Part of the time in which the prefill-workers' links carried KV.
        package var linkBusy = 0.0
        /// Part of the decode-workers' KV room that is taken.
        package var kvUsed = 0.0
        /// Requests that no worker has taken yet, and those that have a first token.
        package var waiting = 0
        package var answering = 0
    }

    package var points: [Point] = []

    package init() {}
}

/// Sums of busy time; two of them make a point.
struct BusyTimes {
    var prefill = 0.0
    var decode = 0.0
    var link = 0.0
}
