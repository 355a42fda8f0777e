import ServingTypes

/// What happens, in words, for whoever looks for the cause of a violation.
extension ClusterSimulation {
    /// Longest line of a trace in characters.
    private static let longestLine = 400

    /// Says a sentence if somebody listens; without one it costs nothing.
    func tell(_ sentence: @autoclosure () -> String) {
        guard let trace else { return }
        let seconds = nanoseconds / 1_000_000_000
        let micros = String(nanoseconds / 1000 % 1_000_000)
        let zeros = String(repeating: "0", count: 6 - micros.count)
        trace("\(seconds).\(zeros)\(micros)  \(String(sentence().prefix(Self.longestLine)))")
    }
}

extension SimulationCounts {
    /// Adds what another simulation saw.
    package mutating func add(_ other: SimulationCounts) {
        events += other.events
        submitted += other.submitted
        finished += other.finished
        failed.merge(other.failed, uniquingKeysWith: +)
        left += other.left
        lost += other.lost
        restarted += other.restarted
        resumed += other.resumed
        tokens += other.tokens
        faults += other.faults
        turns += other.turns
        resends += other.resends
        reconnects += other.reconnects
        heldTokens += other.heldTokens
        credits += other.credits
        discardedChunks += other.discardedChunks
        cutChunks += other.cutChunks
        strandedLooks += other.strandedLooks
        early += other.early
        late += other.late
        deflected += other.deflected
        decodeOnly += other.decodeOnly
        prefillOnly += other.prefillOnly
        moved += other.moved
        reportedArrivals += other.reportedArrivals
        reportedEnds += other.reportedEnds
        cachedTokens += other.cachedTokens
    }
}
