import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Workers that get no more memory, by real limits.
@Suite(.serialized) struct MemoryLossTests {
    /// Whether this process may make control groups that bound memory: the folder for one.
    private static let group: URL? = {
        let number = UInt32.random(in: 0 ... .max)
        for (root, file) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max"),
        ] {
            let folder = URL(fileURLWithPath: root).appending(path: "pdserve-test-\(number)")
            let manager = FileManager.default
            guard
                (try? manager.createDirectory(at: folder, withIntermediateDirectories: false))
                    != nil
            else { continue }
            if manager.isWritableFile(atPath: folder.appending(path: file).path) { return folder }
            unsafe rmdir(folder.path)
        }
        return nil
    }()

    /// A prompt has about 40 MB of KV, of which nothing is kept.
    private static let worker = [
        "--simulated-kv-bytes", "131072", "--local-folder", "none", "--kept-sequences", "0",
        "--kv-compression", "off",
    ]
    private static let prompt = String(repeating: "long ", count: 60)
    private static let rules = """
        scenarios:
          - name: default
            ratio: as-started
            deflection: false

        """

    private func body(_ number: Int) -> String {
        #"{"prompt":"\#(number) \#(Self.prompt)","max_tokens":8,"ignore_eos":true,"seed":7,"#
            + #""temperature":1}"#
    }

    /// A cluster with a decode-worker of few places, and another one that an agent keeps running.
    private func run(
        _ test: (TestCluster, _ keeper: ManagedProcess, _ kept: () -> Int32?) async throws -> Void
    ) async throws {
        try await TestCluster.run(
            engine: "simulated",
            arguments: [
                .prefillWorker: Self.worker,
                .decodeWorker: Self.worker + ["--decode-sequences", "1"],
            ],
            settings: { settings in
                let file = settings.folder.appending(path: "rules.yaml")
                try? FileManager.default.createDirectory(
                    at: settings.folder, withIntermediateDirectories: true)
                try? Data(Self.rules.utf8).write(to: file)
                settings.clusterFile = file.path
            }
        ) { cluster in
            let folder = cluster.cluster.settings.folder
            let address = try #require(cluster.cluster.schedulerAddress)
            let mark = folder.appending(path: "kept.addresses").path
            let all =
                [
                    "--listen", "127.0.0.1:0", "--bulk-listen", "127.0.0.1:0", "--admin-listen",
                    "127.0.0.1:0", "--scheduler", "\(address)", "--cluster", "local",
                    "--certificates", folder.appending(path: "certificates").path, "--engine",
                    "simulated", "--announce", mark,
                ] + Self.worker
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
                ["--scheduler", "\(address)", "--supervise", file.path])
            let scheduler = try #require(cluster.cluster.processes(of: .scheduler).first)
            try await awaited("two decode-workers serve") {
                try await cluster.metric(
                    #"scheduler_instances{role="decode",state="serving"}"#, of: scheduler) == 2
            }
            try await test(cluster, keeper) { Self.process(with: mark) }
        }
    }

    private static func process(with text: String) -> Int32? {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap { Int32($0) }.first { number in
            let line = try? String(contentsOfFile: "/proc/\(number)/cmdline", encoding: .utf8)
            return line?.contains(text) == true && line?.contains("decode-worker") == true
        }
    }

    /// Sends more long prompts than the first worker has places for.
    private func answers(_ cluster: TestCluster) async throws -> [Int: String] {
        try await withThrowingTaskGroup(of: (Int, String).self) { group in
            for number in 0..<2 {
                group.addTask {
                    let (status, json) = try await cluster.post("/v1/completions", body(number))
                    #expect(status == 200, "\(json)")
                    #expect(json["usage"]["completion_tokens"].int == 8)
                    return (number, json["choices"][0]["text"].string ?? "")
                }
            }
            return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
        }
    }

    @Test(.enabled(if: group != nil, "no control group for memory can be made here"))
    func `a worker that the kernel kills for memory costs no token, and its end is explained`()
        async throws
    {
        let group = try #require(Self.group)
        defer { unsafe rmdir(group.path) }
        try await run { cluster, keeper, kept in
            let expected = try await answers(cluster)
            let victim = try #require(kept())
            func write(_ text: String, _ file: String) throws {
                try Data(text.utf8).write(to: group.appending(path: file))
            }
            let isOld = FileManager.default.fileExists(
                atPath: group.appending(path: "memory.limit_in_bytes").path)
            try write("\(6 << 20)", isOld ? "memory.limit_in_bytes" : "memory.max")
            try write("\(victim)", "cgroup.procs")
            // The agent looks every two seconds where its processes are.
            try await Task.sleep(for: .milliseconds(2500))
            var rounds = 0
            while kept() == victim, rounds < 20 {
                #expect(try await answers(cluster) == expected)
                rounds += 1
            }
            try await awaited("the agent tells why") {
                keeper.logTail(lines: 1000).contains("killed for memory, by the limit")
            }
            #expect(
                try await cluster.metric("health_out_of_memory_total", of: keeper) == 1)
            #expect(try await answers(cluster) == expected)
        }
    }

    @Test(
        .enabled(
            if: ProcessInfo.processInfo.environment["LIMITS"] == "long", "LIMITS=long runs it"))
    func `a worker that gets no more memory costs no token, and says why`()
        async throws
    {
        try await run { cluster, keeper, kept in
            let victim = try #require(kept())
            let status = try String(contentsOfFile: "/proc/\(victim)/status", encoding: .utf8)
            let size = status.split(separator: "\n").first { $0.hasPrefix("VmSize:") }
            let kibibytes = try #require(
                size.flatMap { Int($0.filter(\.isNumber)) })
            let limit = (kibibytes << 10) + (16 << 20)
            try runProgram("/usr/bin/prlimit", "--pid", "\(victim)", "--as=\(limit):\(limit)")
            let first = try await answers(cluster)
            #expect(try await answers(cluster) == first)
            let log = cluster.cluster.settings.folder.appending(path: "kept.log")
            try await awaited("it says what it lacks, or its agent does") {
                LocalCluster.tail(of: log, lines: 1000).contains("no thread can be started")
                    || keeper.logTail(lines: 1000).contains("more memory")
            }
        }
    }
}
