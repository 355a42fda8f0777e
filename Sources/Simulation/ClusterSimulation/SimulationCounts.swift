/// What one simulation saw.
package struct SimulationCounts: Sendable, Hashable {
    package var events = 0
    package var submitted = 0
    package var finished = 0
    package var failed: [String: Int] = [:]
    package var left = 0
    package var lost = 0
    package var restarted = 0
    /// Restarts after tokens had been delivered.
    package var resumed = 0
    package var tokens = 0
    package var faults = 0
    /// Requests that go on from the answer to another.
    package var turns = 0
    /// KV that was sent again, and connections that transfers outlived.
    package var resends = 0
    package var reconnects = 0
    /// Tokens whose KV a decode-worker had kept for a request.
    package var heldTokens = 0
    package var credits = 0
    /// Chunks that nobody wanted any more when they came.
    package var discardedChunks = 0
    /// Connections cut inside a chunk.
    package var cutChunks = 0
    /// Looks at which some KV made no progress.
    package var strandedLooks = 0
    /// How the gateways placed requests.
    package var early = 0
    package var late = 0
    package var deflected = 0
    package var decodeOnly = 0
    package var prefillOnly = 0
    /// Sequences that were handed on.
    package var moved = 0
    /// What their reports to the scheduler add up to.
    package var reportedArrivals = 0
    package var reportedEnds = 0
    /// Prompt tokens that need not be computed, as clients are told.
    package var cachedTokens = 0

    package init() {}
}
