import Foundation
import HTTPClient
import LlamaEngine
import LocalCluster
import ServiceStart
import ServingTypes
import Testing

/// Upgrades that go wrong late, change the vocabulary, or come again and again.
@Suite(.serialized) struct UpgradeCornerTests {
    private static let models = TestCluster.root.appending(path: "Tests/LlamaEngineTests/Models")
    private static let llama = ["--kv-tokens", "4096", "--model-name", "served"]
    private static let named: [Role: [String]] = [
        .prefillWorker: llama, .decodeWorker: llama, .gateway: ["--model-name", "served"],
    ]

    /// Runs with an empty folder for model files.
    private func withFolder(_ body: (URL) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-models-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try await body(folder)
    }

    private func put(_ source: String, at file: URL) throws {
        try? FileManager.default.removeItem(at: file)
        try FileManager.default.copyItem(atPath: source, toPath: file.path)
    }

    @Test(.timeLimit(.minutes(5)))
    func `workers that can't load a model come back with the one before, and try it again`()
        async throws
    {
        try await withFolder { folder in
            // Its header is in order, so that only loading shows what is wrong.
            let target = folder.appending(path: "next.gguf")
            try put(Self.models.appending(path: "refused-bert.gguf").path, at: target)
            try await TestCluster.run(prefill: 2, decode: 2, arguments: Self.named) { test in
                let before = try await test.members(4)
                let load = try await test.load(
                    streams: 4,
                    while: {
                        try await comesBack(test, target, before)
                        try await test.upgrade("--abort")
                        try await test.waitForUpgrade("taken back")
                        try await test.waitForMembers(before)
                        try await comesBack(test, target, before)
                        try put(try UpgradeTests.otherRevision(in: folder), at: target)
                        try await test.upgrade("--resume")
                        try await test.waitForUpgrade("done")
                    })
                #expect(load.broken == [])
                #expect(load.answered > 4)
                let after = try await test.members()
                #expect(after.map(\.role).sorted() == before.map(\.role).sorted())
                for process in test.cluster.all { #expect(process.isRunning, "\(process.name)") }
            }
        }
    }

    /// Begins an upgrade, which pauses with a reason and everybody at work.
    private func comesBack(
        _ test: TestCluster, _ target: URL, _ before: [TestCluster.ShownWorker]
    ) async throws {
        try await test.upgrade("--model", target.path, "--settle", "0")
        let line = try await test.waitForUpgrade("paused:")
        #expect(line.contains("came back without the model of \(target.path)"), "\(line)")
        let why = try await test.pdserve("status", ["--why"])
        #expect(why.contains("the upgrade to \(target.path) pauses"), "\(why)")
        try await test.waitForMembers(before)
        let returned = try #require(
            test.cluster.all.first { $0.logTail(lines: 400).contains("is loaded again") })
        #expect(returned.isRunning)
    }

    @Test(.timeLimit(.minutes(5)))
    func `a file that is missing or truncated is refused before anybody leaves its work for long`()
        async throws
    {
        try await withFolder { folder in
            let target = folder.appending(path: "next.gguf")
            try await TestCluster.run(prefill: 2, decode: 2, arguments: Self.named) { test in
                let before = try await test.members(4)
                let load = try await test.load(
                    streams: 4,
                    while: {
                        try await test.upgrade("--model", target.path, "--settle", "0")
                        let missing = try await test.waitForUpgrade("paused:")
                        #expect(missing.contains("can't load \(target.path)"), "\(missing)")
                        // Paused or not, everybody works on with the old model.
                        try await test.waitForMembers(before)
                        let good = try UpgradeTests.otherRevision(in: folder)
                        let whole = try Data(contentsOf: URL(fileURLWithPath: good))
                        try whole.prefix(whole.count / 2).write(to: target)
                        try await test.upgrade("--resume")
                        try await test.waitForUpgrade("paused:")
                        try await test.waitForMembers(before)
                        try await test.waitForLog("it is truncated")
                        try whole.write(to: target)
                        try await test.upgrade("--resume")
                        try await test.waitForUpgrade("done")
                    })
                #expect(load.broken == [])
            }
        }
    }

    @Test(.timeLimit(.minutes(5)))
    func `a model of another name pauses the upgrade, since clients would not find it`()
        async throws
    {
        let other = Self.models.appending(path: "every-head.gguf").path
        try await TestCluster.run(prefill: 2, decode: 2) { test in
            let before = try await test.members(4)
            let text = try await test.greedy()
            try await test.upgrade("--model", other, "--settle", "0")
            let line = try await test.waitForUpgrade("paused:", "done")
            #expect(line.contains("--model-name"), "\(line)")
            #expect(try await test.greedy() == text)
            try await test.upgrade("--abort")
            try await test.waitForUpgrade("taken back")
            try await test.waitForMembers(before)
            #expect(try await test.greedy() == text)
        }
    }

    // MARK: Vocabularies

    private static let prompt = "The module os"

