import Foundation
import Testing
import Yams

/// The files that an installation is made of, as they are in this tree.
enum Deployment {
    static let root = URL(filePath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()

    static let services = [
        "gateway", "scheduler", "prefill-worker", "decode-worker", "health-agent",
    ]

    typealias Table = [String: Any]

    static func text(_ path: String) throws -> String {
        try String(contentsOf: root.appending(path: path), encoding: .utf8)
    }

    static func yaml(_ path: String) throws -> Table {
        try #require(try Yams.load(yaml: text(path)) as? Table, "\(path) is no table")
    }

    /// Names of files in a folder that end so.
    static func files(_ folder: String, ending: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(
            atPath: root.appending(path: folder).path
        ).filter { $0.hasSuffix(ending) }.sorted()
    }

    /// What a program of this build prints.
    static func output(_ program: String, _ arguments: [String]) throws -> String {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: ProcessInfo.processInfo.arguments[0])
            .resolvingSymlinksInPath().deletingLastPathComponent().appending(path: program)
        process.arguments = arguments
        process.standardOutput = output
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let bytes = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0, "\(program) \(arguments)")
        return String(decoding: bytes, as: UTF8.self)
    }

    /// What a tool of this machine says to the files of this tree.
    static func tool(_ command: [String]) throws -> (status: Int32, words: String) {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = command
        process.currentDirectoryURL = root
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let bytes = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: bytes, as: UTF8.self))
    }

    /// Whether a tool is there and works.
    static func has(_ command: [String]) -> Bool { (try? tool(command))?.status == 0 }

    /// The settings of a service as environment variables, as it says itself.
    static func settings(of service: String) throws -> Set<String> {
        let help = try output(service, ["--help"])
        return Set(
            help.matches(of: #/(?m)^  --([a-z0-9-]+)/#).map {
                "PDSERVE_" + $0.1.uppercased().replacing("-", with: "_")
            })
    }

    /// Settings of every service, by its name.
    static let settings: [String: Set<String>] = {
        Dictionary(
            uniqueKeysWithValues: services.map { ($0, (try? settings(of: $0)) ?? []) })
    }()
}
