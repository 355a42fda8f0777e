import Foundation

/// What the kernel says of a process.
package enum ProcessReadings {
    /// Processor time of all threads in seconds, in steps of a clock tick; nil once it has ended.
    static func processorSeconds(_ process: Int32) -> Double? {
        guard let text = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8),
            // The name in parentheses may contain anything.
            let end = text.lastIndex(of: ")")
        else { return nil }
        let fields = text[text.index(after: end)...].split(separator: " ")
        // Fields 14 and 15 of proc(5), user and system time; the third one is the first here.
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12])
        else { return nil }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// Most memory it ever had in RAM, or since `forgetPeak`, in bytes.
    static func peakResidentBytes(_ process: Int32) -> Int? { status("VmHWM:", of: process) }

    /// Memory it has in RAM, in bytes.
    package static func residentBytes(_ process: Int32) -> Int? { status("VmRSS:", of: process) }

    package static func threads(_ process: Int32) -> Int? { number("Threads:", of: process) }

    /// Open files, sockets among them.
    package static func descriptors(_ process: Int32) -> Int? {
        try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd").count
    }

    /// Lets the peak begin anew; false if the kernel doesn't allow it.
    static func forgetPeak(_ process: Int32) -> Bool {
        // '5' means that alone (proc_pid_clear_refs(5)).
        let path = "/proc/\(process)/clear_refs"
        guard let file = FileHandle(forWritingAtPath: path) else { return false }
        defer { try? file.close() }
        do {
            try file.write(contentsOf: Data("5".utf8))
            return true
        } catch { return false }
    }

    /// A field in KiB, in bytes.
    private static func status(_ field: String, of process: Int32) -> Int? {
        number(field, of: process).map { $0 << 10 }
    }

    private static func number(_ field: String, of process: Int32) -> Int? {
        guard let text = try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
        else { return nil }
        let line = text.split(separator: "\n").first { $0.hasPrefix(field) }
        return line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first
            .flatMap { Int($0) }
    }

    /// Processes that wanted to run, over the last minute.
    package static var loadAverage: String {
        let text = try? String(contentsOfFile: "/proc/loadavg", encoding: .utf8)
        return text?.split(separator: " ").first.map(String.init) ?? "unknown"
    }

    package static var processorName: String {
        let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("model name") }
        let name = line?.split(separator: ":").last.map { $0.drop { $0 == " " } }
        return name.map(String.init) ?? "unknown"
    }
}
