/// Searches text, as far as it is known, for the stop string that begins first.
struct StopStrings: Sendable {
    struct Finding: Equatable {
        /// Bytes at the beginning that certainly belong to the output.
        var shown: Int
        /// Set if the output ends after `shown`: where the stop string ends.
        var stopEnd: Int?
    }

    private let stops: [[UInt8]]
    private let firstBytes: Set<UInt8>

    init(_ stops: [String]) {
        precondition(stops.allSatisfy { !$0.isEmpty }, "an empty stop string")
        // The shortest first: of two that begin at the same place it is complete earlier.
        self.stops = stops.map { Array($0.utf8) }.sorted { $0.count < $1.count }
        firstBytes = Set(self.stops.map { $0[0] })
    }

    /// - Parameters:
    ///   - text: what was not shown yet; never the middle of a stop string that began before.
    ///   - isLast: no text follows, so an unfinished stop string is output.
    func search(_ text: [UInt8], isLast: Bool) -> Finding {
        guard !stops.isEmpty else { return Finding(shown: text.count) }
        var unfinished: Int?
        for start in text.indices where firstBytes.contains(text[start]) {
            let rest = text[start...]
            for stop in stops {
                if rest.starts(with: stop) {
                    // One that began earlier may still complete and would then come first.
                    if let unfinished { return Finding(shown: unfinished) }
                    return Finding(shown: start, stopEnd: start + stop.count)
                }
                if !isLast, unfinished == nil, rest.count < stop.count, stop.starts(with: rest) {
                    unfinished = start
                }
            }
        }
        return Finding(shown: unfinished ?? text.count)
    }
}
