import Foundation
import ServingTypes
import Testing

@testable import HostProbe

/// Recorded files beside this one.
enum Recorded {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent()
        .appending(path: "Recorded")

    static func text(_ name: String) throws -> String {
        try String(contentsOf: folder.appending(path: name), encoding: .utf8)
    }
}

/// What `npu-smi` prints.
@Suite struct NPUTests {
    @Test func `training cards are read with their own memory`() throws {
        let samples = try NPUTable(text: Recorded.text("npu-smi-910b3.txt")).samples
        #expect(
            samples.map(\.reading.id)
                == ["0000:c1:00.0", "0000:c2:00.0", "0000:81:00.0", "0000:82:00.0"])
        let first = samples[0].reading
        #expect(first.name == "Ascend 910B3")
        #expect(first.totalMemoryBytes == 65_536 << 20)
        #expect(first.freeMemoryBytes == (65_536 - 33_551) << 20)
        #expect(first.busyFraction == 0.37)
        #expect(first.temperatureCelsius == 51)
        #expect(first.powerWatts == 92.6)
        #expect(
            samples.map { $0.alarms.map(\.grade) } == [[], [.degraded], [.failing], [.lost]])
    }

    @Test func `inference cards with several chips are read`() throws {
        let samples = try NPUTable(text: Recorded.text("npu-smi-310p3.txt")).samples
        #expect(samples.count == 2)
        #expect(samples[0].reading.totalMemoryBytes == 21_527 << 20)
        #expect(samples[0].reading.powerWatts == 0)
        #expect(samples[1].alarms == [.init(.failing, "its driver says: Alarm")])
    }

    @Test func `chips of one card differ in their ids`() throws {
        let samples = try NPUTable(text: Recorded.text("npu-smi-310p3.txt")).samples
        #expect(Set(samples.map(\.reading.id)).count == 2)
    }

    @Test(arguments: [
        "", "dcmi module initialize failed. ret is -8005\n",
        "| NPU   Name | Health | x |\n| 0 910B3 | OK | 92.6 51 0 / 0 |\n",
        "| NPU   Name | Health | x |\n| 0 910B3 | OK | 92.6 |\n| 0 | a | b |\n",
    ])
    func `anything else is an error`(text: String) {
        #expect(throws: ProbeError.self) { try NPUTable(text: text) }
    }

    /// Makes an executable script.
    private func script(_ text: String) throws -> String {
        let file = FileManager.default.temporaryDirectory
            .appending(path: "npu-smi-\(UInt64.random(in: 0 ... .max))")
        try Data("#!/bin/sh\n\(text)\n".utf8).write(to: file)
        try FileManager.default.setAttributes(
            [.posixPermissions: 0o755], ofItemAtPath: file.path)
        return file.path
    }

    @Test func `the tool is called and its failure told`() throws {
        let good = try script(
            "cat '\(Recorded.folder.appending(path: "npu-smi-910b3.txt").path)'")
        defer { try? FileManager.default.removeItem(atPath: good) }
        #expect(try NPUProbe(path: good).read().count == 4)
        let bad = try script("echo no driver; exit 3")
        defer { try? FileManager.default.removeItem(atPath: bad) }
        #expect(throws: ProbeError.failed("\(bad) ended with 3: no driver\n")) {
            try NPUProbe(path: bad).read()
        }
        #expect(throws: ProbeError.self) { try NPUProbe(path: "/nonexistent").read() }
    }

    @Test func `a tool that hangs is killed`() throws {
        let path = try script("exec sleep 100")
        defer { try? FileManager.default.removeItem(atPath: path) }
        let call = ToolCall(path: path, arguments: [], deadline: .milliseconds(300))
        #expect(throws: ProbeError.failed("\(path) did not answer within 300 ms")) {
            try call.run()
        }
    }
}
