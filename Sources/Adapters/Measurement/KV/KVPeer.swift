import Foundation
import ServingTypes

/// Another program that moves KV between two processes of its own.
package struct KVPeer: Sendable, Hashable {
    package let name: String
    /// For `sh -c`; the argument `shapes=1x64,16x8` is added at its end.
    package let command: String

    /// - Parameter argument: `name=command`.
    package init(argument: String) throws(MeasurementError) {
        guard let equals = argument.firstIndex(of: "=") else {
            throw .peerArgument(argument, problem: "has no '='; write NAME=COMMAND")
        }
        name = Self.trimmed(argument[..<equals])
        command = Self.trimmed(argument[argument.index(after: equals)...])
        if name.isEmpty { throw .peerArgument(argument, problem: "has no name") }
        if command.isEmpty { throw .peerArgument(argument, problem: "has no command") }
        if KVContenders.names.contains(name) {
            throw .peerArgument(argument, problem: "has the name of a contender of its own")
        }
    }

    private static func trimmed(_ text: Substring) -> String {
        text.trimmingCharacters(in: .whitespaces)
    }
}

/// One line of a peer's results.
struct KVPeerLine: Equatable {
    var mebibytes: Int
    var observation: KVObservation

    private struct Object: Decodable {
        var mb: Int
        var GBps: Double
        var snd_cpu: Double
        var rcv_cpu: Double
    }

    /// Nil for what is no result: lines that don't begin with a brace.
    ///
    /// - Throws: `peerOutput` if it begins with one and does not make sense.
    static func parse(_ line: String) throws(MeasurementError) -> KVPeerLine? {
        guard line.first(where: { !$0.isWhitespace }) == "{" else { return nil }
        let shown = String(line.prefix(120))
        guard let object = try? JSONDecoder().decode(Object.self, from: Data(line.utf8)) else {
            throw .peerOutput("no result in \(shown)")
        }
        let numbers = [object.GBps, object.snd_cpu, object.rcv_cpu]
        guard object.mb > 0, object.GBps > 0,
            numbers.allSatisfy({ $0.isFinite && $0 >= 0 && $0 < 1e6 })
        else { throw .peerOutput("impossible figures in \(shown)") }
        return KVPeerLine(
            mebibytes: object.mb,
            observation: KVObservation(
                gigabytesPerSecond: object.GBps, senderSecondsPerGigabyte: object.snd_cpu,
                receiverSecondsPerGigabyte: object.rcv_cpu))
    }
}

/// One run of a peer: figures by size, and what was wrong.
struct KVPeerRun {
    var observations: [Int: KVObservation] = [:]
    /// Nil if it gave figures for all sizes.
    var problem: String?

    /// Runs the program to its end, or to the deadline.
    ///
    /// - Throws: `CancellationError` if interrupted, or why no shell can be started.
    init(
        _ peer: KVPeer, settings: KVMeasurementSettings, folder: URL, isInterrupted: () -> Bool
    ) throws {
        let program = try ChildProgram(
            executable: "/bin/sh",
            arguments: ["-c", "\(peer.command) shapes=\(settings.shapes)"],
            errors: folder.appending(path: "peer.log"))
        defer { program.end() }
        let end = ContinuousClock.now + settings.peerDeadline
        do {
            while let line = try program.nextLine(before: end, isInterrupted: isInterrupted) {
                guard let result = try KVPeerLine.parse(line) else { continue }
                guard settings.sizes.contains(result.mebibytes) else {
                    throw MeasurementError.peerOutput("nobody asked for \(result.mebibytes) MiB")
                }
                observations[result.mebibytes] = result.observation
            }
        } catch ChildProgram.ReadingError.interrupted {
            throw CancellationError()
        } catch ChildProgram.ReadingError.deadline {
            problem = "not done after \(Int(settings.peerDeadline.seconds)) s"
        } catch ChildProgram.ReadingError.tooMuchOutput {
            problem = "more than \(KVMeasurementLimits.outputBytes) bytes of output"
        } catch {
            problem = "\(error)"
        }
        let missing = settings.sizes.filter { observations[$0] == nil }
        // What a program says or does after its last figure is its own affair.
        guard !missing.isEmpty else {
            problem = nil
            return
        }
        let hasEnded =
            problem == nil && program.waitForExit(before: end, isInterrupted: isInterrupted)
        let status = hasEnded ? program.exitStatus.map { "exit status \($0)" } : nil
        let sizes = missing.map(String.init).joined(separator: ", ")
        problem = ["no figures for \(sizes) MiB", problem, status, program.lastWords]
            .compactMap { $0 }.filter { !$0.isEmpty }.joined(separator: "; ")
    }
}
