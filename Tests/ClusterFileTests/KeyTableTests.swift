import ClusterFile
import ClusterRules
import Foundation
import ServingTypes
import Testing

@Suite("Every key of the cluster file")
struct KeyTableTests {
    @Test("is refused at its place when its value is wrong", arguments: ClusterFile.keys)
    func wrong(key: KeyDescription) {
        let values =
            key.path == "scenarios[].name" ? ["[]", "a/b", ""] : ["{x: {y: {}}}", "", "[[]]"]
        for value in values {
            let told = problems(Self.file(key.path, value))
            let place = key.path.replacing("[]", with: "[0]")
            #expect(
                told.contains { $0.hasPrefix("line ") && $0.contains(place) },
                "\(value): \(told)")
        }
    }

    @Test(
        "is refused beyond its range",
        arguments: [
            ("scenarios[].priority", "101"), ("scenarios[].priority", "-1"),
            ("scenarios[].priority", "1.5"), ("scenarios[].groups", "0"),
            ("scenarios[].spares", "99999999999999999999"), ("scenarios[].limits.ttft", "0"),
            ("scenarios[].limits.tpot", "61s"), ("scenarios[].limits.tpot", "5"),
            ("scenarios[].deflection", "perhaps"), ("scenarios[].placement", "On-Demand"),
            ("scenarios[].decode-placement", "sooner"), ("scenarios[].ratio.prefill", "0"),
            ("scenarios[].schedule[].from", "24:01"), ("scenarios[].schedule[].to", "9:5"),
            ("scenarios[].schedule[].from", "+9:00"), ("scenarios[].keys[].sha256", "abc"),
            ("scenarios[].keys[].name", "a b"), ("scenarios[].keys[].name", "ä"),
            ("scenarios[].match.models", "[a, [b]]"), ("scenarios[].match.headers.x y", "1"),
            ("scenarios[].match.headers.x", "[1]"),
            ("scenarios[].match.prompt-tokens.minimum", "-1"),
            ("scenarios[].expect.prompt-tokens", "0"), ("scenarios[].prefill.maximum", "many"),
            ("scenarios[].fallback.decode-only", "1.0"), ("scenarios[].requests-per-minute", "-5"),
            ("scenarios[].match.prefix", String(repeating: "x", count: 257)),
            ("scenarios[].name", String(repeating: "x", count: 65)), ("scenarios", "[]"),
        ])
    func beyond(path: String, value: String) {
        let told = problems(Self.file(path, value))
        #expect(told.contains { $0.contains(path.replacing("[]", with: "[0]")) }, "\(told)")
    }

    @Test("has a sentence, a kind, and a path of its own")
    func described() {
        let keys = ClusterFile.keys
        #expect(Set(keys.map(\.path)).count == keys.count)
        #expect(keys.count > 40)
        for key in keys {
            #expect(key.help.hasSuffix(".") && !key.kind.isEmpty, "\(key.path)")
            #expect(key.isRequired == (key.isRequired && key.fallback.isEmpty), "\(key.path)")
        }
    }

    @Test("stands in the documentation as the tables have it; REWRITE=1 writes it")
    func documentation() throws {
        let page = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "Documentation/cluster-file.md")
        let text = try String(contentsOf: page, encoding: .utf8)
        let marks = ["<!-- keys -->\n", "<!-- end of keys -->"]
        let start = try #require(text.range(of: marks[0])?.upperBound)
        let end = try #require(text.range(of: marks[1])?.lowerBound)
        if ProcessInfo.processInfo.environment["REWRITE"] == "1" {
            let new = text[..<start] + ClusterFile.referenceMarkdown + text[end...]
            try Data(String(new).utf8).write(to: page)
        } else {
            #expect(String(text[start..<end]) == ClusterFile.referenceMarkdown)
        }
        let examples = text.components(separatedBy: "```yaml\n").dropFirst()
            .compactMap { $0.components(separatedBy: "```").first }
        #expect(!examples.isEmpty)
        for example in examples { #expect(problems(example) == [], "\(example)") }
    }

    @Test("a file damaged anywhere is a file or problems, never a crash")
    func mutations() {
        let seed = UInt64.random(in: 0 ... .max)
        print("seed \(seed)")
        var generator = SeededGenerator(seed: seed)
        let original = Array(Samples.complete.utf8)
        let pieces: [[UInt8]] = [
            "[", "]", "{", "}", ":", "- ", "\n", "  ", "\t", "&a ", "*a", "'", "\"", "|\n", "!!x ",
            "\u{0}", "ä", "99999999999999999999", "null", "~", "? ", "#", "%", "<<: *a", "---\n",
        ].map { Array($0.utf8) }
        var read = 0
        for _ in 0..<2000 {
            var bytes = original
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let start = Int.random(in: 0..<bytes.count, using: &generator)
                let end = min(bytes.count, start + Int.random(in: 0...6, using: &generator))
                let piece = pieces[Int.random(in: 0..<pieces.count, using: &generator)]
                bytes.replaceSubrange(start..<end, with: piece)
            }
            let text = String(decoding: bytes, as: UTF8.self)
            do throws(ClusterFile.Failure) {
                let spec = try ClusterFile.parse(text)
                read += 1
                #expect(!spec.scenarios.isEmpty && spec.scenarios.allSatisfy { !$0.name.isEmpty })
                #expect(!ClusterFile.explanation(of: spec).isEmpty)
                _ = ClusterFile.warnings(for: spec)
            } catch {
                #expect(!error.problems.isEmpty && error.problems.allSatisfy { !$0.isEmpty })
            }
        }
        #expect(read > 0 && read < 2000)
    }

    /// A file with this one value; what else must be there is there.
    private static func file(_ path: String, _ value: String) -> String {
        var value = value
        var inner = ""
        for part in path.split(separator: ".").reversed() {
            let isList = part.hasSuffix("[]")
            let name = isList ? part.dropLast(2) : part
            let rest = inner.isEmpty ? "" : Self.others(String(name), besides: inner)
            value =
                isList
                ? "\(name): [{\(value)\(rest)}]"
                : "\(name): \(inner.isEmpty ? value : "{\(value)\(rest)}")"
            inner = String(name)
        }
        return value
    }

    /// Keys that a table of the list needs besides the one that is wrong.
    private static func others(_ list: String, besides inner: String) -> String {
        list == "scenarios" && inner != "name" ? ", name: a" : ""
    }
}
