import Foundation
import Testing

/// Runs `Scenarios/*.txt`: what is said in them is compared with what the machines do.
///
/// A file has comments (`#`), commands (`> …`) and below each command what followed from it.
/// `REWRITE=1` writes what really followed into the files; read that diff.
@Suite struct ScenarioTests {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "Scenarios")

    static let names: [String] = {
        let files = try? FileManager.default.contentsOfDirectory(atPath: folder.path)
        return (files ?? []).filter { $0.hasSuffix(".txt") }.sorted()
    }()

    @Test func `there are scenarios`() { #expect(Self.names.count >= 8) }

    @Test(arguments: names)
    func `a scenario goes as it is written`(name: String) throws {
        let file = Self.folder.appending(path: name)
        let written = try String(contentsOf: file, encoding: .utf8)
        let transcript = try Self.transcript(of: written)
        guard written != transcript else { return }
        if ProcessInfo.processInfo.environment["REWRITE"] == "1" {
            try transcript.write(to: file, atomically: true, encoding: .utf8)
            return
        }
        let firstDifference = zip(
            written.split(separator: "\n", omittingEmptySubsequences: false) + [""],
            transcript.split(separator: "\n", omittingEmptySubsequences: false) + [""]
        ).enumerated().first { $0.element.0 != $0.element.1 }
        let line = (firstDifference?.offset ?? 0) + 1
        Issue.record(
            """
            \(name):\(line)
            written:  \(firstDifference?.element.0 ?? "")
            happened: \(firstDifference?.element.1 ?? "")
            """)
    }

    /// The same commands and comments with what follows from them.
    static func transcript(of written: String) throws -> String {
        var cluster = ScenarioCluster()
        var lines: [String] = []
        for line in written.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("> ") {
                lines.append(String(line))
                lines += try cluster.run(String(line.dropFirst(2))).map { "  " + $0 }
            } else if line.isEmpty || line.hasPrefix("#") {
                lines.append(String(line))
            }
        }
        return lines.joined(separator: "\n")
    }

    @Test func `a command that is not understood is named`() {
        #expect(throws: ScenarioError(command: "dance")) {
            try Self.transcript(of: "> dance\n")
        }
        #expect(throws: ScenarioError(command: "submit a prompt many new 3")) {
            try Self.transcript(of: "> submit a prompt many new 3\n")
        }
    }

    @Test func `equal scenarios give equal transcripts`() throws {
        for name in Self.names {
            let written = try String(
                contentsOf: Self.folder.appending(path: name), encoding: .utf8)
            #expect(try Self.transcript(of: written) == Self.transcript(of: written))
        }
    }
}
