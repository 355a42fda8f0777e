import Foundation
package import ServingTypes

/// Reads load and memory of this host from `/proc`; zeros where a reading is not to be had.
///
/// Keeps the last processor times, since the busy part is a difference of two readings.
package struct HostProbe {
    private let host: String
    private let procPath: String
    private var last: ProcessorTimes?

    /// - Parameters:
    ///   - host: the name the host's workers advertise.
    ///   - procPath: `/proc`, or recorded files in tests.
    package init(host: String, procPath: String = "/proc") {
        self.host = host
        self.procPath = procPath
    }

    /// - Parameter devices: what the probes of devices found.
    package mutating func read(devices: [DeviceReading] = []) -> HostReading {
        let times = ProcessorTimes(stat: text("\(procPath)/stat"))
        defer { last = times ?? last }
        let memory = MemoryInformation(text("\(procPath)/meminfo"))
        let load = text("\(procPath)/loadavg").split(separator: " ").first.flatMap { Double($0) }
        return HostReading(
            host: host, cores: UInt32(ProcessInfo.processInfo.activeProcessorCount),
            busyFraction: times?.busyFraction(since: last) ?? 0, loadAverage: load ?? 0,
            totalMemoryBytes: memory["MemTotal"] ?? 0,
            availableMemoryBytes: memory["MemAvailable"] ?? 0, devices: devices)
    }
}
