import CoreMetrics
import FileBudget
package import Logging
package import ServiceLifecycle
import Synchronization
import UnixSignals

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// What a service gets from its process.
package struct ServiceRuntime: Sendable {
    package let name: String
    package let settings: RuntimeSettings
    package let logger: Logger
    package let metrics: MetricsRegistry
    package let restart: ProcessRestart
    package let reload: ReloadSignal
}

/// SIGHUP: whoever has read files reads them anew.
package final class ReloadSignal: Sendable {
    private let bodies = Mutex<[@Sendable () -> Void]>([])

    package init() {}

    /// Runs the body at each signal; called while the service is built.
    package func whenRaised(_ body: @escaping @Sendable () -> Void) {
        bodies.withLock { $0.append(body) }
    }

    func raise() { for body in bodies.withLock({ $0 }) { body() } }
}

/// How a process was called.
package struct ProcessCall: Sendable {
    /// Without the program's name.
    package var arguments: [String]
    package var environment: [String: String]
    /// Ends the process at once.
    package var exit: @Sendable (Int32) -> Void = { _exit($0) }
    package var parentProcess: @Sendable () -> Int32 = { getppid() }
    /// Becomes another life of this process; returns why it can't.
    package var execute: @Sendable (ProcessImage) -> String = { $0.execute() }
    package var writeOutput: @Sendable (String) -> Void = writeToStandardOutput
    package var writeError: @Sendable (String) -> Void = writeToStandardError

    package init(arguments: [String], environment: [String: String]) {
        self.arguments = arguments
        self.environment = environment
    }
}

/// Bounds of waiting in `runService`.
private enum RunLimits {
    /// Between two looks at the parent process.
    static let parentPoll = Duration.seconds(1)
    /// After the shutdown limit, until the process ends without its services' consent.
    static let cancellation = Duration.seconds(5)
}

/// Runs a service's parts until they end, fail, or a signal comes.
///
/// SIGTERM and SIGINT shut down gracefully, within the setting `shutdown-limit`; a second signal
/// ends the process at once. SIGHUP makes it read its certificates anew. Errors become one line on
/// standard error.
///
/// - Parameters:
///   - settings: declares and reads the service's keys; those of the runtime are added.
///   - services: makes the parts; they start in this order and shut down in reverse.
/// - Returns: the exit code for the process; not at all if it starts again.
package func runService<Settings: Sendable>(
    name: String, version: String, call: ProcessCall,
    settings read: (inout SettingsReader) throws(SettingsError) -> Settings,
    services make: (Settings, ServiceRuntime) async throws -> [any Service]
) async -> Int32 {
    let program = CommandLine.arguments.first ?? name
    let restart = ProcessRestart(
        ProcessImage(arguments: [program] + call.arguments, environment: call.environment))
    let code = await runLife(
        name: name, version: version, call: call, restart: restart, settings: read,
        services: make)
    guard let image = restart.image else { return code }
    call.writeError("\(name): can't start again: \(call.execute(image))\n")
    return ExitCode.internalError.rawValue
}

private func runLife<Settings: Sendable>(
    name: String, version: String, call: ProcessCall, restart: ProcessRestart,
    settings read: (inout SettingsReader) throws(SettingsError) -> Settings,
    services make: (Settings, ServiceRuntime) async throws -> [any Service]
) async -> Int32 {
    do {
        var reader = try SettingsReader(
            service: name, version: version, arguments: call.arguments,
            environment: call.environment)
        let own = try read(&reader)
        let common = try RuntimeSettings(&reader)
        try reader.finish()
        OpenFiles.raiseLimit()
        // Until it is listened to: who tells all processes to read files ends none that loads.
        signal(SIGHUP, SIG_IGN)
        ignoreWriteSignals()
        let runtime = ServiceRuntime(name: name, settings: common, restart: restart)
        let services = try await make(own, runtime)
        runtime.logger.notice("Starting.", metadata: ["version": "\(version)"])
        try await run(services, runtime, call)
        runtime.logger.notice("Ended.")
        return ExitCode.success.rawValue
    } catch SettingsError.textRequested(let text) {
        call.writeOutput(text + "\n")
        return ExitCode.success.rawValue
    } catch let failure as any ServiceFailure {
        call.writeError("\(name): \(failure.description)\n")
        return failure.exitCode.rawValue
    } catch {
        call.writeError("\(name): \(error)\n")
        return ExitCode.internalError.rawValue
    }
}

