import Foundation
package import ServingTypes

/// Requests of a production trace: when they came and how long they were.
package struct RequestTrace: Sendable, Hashable {
    package struct Entry: Sendable, Hashable {
        /// Seconds since the trace began, never less than the entry before.
        package var arrivalSeconds: Double
        package var promptTokens: Int
        package var outputTokens: Int
        /// A hash per block of the prompt, of all tokens up to its end; empty where unknown.
        ///
        /// Mooncake's blocks have 512 tokens. Prompts whose first hashes are equal begin alike.
        package var prefixHashes: [UInt64]

        package init(
            arrivalSeconds: Double, promptTokens: Int, outputTokens: Int,
            prefixHashes: [UInt64] = []
        ) {
            self.arrivalSeconds = arrivalSeconds
            self.promptTokens = promptTokens
            self.outputTokens = outputTokens
            self.prefixHashes = prefixHashes
        }
    }

    package var entries: [Entry]

    package init(entries: [Entry]) { self.entries = entries }

    /// Reads a whole trace of any `TraceFormat`, which its first line tells.
    package init(text: String, spread: BucketSpread = .even) throws(Failure) {
        try self.init(bytes: Array(text.utf8), spread: spread)
    }

    /// Reads a whole trace of any `TraceFormat`, which its first line tells.
    package init(bytes: [UInt8], spread: BucketSpread = .even) throws(Failure) {
        var reader = TraceReader(spread: spread)
        entries = try reader.read(bytes[...])
        entries += try reader.finish()
    }

    /// Which lengths are drawn together.
    package enum LengthDraw: String, Sendable, CaseIterable {
        /// Prompt and output of one request of the trace.
        case paired
        /// Prompt of one request and output of another, as SplitwiseSim draws them.
        case independent
    }

    /// Requests that arrive at random, so many a second on average, with lengths of this trace.
    package func poisson(
        perSecond rate: Double, seconds: Double, seed: UInt64, lengths: LengthDraw = .paired
    ) -> RequestTrace {
        RequestTrace(
            entries: Array(
                PoissonArrivals(
                    lengths: self, perSecond: rate, seconds: seconds, seed: seed, draw: lengths)))
    }

    /// A request with the lengths of one of the trace's, drawn at random.
    package func sample(at time: Double, using generator: inout SeededGenerator) -> Entry {
        var entry = entries[generator.below(entries.count)]
        entry.arrivalSeconds = time
        return entry
    }
}

/// Requests that arrive at random, drawn one by one, so that any number needs no memory.
package struct PoissonArrivals: Sequence, IteratorProtocol, Sendable {
    private let trace: RequestTrace
    private let rate: Double
    private let seconds: Double
    private let draw: RequestTrace.LengthDraw
    private var generator: SeededGenerator
    private var time = 0.0

    /// Arrivals before `seconds`, `rate` a second on average, with lengths of `lengths`.
    package init(
        lengths: RequestTrace, perSecond rate: Double, seconds: Double, seed: UInt64,
        draw: RequestTrace.LengthDraw = .paired
    ) {
        precondition(rate > 0 && !lengths.entries.isEmpty)
        trace = lengths
        self.rate = rate
        self.seconds = seconds
        self.draw = draw
        generator = SeededGenerator(seed: seed)
    }

    package mutating func next() -> RequestTrace.Entry? {
        time -= log(1 - Double.random(in: 0..<1, using: &generator)) / rate
        guard time < seconds else { return nil }
        var entry = trace.sample(at: time, using: &generator)
        if draw == .independent {
            entry.outputTokens = trace.entries[generator.below(trace.entries.count)].outputTokens
        }
        return entry
    }
}
