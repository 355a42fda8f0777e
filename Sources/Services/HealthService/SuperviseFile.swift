import Foundation
package import ServiceRuntime
import Yams

/// A worker process that a health-agent is to keep running.
package struct SupervisedCommand: Hashable, Sendable {
    /// Its instance name, too, unless its arguments say another.
    package var name: String
    /// A path, or a name that lies beside the health-agent's executable or in PATH.
    package var command: String
    package var arguments: [String]
    package var environment: [String: String]
    /// Where its output goes.
    package var log: String

    package init(
        name: String, command: String, arguments: [String] = [],
        environment: [String: String] = [:], log: String
    ) {
        self.name = name
        self.command = command
        self.arguments = arguments
        self.environment = environment
        self.log = log
    }
}

/// Why the file of supervised workers can't be used; the operator mends it.
package struct SuperviseFileError: ServiceFailure, Hashable {
    package let path: String
    package let problem: String

    package var exitCode: ExitCode { .usage }
    package var description: String { "the file \(path) can't be used: \(problem)" }
}

/// The file of supervised workers.
package enum SuperviseFile {
    static let maximumBytes = 256 << 10
    static let maximumWorkers = 256
    static let maximumTexts = 1024

    package static func read(_ path: String) throws(SuperviseFileError) -> [SupervisedCommand] {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw SuperviseFileError(path: path, problem: "it can't be read")
        }
        guard data.count <= maximumBytes else {
            throw SuperviseFileError(
                path: path, problem: "\(data.count) bytes are more than \(maximumBytes)")
        }
        return try parse(String(decoding: data, as: UTF8.self), path: path)
    }

    package static func parse(
        _ text: String, path: String
    ) throws(SuperviseFileError) -> [SupervisedCommand] {
        do {
            return try workers(in: text)
        } catch let problem as Problem {
            throw SuperviseFileError(path: path, problem: problem.text)
        } catch {
            throw SuperviseFileError(path: path, problem: "it is not YAML: \(error)")
        }
    }

    private struct Problem: Error {
        let text: String
        init(_ text: String) { self.text = text }
    }

    private static func workers(in text: String) throws -> [SupervisedCommand] {
        guard let root = try Yams.compose(yaml: text)?.mapping else {
            throw Problem("it must begin with 'workers:' and a list of them")
        }
        try check(root, keys: ["workers"], in: "the file")
        guard let list = root["workers"]?.sequence, !list.isEmpty else {
            throw Problem("'workers' must be a list of at least one worker")
        }
        guard list.count <= maximumWorkers else {
            throw Problem("\(list.count) workers are more than \(maximumWorkers)")
        }
        var names: Set<String> = []
        return try list.enumerated().map { number, node in
            let worker = try worker(node, place: "worker \(number + 1)")
            guard names.insert(worker.name).inserted else {
                throw Problem("two workers are named '\(worker.name)'; each needs its own name")
            }
            return worker
        }
    }

    private static func worker(_ node: Node, place: String) throws -> SupervisedCommand {
        guard let fields = node.mapping else {
            throw Problem("\(place) must have the keys name, command and log")
        }
        try check(
            fields, keys: ["name", "command", "arguments", "environment", "log"], in: place)
        func text(_ key: String) throws -> String {
            guard let value = fields[key]?.scalar?.string, !value.isEmpty else {
                throw Problem("\(place) needs '\(key)'")
            }
            return value
        }
        let name = try text("name")
        guard name.utf8.count <= 128, !name.contains("/") else {
            throw Problem("\(place): a name has at most 128 bytes and no '/'")
        }
        return SupervisedCommand(
            name: name, command: try text("command"),
            arguments: try arguments(fields["arguments"], place),
            environment: try environment(fields["environment"], place), log: try text("log"))
    }

    private static func arguments(_ node: Node?, _ place: String) throws -> [String] {
        guard let node else { return [] }
        guard let list = node.sequence, list.count <= maximumTexts else {
            throw Problem(
                "\(place): 'arguments' must be a list of at most \(maximumTexts) texts")
        }
        return try list.map { item in
            guard let text = item.scalar?.string else {
                throw Problem("\(place): 'arguments' must be a list of texts")
            }
            return text
        }
    }

    private static func environment(_ node: Node?, _ place: String) throws -> [String: String] {
        guard let node else { return [:] }
        guard let fields = node.mapping, fields.count <= maximumTexts else {
            throw Problem("\(place): 'environment' must be names with their texts")
        }
        var result: [String: String] = [:]
        for (key, value) in fields {
            guard let name = key.scalar?.string, let text = value.scalar?.string else {
                throw Problem("\(place): 'environment' must be names with their texts")
            }
            result[name] = text
        }
        return result
    }

    private static func check(_ fields: Node.Mapping, keys: [String], in place: String) throws {
        for (key, _) in fields {
            let name = key.scalar?.string ?? "?"
            guard keys.contains(name) else {
                throw Problem(
                    "\(place) has a key '\(name)' that nobody reads; there are "
                        + keys.joined(separator: ", "))
            }
        }
    }
}
