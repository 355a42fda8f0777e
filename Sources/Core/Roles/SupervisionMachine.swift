package import ServingTypes

/// Every bound of keeping worker processes running.
package struct SupervisionLimits: Sendable, Hashable {
    /// Pause before the first restart; it doubles with each one.
    package var firstPause = Duration.milliseconds(500)
    package var longestPause = Duration.seconds(30)
    /// A life that lasted so long makes the next pause short again.
    package var steadyLife = Duration.seconds(60)
    /// So many ends of a process within the window are a crash loop: nobody starts it again.
    package var crashes = 5
    package var crashWindow = Duration.seconds(120)
    /// Time a process has to end after SIGTERM.
    package var stopDeadline = Duration.seconds(25)
    package var maximumProcesses = 256
    /// Of why a process ended last; more are cut.
    package var reasonCharacters = 400

    package init() {}
}

/// What the supervisor's shell has to do; processes are named by their place in the file.
package enum SupervisionAction: Hashable, Sendable {
    case start(Int)
    /// SIGTERM.
    case stop(Int)
    /// SIGKILL.
    case kill(Int, reason: String)
    /// For log and metrics.
    case ended(Int, reason: String, restartIn: Duration)
    case gaveUp(Int, reason: String)
    /// All have ended after `stop`.
    case done
}

/// Decisions about worker processes: when each is started again, and when no more.
package struct SupervisionMachine: Sendable {
    private enum State: Hashable {
        case running(since: MonotonicTime)
        case waiting(until: MonotonicTime)
        case givenUp, stopped
    }

    private struct Process {
        let name: String
        var state = State.stopped
        var pause: Duration
        var ends: [MonotonicTime] = []
        var restarts = 0
        var reason = ""
        /// Why it was killed; the end that follows bears it.
        var killReason: String?
    }

    private let limits: SupervisionLimits
    private var processes: [Process]
    private var stopEnd: MonotonicTime?
    private var isDone = false

    package init(names: [String], limits: SupervisionLimits = SupervisionLimits()) {
        precondition(names.count <= limits.maximumProcesses, "the file is checked before")
        self.limits = limits
        processes = names.map { Process(name: $0, pause: limits.firstPause) }
    }

    package var report: [SupervisedProcess] {
        processes.map { process in
            let state: SupervisedProcess.State =
                switch process.state {
                case .running: .running
                case .waiting: .waiting
                case .givenUp: .givenUp
                case .stopped: .stopped
                }
            return SupervisedProcess(
                name: process.name, state: state, restarts: process.restarts,
                reason: process.reason)
        }
    }

    package func index(of name: String) -> Int? { processes.firstIndex { $0.name == name } }

    package mutating func begin(now: MonotonicTime) -> [SupervisionAction] {
        processes.indices.map { start($0, now: now) }
    }

    private mutating func start(_ index: Int, now: MonotonicTime) -> SupervisionAction {
        processes[index].state = .running(since: now)
        processes[index].killReason = nil
        return .start(index)
    }

    /// A process has ended, or could not be started.
    package mutating func ended(
        _ index: Int, reason: String, now: MonotonicTime
    ) -> [SupervisionAction] {
        guard case .running(let since) = processes[index].state else { return [] }
        let reason = processes[index].killReason.map { "\(reason): \($0)" } ?? reason
        processes[index].reason = String(reason.prefix(limits.reasonCharacters))
        guard stopEnd == nil else {
            processes[index].state = .stopped
            return concludeStop()
        }
        if now - since >= limits.steadyLife { processes[index].pause = limits.firstPause }
        var ends = processes[index].ends.filter { now - $0 < limits.crashWindow }
        ends.append(now)
        processes[index].ends = ends
        guard ends.count < limits.crashes else {
            let text =
                "it ended \(ends.count) times in \(limits.crashWindow.milliseconds / 1000) s, "
                + "last: \(reason); mend the cause and restart the health-agent"
            processes[index].state = .givenUp
            processes[index].reason = String(text.prefix(limits.reasonCharacters))
            return [.gaveUp(index, reason: text)]
        }
        let pause = processes[index].pause
        processes[index].state = .waiting(until: now + pause)
        processes[index].pause = min(pause * 2, limits.longestPause)
        return [.ended(index, reason: reason, restartIn: pause)]
    }

    /// A process hangs; the end that follows starts it again.
    package mutating func hung(
        _ index: Int, reason: String
    ) -> [SupervisionAction] {
        guard case .running = processes[index].state else { return [] }
        processes[index].killReason = reason
        return [.kill(index, reason: reason)]
    }

    package mutating func tick(now: MonotonicTime) -> [SupervisionAction] {
        if let stopEnd {
            guard now >= stopEnd else { return [] }
            return processes.indices.flatMap { index in
                isRunning(index)
                    ? hung(index, reason: "it did not end in time after SIGTERM") : []
            }
        }
        var actions: [SupervisionAction] = []
        for index in processes.indices {
            guard case .waiting(let time) = processes[index].state, now >= time else { continue }
            processes[index].restarts += 1
            actions.append(start(index, now: now))
        }
        return actions
    }

    /// Ends all processes; none is started any more.
    package mutating func stop(now: MonotonicTime) -> [SupervisionAction] {
        guard stopEnd == nil else { return [] }
        stopEnd = now + limits.stopDeadline
        var actions: [SupervisionAction] = []
        for index in processes.indices {
            if isRunning(index) {
                actions.append(.stop(index))
            } else if processes[index].state != .givenUp {
                processes[index].state = .stopped
            }
        }
        return actions + concludeStop()
    }

    private func isRunning(_ index: Int) -> Bool {
        if case .running = processes[index].state { true } else { false }
    }

    private mutating func concludeStop() -> [SupervisionAction] {
        guard !isDone, !processes.indices.contains(where: isRunning) else { return [] }
        isDone = true
        return [.done]
    }
}
