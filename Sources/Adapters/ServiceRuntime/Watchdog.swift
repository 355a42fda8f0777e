import Foundation
package import Logging
import ServingTypes
import Synchronization

/// Ends the process when a part of it makes no progress for too long.
///
/// It has a thread of its own, so it works when all others hang. A restart by whoever keeps the
/// process running is then the only help.
package final class Watchdog: Sendable {
    /// A part that is looked after.
    package struct Part: Sendable {
        package var name: String
        package var deadline: Duration
        /// For how long it has been in what it does now; nil: it rests.
        package var age: @Sendable () -> Duration?

        package init(
            _ name: String, deadline: Duration, age: @escaping @Sendable () -> Duration?
        ) {
            self.name = name
            self.deadline = deadline
            self.age = age
        }
    }

    /// Between two looks.
    private static let interval = Duration.milliseconds(200)
    /// A look that comes so late means that the process itself did not run.
    private static let ownPause = Duration.seconds(1)

    private let shared: Shared

    private final class Shared: Sendable {
        let logger: Logger
        let end: @Sendable (Int32) -> Void
        let parts = Mutex<[Part]>([])
        let isStopped = Atomic(false)

        init(logger: Logger, end: @escaping @Sendable (Int32) -> Void) {
            self.logger = logger
            self.end = end
        }

        func run() {
            var last = ProcessClock.now()
            // Ages that grew while the process was away count from here on.
            var resumed = last
            while !isStopped.load(ordering: .relaxed) {
                Thread.sleep(forTimeInterval: Watchdog.interval.seconds)
                let now = ProcessClock.now()
                if now - last >= Watchdog.ownPause { resumed = now }
                last = now
                for part in parts.withLock({ $0 }) {
                    guard let age = part.age(), min(age, now - resumed) >= part.deadline else {
                        continue
                    }
                    giveUp(part, age)
                    return
                }
            }
        }

        private func giveUp(_ part: Part, _ age: Duration) {
            logger.critical(
                "the process hangs and ends itself",
                metadata: [
                    "part": "\(part.name)", "milliseconds": "\(age.milliseconds)",
                    "limit": "\(part.deadline.milliseconds)",
                ])
            for line in ProcessThreads.lines() {
                logger.critical("a thread when the process hung", metadata: ["thread": "\(line)"])
            }
            end(ExitCode.hung.rawValue)
        }
    }

    /// - Parameter end: ends the process at once.
    package init(
        logger: Logger, end: @escaping @Sendable (Int32) -> Void = { endAtOnce($0) }
    ) {
        shared = Shared(logger: logger, end: end)
        let shared = shared
        let thread = Thread { shared.run() }
        thread.name = "watchdog"
        thread.start()
    }

    deinit { shared.isStopped.store(true, ordering: .relaxed) }

    package func watch(_ part: Part) { shared.parts.withLock { $0.append(part) } }
}

/// Signs of life of something that runs again and again.
package final class Pulse: Sendable {
    private let last = Mutex<MonotonicTime?>(nil)

    package init() {}

    package func beat() { last.withLock { $0 = ProcessClock.now() } }

    /// It has ended in order: nothing is expected any more.
    package func end() { last.withLock { $0 = nil } }

    /// Time since the last beat; nil before the first and after the end.
    package var age: Duration? { last.withLock { $0 }.map { ProcessClock.now() - $0 } }
}

/// Ends the process without any orderly step.
package func endAtOnce(_ code: Int32) { _exit(code) }

/// The threads of this process as the kernel sees them.
enum ProcessThreads {
    private static let maximumLines = 64

    /// Name, state and what each waits for in the kernel.
    static func lines() -> [String] {
        let folder = "/proc/self/task"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.sorted().prefix(maximumLines).map { number in
            func word(_ file: String) -> String {
                (SmallFile.text("\(folder)/\(number)/\(file)") ?? "?")
                    .trimmingCharacters(in: .whitespacesAndNewlines)
            }
            let status = word("stat")
            let state = status.split(separator: ")").last?.split(separator: " ").first ?? "?"
            return "\(number) \(word("comm")) \(state) \(word("wchan"))"
        }
    }
}
