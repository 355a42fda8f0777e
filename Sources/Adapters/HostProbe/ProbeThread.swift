import Foundation
package import ServingTypes
import Synchronization
import Waiting

/// Runs one probe on a thread of its own, so that nobody waits for a driver that hangs.
package final class ProbeThread: Sendable {
    private struct State {
        var latest: ProbeReport?
        /// When the reading that runs began.
        var started: ContinuousClock.Instant?
        var isStopped = false
    }

    private let shared: Shared

    /// What the thread and its owner share; the thread does not keep the owner alive.
    private final class Shared: Sendable {
        let name: String
        let deadline: Duration
        let state = Mutex(State())
        let wake = MonotonicSemaphore()

        init(name: String, deadline: Duration) {
            self.name = name
            self.deadline = deadline
        }

        var isStopped: Bool { state.withLock { $0.isStopped } }

        func run(_ probe: any DeviceProbe, every interval: Duration) {
            var number: UInt64 = 0
            while !isStopped {
                number += 1
                state.withLock { $0.started = .now }
                let result: ProbeReport.Result
                do throws(ProbeError) {
                    result = .devices(try probe.read())
                } catch {
                    result = .failed("\(error)")
                }
                let report = ProbeReport(probe: name, number: number, result: result)
                state.withLock { state in
                    state.started = nil
                    state.latest = report
                }
                _ = wake.wait(atMost: interval)
            }
        }
    }

    /// - Parameters:
    ///   - deadline: how long a reading may take until `report` says that it is overdue.
    ///   - make: makes the probe on its thread.
    package init(
        _ name: String, interval: Duration = ProbeLimits.interval, deadline: Duration,
        make: @escaping @Sendable () -> any DeviceProbe
    ) {
        let shared = Shared(name: name, deadline: deadline)
        self.shared = shared
        shared.state.withLock { $0.started = .now }
        let thread = Thread { shared.run(make(), every: interval) }
        thread.name = "probe"
        thread.start()
    }

    deinit {
        // A thread inside a driver ends when the driver lets it.
        shared.state.withLock { $0.isStopped = true }
        shared.wake.signal()
    }

    /// What it said last, or that it has not answered; nil before the first answer.
    package var report: ProbeReport? {
        shared.state.withLock { state in
            if let started = state.started {
                let age = ContinuousClock.now - started
                if age >= shared.deadline {
                    return ProbeReport(
                        probe: shared.name, number: state.latest?.number ?? 0,
                        result: .overdue(age))
                }
            }
            return state.latest
        }
    }
}
