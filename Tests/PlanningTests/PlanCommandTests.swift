import Foundation
import Testing

/// `pdserve simulate` and `pdserve plan` as people call them.
@Suite("Commands that simulate and plan")
struct PlanCommandTests {
    private struct Result {
        var status: Int32
        var output: String
        var errors: String
    }

    private static let trace = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent()
        .appending(path: "ServingSimulationTests/Traces/azure-conversation.csv").path

    /// - Parameter interrupts: as soon as it has shown how far it is.
    private static func pdserve(
        _ arguments: [String], interrupts: Bool = false
    ) throws -> Result {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: ProcessInfo.processInfo.arguments[0])
            .resolvingSymlinksInPath().deletingLastPathComponent().appending(path: "pdserve")
        process.arguments = arguments
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-plan-\(UInt64.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let files = try ["out", "err"].map { name in
            let file = folder.appending(path: name)
            try Data().write(to: file)
            return (file, try FileHandle(forWritingTo: file))
        }
        process.standardOutput = files[0].1
        process.standardError = files[1].1
        try process.run()
        if interrupts {
            let end = ContinuousClock.now + .seconds(120)
            while try Data(contentsOf: files[1].0).isEmpty, process.isRunning, .now < end {
                Thread.sleep(forTimeInterval: 0.05)
            }
            process.interrupt()
        }
        process.waitUntilExit()
        let texts = try files.map { try String(contentsOf: $0.0, encoding: .utf8) }
        return Result(status: process.terminationStatus, output: texts[0], errors: texts[1])
    }

    private static func temporaryFile(_ name: String) -> URL {
        FileManager.default.temporaryDirectory.appending(
            path: "\(UInt64.random(in: 0 ... .max))-\(name)")
    }

    @Test("a simulation is a table, JSON and a page")
    func simulation() throws {
        let json = Self.temporaryFile("report.json")
        let page = Self.temporaryFile("report.html")
        defer {
            try? FileManager.default.removeItem(at: json)
            try? FileManager.default.removeItem(at: page)
        }
        let result = try Self.pdserve([
            "simulate", "--model", "llama-3.1-8b@q4_0", "--prefill", "GB10=1", "--decode",
            "M3 Ultra=2", "--rate", "0.5", "--trace", Self.trace, "--seconds", "20", "--json",
            json.path, "--html", page.path, "--fault", "lose:decode-1@5+5",
        ])
        #expect(result.status == 0, "\(result.errors)")
        #expect(result.output.contains("TTFT") && result.output.contains("M3 Ultra"))
        let object = try JSONSerialization.jsonObject(with: Data(contentsOf: json))
        let report = try #require(object as? [String: Any])
        #expect(report["complete"] as? Bool == true)
        let html = try String(contentsOf: page, encoding: .utf8)
        #expect(html.components(separatedBy: "<svg").count == 5, "three distributions, one time")
    }

    @Test("a plan for two unequal machines splits them")
    func plan() throws {
        let result = try Self.pdserve([
            "plan", "--model", "llama-3.1-8b@q4_0", "--machine", "GB10=1", "--machine",
            "M3 Ultra=1", "--prompt-tokens", "2048", "--output-tokens", "8", "--trial-seconds",
            "5",
        ])
        #expect(result.status == 0, "\(result.errors)")
        #expect(result.output.contains("prefill: 1 × (GB10); decode: 1 × (M3 Ultra)"))
        #expect(result.output.contains("docker compose up --scale prefill-worker=1"))
        #expect(result.output.contains("Split: "))
    }

    @Test("a slow link is named")
    func slowLink() throws {
        let result = try Self.pdserve([
            "plan", "--model", "llama-3.1-8b@q4_0", "--machine", "H100=2", "--prompt-tokens",
            "2048", "--output-tokens", "8", "--trial-seconds", "5", "--link-gigabits", "0.5",
        ])
        #expect(result.status == 0, "\(result.errors)")
        #expect(result.output.contains("Do not split"))
        #expect(result.output.contains("too slow"))
    }

    @Test("an interrupted simulation shows what it has")
    func interruption() throws {
        let result = try Self.pdserve(
            [
                "simulate", "--mixed", "H100=4", "--rate", "20", "--trace", Self.trace,
                "--seconds", "100000",
            ], interrupts: true)
        #expect(result.status == 130, "\(result.errors)")
        #expect(result.output.contains("interrupted"))
    }

    @Test(
        "what is wrong is said, and what to do",
        arguments: [
            (["simulate", "--rate", "1"], "Give machines"),
            (["simulate", "--prefill", "H100", "--rate", "1"], "decode"),
            (["simulate", "--mixed", "H1000", "--rate", "1"], "H1000"),
            (["simulate", "--mixed", "H100", "--model", "no-model", "--rate", "1"], "no-model"),
            (["simulate", "--mixed", "H100", "--model", "llama-3.1-8b@q9", "--rate", "1"], "q9"),
            (["simulate", "--mixed", "RTX 4090", "--model", "llama-2-70b", "--rate", "1"], "fit"),
            (["simulate", "--mixed", "H100", "--trace", "/no/file"], "/no/file"),
            (["simulate", "--mixed", "H100"], "--rate"),
            (["simulate", "--mixed", "H100", "--rate", "1", "--fault", "lose:x@1"], "'x'"),
            (["plan", "--machine", "H100"], "--rate"),
            (["plan", "--machine", "H100", "--rate", "0"], "--rate"),
            (["plan", "--machine", "H100", "--iso", "power"], "--baseline"),
        ])
    func mistakes(arguments: [String], word: String) throws {
        let result = try Self.pdserve(arguments)
        #expect(result.status != 0)
        #expect(result.errors.contains(word), "\(result.errors)")
    }
}
