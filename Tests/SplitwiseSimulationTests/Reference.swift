import Foundation
import Provisioning
import RequestTraces
import SplitwiseSimulation

/// What SplitwiseSim itself gave, and what it was given.
enum Reference {
    /// Contents of a file of the folder, unpacked.
    static func text(_ name: String) throws -> String {
        let file = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "Reference/\(name)")
        guard name.hasSuffix(".gz") else { return try String(contentsOf: file, encoding: .utf8) }
        let gzip = Process()
        gzip.executableURL = URL(filePath: "/usr/bin/env")
        gzip.arguments = ["gzip", "-dc", file.path]
        let pipe = Pipe()
        gzip.standardOutput = pipe
        try gzip.run()
        let data = try pipe.fileHandleForReading.readToEnd() ?? Data()
        gzip.waitUntilExit()
        return String(decoding: data, as: UTF8.self)
    }

    static func rows(_ name: String) throws -> [[String]] {
        try text(name).split(whereSeparator: \.isNewline).dropFirst()
            .map { $0.split(separator: ",").map(String.init) }
    }

    static let table: PerformanceTable = {
        do {
            return try PerformanceTable(text: text("splitwise_perf_model.csv.gz"))
        } catch {
            preconditionFailure("\(error)")
        }
    }()

    static func trace(_ name: String) throws -> RequestTrace {
        try RequestTrace(text: text(name + ".csv.gz"))
    }
}

/// A run to its end.
func simulate(
    _ design: SplitwiseDesign, _ first: Int, _ second: Int, _ trace: RequestTrace
) throws -> [RequestOutcome] {
    let counts =
        design.isBaseline
        ? MachineCounts(mixed: first) : MachineCounts(prefill: first, decode: second)
    let kinds = try design.kinds(model: .bloom176B, table: Reference.table)
    let run = Run(design.cluster(counts, kinds: kinds, model: .bloom176B), trace)
    guard run.ending == .finished else { throw Unfinished(ending: run.ending) }
    return run.outcomes
}

struct Unfinished: Error {
    var ending: SplitwiseSimulation.Ending
}

struct Run {
    var simulation: SplitwiseSimulation
    var ending: SplitwiseSimulation.Ending
    var outcomes: [RequestOutcome] = []

    init(_ cluster: SplitwiseCluster, _ trace: RequestTrace) {
        simulation = SplitwiseSimulation(cluster)
        var entries = trace.entries.makeIterator()
        var made: [RequestOutcome] = []
        ending = simulation.run(next: { entries.next() }) {
            made.append($0)
            return true
        }
        outcomes = made
    }
}
