package import Foundation
package import ServiceStart
package import ServingTypes
import Synchronization

/// One started service process of a local cluster.
package final class ManagedProcess: Sendable {
    package let name: String
    package let role: Role
    package let logFile: URL
    /// Where it listens, by its own word after the ports were bound; a worker that was moved to
    /// another model may listen elsewhere, and a scheduler listens only while it leads.
    package var announcement: Announcement {
        role.isWorker || role == .scheduler ? Announcement(file: announceFile) ?? first : first
    }
    /// What it was started with, besides what all processes are.
    let arguments: [String]
    private let first: Announcement
    private let announceFile: URL
    private let process: Process

    init(
        name: String, role: Role, arguments: [String], logFile: URL, announcement: Announcement,
        announceFile: URL, process: Process
    ) {
        self.name = name
        self.role = role
        self.arguments = arguments
        self.logFile = logFile
        first = announcement
        self.announceFile = announceFile
        self.process = process
    }

    package var processIdentifier: Int32 { process.processIdentifier }
    package var isRunning: Bool { process.isRunning }
    /// Exit status, or the negative number of the signal that ended it; nil while it runs.
    package var exitStatus: Int32? {
        process.isRunning ? nil : process.signedStatus
    }

    package func signal(_ number: Int32) {
        if process.isRunning { kill(process.processIdentifier, number) }
    }

    /// Waits until the process has ended; false if it has not in time.
    @discardableResult
    package func waitUntilExit(within deadline: Duration) async -> Bool {
        let end = ContinuousClock.now + deadline
        while process.isRunning {
            guard ContinuousClock.now < end else { return false }
            try? await Task.sleep(for: .milliseconds(10))
        }
        return true
    }

    /// Resident memory in bytes; nil once it has ended.
    package var residentBytes: Int? {
        let path = "/proc/\(process.processIdentifier)/statm"
        guard process.isRunning,
            let text = try? String(contentsOfFile: path, encoding: .utf8)
        else { return nil }
        let pages = text.split(separator: " ").dropFirst().first.flatMap { Int($0) }
        return pages.map { $0 * Int(sysconf(Int32(_SC_PAGESIZE))) }
    }

    /// The last lines of its log.
    package func logTail(lines: Int = 15) -> String {
        LocalCluster.tail(of: logFile, lines: lines)
    }
}

extension Process {
    /// Exit status, or the negative number of the signal that ended it; it must have ended.
    var signedStatus: Int32 {
        terminationReason == .uncaughtSignal ? -terminationStatus : terminationStatus
    }
}

/// Why a local cluster could not start; the person reads it.
package enum LocalClusterError: Error, Sendable, CustomStringConvertible {
    case executableMissing(path: String)
    case exitedEarly(name: String, status: Int32, log: String)
    case keepsEnding(name: String, status: Int32, restarts: Int, seconds: Int, log: String)
    case notReady(name: String, seconds: Int, log: String)
    case noPort(code: Int32)

    package var description: String {
        switch self {
        case .executableMissing(let path):
            "the executable \(path) is missing; build it with 'make build'"
        case .exitedEarly(let name, let status, let log):
            "\(name) \(Self.ended(status)) while starting; its last words:\n\(log)"
        case .keepsEnding(let name, let status, let restarts, let seconds, let log):
            "\(name) \(Self.ended(status)), after \(restarts) restarts within \(seconds) s; "
                + "its last words:\n\(log)"
        case .notReady(let name, let seconds, let log):
            "\(name) was not ready after \(seconds) s; its last words:\n\(log)"
        case .noPort(let code): "the system gives no free port (error \(code))"
        }
    }

    /// - Parameter status: exit status, or the negative number of a signal.
    package static func ended(_ status: Int32) -> String {
        status < 0 ? "was ended by signal \(-status)" : "ended with status \(status)"
    }
}
