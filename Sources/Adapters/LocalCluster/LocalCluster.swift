package import Foundation
import ServiceStart
package import ServingTypes
import Synchronization
import Transport

/// All five services as processes on this host's loopback interface.
///
/// For `pdserve up` and for tests: every process binds port 0 where nothing else is asked for and
/// announces what it got in a file. Logs and certificates lie in the run folder.
package final class LocalCluster: Sendable {
    package struct Settings: Sendable {
        /// Folder with the executables.
        package var executables: URL
        /// Folder for certificates, logs and announcements; made if missing.
        package var folder: URL
        package var modelPath: String?
        package var engine = "llama"
        package var cluster = "local"
        package var httpListen = "127.0.0.1:0"
        /// Whether workers measure their engines before they serve, as their setting says.
        package var calibrate = "never"
        package var prefillWorkers = 1
        package var decodeWorkers = 1
        /// One leads, the others stand by.
        package var schedulers = 1
        /// What outlives the schedulers, as their setting says; nil: nothing, or with several of
        /// them a file in the run folder.
        package var store: String?
        /// The scheduler's cluster file.
        package var clusterFile: String?
        /// Further arguments by role.
        package var arguments: [Role: [String]] = [:]
        /// Further arguments by process name; they win over all others.
        package var argumentsByName: [String: [String]] = [:]
        /// What comes before a process's command, by its name: a program that runs it elsewhere.
        package var commandsByName: [String: [String]] = [:]
        /// Time one process may take until it has bound its ports; loading a model counts.
        package var startDeadline: Duration = .seconds(300)

        package init(executables: URL, folder: URL, modelPath: String?) {
            self.executables = executables
            self.folder = folder
            self.modelPath = modelPath
        }
    }

    package let settings: Settings
    private let processes = Mutex<[ManagedProcess]>([])
    private let schedulers = Mutex<[NetworkAddress]>([])

    package init(settings: Settings) { self.settings = settings }

    package var all: [ManagedProcess] { processes.withLock { $0 } }

    package func processes(of role: Role) -> [ManagedProcess] {
        all.filter { $0.role == role && $0.isRunning }
    }

    /// Where clients talk to the (first) gateway.
    package var httpAddress: NetworkAddress? {
        processes(of: .gateway).first?.announcement.http
    }

    /// Of the first scheduler.
    package var schedulerAddress: NetworkAddress? { schedulerAddresses.first }

    /// Of all schedulers; only one of them leads and listens.
    package var schedulerAddresses: [NetworkAddress] { schedulers.withLock { $0 } }

    // MARK: Start

    /// Makes certificates and starts the scheduler, the workers, a health-agent and a gateway.
    ///
    /// Does not wait until requests can be served; `waitUntilHealthy` does.
    package func start() async throws {
        try makeCertificates()
        try await startSchedulers()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 1...max(1, settings.prefillWorkers) where settings.prefillWorkers > 0 {
                group.addTask { try await self.startWorker(.prefillWorker, number: number) }
            }
            for number in 1...max(1, settings.decodeWorkers) where settings.decodeWorkers > 0 {
                group.addTask { try await self.startWorker(.decodeWorker, number: number) }
            }
            group.addTask { try await self.startHealthAgent() }
            group.addTask { try await self.startGateway() }
            try await group.waitForAll()
        }
    }

    private func startSchedulers() async throws {
        guard settings.schedulers > 1 || settings.store != nil else {
            try await startScheduler()
            return
        }
        let addresses = try (0..<settings.schedulers).map { _ in try FreePort.take() }
        schedulers.withLock { $0 = addresses }
        for number in 1...max(1, settings.schedulers) { try await startScheduler(number: number) }
    }

    /// - Parameter listen: it leads at once, without a store.
    @discardableResult
    package func startScheduler(listen: String = "127.0.0.1:0") async throws -> ManagedProcess {
        let process = try await launch(
            .scheduler, name: "scheduler", ["--listen", listen] + rulesArguments)
        // With a store it is there before it leads.
        let end = ContinuousClock.now + settings.startDeadline
        while process.announcement.control == nil, process.isRunning, ContinuousClock.now < end {
            try await Task.sleep(for: .milliseconds(10))
        }
        schedulers.withLock { $0 = process.announcement.control.map { [$0] } ?? [] }
        return process
    }

    /// One of several schedulers, which leads if no other one does.
    @discardableResult
    package func startScheduler(number: Int) async throws -> ManagedProcess {
        let store =
            settings.store ?? "sqlite:" + settings.folder.appending(path: "scheduler.sqlite").path
        return try await launch(
            .scheduler, name: "scheduler-\(number)",
            ["--listen", schedulerAddresses[number - 1].description, "--store", store]
                + rulesArguments)
    }

    /// Starts a process again that has ended, where the others know it to listen.
    @discardableResult
    package func restart(_ process: ManagedProcess) async throws -> ManagedProcess {
        let known = process.announcement
        var arguments = process.arguments
        switch process.role {
        case .scheduler: known.control.map { arguments += ["--listen", $0.description] }
        case .gateway: known.http.map { arguments += ["--http-listen", $0.description] }
        default: break
        }
        return try await launch(process.role, name: process.name, arguments, isAgain: true)
    }

    private var rulesArguments: [String] {
        settings.clusterFile.map { ["--cluster-file", $0] } ?? []
    }

    @discardableResult
    package func startWorker(
        _ role: Role, number: Int, arguments: [String] = []
    ) async throws -> ManagedProcess {
        var all = ["--listen", "127.0.0.1:0", "--bulk-listen", "127.0.0.1:0"]
        all += schedulerArguments + modelArguments + ["--engine", settings.engine]
        all += ["--calibrate", settings.calibrate] + arguments
        return try await launch(role, name: Self.workerName(role, number), all)
    }

    package static func workerName(_ role: Role, _ number: Int) -> String {
        "\(role.name)-\(number)"
    }

    @discardableResult
    package func startGateway(
        name: String = "gateway", httpListen: String? = nil
    ) async throws -> ManagedProcess {
        try await launch(
            .gateway, name: name,
            [
                "--http-listen", httpListen ?? settings.httpListen, "--engine", settings.engine,
                "--state-folder", settings.folder.appending(path: "state").path,
            ] + schedulerArguments + modelArguments)
    }

    @discardableResult
    package func startHealthAgent() async throws -> ManagedProcess {
        try await launch(.healthAgent, name: "health-agent", schedulerArguments)
    }

    private var schedulerArguments: [String] {
        let addresses = schedulerAddresses.map(\.description).joined(separator: ",")
        return addresses.isEmpty ? [] : ["--scheduler", addresses]
    }

    private var modelArguments: [String] { settings.modelPath.map { ["--model", $0] } ?? [] }

    /// Waits until the gateway says that requests can be served.
    package func waitUntilHealthy(
        within deadline: Duration = .seconds(60), _ isHealthy: (NetworkAddress) async -> Bool
    ) async throws {
        let end = ContinuousClock.now + deadline
        while true {
            for process in all where !process.isRunning {
                throw LocalClusterError.exitedEarly(
                    name: process.name, status: process.exitStatus ?? 0, log: process.logTail())
            }
            if let httpAddress, await isHealthy(httpAddress) { return }
            guard ContinuousClock.now < end else {
                throw LocalClusterError.notReady(
                    name: "gateway", seconds: Int(deadline.seconds),
                    log: processes(of: .gateway).first?.logTail() ?? "")
            }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    /// A process that has ended and is not looked after any more.
    package func forget(_ process: ManagedProcess) {
        processes.withLock { $0.removeAll { $0 === process } }
    }

    // MARK: Stop

    /// Asks all processes to end, gateways and workers before the scheduler; kills what remains.
    package func stop(within deadline: Duration = .seconds(10)) async {
        let running = all.filter(\.isRunning)
        let order: [[Role]] = [
            [.gateway], [.prefillWorker, .decodeWorker, .healthAgent], [.scheduler],
        ]
        for roles in order {
            let group = running.filter { roles.contains($0.role) }
            for process in group { process.signal(SIGTERM) }
            for process in group {
                if await !process.waitUntilExit(within: deadline) { process.signal(SIGKILL) }
            }
        }
    }

    // MARK: Helpers

    /// Makes the run folder and its certificates; `start` does it too.
    package func makeCertificates() throws {
        try FileManager.default.createDirectory(
            at: settings.folder, withIntermediateDirectories: true)
        try DevelopmentCertificates.make(
            in: settings.folder.appending(path: "certificates").path, cluster: settings.cluster,
            hosts: ["localhost", "127.0.0.1"])
    }

    /// - Parameter isAgain: its log goes on.
    package func launch(
        _ role: Role, name: String, _ arguments: [String], isAgain: Bool = false
    ) async throws -> ManagedProcess {
        let executable = settings.executables.appending(path: role.name)
        guard FileManager.default.isExecutableFile(atPath: executable.path) else {
            throw LocalClusterError.executableMissing(path: executable.path)
        }
        let announce = settings.folder.appending(path: "\(name).addresses")
        let logFile = settings.folder.appending(path: "\(name).log")
        try? FileManager.default.removeItem(at: announce)
        if !isAgain { _ = FileManager.default.createFile(atPath: logFile.path, contents: nil) }
        let log = try FileHandle(forWritingTo: logFile)
        defer { try? log.close() }
        try log.seekToEnd()
        let process = Process()
        let before = settings.commandsByName[name] ?? []
        process.executableURL = before.first.map { URL(fileURLWithPath: $0) } ?? executable
        let given =
            [
                "--name", name, "--cluster", settings.cluster, "--host-name", "localhost",
                "--certificates", settings.folder.appending(path: "certificates").path,
                "--announce", announce.path, "--exit-with-parent", "true",
            ] + (role == .gateway ? [] : ["--admin-listen", "127.0.0.1:0"]) + arguments
            + (settings.arguments[role] ?? []) + (settings.argumentsByName[name] ?? [])
        process.arguments =
            (before.isEmpty ? [] : before.dropFirst() + [executable.path]) + Self.lastOfEach(given)
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = log
        process.standardError = log
        try process.run()
        let announcement = try await self.announcement(
            at: announce, of: process, name: name, log: logFile)
        let managed = ManagedProcess(
            name: name, role: role, arguments: arguments, logFile: logFile,
            announcement: announcement, announceFile: announce, process: process)
        processes.withLock { all in
            // A process that was started again takes the place of the one that ended.
            all.removeAll { $0.name == name }
            all.append(managed)
        }
        return managed
    }

    /// Drops a setting that comes again later: each may be given only once.
    static func lastOfEach(_ arguments: [String]) -> [String] {
        var settings: [[String]] = []
        for argument in arguments {
            if argument.hasPrefix("--") || settings.isEmpty {
                settings.removeAll { $0.first == argument }
                settings.append([argument])
            } else {
                settings[settings.count - 1].append(argument)
            }
        }
        return settings.flatMap { $0 }
    }

    /// Waits for the file in which the process says where it listens.
    private func announcement(
        at file: URL, of process: Process, name: String, log: URL
    ) async throws -> Announcement {
        let end = ContinuousClock.now + settings.startDeadline
        while true {
            if let announcement = Announcement(file: file) { return announcement }
            guard process.isRunning else {
                throw LocalClusterError.exitedEarly(
                    name: name, status: process.signedStatus, log: Self.tail(of: log))
            }
            guard ContinuousClock.now < end else {
                process.terminate()
                throw LocalClusterError.notReady(
                    name: name, seconds: Int(settings.startDeadline.seconds),
                    log: Self.tail(of: log))
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    package static func tail(of file: URL, lines: Int = 15) -> String {
        let text = (try? String(contentsOf: file, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").suffix(lines).joined(separator: "\n")
    }
}
