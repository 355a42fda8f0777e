import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Real workers that die, hang or loop, and who notices.
@Suite(.serialized) struct SupervisionTests {
    private static let completion = #"{"prompt":"Lists are","max_tokens":4}"#

    /// A cluster whose second decode-worker a health-agent keeps running.
    private func run(
        worker arguments: [String] = [], agent: [String] = [],
        _ body: (TestCluster, ManagedProcess, URL) async throws -> Void
    ) async throws {
        try await TestCluster.run(engine: "simulated") { cluster in
            let folder = cluster.cluster.settings.folder
            let address = try #require(cluster.cluster.schedulerAddress)
            let all =
                [
                    "--listen", "127.0.0.1:0", "--bulk-listen", "127.0.0.1:0", "--admin-listen",
                    "127.0.0.1:0", "--scheduler", "\(address)", "--cluster", "local",
                    "--certificates", folder.appending(path: "certificates").path, "--engine",
                    "simulated", "--calibrate", "never", "--announce",
                    folder.appending(path: "kept.addresses").path,
                ] + arguments
            let list = all.map { "\"\($0)\"" }.joined(separator: ", ")
            let file = folder.appending(path: "supervise.yaml")
            let text = """
                workers:
                  - name: kept
                    command: \(TestCluster.executables.appending(path: "decode-worker").path)
                    arguments: [\(list)]
                    log: \(folder.appending(path: "kept.log").path)
                """
            try Data(text.utf8).write(to: file)
            let keeper = try await cluster.cluster.launch(
                .healthAgent, name: "keeper",
                ["--scheduler", "\(address)", "--supervise", file.path] + agent)
            try await body(cluster, keeper, folder)
        }
    }

    /// Process numbers of the running programs whose command line has this text.
    private func processes(with text: String) -> [Int32] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap { Int32($0) }.filter { number in
            let line = try? String(contentsOfFile: "/proc/\(number)/cmdline", encoding: .utf8)
            return line?.contains(text) == true && line?.contains("decode-worker") == true
        }
    }

    private func serving(_ cluster: TestCluster, _ count: Double) async throws {
        let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
        try await wait("\(count) decode-workers serve") {
            try await cluster.metric(
                #"scheduler_instances{role="decode",state="serving"}"#, of: scheduler) == count
        }
    }

    private func wait(
        _ what: String, within deadline: Duration = .seconds(60),
        _ condition: () async throws -> Bool
    ) async throws {
        let end = ContinuousClock.now + deadline
        while try await !condition() {
            guard ContinuousClock.now < end else { throw TestFailure("not reached: \(what)") }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    @Test func `a killed worker is started again and serves`() async throws {
        try await run { cluster, keeper, folder in
            try await serving(cluster, 2)
            let mark = folder.appending(path: "kept.addresses").path
            let first = try #require(processes(with: mark).first)
            kill(first, SIGKILL)
            try await wait("another process") {
                processes(with: mark).contains { $0 != first }
            }
            try await serving(cluster, 2)
            #expect(try await cluster.metric("health_restarts_total", of: keeper) == 1)
            // It alone can decode now.
            for process in cluster.cluster.processes(of: .decodeWorker) {
                process.signal(SIGTERM)
                #expect(await process.waitUntilExit(within: .seconds(20)))
            }
            #expect(try await cluster.post("/v1/completions", Self.completion).status == 200)
            keeper.signal(SIGTERM)
            #expect(await keeper.waitUntilExit(within: .seconds(40)))
            #expect(keeper.exitStatus == 0)
            #expect(processes(with: mark) == [], "it ends with its agent")
        }
    }

    @Test func `a stopped worker is excluded, killed, and started again`() async throws {
        try await run(agent: ["--kill-after", "10s"]) { cluster, keeper, folder in
            try await serving(cluster, 2)
            let mark = folder.appending(path: "kept.addresses").path
            let first = try #require(processes(with: mark).first)
            kill(first, SIGSTOP)
            try await serving(cluster, 1)
            try await wait("another process") {
                let now = processes(with: mark)
                return !now.contains(first) && !now.isEmpty
            }
            try await serving(cluster, 2)
            #expect(try await cluster.metric("health_kills_total", of: keeper) == 1)
            #expect(
                keeper.logTail(lines: 200).contains("a worker is killed"))
        }
    }

    @Test func `a crash loop is seen and ends the trying`() async throws {
        try await run(worker: ["--no-such-setting", "1"]) { cluster, keeper, folder in
            try await wait("it is given up") {
                try await cluster.metric("health_crash_loops_total", of: keeper) == 1
            }
            let log = try String(
                contentsOf: folder.appending(path: "kept.log"), encoding: .utf8)
            #expect(log.components(separatedBy: "no-such-setting").count == 6, "five lives")
            // The rest of the cluster serves.
            #expect(try await cluster.post("/v1/completions", Self.completion).status == 200)
        }
    }

    @Test func `a worker whose engine hangs ends itself with its code`() async throws {
        // A prompt of so many tokens takes far longer than the limit.
        try await TestCluster.run(
            prefill: 0, decode: 0, engine: "simulated",
            waits: false
        ) { cluster in
            let slow = ["--simulated-speed", "0.0002", "--hang-limit", "1s"]
            let worker = try await cluster.cluster.startWorker(
                .decodeWorker, number: 1, arguments: slow)
            // The health-agent's canary is the prompt.
            #expect(await worker.waitUntilExit(within: .seconds(90)))
            #expect(worker.exitStatus == 75)
            #expect(worker.logTail(lines: 100).contains("the process hangs and ends itself"))
            cluster.cluster.forget(worker)
        }
    }

    @Test func `a worker is told to exit by its health-agent when its engine hangs`() async throws {
        let agent = ["--step-deadline", "1s", "--canary-interval", "1s"]
        try await TestCluster.run(
            prefill: 0, decode: 0, engine: "simulated",
            arguments: [.healthAgent: agent], waits: false
        ) { cluster in
            let worker = try await cluster.cluster.startWorker(
                .decodeWorker, number: 1, arguments: ["--simulated-speed", "0.0002"])
            #expect(await worker.waitUntilExit(within: .seconds(90)))
            #expect(worker.exitStatus == 75)
            #expect(worker.logTail(lines: 100).contains("told to end at once"))
            cluster.cluster.forget(worker)
        }
    }
}
