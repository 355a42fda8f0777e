import Foundation
import ServingTypes
import Testing

@testable import HealthService

/// The file of supervised workers, and their logs.
@Suite struct SuperviseFileTests {
    @Test func `workers are read with all they have`() throws {
        let text = """
            workers:
              - name: decode-1
                command: decode-worker
                arguments: [--listen, "10.0.0.2:7420", --threads, 4]
                environment: {CUDA_VISIBLE_DEVICES: 0}
                log: /var/log/pdserve/decode-1.log
              - name: prefill-1
                command: /opt/pdserve/prefill-worker
                log: prefill.log
            """
        #expect(
            try SuperviseFile.parse(text, path: "x") == [
                SupervisedCommand(
                    name: "decode-1", command: "decode-worker",
                    arguments: ["--listen", "10.0.0.2:7420", "--threads", "4"],
                    environment: ["CUDA_VISIBLE_DEVICES": "0"],
                    log: "/var/log/pdserve/decode-1.log"),
                SupervisedCommand(
                    name: "prefill-1", command: "/opt/pdserve/prefill-worker",
                    log: "prefill.log"),
            ])
    }

    @Test(arguments: [
        ("", "it must begin with 'workers:' and a list of them"),
        ("workers: []", "'workers' must be a list of at least one worker"),
        ("worker: []", "the file has a key 'worker' that nobody reads; there are workers"),
        ("workers: [{name: a, command: b}]", "worker 1 needs 'log'"),
        (
            "workers: [{name: a, command: b, log: c}, {name: a, command: b, log: c}]",
            "two workers are named 'a'; each needs its own name"
        ),
        (
            "workers: [{name: a, command: b, log: c, args: []}]",
            "worker 1 has a key 'args' that nobody reads; there are name, command, arguments, "
                + "environment, log"
        ),
        (
            "workers: [{name: a/b, command: b, log: c}]",
            "worker 1: a name has at most 128 bytes and no '/'"
        ),
        (
            "workers: [{name: a, command: b, log: c, arguments: x}]",
            "worker 1: 'arguments' must be a list of at most 1024 texts"
        ),
    ])
    func `what is wrong is said`(text: String, problem: String) {
        #expect(throws: SuperviseFileError(path: "x", problem: problem)) {
            try SuperviseFile.parse(text, path: "x")
        }
    }

    @Test func `text that is no YAML is an error`() {
        #expect(throws: SuperviseFileError.self) {
            try SuperviseFile.parse("workers: [", path: "x")
        }
        #expect(throws: SuperviseFileError(path: "/nonexistent", problem: "it can't be read")) {
            try SuperviseFile.read("/nonexistent")
        }
    }

    @Test func `a log that grows is moved away while its writer goes on`() throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "logs-\(UInt64.random(in: 0 ... .max))")
        defer { try? FileManager.default.removeItem(at: folder) }
        let log = BoundedLog(
            path: folder.appending(path: "worker.log").path, maximumBytes: 100, keptFiles: 2)
        let writer = try log.open()
        func text(_ suffix: String) -> String? {
            try? String(contentsOfFile: log.path + suffix, encoding: .utf8)
        }
        for round in 1...4 {
            try writer.write(contentsOf: Data("round \(round)".utf8))
            #expect(try log.rotate() == .notNeeded)
            try writer.write(contentsOf: Data(String(repeating: "x", count: 100).utf8))
            #expect(try log.rotate() == .moved)
        }
        try writer.write(contentsOf: Data("end".utf8))
        #expect(text("") == "end", "the writer appends to the emptied file")
        #expect(text(".1")?.hasPrefix("round 4x") == true)
        #expect(text(".2")?.hasPrefix("round 3x") == true)
        #expect(text(".3") == nil)
    }
}
