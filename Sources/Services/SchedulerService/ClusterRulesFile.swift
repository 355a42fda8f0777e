import ClusterFile
package import ClusterRules
import Foundation
package import ServiceRuntime
import WireProtocol

/// The cluster file on this host, which is read again when it changes.
package struct ClusterRulesFile: Sendable {
    /// Time between two looks at the file.
    package static let interval: Duration = .seconds(2)

    package struct Content: Sendable {
        package var text: String
        package var spec: ClusterSpec
    }

    /// What shows that a file was written, or another one was put in its place.
    private struct Stamp: Equatable {
        var modified: Date?
        var bytes: UInt64?
        var number: UInt64?
    }

    package let path: String
    private var stamp = Stamp()

    package init(path: String) { self.path = path }

    package mutating func read() throws(ClusterRulesError) -> Content {
        stamp = currentStamp
        let data: Data
        do {
            data = try Data(contentsOf: URL(fileURLWithPath: path))
        } catch {
            throw .unreadable(path: path, reason: error.localizedDescription)
        }
        guard data.count <= WireLimits.rulesBytes else {
            throw .wrong(
                path: path,
                problems: ["it has \(data.count) bytes, at most \(WireLimits.rulesBytes) may be"])
        }
        guard let text = String(data: data, encoding: .utf8) else {
            throw .wrong(path: path, problems: ["it is not UTF-8"])
        }
        do throws(ClusterFile.Failure) {
            return Content(text: text, spec: try ClusterFile.parse(text))
        } catch {
            throw .wrong(path: path, problems: error.problems)
        }
    }

    /// Nil if it has not changed since the last read, whether that went well or not.
    package mutating func readIfChanged() throws(ClusterRulesError) -> Content? {
        currentStamp == stamp ? nil : try read()
    }

    /// Whose file it is on this host.
    package var owner: String {
        let attributes = (try? FileManager.default.attributesOfItem(atPath: path)) ?? [:]
        let number = attributes[.ownerAccountID] as? NSNumber
        return attributes[.ownerAccountName] as? String ?? number.map { "user \($0)" } ?? "nobody"
    }

    private var currentStamp: Stamp {
        let attributes = (try? FileManager.default.attributesOfItem(atPath: path)) ?? [:]
        return Stamp(
            modified: attributes[.modificationDate] as? Date,
            bytes: (attributes[.size] as? NSNumber)?.uint64Value,
            number: (attributes[.systemFileNumber] as? NSNumber)?.uint64Value)
    }
}

/// Why a cluster file can't be used: at the start it ends the scheduler, later the rules before it
/// stay.
package enum ClusterRulesError: ServiceFailure {
    case unreadable(path: String, reason: String)
    case wrong(path: String, problems: [String])

    package var exitCode: ExitCode {
        switch self {
        case .unreadable: .unavailable
        case .wrong: .usage
        }
    }

    package var description: String {
        switch self {
        case .unreadable(let path, let reason):
            "the cluster file \(path) can't be read: \(reason); name another with --cluster-file"
        case .wrong(let path, let problems):
            "the cluster file \(path) is wrong:"
                + problems.map { "\n  \($0)" }.joined()
        }
    }
}
