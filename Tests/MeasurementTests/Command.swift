import Foundation

/// A program as people start it.
enum Command {
    /// Executables lie beside the test bundle.
    static let benchmark = URL(fileURLWithPath: ProcessInfo.processInfo.arguments[0])
        .resolvingSymlinksInPath().deletingLastPathComponent().appending(path: "benchmark")

    /// Runs a program; gives its status and everything that it wrote.
    static func run(
        _ executable: URL, _ arguments: [String], in folder: URL
    ) async throws -> (status: Int32, output: String) {
        let file = folder.appending(path: "output")
        _ = FileManager.default.createFile(atPath: file.path, contents: nil)
        let output = try FileHandle(forWritingTo: file)
        defer { try? output.close() }
        let process = Process()
        process.executableURL = executable
        process.arguments = arguments
        process.standardOutput = output
        process.standardError = output
        try process.run()
        while process.isRunning { try await Task.sleep(for: .milliseconds(50)) }
        return (process.terminationStatus, try String(contentsOf: file, encoding: .utf8))
    }

    /// Gives an empty folder that is removed afterwards.
    static func withFolder(_ body: (URL) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "pdserve-command-\(UInt32.random(in: 0 ... .max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try await body(folder)
    }
}
