import ArgumentParser
import Foundation
import HTTPClient
import LocalCluster
import Roles
import ServiceRuntime
import ServiceStart
import ServingTypes

/// Starts a whole cluster on this host and keeps it running.
struct UpCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up",
        abstract: "Start all five services on loopback, ask one question, keep serving.",
        discussion: """
            A service that ends is started again; up ends if that happens more than \
            \(supervision.crashes - 1) times within a minute.
            """)

    @Option(help: "The GGUF file to serve.")
    var model: String

    @Option(help: "Number of prefill-workers.")
    var prefillWorkers = 1

    @Option(help: "Number of decode-workers.")
    var decodeWorkers = 1

    @Option(help: "Number of schedulers: one leads, the others stand by.")
    var schedulers = 1

    @Option(help: "YAML file with the cluster's scenarios.")
    var clusterFile: String?

    @Option(help: "Address of the gateway's HTTP interface.")
    var http = "127.0.0.1:8080"

    @Option(help: "Folder for certificates, logs and addresses.")
    var folder = "run"

    @Option(help: "Computing threads of each worker; default: the cores shared out among them.")
    var threads: Int?

    @Option(help: "Whether workers measure their speed first: never, once or always.")
    var calibrate = "once"

    @Option(help: "The question to ask once it serves.")
    var question = "Explain generators."

    @Flag(help: "End after the first answer.")
    var once = false

    /// Five restarts of a process within a minute, each at once.
    private static let supervision: SupervisionLimits = {
        var limits = SupervisionLimits()
        limits.firstPause = .zero
        limits.maximumProcesses = .max
        limits.crashes = 6
        limits.crashWindow = .seconds(60)
        return limits
    }()

    func validate() throws {
        guard ["never", "once", "always"].contains(calibrate) else {
            throw ValidationError("--calibrate is never, once or always.")
        }
    }

    func run() async throws {
        guard FileManager.default.isReadableFile(atPath: model) else {
            throw ValidationError("The model file \(model) can't be read; give a GGUF file.")
        }
        let cluster = LocalCluster(settings: settings)
        let outcome = await withStopSignals {
            try await start(cluster)
            if !once { try await keepServing(cluster) }
        }
        write("stopping")
        await cluster.stop()
        if case .failed(let error) = outcome { throw error }
    }

    private var settings: LocalCluster.Settings {
        let executable = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        let folder = URL(fileURLWithPath: folder)
        var settings = LocalCluster.Settings(
            executables: executable.deletingLastPathComponent(), folder: folder,
            modelPath: URL(fileURLWithPath: model).path)
        settings.httpListen = http
        settings.prefillWorkers = prefillWorkers
        settings.decodeWorkers = decodeWorkers
        settings.schedulers = max(1, schedulers)
        settings.calibrate = calibrate
        settings.clusterFile = clusterFile.map { URL(fileURLWithPath: $0).path }
        let workers = max(1, prefillWorkers + decodeWorkers)
        let share = max(1, ProcessInfo.processInfo.activeProcessorCount / workers)
        let threads = ["--threads", "\(self.threads ?? share)"]
        settings.arguments = [.prefillWorker: threads, .decodeWorker: threads]
        return settings
    }

    private func start(_ cluster: LocalCluster) async throws {
        write(
            "starting \(max(1, schedulers)) scheduler(s), \(prefillWorkers) prefill-worker(s), "
                + "\(decodeWorkers) decode-worker(s), health-agent and gateway; "
                + "logs are in \(folder)/")
        try await cluster.start()
        try await cluster.waitUntilHealthy { address in
            let answer = try? await HTTPCall("GET", address, "/health").collect()
            return answer?.head.status == 200
        }
        guard let address = cluster.httpAddress else { return }
        write("serving on http://\(address)\n\n> \(question)")
        var session = ChatSession(
            address: address, temperature: 0.6, repeatPenalty: 1.15, maxTokens: 128)
        try await session.say(question)
        write(
            """

            Try it:
              curl -N http://\(address)/v1/chat/completions -H 'Content-Type: application/json' \\
                -d '{"messages":[{"role":"user","content":"\(question)"}],"stream":true,\
            "temperature":0.6,"repeat_penalty":1.15}'
            Ctrl-C stops everything.
            """)
    }

    /// Starts processes again that end; returns only by cancellation, or when one keeps ending.
    private func keepServing(_ cluster: LocalCluster) async throws {
        var machine = SupervisionMachine(
            names: cluster.all.map(\.name), limits: Self.supervision)
        _ = machine.begin(now: ProcessClock.now())
        while true {
            try await Task.sleep(for: .milliseconds(500))
            let now = ProcessClock.now()
            for process in cluster.all where !process.isRunning {
                guard let index = machine.index(of: process.name) else { continue }
                let reason = LocalClusterError.ended(process.exitStatus ?? 0)
                let actions = machine.ended(index, reason: reason, now: now)
                try await follow(actions + machine.tick(now: now), process, cluster)
            }
        }
    }

    private func follow(
        _ actions: [SupervisionAction], _ process: ManagedProcess, _ cluster: LocalCluster
    ) async throws {
        for action in actions {
            switch action {
            case .ended(_, let reason, _):
                write(
                    "\(process.name) \(reason); it is started again, "
                        + "its log is \(process.logFile.path)")
            case .start: try await cluster.restart(process)
            case .gaveUp:
                throw LocalClusterError.keepsEnding(
                    name: process.name, status: process.exitStatus ?? 0,
                    restarts: Self.supervision.crashes - 1,
                    seconds: Int(Self.supervision.crashWindow.seconds), log: process.logTail())
            case .stop, .kill, .done: break
            }
        }
    }
}
