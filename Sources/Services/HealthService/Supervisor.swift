import Foundation
package import Logging
package import Roles
import ServiceLifecycle
import ServiceRuntime
package import ServingTypes
import Synchronization

/// Keeps worker processes of this host running, where no container runtime does.
package final class Supervisor: Service {
    private struct State {
        var machine: SupervisionMachine
        var running: [Int: Process] = [:]
        /// Killings for memory since each process started.
        var kills: [Int: MemoryKills] = [:]
        /// Whom this agent has killed.
        var killed: Set<Int> = []
        var isDone = false
    }

    /// What all its processes inherit besides the system's environment.
    private static let sharedVariables = [
        "PDSERVE_CLUSTER", "PDSERVE_CERTIFICATES", "PDSERVE_SCHEDULER", "PDSERVE_LOG_LEVEL",
        "PDSERVE_LOG_FORMAT",
    ]
    private static let tick = Duration.milliseconds(50)
    /// Between two looks at the sizes of logs.
    private static let logInterval = Duration.seconds(2)

    private let commands: [SupervisedCommand]
    private let host: String
    private let logger: Logger
    private let state: Mutex<State>

    /// - Parameter host: the host name that the processes shall give.
    package init(
        commands: [SupervisedCommand], host: String,
        limits: SupervisionLimits = SupervisionLimits(), logger: Logger
    ) {
        self.commands = commands
        self.host = host
        self.logger = logger
        state = Mutex(
            State(machine: SupervisionMachine(names: commands.map(\.name), limits: limits)))
    }

    package var report: [SupervisedProcess] { state.withLock { $0.machine.report } }

    /// Kills a process of this name so that it starts again; false if there is none.
    package func end(_ name: String, reason: String) -> Bool {
        state.withLock { state in
            guard let index = state.machine.index(of: name) else { return false }
            for action in state.machine.hung(index, reason: reason) { perform(action, &state) }
            return true
        }
    }

    package func run() async throws {
        handle { $0.begin(now: ProcessClock.now()) }
        try? await cancelWhenGracefulShutdown { try await self.watch() }
        handle { $0.stop(now: ProcessClock.now()) }
        while !state.withLock({ $0.isDone }) {
            handle { $0.tick(now: ProcessClock.now()) }
            guard (try? await Task.sleep(for: Self.tick)) != nil else { return killAll() }
        }
    }

    private func watch() async throws {
        var nextLook = ProcessClock.now()
        var troubled: Set<String> = []
        while true {
            try await Task.sleep(for: Self.tick)
            let now = ProcessClock.now()
            handle { $0.tick(now: now) }
            guard now >= nextLook else { continue }
            nextLook = now + Self.logInterval
            state.withLock { state in
                for (index, process) in state.running {
                    state.kills[index]?.follow(process.processIdentifier)
                }
            }
            for command in commands { rotate(command.log, &troubled) }
        }
    }

    /// - Parameter troubled: logs whose trouble was reported and has not ended.
    private func rotate(_ log: String, _ troubled: inout Set<String>) {
        do {
            switch try BoundedLog(path: log).rotate() {
            case .notNeeded, .moved: troubled.remove(log)
            case .emptied(let reason):
                logger.error(
                    "a log was emptied, as there is no room for a copy of it",
                    metadata: ["file": "\(log)", "reason": "\(reason)"])
            }
        } catch {
            guard troubled.insert(log).inserted else { return }
            logger.warning(
                "a log can't be shortened",
                metadata: ["file": "\(log)", "reason": "\(error.localizedDescription)"])
        }
    }

    private func killAll() {
        state.withLock { state in
            for process in state.running.values { kill(process.processIdentifier, SIGKILL) }
        }
    }

    private func handle(_ event: (inout SupervisionMachine) -> [SupervisionAction]) {
        state.withLock { state in
            for action in event(&state.machine) { perform(action, &state) }
        }
    }

    private func perform(_ action: SupervisionAction, _ state: inout State) {
        switch action {
        case .start(let index): start(index, &state)
        case .stop(let index):
            if let process = state.running[index] { kill(process.processIdentifier, SIGTERM) }
        case .kill(let index, let reason):
            logger.error(
                "a worker is killed",
                metadata: ["worker": "\(commands[index].name)", "reason": "\(reason)"])
            HealthMetrics.killed(commands[index].name)
            state.killed.insert(index)
            if let process = state.running[index] { kill(process.processIdentifier, SIGKILL) }
        case .ended(let index, let reason, let pause):
            logger.warning(
                "a worker has ended and is started again",
                metadata: [
                    "worker": "\(commands[index].name)", "reason": "\(reason)",
                    "pause-milliseconds": "\(pause.milliseconds)",
                ])
            HealthMetrics.restarted(commands[index].name)
        case .gaveUp(let index, let reason):
            logger.critical(
                "a worker ends again and again and is not started any more",
                metadata: ["worker": "\(commands[index].name)", "reason": "\(reason)"])
            HealthMetrics.gaveUp(commands[index].name)
        case .done: state.isDone = true
        }
    }

    private func start(_ index: Int, _ state: inout State) {
        let command = commands[index]
        do {
            let process = Process()
            let log = openLog(of: command)
            state.kills[index] = MemoryKills()
            state.killed.remove(index)
            process.executableURL = try Self.executable(command.command)
            process.arguments = command.arguments
            process.environment = environment(of: command)
            process.standardInput = FileHandle.nullDevice
            process.standardOutput = log
            process.standardError = log
            process.terminationHandler = { [weak self] process in
                self?.ended(index, process)
            }
            try process.run()
            state.kills[index]?.follow(process.processIdentifier)
            state.running[index] = process
            logger.notice(
                "a worker is started",
                metadata: [
                    "worker": "\(command.name)", "process": "\(process.processIdentifier)",
                ])
        } catch {
            let reason = "it can't be started: \(error.localizedDescription)"
            // The machine hears of it after what it decides now.
            Task { self.ended(index, reason) }
        }
    }

    /// A worker whose log can't be written works all the same.
    private func openLog(of command: SupervisedCommand) -> FileHandle {
        do {
            return try BoundedLog(path: command.log).open()
        } catch {
            logger.error(
                "the log of a worker can't be opened, so what it writes is lost",
                metadata: [
                    "worker": "\(command.name)", "file": "\(command.log)",
                    "reason": "\(error.localizedDescription)",
                ])
            return FileHandle.nullDevice
        }
    }

    private func ended(_ index: Int, _ process: Process) {
        let status = process.terminationStatus
        var end = ProcessEnd(
            status: process.terminationReason == .uncaughtSignal ? .signal(status) : .code(status))
        end.lastWords = ProcessEnd.lastWords(of: BoundedLog(path: commands[index].log).end)
        let kills = state.withLock { state in
            state.killed.contains(index) ? nil : state.kills[index]?.rise
        }
        (end.groupKills, end.hostKills) = kills ?? (0, 0)
        if end.lacksMemory { HealthMetrics.lackedMemory(commands[index].name) }
        ended(index, end.reason)
    }

    private func ended(_ index: Int, _ reason: String) {
        state.withLock { state in
            state.running[index] = nil
            let now = ProcessClock.now()
            for action in state.machine.ended(index, reason: reason, now: now) {
                perform(action, &state)
            }
        }
    }

    private func environment(of command: SupervisedCommand) -> [String: String] {
        var result = ProcessInfo.processInfo.environment.filter { name, _ in
            !name.hasPrefix("PDSERVE_") || Self.sharedVariables.contains(name)
        }
        result["PDSERVE_NAME"] = command.name
        result["PDSERVE_HOST_NAME"] = host
        // Two agents must not keep the same worker running.
        result["PDSERVE_EXIT_WITH_PARENT"] = "true"
        return result.merging(command.environment, uniquingKeysWith: { $1 })
    }

    private static func executable(_ command: String) throws -> URL {
        if command.contains("/") { return URL(fileURLWithPath: command) }
        let own = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        let folders =
            [own.deletingLastPathComponent()]
            + path.split(separator: ":").map { URL(fileURLWithPath: String($0)) }
        for folder in folders {
            let file = folder.appending(path: command)
            if FileManager.default.isExecutableFile(atPath: file.path) { return file }
        }
        throw CocoaError(.fileNoSuchFile, userInfo: [NSFilePathErrorKey: command])
    }
}
