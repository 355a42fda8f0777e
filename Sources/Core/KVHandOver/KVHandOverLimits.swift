/// Every bound of the decisions at both ends of a KV transfer.
package struct KVHandOverLimits: Sendable, Hashable {
    /// Connections to one decode-worker at most; more than one pays where cores are spare.
    package var connections = 1
    /// A transfer whose peer owes an answer, or room, for this long is given up.
    package var stallDeadline: Duration = .seconds(10)
    /// Pause before a lost connection is made again.
    package var reconnectPause: Duration = .milliseconds(100)
    /// How long a receiver waits for a sender whose connection was lost.
    package var resumeDeadline: Duration = .seconds(3)
    /// Lost connections one transfer outlives, for each of `connections`.
    package var reconnects = 1
    /// Times damaged KV of one transfer is sent again.
    package var resends = 1
    /// An unused connection is closed after this long.
    package var idleDeadline: Duration = .seconds(300)
    /// KV without progress for this long counts as stranded.
    package var strandedAfter: Duration = .seconds(1)

    package init() {}
}
