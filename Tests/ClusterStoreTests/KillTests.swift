import ClusterStore
import Foundation
import Synchronization
import Testing

/// Processes that die while they write.
@Suite struct KillTests {
    private static let executable = URL(fileURLWithPath: ProcessInfo.processInfo.arguments[0])
        .resolvingSymlinksInPath().deletingLastPathComponent().appending(path: "benchmark")
    private static let records = 7

    /// A process that writes until it is killed, and what it said was done.
    private final class Writer: Sendable {
        private let process = Process()
        private let output = Pipe()
        private let text = Mutex("")

        init(path: String) throws {
            process.executableURL = KillTests.executable
            process.arguments = [
                "store", "--store", "sqlite:\(path)", "--records", "\(KillTests.records)",
                "--bytes", "3000", "--endless",
            ]
            process.standardOutput = output
            process.standardError = FileHandle.nullDevice
            try process.run()
        }

        /// Whole lines so far; a number is printed after its write is done.
        var lines: [String] {
            let new = output.fileHandleForReading.availableData
            return text.withLock { text in
                text += String(decoding: new, as: UTF8.self)
                let whole = text.lastIndex(of: "\n").map { text[..<$0] } ?? ""
                return whole.split(separator: "\n").map(String.init)
            }
        }

        func kill(_ signal: Int32 = SIGKILL) {
            Foundation.kill(process.processIdentifier, signal)
            process.waitUntilExit()
        }

        var rest: [String] {
            let new = output.fileHandleForReading.readDataToEndOfFile()
            return text.withLock { text in
                text += String(decoding: new, as: UTF8.self)
                let whole = text.lastIndex(of: "\n").map { text[..<$0] } ?? ""
                return whole.split(separator: "\n").map(String.init)
            }
        }
    }

    @Test func `what was said to be saved is there after a kill at any moment`() async throws {
        try await withFolder { folder in
            let path = folder.appending(path: "a.sqlite").path
            var last = 0
            var epoch: UInt64 = 0
            var writes = 0
            for round in 0..<60 {
                let writer = try Writer(path: path)
                while writer.lines.count < 2 { try await Task.sleep(for: .milliseconds(1)) }
                try await Task.sleep(for: .microseconds(Int.random(in: 0..<40_000)))
                writer.kill()
                let lines = writer.rest
                #expect(lines.first == "begins \(last)", "round \(round)")
                let said = Int(lines.last ?? "") ?? -1
                writes += lines.count - 1
                let term = try await SQLiteStore(path: path).takeOffice(as: "test") { _ in }
                #expect(term.epoch > epoch)
                epoch = term.epoch
                let records = try await term.load()
                let numbers = Set(
                    records.values.compactMap { value in
                        String(decoding: value, as: UTF8.self).split(separator: " ").first
                            .flatMap { Int($0) }
                    })
                // One write, whole, with its event; the one that was under way may be done.
                #expect(records.count == Self.records && numbers.count == 1)
                let number = try #require(numbers.first)
                #expect(number == said || number == said + 1, "round \(round)")
                #expect(try await term.lastEvents(1).last?.number == UInt64(number))
                last = number
                await term.resign()
            }
            #expect(writes > 60)
        }
    }

    @Test func `a standby takes over at once when the leader is killed`() async throws {
        try await withFolder { folder in
            let path = folder.appending(path: "a.sqlite").path
            let writer = try Writer(path: path)
            while writer.lines.count < 3 { try await Task.sleep(for: .milliseconds(1)) }
            let standby = Task {
                let term = try await SQLiteStore(path: path).takeOffice(as: "test") { _ in }
                return (term, ContinuousClock.now)
            }
            try await Task.sleep(for: .milliseconds(300))
            let killed = ContinuousClock.now
            writer.kill()
            let (term, took) = try await standby.value
            print("the standby led \(took - killed) after the kill")
            #expect(took - killed < .seconds(5))
            #expect(try await term.load().count == Self.records)
            await term.resign()
        }
    }
}
