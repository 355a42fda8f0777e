import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Roles, numbers and reasons as a person at the command line asks for them.
@Suite(.serialized) struct RoleChangeTests {
    @Test func `a worker changes its role on request and the cluster serves on`() async throws {
        try await TestCluster.run(prefill: 2, decode: 2, engine: "simulated") { cluster in
            try await cluster.waitForOutput(of: "status") {
                $0.contains("default/1") && $0.contains("2 prefill, 2 decode")
            }
            try await ask(cluster)
            let reply = try await cluster.pdserve("assign", "decode-worker-2", "prefill")
            #expect(reply.status == 0, "\(reply.output)")
            #expect(reply.output.contains("decode-worker-2 becomes prefill"), "\(reply.output)")
            try await cluster.waitForOutput(of: "status") {
                $0.contains("3 prefill, 1 decode")
            }
            let why = try await cluster.pdserve("status", "--why")
            #expect(why.output.contains("decode-worker-2 is prefill now"), "\(why.output)")
            #expect(why.output.contains("a person asked for it"), "\(why.output)")
            for _ in 0..<6 { try await ask(cluster) }

            let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
            let series = #"scheduler_instances{role="prefill",state="serving"}"#
            try await cluster.wait(for: series, of: scheduler, toBe: 3)
            try await cluster.wait(
                for: #"scheduler_role_change_seconds_count{role="prefill"}"#, of: scheduler, toBe: 1
            )
            let back = try await cluster.pdserve("assign", "decode-worker-2", "decode")
            #expect(back.status == 0, "\(back.output)")
            try await cluster.waitForOutput(of: "status") { $0.contains("2 prefill, 2 decode") }
            try await ask(cluster)
        }
    }

    @Test func `what is refused ends with a reason and failure, what is wanted can be read`()
        async throws
    {
        try await TestCluster.run(engine: "simulated") { cluster in
            let last = try await cluster.pdserve("assign", "decode-worker-1", "prefill")
            #expect(last.status == 1)
            #expect(last.output.contains("must stay"), "\(last.output)")
            let upgrade = try await cluster.pdserve("upgrade", "--pause")
            #expect(upgrade.status == 1)
            #expect(upgrade.output.contains("under way"), "\(upgrade.output)")
            let scale = try await cluster.pdserve("scale", "default", "--decode", "3")
            #expect(scale.status == 0, "\(scale.output)")
            let why = try await cluster.pdserve("status", "--why")
            #expect(why.output.contains("other numbers: 3 decode"), "\(why.output)")
            try await cluster.waitForOutput(of: "wanted") { output in
                output.split(separator: "\n").contains { line in
                    line.split(separator: " ") == ["default", "decode", "1", "3"]
                }
            }
            let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
            let address = try #require(scheduler.announcement.admin)
            let (head, body) = try await HTTPCall("GET", address, "/wanted").collect()
            #expect(head.status == 200)
            let rows = try JSONValue(body)["instances"].array
            let decode = rows.first { $0["role"].string == "decode" }
            #expect(decode?["wanted"].int == 3)
            #expect(decode?["present"].int == 1)
            #expect(decode?["scenario"].string == "default")
        }
    }

    @Test func `a wrong cluster file is told with all its problems`() async throws {
        let file = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-rules-\(UInt32.random(in: 0 ... .max)).yaml")
        defer { try? FileManager.default.removeItem(at: file) }
        let text = "scenarios:\n  - name: chat\n    priority: 900\n    placment: early\n"
        try Data(text.utf8).write(to: file)
        do {
            try await TestCluster.run(
                engine: "simulated", arguments: [.scheduler: ["--cluster-file", file.path]]
            ) { _ in Issue.record("it started") }
        } catch let error as LocalClusterError {
            guard case .exitedEarly(_, let status, let log) = error else { throw error }
            #expect(status == 64)
            #expect(log.contains("priority") && log.contains("placment"), "\(log)")
        }
    }

    private func ask(_ cluster: TestCluster) async throws {
        let answer = try await cluster.post(
            "/v1/completions", #"{"prompt":"Hello there","max_tokens":4}"#)
        #expect(answer.status == 200, "\(answer.json)")
    }
}

extension TestCluster {
    /// Runs the people's tool against this cluster.
    func pdserve(
        _ arguments: String..., within limit: Duration = .seconds(20)
    ) async throws -> (status: Int32, output: String) {
        let scheduler = cluster.schedulerAddresses.map(\.description).joined(separator: ",")
        return try await tool(
            arguments + [
                "--scheduler", scheduler, "--cluster", cluster.settings.cluster, "--certificates",
                cluster.settings.folder.appending(path: "certificates").path,
            ], within: limit)
    }

    /// Runs the people's tool.
    func tool(
        _ arguments: [String], within limit: Duration = .seconds(20)
    ) async throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = Self.executables.appending(path: "pdserve")
        process.arguments = arguments
        let output = cluster.settings.folder.appending(
            path: "pdserve-\(UInt32.random(in: 0 ... .max)).txt")
        _ = FileManager.default.createFile(atPath: output.path, contents: nil)
        let handle = try FileHandle(forWritingTo: output)
        process.standardOutput = handle
        process.standardError = handle
        try process.run()
        let end = ContinuousClock.now + limit
        while process.isRunning, ContinuousClock.now < end {
            try await Task.sleep(for: .milliseconds(10))
        }
        guard !process.isRunning else {
            process.terminate()
            throw TestFailure("pdserve \(arguments) did not end")
        }
        return (process.terminationStatus, try String(contentsOf: output, encoding: .utf8))
    }

    /// Repeats a command of the tool until its output is right.
    func waitForOutput(
        of command: String, within deadline: Duration = .seconds(15),
        _ isRight: (String) -> Bool
    ) async throws {
        let end = ContinuousClock.now + deadline
        while true {
            let result = try await pdserve(command)
            if result.status == 0, isRight(result.output) { return }
            guard ContinuousClock.now < end else {
                throw TestFailure("pdserve \(command) after \(deadline):\n\(result.output)")
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }
}
