import Foundation
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// What operators get wrong: each is one clear sentence and an exit code.
@Suite(.serialized) struct StartTests {
    private func run(
        _ executable: String, _ arguments: [String], within limit: Duration = .seconds(20)
    ) async throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = TestCluster.executables.appending(path: executable)
        process.arguments = arguments
        let output = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-start-\(UInt32.random(in: 0 ... .max))")
        _ = FileManager.default.createFile(atPath: output.path, contents: nil)
        defer { try? FileManager.default.removeItem(at: output) }
        let handle = try FileHandle(forWritingTo: output)
        process.standardOutput = handle
        process.standardError = handle
        try process.run()
        let end = ContinuousClock.now + limit
        while process.isRunning, ContinuousClock.now < end {
            try await Task.sleep(for: .milliseconds(10))
        }
        if process.isRunning {
            process.terminate()
            throw TestFailure("\(executable) did not end")
        }
        return (process.terminationStatus, try String(contentsOf: output, encoding: .utf8))
    }

    private func withFolder(_ body: (URL) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-start-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try await body(folder)
    }

    private func certificates(
        in folder: URL, cluster: String = "pdserve"
    ) async throws -> [String] {
        let path = folder.appending(path: "certificates").path
        let made = try await run(
            "pdserve", ["certificates", "--folder", path, "--cluster", cluster])
        #expect(made.status == 0, "\(made.output)")
        return ["--certificates", path]
    }

    @Test func `a missing or damaged model is named`() async throws {
        try await withFolder { folder in
            let common = try await certificates(in: folder)
            let listen = [
                "--listen", "127.0.0.1:0", "--bulk-listen", "127.0.0.1:0", "--admin-listen",
                "127.0.0.1:0",
            ]
            let whole = try Data(contentsOf: URL(fileURLWithPath: TestCluster.model))
            let damaged = folder.appending(path: "damaged.gguf")
            for (name, content) in [
                ("cut", whole.prefix(100_000)), ("garbage", Data(repeating: 7, count: 5000)),
                ("empty", Data()),
            ] {
                try content.write(to: damaged)
                for executable in ["prefill-worker", "decode-worker", "gateway"] {
                    let result = try await run(
                        executable,
                        common + ["--model", damaged.path]
                            + (executable == "gateway"
                                ? ["--http-listen", "127.0.0.1:0"] : listen))
                    // The gateway reads only the vocabulary, which a cut file still may hold.
                    if executable == "gateway", name == "cut" { continue }
                    #expect(result.status == 69, "\(name) \(executable): \(result.output)")
                    #expect(result.output.contains("damaged.gguf"), "\(result.output)")
                }
            }
            let missing = try await run(
                "decode-worker", common + ["--model", "/nowhere.gguf"] + listen)
            #expect(missing.status == 69)
            #expect(missing.output.contains("/nowhere.gguf"), "\(missing.output)")
        }
    }

    @Test func `wrong settings and missing certificates are named`() async throws {
        let unknown = try await run("gateway", ["--prot", "1"])
        #expect(unknown.status == 64)
        #expect(unknown.output.contains("--prot"))
        let range = try await run("decode-worker", ["--threads", "0"])
        #expect(range.status == 64)
        #expect(range.output.contains("threads"))
        let help = try await run("scheduler", ["--help"])
        #expect(help.status == 0)
        #expect(help.output.contains("--listen"))
        let none = try await run("scheduler", ["--certificates", "/nowhere"])
        #expect(none.status == 69, "\(none.output)")
        #expect(none.output.contains("/nowhere"))
    }

    @Test func `a taken port is named`() async throws {
        try await TestCluster.run { cluster in
            let folder = cluster.cluster.settings.folder.appending(path: "certificates").path
            let common = ["--certificates", folder, "--cluster", cluster.cluster.settings.cluster]
            let taken = try #require(cluster.cluster.schedulerAddress).description
            let scheduler = try await run(
                "scheduler", common + ["--listen", taken, "--admin-listen", "127.0.0.1:0"])
            #expect(scheduler.status == 69, "\(scheduler.output)")
            #expect(scheduler.output.contains(taken), "\(scheduler.output)")
            let http = try cluster.http.description
            let gateway = try await run(
                "gateway",
                common + [
                    "--http-listen", http, "--model", TestCluster.model, "--scheduler", taken,
                ]
            )
            #expect(gateway.status == 69, "\(gateway.output)")
            #expect(gateway.output.contains(http), "\(gateway.output)")
        }
    }

    @Test func `strangers are refused with a reason and the cluster serves on`() async throws {
        try await withFolder { folder in
            let foreign = try await certificates(in: folder, cluster: "local")
            try await TestCluster.run { cluster in
                let address = try #require(cluster.cluster.schedulerAddress).description
                let status = try await run(
                    "pdserve",
                    ["status", "--scheduler", address, "--cluster", "local"] + foreign)
                #expect(status.status != 0)
                #expect(status.output.contains("certificate"), "\(status.output)")
                let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
                let end = ContinuousClock.now + .seconds(5)
                while !scheduler.logTail().contains("certificate"), ContinuousClock.now < end {
                    try await Task.sleep(for: .milliseconds(20))
                }
                #expect(scheduler.logTail().contains("certificate"), "\(scheduler.logTail())")
                let own = cluster.cluster.settings.folder.appending(path: "certificates").path
                let good = try await run(
                    "pdserve",
                    [
                        "status", "--scheduler", address, "--cluster", "local", "--certificates",
                        own,
                    ])
                #expect(good.status == 0, "\(good.output)")
                #expect(good.output.contains("decode-worker-1"), "\(good.output)")
                let answer = try await cluster.post(
                    "/v1/completions", #"{"prompt":"a","max_tokens":1}"#)
                #expect(answer.status == 200)
            }
        }
    }
}