    /// What a model alone makes of the prompt.
    private func alone(_ path: String) async throws -> String {
        let model = try UndividedModel(model: path)
        let prompt = model.tokenizer.tokenize(
            Self.prompt, addsSpecial: true, parsesSpecial: true)
        var sampling = SamplingParameters()
        sampling.temperature = 0
        let output = try await model.generate(prompt, sampling: sampling, maximumNewTokens: 24)
        await model.shutdown()
        let tokens = output.finish == .stop ? output.tokens.dropLast() : output.tokens[...]
        let bytes = tokens.flatMap { model.tokenizer.bytes(of: $0) }
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test(.timeLimit(.minutes(5)))
    func `each request is read and written in the vocabulary of the model that serves it`()
        async throws
    {
        let other = Self.models.appending(path: "every-head.gguf").path
        let texts = [try await alone(TestCluster.model), try await alone(other)]
        #expect(texts[0] != texts[1])
        // Kept KV moves a prompt's to other cells, whose sums round another way.
        let fresh = Self.named.mapValues { arguments in
            arguments.contains("--kv-tokens") ? arguments + ["--kept-sequences", "0"] : arguments
        }
        try await TestCluster.run(prefill: 2, decode: 2, arguments: fresh) { test in
            #expect(try await test.greedy() == texts[0])
            // Begun in the old vocabulary, and long enough to see the upgrade.
            for (path, text) in [(other, texts[1]), (TestCluster.model, texts[0])] {
                let seen = Seen()
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<4 {
                        group.addTask {
                            while await !seen.isOver { await seen.add(try await test.greedy()) }
                        }
                    }
                    do {
                        try await test.upgrade("--model", path, "--settle", "1")
                        try await test.waitForUpgrade("done")
                    } catch {
                        await seen.end()
                        throw error
                    }
                    await seen.end()
                    try await group.waitForAll()
                }
                let found = await seen.texts
                // What else is in a batch may turn a near-tie, so only the beginnings are compared.
                let beginnings = Set(found.map { $0.prefix(4) })
                #expect(beginnings.isSubset(of: texts.map { $0.prefix(4) }), "\(found)")
                #expect(try await test.greedy() == text)
            }
            // Tokens of the new vocabulary are those that count.
            try await test.upgrade("--model", other, "--settle", "0")
            try await test.waitForUpgrade("done")
            let beyond = try await test.post(
                "/v1/completions", #"{"prompt": [400], "max_tokens": 2}"#)
            #expect(beyond.status == 400, "\(beyond.json)")
        }
    }

    // MARK: Again and again

    @Test(.timeLimit(.minutes(5)))
    func `fixed ports stay, and ten upgrades to and fro leave no file open`() async throws {
        let slow = ["--simulated-speed", "8"]
        try await TestCluster.run(
            prefill: 2, decode: 2, engine: "simulated", path: "/models/one",
            arguments: [.prefillWorker: slow, .decodeWorker: slow]
        ) { test in
            let fixed = try await workerAtFixedPorts(test)
            let places = fixed.announcement
            let paths = (1...10).map { $0 % 2 == 1 ? "/models/two" : "/models/one" }
            var files: [[OpenFiles]] = []
            for part in [paths.prefix(1), paths.dropFirst()] {
                let load = try await test.load(
                    streams: 20,
                    while: {
                        for path in part {
                            try await test.upgrade("--model", path, "--settle", "0")
                            try await test.waitForUpgrade(
                                "upgrade to \(path): 5 of 5 workers, done")
                            #expect(fixed.announcement.control == places.control)
                            #expect(fixed.announcement.bulk == places.bulk)
                        }
                    })
                #expect(load.lost == [])
                files.append(try test.openFiles())
            }
            print("open files of each worker after 1 and 10 upgrades: \(files)")
            // KV connections come and go; one file left open in each life would be 45 more.
            let sums = files.map {
                ($0.reduce(0) { $0 + $1.sockets }, $0.reduce(0) { $0 + $1.others })
            }
            #expect(sums[1].0 < sums[0].0 + 20 && sums[1].1 < sums[0].1 + 20, "\(sums)")
        }
    }

    /// A third prefill-worker, at ports that no other program gets by chance.
    ///
    /// Ports of the range that systems draw from may be taken while it starts again.
    private func workerAtFixedPorts(_ test: TestCluster) async throws -> ManagedProcess {
        let first = Int.random(in: 10_500..<15_500) * 2
        let fixed = try await test.cluster.launch(
            .prefillWorker, name: "prefill-worker-3",
            [
                "--listen", "127.0.0.1:\(first)", "--bulk-listen", "127.0.0.1:\(first + 1)",
                "--scheduler", try #require(test.cluster.schedulerAddress).description,
                "--model", "/models/one", "--engine", "simulated",
            ])
        #expect(fixed.announcement.control?.port == first)
        #expect(fixed.announcement.bulk?.port == first + 1)
        return fixed
    }
}

/// What a process has open: connections come and go with the traffic, the rest must not.
struct OpenFiles: Equatable {
    var sockets = 0
    var others = 0

    init(of process: ManagedProcess) throws {
        let folder = "/proc/\(process.processIdentifier)/fd"
        for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
            let target = try? FileManager.default.destinationOfSymbolicLink(
                atPath: "\(folder)/\(name)")
            guard let target else { continue }
            if target.hasPrefix("socket:") { sockets += 1 } else { others += 1 }
        }
    }
}

extension TestCluster.Load {
    /// Streams that failed or broke off; texts of a real model may differ after a near-tie.
    var broken: [String] { lost.filter { !$0.hasPrefix("other text") } }
}

extension TestCluster {
    func openFiles() throws -> [OpenFiles] {
        try cluster.all.filter(\.role.isWorker).sorted { $0.name < $1.name }
            .map { try OpenFiles(of: $0) }
    }

    /// Waits until a worker's log has the words.
    func waitForLog(_ words: String) async throws {
        let end = ContinuousClock.now + .seconds(20)
        while !cluster.all.contains(where: { $0.logTail(lines: 1000).contains(words) }) {
            guard ContinuousClock.now < end else {
                throw TestFailure("no log says '\(words)' after 20 s")
            }
            try await Task.sleep(for: .milliseconds(50))
        }
    }
}

/// Texts of answers, and whether there are enough.
private actor Seen {
    private(set) var texts: Set<String> = []
    private(set) var isOver = false

    func add(_ text: String) { texts.insert(text) }
    func end() { isOver = true }
}
