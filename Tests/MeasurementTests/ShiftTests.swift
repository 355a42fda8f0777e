import Foundation
import Reports
import ServingTypes
import Testing

@testable import Measurement

@Suite struct ShiftResultsTests {
    private static func request(_ ended: Double, ttft: Double, tpot: Double) -> ShiftRequest {
        ShiftRequest(sent: ended - 1, ended: ended, ttft: ttft, tpot: tpot)
    }

    private static var settings: ShiftSettings {
        var settings = ShiftSettings()
        settings.first.duration = .seconds(4)
        settings.second.duration = .seconds(4)
        settings.ttftLimit = .seconds(1)
        settings.tpotLimit = .milliseconds(50)
        return settings
    }

    @Test func `requests count as good within both limits only`() {
        var run = ShiftRun(mode: .automatic)
        run.requests = [
            Self.request(2.5, ttft: 1, tpot: 0.05), Self.request(3, ttft: 1.1, tpot: 0.01),
            Self.request(3.5, ttft: 0.1, tpot: 0.06), Self.request(4, ttft: 0.1, tpot: 0.01),
            ShiftRequest(sent: 2, ended: 3, failure: "lost"),
        ]
        let span = ShiftSpan(run, from: 2, to: 4, settings: Self.settings)
        #expect(span.goodPerSecond == 0.5)
        #expect(span.completedPerSecond == 1.5)
        #expect(span.failed == 1)
        #expect(span.ttft.count == 3)
    }

    @Test func `a change of role lasts until the view shows the new role`() throws {
        var run = ShiftRun(mode: .automatic)
        run.startedAt = 1_000_000
        let worker = InstanceID("prefill-1")
        func decision(_ milliseconds: UInt64, _ action: String) -> Decision {
            Decision(
                unixMilliseconds: milliseconds, scenario: "shift", action: action, reason: "why")
        }
        run.decisions = [
            decision(999_000, "prefill-1 becomes decode"),
            decision(1_001_000, "prefill-2 becomes mixed"),
            decision(1_002_000, "prefill-1 becomes decode"),
            decision(1_009_000, "prefill-1 becomes prefill"),
        ]
        run.samples = [
            ShiftSample(time: 1.9, roles: [worker: .decode]),
            ShiftSample(time: 2.5, roles: [worker: .spare]),
            ShiftSample(time: 3.5, roles: [worker: .decode]),
        ]
        let flips = run.flips
        #expect(flips.map(\.time) == [2, 9])
        #expect(flips.map(\.duration) == [1.5, nil])
        #expect(flips.map(\.role) == [.decode, .prefill])
    }

    @Test func `the ratio of both runs is reported`() throws {
        var results = ShiftResults(settings: Self.settings)
        for (mode, count) in [(ShiftMode.asStarted, 2), (.automatic, 6)] {
            var run = ShiftRun(mode: mode)
            for number in 0..<count {
                run.requests.append(Self.request(6.1 + Double(number) / 10, ttft: 0.1, tpot: 0.01))
            }
            results.add(run)
        }
        let table = try #require(results.report([]).tables.first { $0.key == "ratios" })
        let after = try #require(table.objects.first { $0["part"] as? String == "after" })
        #expect(after["good"] as? Double == 3)
        #expect(results.report([]).text.contains("automatic: 6 requests, 0 failed"))
    }

    @Test func `the plot is well-formed XML and holds every line`() throws {
        let plot = LinePlot(
            title: "a < b & c", axis: "s",
            panels: [
                LinePlot.Panel(
                    title: "p",
                    lines: [
                        LinePlot.Line(
                            name: "l>", color: LinePlot.Palette.blue,
                            points: [(0, 1), (5, .infinity), (10, 2)]),
                        LinePlot.Line(
                            name: "steps", color: LinePlot.Palette.green, isStepped: true,
                            points: [(0, 1), (10, 3)]),
                    ]),
                LinePlot.Panel(title: "empty", lines: []),
            ], bands: [LinePlot.Band(name: "A", from: 0, to: 10)], end: 10)
        #expect(XMLReading.problem(of: plot.svg) == nil)
        #expect(
            XMLReading.problem(of: plot.svg.replacingOccurrences(of: "</svg>", with: "")) != nil)
        #expect(plot.svg.contains("a &lt; b &amp; c"))
        #expect(!plot.svg.contains("inf"))
        #expect(plot.svg.count(of: ##"fill="none" stroke="#0072b2""##) == 2)
        #expect(LinePlot.step(for: 90) == 20)
        #expect(LinePlot.step(for: 6) == 1)
        #expect(LinePlot.step(for: 2.4) == 0.5)
    }
}

extension String {
    fileprivate func count(of part: String) -> Int { components(separatedBy: part).count - 1 }
}

/// `benchmark shift` as people start it, with real processes.
@Suite(.timeLimit(.minutes(3))) struct ShiftCommandTests {
    /// Executables lie beside the test bundle.
    @Test func `both runs serve everything, and workers change their roles`() async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-shift-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let svg = folder.appending(path: "shift.svg")
        let json = folder.appending(path: "shift.json")
        let (status, output) = try await Command.run(
            Command.benchmark,
            [
                "shift", "--prefill-workers", "2", "--decode-workers", "2", "--users", "8",
                "--first-seconds", "6", "--second-seconds", "6", "--prompt-tokens", "1000",
                "--new-tokens", "20", "--simulated-speed", "0.5", "--window", "2", "--settle",
                "1", "--svg", svg.path, "--json", json.path,
            ], in: folder)
        #expect(status == 0, "\(output)")
        #expect(XMLReading.problem(of: try String(contentsOf: svg, encoding: .utf8)) == nil)
        let report = try JSONSerialization.jsonObject(with: Data(contentsOf: json))
        let object = try #require(report as? [String: Any])
        #expect(object["complete"] as? Bool == true)
        let tables = try #require(object["tables"] as? [String: [[String: Any]]])
        let seconds = try #require(tables["seconds"])
        #expect(seconds.count == 24)
        #expect(seconds.allSatisfy { $0["failed"] as? Int == 0 }, "\(output)")
        for mode in ["as-started", "automatic"] {
            let run = seconds.filter { $0["run"] as? String == mode }
            let completed = run.compactMap { $0["completed_per_s"] as? Double }.reduce(0, +)
            #expect(completed >= 10, "\(output)")
        }
        let started = seconds.filter { $0["run"] as? String == "as-started" }
        #expect(started.allSatisfy { $0["prefill_workers"] as? Int == 2 }, "\(output)")
        let flips = try #require(tables["flips"])
        #expect(!flips.isEmpty, "\(output)")
        #expect(flips.allSatisfy { $0["run"] as? String == "automatic" }, "\(output)")
    }

    @Test(arguments: [
        ["--users", "0"], ["--prefill-workers", "0"], ["--first-seconds", "0"],
        ["--new-tokens", "1"], ["--tpot", "0"], ["--window", "1"],
    ])
    func `wrong options are refused`(options: [String]) async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-shift-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let (status, output) = try await Command.run(
            Command.benchmark, ["shift"] + options, in: folder)
        #expect(status == 64, "\(output)")
        #expect(output.contains("Error: "), "\(output)")
    }
}
