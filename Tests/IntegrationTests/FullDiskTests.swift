import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Real processes that write to a disk without room.
@Suite(.serialized) struct FullDiskTests {
    /// A file system of 256 KiB in memory; nil where none may be mounted.
    private static let disk: URL? = {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-disk-\(UInt32.random(in: 0 ... .max))")
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try runProgram("/bin/mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder.path)
            return folder
        } catch {
            try? FileManager.default.removeItem(at: folder)
            return nil
        }
    }()

    private static let completion = #"{"prompt":"Lists are","max_tokens":4}"#

    /// Takes all room that is left.
    private func fill(_ disk: URL) {
        let file = disk.appending(path: "filler").path
        _ = FileManager.default.createFile(atPath: file, contents: nil)
        guard let handle = FileHandle(forWritingAtPath: file) else { return }
        while (try? handle.write(contentsOf: Data(count: 4096))) != nil {}
        try? handle.close()
    }

    @Test(.enabled(if: disk != nil, "no file system can be mounted here"))
    func `logs, views and addresses on a full disk stop nobody, and come back with the room`()
        async throws
    {
        let disk = try #require(Self.disk)
        defer {
            try? runProgram("/bin/umount", "-l", disk.path)
            try? FileManager.default.removeItem(at: disk)
        }
        let output = ["/bin/sh", "-c", #"file=$1; shift; exec "$@" >>"$file" 2>&1"#, "sh"]
        try await TestCluster.run(
            engine: "simulated",
            settings: { settings in
                for name in ["gateway", "decode-worker-1"] {
                    settings.commandsByName[name] =
                        output + [disk.appending(path: "\(name).out").path]
                }
                settings.arguments[.gateway, default: []] += [
                    "--state-folder", disk.appending(path: "state").path, "--log-level", "debug",
                ]
            }
        ) { cluster in
            let gateway = try #require(cluster.cluster.processes(of: .gateway).first)
            let decode = try #require(cluster.cluster.processes(of: .decodeWorker).first)
            let view = disk.appending(path: "state/local.view")
            try await awaited("the view is kept") {
                FileManager.default.fileExists(atPath: view.path)
            }
            let kept = try Data(contentsOf: view)
            fill(disk)
            // The view changes and can't be written; whoever logs loses lines.
            try await cluster.cluster.startWorker(.decodeWorker, number: 2)
            try await awaited("the gateway sees the new worker") {
                try await cluster.metric("gateway_view_failures_total", of: gateway) ?? 0 > 0
            }
            #expect(try Data(contentsOf: view) == kept, "the old view is whole")
            let left = try FileManager.default.contentsOfDirectory(
                atPath: disk.appending(path: "state").path)
            #expect(left == ["local.view"], "no half of a file is left: \(left)")
            for _ in 0..<5 {
                #expect(try await cluster.post("/v1/completions", Self.completion).status == 200)
            }
            #expect(gateway.isRunning && decode.isRunning)
            let addresses = disk.appending(path: "late.addresses")
            let agent = try await startWithoutRoom(addresses, cluster)
            defer { agent.terminate() }
            try FileManager.default.removeItem(at: disk.appending(path: "filler"))
            try await awaited("the addresses are written") {
                Announcement(file: addresses)?.admin != nil
            }
            try await awaited("the view is kept again") { try Data(contentsOf: view) != kept }
        }
    }

    /// A service whose addresses have no room serves, and writes them later.
    private func startWithoutRoom(
        _ addresses: URL, _ cluster: TestCluster
    ) async throws -> Process {
        let agent = Process()
        agent.executableURL = TestCluster.executables.appending(path: "health-agent")
        agent.arguments = [
            "--name", "late", "--cluster", "local", "--certificates",
            cluster.cluster.settings.folder.appending(path: "certificates").path,
            "--scheduler", "\(try #require(cluster.cluster.schedulerAddress))",
            "--admin-listen", "127.0.0.1:0", "--announce", addresses.path,
            "--exit-with-parent", "true",
        ]
        let log = cluster.cluster.settings.folder.appending(path: "late.log")
        _ = FileManager.default.createFile(atPath: log.path, contents: nil)
        agent.standardError = try FileHandle(forWritingTo: log)
        try agent.run()
        try await awaited("it says so") {
            LocalCluster.tail(of: log, lines: 100).contains("the disk is full")
        }
        #expect(agent.isRunning)
        return agent
    }

    @Test func `a supervised worker whose log can't be opened runs all the same`() async throws {
        try await TestCluster.run(engine: "simulated", arguments: [:]) { cluster in
            let folder = cluster.cluster.settings.folder
            let address = try #require(cluster.cluster.schedulerAddress)
            let file = folder.appending(path: "supervise.yaml")
            let text = """
                workers:
                  - name: kept
                    command: \(TestCluster.executables.appending(path: "decode-worker").path)
                    arguments: ["--listen", "127.0.0.1:0", "--bulk-listen", "127.0.0.1:0",
                      "--admin-listen", "127.0.0.1:0", "--scheduler", "\(address)", "--cluster",
                      "local", "--certificates", "\(folder.appending(path: "certificates").path)",
                      "--engine", "simulated"]
                    log: /proc/no-such-folder/kept.log
                """
            try Data(text.utf8).write(to: file)
            let keeper = try await cluster.cluster.launch(
                .healthAgent, name: "keeper",
                ["--scheduler", "\(address)", "--supervise", file.path])
            let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
            try await awaited("two decode-workers serve") {
                try await cluster.metric(
                    #"scheduler_instances{role="decode",state="serving"}"#, of: scheduler) == 2
            }
            #expect(keeper.logTail(lines: 100).contains("the log of a worker can't be opened"))
        }
    }
}
