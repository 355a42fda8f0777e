import Foundation
package import ServingTypes

/// Requests of a production trace: when they came and how long they were.
package struct RequestTrace: Sendable, Hashable {
    package struct Entry: Sendable, Hashable {
        package var arrivalSeconds: Double
        package var promptTokens: Int
        package var outputTokens: Int

        package init(arrivalSeconds: Double, promptTokens: Int, outputTokens: Int) {
            self.arrivalSeconds = arrivalSeconds
            self.promptTokens = promptTokens
            self.outputTokens = outputTokens
        }
    }

    /// What is wrong with a trace file.
    package struct Failure: Error, Hashable, Sendable, CustomStringConvertible {
        package var description: String
    }

    package var entries: [Entry]

    package init(entries: [Entry]) { self.entries = entries }

    /// Reads lines of `seconds,prompt tokens,output tokens`; lines that begin with `#` are remarks.
    package init(text: String) throws(Failure) {
        entries = []
        for (number, line) in text.split(separator: "\n").enumerated() where !line.hasPrefix("#") {
            let fields = line.split(separator: ",", omittingEmptySubsequences: false)
            guard fields.count == 3, let seconds = Double(fields[0]),
                let prompt = Int(fields[1]), let output = Int(fields[2]), prompt > 0, output > 0
            else {
                throw Failure(
                    description: "line \(number + 1): '\(line)' is not seconds,prompt,output")
            }
            entries.append(
                Entry(arrivalSeconds: seconds, promptTokens: prompt, outputTokens: output))
        }
        guard !entries.isEmpty else { throw Failure(description: "no request in the trace") }
    }

    /// Requests that arrive at random, so many a second on average, with lengths of this trace.
    package func poisson(
        perSecond rate: Double, seconds: Double, seed: UInt64
    ) -> RequestTrace {
        var generator = SeededGenerator(seed: seed)
        var time = 0.0
        var made: [Entry] = []
        while true {
            time -= log(1 - Double.random(in: 0..<1, using: &generator)) / rate
            guard time < seconds else { return RequestTrace(entries: made) }
            made.append(sample(at: time, using: &generator))
        }
    }

    /// A request with the lengths of one of the trace's, drawn at random.
    package func sample(at time: Double, using generator: inout SeededGenerator) -> Entry {
        var entry = entries[generator.below(entries.count)]
        entry.arrivalSeconds = time
        return entry
    }
}
