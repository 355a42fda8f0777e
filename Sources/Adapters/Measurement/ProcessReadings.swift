import Foundation
import HTTPClient
import LocalCluster
import ServiceStart
import ServingTypes

/// What the kernel says of a process.
enum ProcessReadings {
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

    /// Most memory it ever had in RAM, in bytes.
    static func peakResidentBytes(_ process: Int32) -> Int? {
        guard let text = try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
        else { return nil }
        let line = text.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
        return line?.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first
            .flatMap { Int($0) }.map { $0 << 10 }
    }

    /// Processes that wanted to run, over the last minute.
    static var loadAverage: String {
        let text = try? String(contentsOfFile: "/proc/loadavg", encoding: .utf8)
        return text?.split(separator: " ").first.map(String.init) ?? "unknown"
    }

    static var processorName: String {
        let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("model name") }
        let name = line?.split(separator: ":").last.map { $0.drop { $0 == " " } }
        return name.map(String.init) ?? "unknown"
    }
}

/// One reading of a process's metrics.
struct MetricsReading: Sendable {
    private let values: [String: Double]

    /// - Throws: if the process doesn't answer.
    init(of process: ManagedProcess) async throws {
        guard let address = process.announcement.admin ?? process.announcement.http else {
            values = [:]
            return
        }
        let (_, body) = try await HTTPCall("GET", address, "/metrics").collect()
        var values: [String: Double] = [:]
        for line in String(decoding: body, as: UTF8.self).split(separator: "\n")
        where !line.hasPrefix("#") {
            guard let space = line.lastIndex(of: " ") else { continue }
            values[String(line[..<space])] = Double(line[line.index(after: space)...])
        }
        self.values = values
    }

    /// Zero for a series that is not there yet.
    subscript(series: String) -> Double { values[series] ?? 0 }
}