extension ServiceRuntime {
    /// Swift-log and swift-metrics take their back ends once per process.
    private static let isBootstrapped = Atomic(false)

    package init(
        name: String, settings: RuntimeSettings,
        restart: ProcessRestart = ProcessRestart(ProcessImage(arguments: [], environment: [:]))
    ) {
        let metrics = MetricsRegistry()
        let make: @Sendable (String) -> any LogHandler = { label in
            ServiceLogHandler(
                label: label, level: settings.logLevel.level, format: settings.logFormat)
        }
        if !Self.isBootstrapped.exchange(true, ordering: .relaxed) {
            LoggingSystem.bootstrap(make)
            MetricsSystem.bootstrap(metrics)
        }
        metrics.observe("process_resident_memory_bytes", "Memory of the process that is in RAM.") {
            ResidentMemory.bytes().map(Double.init)
        }
        observeFiles(in: metrics)
        self.init(
            name: name, settings: settings, logger: Logger(label: name, factory: make),
            metrics: metrics, restart: restart, reload: ReloadSignal())
    }
}

private func observeFiles(in metrics: MetricsRegistry) {
    metrics.observe("process_open_files", "Files and sockets the process has open.") {
        OpenFiles.count.map(Double.init)
    }
    metrics.observe("process_open_files_limit", "Files and sockets it may have open.") {
        OpenFiles.limit.map(Double.init)
    }
    metrics.observe(
        "process_accept_pauses",
        "Times since the start that a listener accepted nobody, as too few files were free."
    ) { Double(OpenFiles.acceptPauses) }
}

/// Lets writes fail, rather than end the process, when nobody reads or a file may grow no more.
private func ignoreWriteSignals() {
    signal(SIGPIPE, SIG_IGN)
    signal(SIGXFSZ, SIG_IGN)
}

private func run(
    _ services: [any Service], _ runtime: ServiceRuntime, _ call: ProcessCall
) async throws {
    var configuration = ServiceGroupConfiguration(services: services, logger: runtime.logger)
    configuration.maximumGracefulShutdownDuration = runtime.settings.shutdownLimit
    let group = ServiceGroup(configuration: configuration)
    let signals = await UnixSignalsSequence(trapping: [.sigterm, .sigint, .sighup])
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { await watch(signals, group, runtime, call) }
        tasks.addTask {
            for await _ in runtime.restart.requests { await group.triggerGracefulShutdown() }
        }
        if runtime.settings.exitsWithParent {
            tasks.addTask { await watchParent(group, runtime, call) }
        }
        defer { tasks.cancelAll() }
        do {
            try await group.run()
        } catch is CancellationError {
            runtime.logger.warning("Running work was cut off at the shutdown limit.")
        }
    }
}

/// The first signal shuts down, the second one ends the process, and so does the limit.
private func watch(
    _ signals: UnixSignalsSequence, _ group: ServiceGroup, _ runtime: ServiceRuntime,
    _ call: ProcessCall
) async {
    await withDiscardingTaskGroup { tasks in
        var isShuttingDown = false
        for await signal in signals {
            if signal == .sighup {
                runtime.logger.notice("Reading files anew.", metadata: ["signal": "\(signal)"])
                runtime.reload.raise()
                continue
            }
            if isShuttingDown {
                runtime.logger.warning("A second signal came; ending at once.")
                call.exit(128 + (signal == .sigint ? SIGINT : SIGTERM))
                continue
            }
            isShuttingDown = true
            runtime.restart.forbid()
            runtime.logger.notice("Shutting down.", metadata: ["signal": "\(signal)"])
            await group.triggerGracefulShutdown()
            tasks.addTask {
                let limit = runtime.settings.shutdownLimit + RunLimits.cancellation
                guard (try? await Task.sleep(for: limit)) != nil else { return }
                runtime.logger.error("The shutdown took too long; ending at once.")
                call.exit(ExitCode.internalError.rawValue)
            }
        }
        tasks.cancelAll()
    }
}

private func watchParent(
    _ group: ServiceGroup, _ runtime: ServiceRuntime, _ call: ProcessCall
) async {
    let parent = call.parentProcess()
    while (try? await Task.sleep(for: RunLimits.parentPoll)) != nil {
        guard call.parentProcess() != parent else { continue }
        runtime.logger.notice("The parent process is gone; shutting down.")
        runtime.restart.forbid()
        await group.triggerGracefulShutdown()
        return
    }
}
