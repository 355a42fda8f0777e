import Foundation
import Reports
import Synchronization
import Testing

@testable import Measurement

@Suite(.timeLimit(.minutes(3))) struct KVMeasurementTests {
    private static let executable = URL(
        fileURLWithPath: ProcessInfo.processInfo.arguments[0]
    ).resolvingSymlinksInPath().deletingLastPathComponent().appending(path: "benchmark").path

    private static let modelPath = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Models/tiny.gguf").path

    private static func settings(
        sizes: [Int] = [1, 2], rounds: Int = 1, peers: [String] = [],
        peerDeadline: Duration = .seconds(20), contenders: [String] = KVContenders.names,
        source: KVMeasurementSettings.Source = .synthetic, executable: String = executable
    ) throws -> KVMeasurementSettings {
        KVMeasurementSettings(
            sizes: sizes, rounds: rounds, regionMebibytes: 2, contenders: contenders,
            peers: try peers.map(KVPeer.init(argument:)), peerDeadline: peerDeadline,
            source: source, receiver: (executable, ["kv-receiver"]))
    }

    private static func rows(_ table: String, of report: Report) -> [[String: Any]] {
        report.tables.first { $0.key == table }?.objects ?? []
    }

    private static func run(_ settings: KVMeasurementSettings) async throws -> Report {
        let measurement = KVMeasurement(settings: settings) { _ in }
        try await measurement.run()
        return measurement.report
    }

    @Test func `all contenders move verified bytes to another process`() async throws {
        let report = try await Self.run(Self.settings())
        #expect(report.isComplete)
        let transfers = Self.rows("transfers", of: report)
        #expect(
            transfers.map { "\($0["contender"] ?? "") \($0["mib"] ?? "")" }
                == [1, 2].flatMap { size in KVContenders.names.map { "\($0) \(size)" } })
        for row in transfers {
            for key in ["gb_per_s", "sender_s_per_gb", "receiver_s_per_gb", "bneck_gb_per_s"] {
                let value = try #require(row[key] as? Double)
                #expect(value > 0 && value < 1000, "\(row)")
            }
        }
        let compression = Self.rows("compression", of: report)
        #expect(compression.map { $0["contender"] as? String } == ["codec", "codec"])
        let ratio = try #require(compression.first?["raw_to_wire"] as? Double)
        // Synthetic KV has some 5.5 bits of entropy in every other byte.
        #expect((1.1...1.3).contains(ratio))
        let floors = Self.rows("floors", of: report)
        #expect(floors.compactMap { $0["operation"] as? String }.first == "memcpy, 1 MiB")
        // The memory is too short for longer copies.
        #expect(floors.count == 5)
        #expect(Self.rows("distance", of: report).count == 2 * (KVContenders.names.count - 1))
    }

    @Test func `KV of a prompt is sent instead`() async throws {
        let model = KVMeasurementSettings.Source.model(
            path: Self.modelPath, promptTokens: 600)
        let report = try await Self.run(
            Self.settings(sizes: [1], contenders: ["codec"], source: model))
        #expect(report.text.contains("600 tokens"))
        #expect(Self.rows("transfers", of: report).count == 2)
    }

    @Test func `KV shorter than a piece is refused`() async throws {
        let model = KVMeasurementSettings.Source.model(path: Self.modelPath, promptTokens: 2)
        let error = await #expect(throws: MeasurementError.self) {
            try await Self.run(Self.settings(source: model))
        }
        guard case .kvTooSmall = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    private static let answer = #"echo "{\"mb\":1,\"GBps\":2,\"snd_cpu\":1,\"rcv_cpu\":0}""#

    @Test func `peers get the shapes, and those that fail are left out once`() async throws {
        let peers = [
            "good=echo hello; \(Self.answer) #",
            "failing=echo broken >&2; exit 3; :",
            "foreign=echo '{\"mb\":7,\"GBps\":2,\"snd_cpu\":1,\"rcv_cpu\":0}'; :",
            "garbage=echo '{oh dear}'; :",
            "chatty=yes; :",
            "crashing=\(Self.answer); kill -9 $$; :",
            "shapes=f() { [ \"$1\" = shapes=1x64 ] && \(Self.answer); }; f",
        ]
        let report = try await Self.run(
            Self.settings(sizes: [1], rounds: 2, peers: peers, contenders: []))
        let counts = Dictionary(
            uniqueKeysWithValues: Self.rows("transfers", of: report).map {
                ($0["contender"] as? String ?? "", $0["rounds"] as? Int ?? 0)
            })
        // A program that ends badly after its last figure has done its part.
        #expect(counts == ["tcp": 2, "good": 2, "shapes": 2, "crashing": 2])
        let leftOut = report.facts.filter { $0.name == "left out" }.map(\.value).joined()
        for name in ["failing", "foreign", "garbage", "chatty"] {
            #expect(leftOut.components(separatedBy: "\(name):").count == 2, "\(leftOut)")
        }
        #expect(leftOut.contains("exit status 3; broken"))
        #expect(leftOut.contains("nobody asked for 7 MiB"))
    }

    @Test func `a peer that hangs is ended with its children`() async throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let file = folder.appending(path: "pid").path
        let hanging = "hanging=sleep 600 & echo $! > \(file); \(Self.answer); wait; :"
        let start = ContinuousClock.now
        let report = try await Self.run(
            Self.settings(peers: [hanging], peerDeadline: .seconds(2), contenders: []))
        #expect(ContinuousClock.now - start < .seconds(60))
        let text = try String(contentsOfFile: file, encoding: .utf8)
        let child = try #require(Int32(text.trimmingCharacters(in: .whitespacesAndNewlines)))
        #expect(Self.isGone(child))
        let transfers = Self.rows("transfers", of: report)
        #expect(transfers.contains { $0["contender"] as? String == "hanging" })
        #expect(report.text.contains("no figures for 2 MiB; not done after 2 s"))
    }

    /// Whether a process has ended, if nobody waited for it too.
    private static func isGone(_ process: Int32) -> Bool {
        let path = "/proc/\(process)/stat"
        guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return true }
        return text.contains(") Z ")
    }

    @Test func `a cancelled run keeps what it has`() async throws {
        let rounds = Mutex(0)
        let (reached, reaching) = AsyncStream<Void>.makeStream()
        let measurement = KVMeasurement(
            settings: try Self.settings(sizes: [1], rounds: 1000, contenders: [])
        ) { line in
            guard line.hasPrefix("round") else { return }
            let count = rounds.withLock {
                $0 += 1
                return $0
            }
            if count == 3 { reaching.yield() }
        }
        let task = Task { try await measurement.run() }
        for await _ in reached { break }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        let count = Self.rows("transfers", of: measurement.report).first?["rounds"] as? Int
        #expect((2...1000).contains(try #require(count)))
        #expect(!measurement.report.isComplete)
    }

    @Test func `a receiver that ends at once is reported with its words`() async throws {
        let error = await #expect(throws: MeasurementError.self) {
            try await Self.run(Self.settings(executable: "/bin/false"))
        }
        guard case .receiverLost = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }
}
