package import Logging
import Synchronization

/// Says in the log that a listener accepts nobody for want of files: once, and then seldom.
package final class FileShortage: Sendable {
    /// Between two reports of one listener.
    package static let reportInterval = Duration.seconds(10)
    /// Until a listener looks again whether files are free.
    package static let pause = Duration.milliseconds(100)

    private struct State {
        var reported: ContinuousClock.Instant?
        var isShort = false
        var pauses = 0
    }

    private let listener: String
    private let logger: Logger
    private let state = Mutex(State())

    /// - Parameter listener: whose connections wait, in words.
    package init(listener: String, logger: Logger) {
        self.listener = listener
        self.logger = logger
    }

    /// Whether accepting has to wait, which is reported.
    package func checks() -> Bool {
        guard OpenFiles.areScarce else {
            ended()
            return false
        }
        occurred()
        return true
    }

    /// A look in between: nothing is reported.
    package var goesOn: Bool { OpenFiles.areScarce }

    /// - Parameter error: what the system said, if accepting was tried.
    package func occurred(_ error: String? = nil) {
        OpenFiles.countPause()
        let pauses = state.withLock { state -> Int? in
            state.pauses += 1
            state.isShort = true
            let now = ContinuousClock.now
            if let reported = state.reported, now - reported < Self.reportInterval { return nil }
            state.reported = now
            defer { state.pauses = 0 }
            return state.pauses
        }
        guard let pauses else { return }
        var metadata: Logger.Metadata = [
            "listener": "\(listener)", "pauses": "\(pauses)",
            "open-files": "\(OpenFiles.count ?? 0)", "limit": "\(OpenFiles.limit ?? 0)",
            "remedy": """
            allow more open files (ulimit -n, LimitNOFILE=), or see who holds so many connections
            """,
        ]
        if let error { metadata["error"] = "\(error)" }
        logger.error(
            "too few files are free: new connections wait, open ones go on", metadata: metadata)
    }

    private func ended() {
        let isNews = state.withLock { state in
            defer { state.isShort = false }
            return state.isShort
        }
        if isNews {
            logger.notice(
                "files are free again: connections are accepted",
                metadata: ["listener": "\(listener)"])
        }
    }
}
