import Foundation
package import ServingTypes

/// Reads load and memory of this host from `/proc`; zeros where a reading is not to be had.
///
/// Keeps the last processor times, since the busy part is a difference of two readings.
package struct HostProbe {
    private let host: String
    private let procPath: String
    private let devices: @Sendable () -> [DeviceReading]
    private var last: ProcessorTimes?

    /// - Parameters:
    ///   - host: the name the host's workers advertise.
    ///   - procPath: `/proc`, or recorded files in tests.
    ///   - devices: readings of accelerators.
    package init(
        host: String, procPath: String = "/proc",
        devices: @escaping @Sendable () -> [DeviceReading] = { [] }
    ) {
        self.host = host
        self.procPath = procPath
        self.devices = devices
    }

    package mutating func read() -> HostReading {
        let times = ProcessorTimes(stat: file("stat"))
        defer { last = times ?? last }
        var busy = 0.0
        if let times, let last, times.total > last.total {
            busy = 1 - Double(times.idle &- last.idle) / Double(times.total - last.total)
        }
        let memory = Self.memory(file("meminfo"))
        let load = file("loadavg").split(separator: " ").first.flatMap { Double($0) }
        return HostReading(
            host: host, cores: UInt32(ProcessInfo.processInfo.activeProcessorCount),
            busyFraction: min(max(busy, 0), 1), loadAverage: load ?? 0,
            totalMemoryBytes: memory["MemTotal"] ?? 0,
            availableMemoryBytes: memory["MemAvailable"] ?? 0, devices: devices())
    }

    private func file(_ name: String) -> String {
        (try? String(contentsOfFile: "\(procPath)/\(name)", encoding: .utf8)) ?? ""
    }

    /// Bytes by name from `/proc/meminfo`, whose figures are in KiB.
    private static func memory(_ text: String) -> [Substring: UInt64] {
        var result: [Substring: UInt64] = [:]
        for line in text.split(separator: "\n") {
            let parts = line.split(whereSeparator: { $0 == ":" || $0 == " " })
            if parts.count >= 2, let kibibytes = UInt64(parts[1]) {
                result[parts[0]] = kibibytes << 10
            }
        }
        return result
    }
}

/// Processor time of all cores since the host started, in clock ticks.
private struct ProcessorTimes {
    let idle: UInt64
    let total: UInt64

    /// Reads the first line of `/proc/stat`.
    ///
    /// Its columns: user, nice, system, idle, iowait, irq, softirq, steal, then guest times.
    init?(stat: String) {
        guard let line = stat.split(separator: "\n").first, line.hasPrefix("cpu ") else {
            return nil
        }
        // Guest times are contained in user times already.
        let ticks = line.split(separator: " ").dropFirst().prefix(8).compactMap { UInt64($0) }
        guard ticks.count >= 5 else { return nil }
        idle = ticks[3] + ticks[4]
        total = ticks.reduce(0, +)
    }
}
