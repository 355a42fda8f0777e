import ArgumentParser
import ClusterFile
import ClusterRules
import Foundation

/// Tells what a cluster file comes to, before a scheduler reads it.
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Check a cluster file and say in words what it comes to.",
        discussion: """
            Exit status 0 if the scheduler would take the file, 1 if not. Warnings do not change it.
            """)

    @Argument(help: "The cluster file, in YAML.")
    var file: String?

    @Flag(help: "Show every key with its value, default and meaning instead.")
    var keys = false

    func validate() throws {
        guard (file == nil) == keys else {
            throw ValidationError("Give the path of a cluster file, or --keys.")
        }
    }

    func run() throws {
        guard let file else { return write(ClusterFile.reference) }
        let text = try contents(of: file)
        do throws(ClusterFile.Failure) {
            let spec = try ClusterFile.parse(text)
            write(ClusterFile.explanation(of: spec))
            for warning in ClusterFile.warnings(for: spec) { write("warning: \(warning)") }
        } catch {
            for problem in error.problems { write("\(file): \(problem)") }
            throw ExitCode(1)
        }
    }

    private func contents(of file: String) throws -> String {
        let data: Data
        do {
            data = try Data(contentsOf: URL(fileURLWithPath: file))
        } catch {
            throw ValidationError("'\(file)' can't be read: \(error.localizedDescription)")
        }
        guard let text = String(data: data, encoding: .utf8) else {
            throw ValidationError("'\(file)' is not UTF-8 text.")
        }
        return text
    }
}
