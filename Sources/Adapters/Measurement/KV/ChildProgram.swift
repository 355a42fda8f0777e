import Foundation
import ServingTypes

/// A program started by this one, in a process group of its own, read line by line within bounds.
final class ChildProgram {
    /// Why there is no further line.
    enum ReadingError: Error, Equatable {
        case deadline
        case interrupted
        /// The program wrote more than `KVMeasurementLimits.outputBytes` in all or in one line.
        case tooMuchOutput
    }

    private let process = Process()
    private let input = Pipe()
    private let output = Pipe()
    private let errors: URL
    private var buffer: [UInt8] = []
    private var isAtEnd = false
    /// Bytes that may still come.
    private var allowance: Int

    /// - Parameters:
    ///   - errors: a file that takes the program's standard error.
    ///   - outputLimitBytes: of all lines together.
    init(
        executable: String, arguments: [String], errors: URL,
        outputLimitBytes: Int = KVMeasurementLimits.outputBytes
    ) throws {
        // A program that ends early must not end this one.
        signal(SIGPIPE, SIG_IGN)
        self.errors = errors
        allowance = outputLimitBytes
        _ = FileManager.default.createFile(atPath: errors.path, contents: nil)
        let log = try FileHandle(forWritingTo: errors)
        defer { try? log.close() }
        process.executableURL = URL(fileURLWithPath: executable)
        process.arguments = arguments
        process.standardInput = input
        process.standardOutput = output
        process.standardError = log
        try process.run()
        // Only the program holds the other ends; its end is then seen here.
        try? output.fileHandleForWriting.close()
        try? input.fileHandleForReading.close()
    }

    deinit { end() }

    /// Exit status, or the negative number of the signal that ended it; nil while it runs.
    var exitStatus: Int32? {
        guard !process.isRunning else { return nil }
        let status = process.terminationStatus
        return process.terminationReason == .uncaughtSignal ? -status : status
    }

    func write(line: String) throws {
        try input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8))
    }

    /// The next line without its end; nil when the program has ended or closed its output.
    func nextLine(
        before end: ContinuousClock.Instant, isInterrupted: () -> Bool
    ) throws(ReadingError) -> String? {
        while true {
            if let line = takeLine(orRest: isAtEnd) { return line }
            if isAtEnd { return nil }
            if isInterrupted() { throw .interrupted }
            guard ContinuousClock.now < end else { throw .deadline }
            // A program's children may hold its output open after it has ended.
            let hadEnded = !process.isRunning
            let gotMore = try readMore()
            if !gotMore, hadEnded { isAtEnd = true }
        }
    }

    /// Waits until the program has ended; false if it has not in time.
    func waitForExit(before end: ContinuousClock.Instant, isInterrupted: () -> Bool) -> Bool {
        while process.isRunning {
            guard ContinuousClock.now < end, !isInterrupted() else { return false }
            usleep(10_000)
        }
        return true
    }

    /// The end of what it wrote to its standard error, in one line.
    var lastWords: String {
        guard let log = try? FileHandle(forReadingFrom: errors) else { return "" }
        defer { try? log.close() }
        let size = (try? log.seekToEnd()) ?? 0
        let limit = UInt64(KVMeasurementLimits.lastWordsBytes)
        try? log.seek(toOffset: size > limit ? size - limit : 0)
        let bytes = (try? log.read(upToCount: KVMeasurementLimits.lastWordsBytes)) ?? Data()
        return String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline)
            .suffix(2).joined(separator: "; ")
    }

    /// Kills it with all programs it started, if they kept to its group.
    func end() {
        try? input.fileHandleForWriting.close()
        let identifier = process.processIdentifier
        guard identifier > 0 else { return }
        kill(-identifier, SIGKILL)
        if process.isRunning { kill(identifier, SIGKILL) }
        process.waitUntilExit()
    }

    private func takeLine(orRest takesRest: Bool) -> String? {
        let newline = buffer.firstIndex(of: UInt8(ascii: "\n"))
        guard let end = newline ?? (takesRest && !buffer.isEmpty ? buffer.count : nil) else {
            return nil
        }
        let line = String(decoding: buffer[..<end], as: UTF8.self)
        buffer.removeFirst(min(end + 1, buffer.count))
        return line
    }

    /// Waits a short time for output; false if there was none.
    private func readMore() throws(ReadingError) -> Bool {
        let file = output.fileHandleForReading.fileDescriptor
        var entry = pollfd(fd: file, events: Int16(POLLIN), revents: 0)
        let wait = Int32(KVMeasurementLimits.interruptInterval.milliseconds)
        guard unsafe poll(&entry, 1, wait) > 0 else { return false }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe read(file, buffer.baseAddress, buffer.count)
        }
        guard count > 0 else {
            isAtEnd = count == 0 || errno != EINTR
            return false
        }
        allowance -= count
        guard allowance >= 0 else { throw .tooMuchOutput }
        buffer += bytes[..<count]
        return true
    }
}
