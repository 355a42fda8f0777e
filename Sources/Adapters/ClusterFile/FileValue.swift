import ServiceRuntime
import Yams

/// Sentences for whoever wrote the file.
enum Problem {
    /// Repeats no more of the file than helps to find the place.
    static func cut(_ text: String) -> String {
        text.count <= 40 ? text : "\(text.prefix(40))…"
    }
}

/// Problems in the order in which they were met.
package struct ProblemList {
    private var told: [String] = []
    private var untold = 0

    package init() {}

    package mutating func add(_ value: FileValue, _ what: String) { add(value.place, what) }

    mutating func add(_ place: String, _ what: String) {
        guard told.count < ClusterFile.Limits.problems else { return untold += 1 }
        told.append(place.isEmpty ? what : "\(place): \(what)")
    }

    /// A key that is not among those of its table.
    package mutating func addUnknown(_ name: String, _ value: FileValue, among known: [String]) {
        let near = known.map { (name: $0, distance: SettingValues.distance($0, name)) }
            .filter { $0.distance <= max(2, name.count / 3) }
            .min { $0.distance < $1.distance }
        let hint = near.map { "did you mean '\($0.name)'?" }
        add(
            value,
            "'\(Problem.cut(name))' is no key here; "
                + (hint ?? "there are \(known.joined(separator: ", "))"))
    }

    package func check() throws(ClusterFile.Failure) {
        guard !told.isEmpty else { return }
        throw ClusterFile.Failure(problems: told + (untold > 0 ? ["and \(untold) more"] : []))
    }
}

/// A value of the file and where it stands.
package struct FileValue {
    let node: Node
    let path: String
    private let line: Int?

    init(node: Node, path: String, line: Int? = nil) {
        self.node = node
        self.path = path
        self.line = line ?? node.mark?.line
    }

    var place: String {
        [line.map { "line \($0)" }, path.isEmpty ? nil : path].compactMap { $0 }
            .joined(separator: ", ")
    }

    /// The text of a single value; nil for tables, lists and nothing at all.
    package var text: String? {
        guard let scalar = node.scalar, !(scalar.string.isEmpty && scalar.style == .plain) else {
            return nil
        }
        return scalar.string
    }

    /// How a problem names the value.
    package var shown: String {
        switch node {
        case .mapping: "a table"
        case .sequence: "a list"
        default: text.map { "'\(Problem.cut($0))'" } ?? "nothing"
        }
    }

    package var elements: [FileValue]? {
        node.sequence.map { sequence in
            sequence.enumerated().map { FileValue(node: $1, path: "\(path)[\($0)]") }
        }
    }

    package var members: [(name: String, value: FileValue)]? {
        node.mapping.map { mapping in
            mapping.map { key, value in
                let name = key.scalar?.string ?? ""
                let path = path.isEmpty ? name : "\(path).\(Problem.cut(name))"
                return (name, FileValue(node: value, path: path, line: key.mark?.line))
            }
        }
    }

    /// Reads a table by its keys.
    ///
    /// - Returns: whether it is a table.
    @discardableResult
    func read<Target>(
        _ keys: [ClusterKey<Target>], into target: inout Target, _ problems: inout ProblemList
    ) -> Bool {
        guard let members else {
            let names = keys.map(\.name).joined(separator: ", ")
            problems.add(self, "\(shown) is no table; write one with the keys \(names)")
            return false
        }
        for (name, value) in members {
            if let key = keys.first(where: { $0.name == name }) {
                key.read(value, &target, &problems)
            } else {
                problems.addUnknown(name, value, among: keys.map(\.name))
            }
        }
        for key in keys where key.isRequired && !members.contains(where: { $0.name == key.name }) {
            problems.add(self, "'\(key.name)' is missing; write \(key.kind)")
        }
        return true
    }
}
