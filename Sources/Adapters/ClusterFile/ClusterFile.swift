package import ClusterRules
import Yams

/// The cluster file: scenarios and their rules, in YAML (JSON is YAML).
package enum ClusterFile {
    /// What is wrong with a cluster file; all of it at once, so that one look repairs it.
    package struct Failure: Error, Hashable, Sendable {
        /// Sentences with line and key, in the order of the file.
        package var problems: [String]

        package init(problems: [String]) { self.problems = problems }
    }

    /// Bounds of a file.
    package enum Limits {
        /// The message that carries it to gateways has room for more.
        package static let bytes = 512 << 10
        package static let scenarios = 64
        /// Of one scenario.
        package static let keys = 4096
        /// Of one scenario.
        package static let scheduleEntries = 48
        /// Models and headers of one scenario's rule.
        package static let matchEntries = 64
        package static let textBytes = 256
        package static let nameBytes = 64
        /// Problems that are told; the rest is counted.
        package static let problems = 50
        /// Anchors and aliases: few repeat a value, many can blow a file up.
        package static let anchors = 8
    }

    /// Reads the file's text; an empty text is a cluster with the default scenario alone.
    package static func parse(_ text: String) throws(Failure) -> ClusterSpec {
        guard let root = try root(of: text) else { return ClusterSpec() }
        var problems = ProblemList()
        var file = FileContents()
        root.read(ClusterKeys.file, into: &file, &problems)
        try problems.check()
        return ClusterSpec(scenarios: file.scenarios)
    }

    /// The whole of a YAML file within this module's bounds; nil if it is empty.
    package static func root(of text: String) throws(Failure) -> FileValue? {
        guard text.utf8.count <= Limits.bytes else {
            throw Failure(problems: ["the file is larger than \(Limits.bytes) bytes"])
        }
        guard anchorCount(text) <= Limits.anchors else {
            throw Failure(problems: [
                "the file has more than \(Limits.anchors) anchors (&name) and aliases (*name); "
                    + "write the values out, and put texts that begin with & or * in quotes"
            ])
        }
        return try compose(text).map { FileValue(node: $0, path: "") }
    }

    private static func compose(_ text: String) throws(Failure) -> Node? {
        do {
            guard let node = try Yams.compose(yaml: text) else { return nil }
            if let scalar = node.scalar, scalar.string.isEmpty { return nil }
            return node
        } catch {
            throw Failure(problems: [sentence(error)])
        }
    }

    private static func sentence(_ error: any Error) -> String {
        func place(_ mark: Mark, _ problem: String, _ context: YamlError.Context?) -> String {
            let context = context.map { "\($0.text): " } ?? ""
            return "line \(mark.line), column \(mark.column): \(context)\(problem)"
        }
        switch error as? YamlError {
        case .scanner(let context, let problem, let mark, _),
            .parser(let context, let problem, let mark, _),
            .composer(let context, let problem, let mark, _):
            return place(mark, problem, context)
        case .duplicatedKeysInMapping(let duplicates, let context):
            let keys = duplicates.map { "'\(Problem.cut($0))'" }.joined(separator: ", ")
            return "line \(context.mark.line): \(keys) stands there twice; keep one"
        case .reader(let problem, let offset, _, _):
            return "\(problem)\(offset.map { " at byte \($0)" } ?? ""); the file must be UTF-8 text"
        default: return "the file is not YAML"
        }
    }

    /// What looks like an anchor or an alias, also within texts and comments.
    private static func anchorCount(_ text: String) -> Int {
        var count = 0
        var previous = UInt8(ascii: "\n")
        for byte in text.utf8 {
            let isMark = byte == UInt8(ascii: "&") || byte == UInt8(ascii: "*")
            if isMark, " \t\r\n[{,:-?".utf8.contains(previous) { count += 1 }
            previous = byte
        }
        return count
    }
}

/// All that a file holds.
struct FileContents: Sendable {
    var scenarios: [ScenarioSpec] = ClusterSpec().scenarios
}
