import Foundation
import HTTPClient
import LocalCluster
import ServingTypes
import Testing

/// `pdserve up` as people start it.
@Suite(.serialized) struct UpTests {
    /// A program whose output goes to a file.
    private struct Running {
        let process = Process()
        private let file: URL

        init(_ arguments: [String], in folder: URL, _ name: String) throws {
            file = folder.appending(path: "\(name).txt")
            _ = FileManager.default.createFile(atPath: file.path, contents: nil)
            let handle = try FileHandle(forWritingTo: file)
            defer { try? handle.close() }
            process.executableURL = TestCluster.executables.appending(path: "pdserve")
            process.arguments = arguments
            process.standardInput = FileHandle.nullDevice
            process.standardOutput = handle
            process.standardError = handle
            try process.run()
        }

        var output: String { (try? String(contentsOf: file, encoding: .utf8)) ?? "" }

        func wait(
            _ what: String, within deadline: Duration = .seconds(120),
            _ isTrue: (String) -> Bool
        ) async throws {
            let end = ContinuousClock.now + deadline
            while !isTrue(output) {
                try #require(process.isRunning, "it ended before \(what): \(output)")
                try #require(ContinuousClock.now < end, "not reached: \(what): \(output)")
                try await Task.sleep(for: .milliseconds(20))
            }
        }

        func end(_ signal: Int32) async throws {
            kill(process.processIdentifier, signal)
            let end = ContinuousClock.now + .seconds(60)
            while process.isRunning {
                try #require(ContinuousClock.now < end, "it does not end: \(output)")
                try await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    /// Command lines of the running programs that name this folder, by process number.
    private func processes(of folder: URL) -> [Int32: [String]] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        var found: [Int32: [String]] = [:]
        for number in names.compactMap({ Int32($0) }) {
            let line = try? String(contentsOfFile: "/proc/\(number)/cmdline", encoding: .utf8)
            let words = line?.split(separator: "\0").map(String.init) ?? []
            guard words.contains(where: { $0.hasPrefix(folder.path) }),
                let program = words.first, !program.hasSuffix("/pdserve")
            else { continue }
            found[number] = words
        }
        return found
    }

    private func value(of name: String, in words: [String]) -> String? {
        words.firstIndex(of: "--\(name)").flatMap { $0 + 1 < words.count ? words[$0 + 1] : nil }
    }

    /// Starts `up` in a folder, which is removed in the end, and waits until it serves.
    private func withUp(
        _ options: [String] = [], _ body: (Running, _ folder: URL, _ run: URL) async throws -> Void
    ) async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-up-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let run = folder.appending(path: "run")
        let up = try Running(
            [
                "up", "--model", TestCluster.model, "--http", "127.0.0.1:0", "--folder", run.path,
                "--threads", "1", "--question", "Hello",
            ] + options, in: folder, "up")
        defer { if up.process.isRunning { kill(up.process.processIdentifier, SIGKILL) } }
        try await up.wait("it serves") { $0.contains("Ctrl-C stops everything.") }
        try await body(up, folder, run)
    }

    @Test func `two schedulers of up follow each other, and events can be followed meanwhile`()
        async throws
    {
        try await withUp(["--schedulers", "2"]) { up, folder, run in
            #expect(up.output.contains("starting 2 scheduler(s)"))
            let started = processes(of: run)
            let first = try #require(
                started.first { value(of: "name", in: $0.value) == "scheduler-1" })
            let gateway = try #require(started.values.first { $0[0].hasSuffix("/gateway") })
            let schedulers = try #require(value(of: "scheduler", in: gateway))
            #expect(schedulers.split(separator: ",").count == 2)

            let options = [
                "--scheduler", schedulers, "--cluster", "local", "--certificates",
                run.appending(path: "certificates").path,
            ]
            let events = try Running(
                ["events", "--follow", "--last", "3"] + options, in: folder, "events")
            defer {
                if events.process.isRunning { kill(events.process.processIdentifier, SIGKILL) }
            }
            try await events.wait("the latest events") { $0.split(separator: "\n").count >= 3 }
            #expect(!events.output.contains("scheduler-2  leads"))
            kill(first.key, SIGKILL)
            try await events.wait("the new leader's event") {
                $0.contains("scheduler-2  leads with epoch")
            }
            try await up.wait("another first scheduler") {
                $0.contains("scheduler-1 was ended by signal 9; it is started again")
            }
            // What is asked for meanwhile is shown, and by whom.
            let scale = try Running(
                ["scale", "default", "--prefill", "1"] + options, in: folder, "scale")
            while scale.process.isRunning { try await Task.sleep(for: .milliseconds(20)) }
            #expect(scale.process.terminationStatus == 0, "\(scale.output)")
            try await events.wait("the request of a person") {
                $0.contains("scale scenario=default prefill=1: done")
            }
            // Each event is shown once, and in order.
            let numbers = events.output.split(separator: "\n")
                .compactMap { UInt64($0.prefix { $0.isNumber }) }
            #expect(numbers == numbers.sorted() && Set(numbers).count == numbers.count)
            try await events.end(SIGINT)
            try await up.end(SIGINT)
            #expect(up.process.terminationStatus == 0, "\(up.output)")
            #expect(processes(of: run).isEmpty)
        }
    }

    @Test func `what is killed is started again, where it was, and what keeps ending ends up`()
        async throws
    {
        try await withUp { up, _, run in
            let address = try #require(up.output.firstMatch(of: /serving on http:\/\/(\S+)/)?.1)
            for name in ["decode-worker-1", "prefill-worker-1", "scheduler", "gateway"] {
                try await killed(name, of: run, up)
                // Nobody was told another address.
                try await answered(String(address), after: name)
            }
            for _ in 0..<5 { try await killed("health-agent", of: run, up) }
            let last = try #require(number(of: "health-agent", in: run))
            kill(last, SIGKILL)
            let end = ContinuousClock.now + .seconds(60)
            while up.process.isRunning, ContinuousClock.now < end {
                try await Task.sleep(for: .milliseconds(20))
            }
            #expect(!up.process.isRunning && up.process.terminationStatus == 1)
            #expect(
                up.output.contains(
                    "health-agent was ended by signal 9, after 5 restarts within 60 s"),
                "\(up.output)")
            #expect(processes(of: run).isEmpty)
        }
    }

    private func number(of name: String, in run: URL) -> Int32? {
        processes(of: run).first { value(of: "name", in: $0.value) == name }?.key
    }

    /// Kills a process of this name and waits until another has taken its place.
    private func killed(_ name: String, of run: URL, _ up: Running) async throws {
        let before = try #require(number(of: name, in: run))
        kill(before, SIGKILL)
        try await up.wait("another \(name)") { _ in
            let now = number(of: name, in: run)
            let announced = FileManager.default.fileExists(
                atPath: run.appending(path: "\(name).addresses").path)
            return now != nil && now != before && announced
        }
    }

    /// Asks until there is an answer.
    private func answered(_ address: String, after name: String) async throws {
        let address = try #require(NetworkAddress(address))
        let end = ContinuousClock.now + .seconds(60)
        while true {
            let answer = try? await HTTPCall(
                "POST", address, "/v1/completions",
                body: Array(#"{"prompt":"Hello there","max_tokens":4}"#.utf8)
            ).collect()
            if answer?.head.status == 200 { return }
            try #require(ContinuousClock.now < end, "no answer after the end of \(name)")
            try await Task.sleep(for: .milliseconds(100))
        }
    }
}
