import ClusterSimulation
import Foundation

/// What became of the seeds.
struct SweepResult: Sendable {
    /// A seed that broke a promise.
    struct Failure: Sendable, Encodable {
        var seed: UInt64
        var commit: String
        var plan: String
        var violations: [String]
        /// What repeats it.
        var command: String

        /// Nil if nothing is wrong.
        init?(_ simulation: ClusterSimulation) {
            guard !simulation.violations.isEmpty else { return nil }
            seed = simulation.plan.seed
            commit = SweepResult.commit
            plan = "\(simulation.plan)"
            violations = simulation.violations
            command = "simulate --seed \(seed) --trace"
        }

        var text: String {
            """
            seed \(seed) failed at commit \(commit):
              \(violations.joined(separator: "\n  "))
              repeat it with: \(command)
            """
        }
    }

    /// Failures that are told in full.
    private static let keptFailures = 20

    /// The commit that runs, as far as git knows it.
    static let commit: String = {
        let git = Process()
        let output = Pipe()
        git.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        git.arguments = ["git", "describe", "--always", "--dirty"]
        git.standardOutput = output
        git.standardError = FileHandle.nullDevice
        guard (try? git.run()) != nil else { return "unknown" }
        let bytes = output.fileHandleForReading.readDataToEndOfFile()
        git.waitUntilExit()
        let words = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline)
        return words.first.map(String.init) ?? "unknown"
    }()

    var seconds = 0.0
    var isInterrupted = false
    private(set) var seeds = 0
    private(set) var failed = 0
    private(set) var failures: [Failure] = []
    private(set) var counts = SimulationCounts()
    /// Sum of the runs' digests: the same seeds give the same, in whatever order they ran.
    private(set) var digest: UInt64 = 0

    mutating func add(_ simulation: ClusterSimulation) {
        seeds += 1
        counts.add(simulation.counts)
        digest &+= simulation.digest
        guard let failure = Failure(simulation) else { return }
        failed += 1
        if failures.count < Self.keptFailures { failures.append(failure) }
    }

    // MARK: Report

    /// Each count with its name.
    private var named: [(name: String, value: Int)] {
        Mirror(reflecting: counts).children.compactMap { child in
            guard let name = child.label, let value = child.value as? Int else { return nil }
            return (name, value)
        }
    }

    /// What has happened in fewer than one of fifty runs, or never to a request.
    var rarities: [String] {
        let failures = [
            "too many requests", "no worker", "overloaded", "too long", "attempts exhausted",
        ]
        return named.filter { $0.value * 50 < seeds }.map(\.name)
            + failures.filter { counts.failed[$0, default: 0] == 0 }
    }

    var text: String {
        let failures = failures.sorted { $0.seed < $1.seed }
        let counted = named.map { "\($0.value) \($0.name)" }.joined(separator: ", ")
        let refusals = counts.failed.sorted { $0.key < $1.key }
            .map { "\($0.value) \($0.key)" }.joined(separator: ", ")
        let pace = seconds > 0 ? String(format: " in %.1f s", seconds) : ""
        let end = isInterrupted ? ", interrupted" : ""
        return
            (failures.map(\.text) + [
                "counts: \(counted); failed: \(refusals.isEmpty ? "none" : refusals)",
                "\(seeds) seeds\(pace)\(end), \(failed) failed, digest \(digest)",
            ]).joined(separator: "\n")
    }

    private struct Document: Encodable {
        var seeds: Int
        var seconds: Double
        var isInterrupted: Bool
        var failed: Int
        var failures: [Failure]
        var counts: [String: Int]
        var failedRequests: [String: Int]
        var digest: String
    }

    var json: String {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            let document = Document(
                seeds: seeds, seconds: seconds, isInterrupted: isInterrupted, failed: failed,
                failures: failures.sorted { $0.seed < $1.seed },
                counts: Dictionary(
                    named.map { ($0.name, $0.value) }, uniquingKeysWith: { first, _ in first }),
                failedRequests: counts.failed, digest: String(digest))
            return String(decoding: try encoder.encode(document), as: UTF8.self)
        }
    }
}
