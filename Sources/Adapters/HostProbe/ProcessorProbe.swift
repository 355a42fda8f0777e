import Foundation
package import ServingTypes

/// Processors and memory of a Linux host, from `/proc` and `/sys`.
package final class ProcessorProbe: DeviceProbe {
    package let name = "host"
    private let procPath: String
    private let sysPath: String
    private var last: ProcessorTimes?

    /// - Parameters:
    ///   - procPath: `/proc`, or recorded files in tests; so is `sysPath`.
    package init(procPath: String = "/proc", sysPath: String = "/sys") {
        self.procPath = procPath
        self.sysPath = sysPath
    }

    package func read() throws(ProbeError) -> [DeviceSample] { [processors(), memory()] }

    private func processors() -> DeviceSample {
        let times = ProcessorTimes(stat: text("\(procPath)/stat"))
        defer { last = times ?? last }
        let information = text("\(procPath)/cpuinfo")
        let model = information.split(separator: "\n").first { $0.hasPrefix("model name") }
        let modelName = model?.split(separator: ":").last.map {
            $0.trimmingCharacters(in: .whitespaces)
        }
        var reading = DeviceReading(
            id: DeviceReading.processors, name: modelName ?? "processors", kind: "CPU",
            totalMemoryBytes: 0, freeMemoryBytes: 0)
        reading.busyFraction = times?.busyFraction(since: last) ?? 0
        var sample = DeviceSample(reading)
        let cores = max(1, times?.cores ?? 1)
        let load = text("\(procPath)/loadavg").split(separator: " ").first.flatMap { Double($0) }
        sample.loadPerProcessor = load.map { $0 / Double(cores) }
        addHeat(to: &sample)
        return sample
    }

    /// The zone that is nearest to its limit.
    private func addHeat(to sample: inout DeviceSample) {
        let folder = "\(sysPath)/class/thermal"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        var nearest = -Double.infinity
        for name in names.filter({ $0.hasPrefix("thermal_zone") }).sorted()
            .prefix(ProbeLimits.thermalZones)
        {
            let zone = ThermalZone(folder: "\(folder)/\(name)")
            guard let zone, zone.celsius - (zone.limit ?? 100) > nearest else { continue }
            nearest = zone.celsius - (zone.limit ?? 100)
            sample.reading.temperatureCelsius = max(0, zone.celsius)
            sample.hotCelsius = zone.hot
            sample.criticalCelsius = zone.critical
        }
    }

    private func memory() -> DeviceSample {
        let memory = MemoryInformation(text("\(procPath)/meminfo"))
        var sample = DeviceSample(
            DeviceReading(
                id: DeviceReading.memoryKind, name: "memory", kind: DeviceReading.memoryKind,
                totalMemoryBytes: memory["MemTotal"] ?? 0,
                freeMemoryBytes: memory["MemAvailable"] ?? 0))
        sample.stalledFraction = PressureInformation(text("\(procPath)/pressure/memory")).full
        return sample
    }
}

/// The text of a file of the kernel; empty if it can't be read.
func text(_ path: String) -> String {
    (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
}

/// Bytes by name from `/proc/meminfo`, whose figures are in KiB.
struct MemoryInformation {
    private var bytes: [Substring: UInt64] = [:]

    init(_ text: String) {
        for line in text.split(separator: "\n") {
            let parts = line.split(whereSeparator: { $0 == ":" || $0 == " " })
            if parts.count >= 2, let kibibytes = UInt64(parts[1]) {
                bytes[parts[0]] = kibibytes << 10
            }
        }
    }

    subscript(name: String) -> UInt64? { bytes[name[...]] }
}

/// `/proc/pressure/*`: parts of the last ten seconds in which tasks waited.
struct PressureInformation {
    /// In which some task waited, and in which none could go on; nil where the kernel says nothing.
    private(set) var some: Double?
    private(set) var full: Double?

    init(_ text: String) {
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: " ")
            guard parts.count > 1, parts[1].hasPrefix("avg10="),
                let percent = Double(parts[1].dropFirst("avg10=".count)),
                (0...100).contains(percent)
            else { continue }
            if parts[0] == "some" { some = percent / 100 }
            if parts[0] == "full" { full = percent / 100 }
        }
    }
}

/// One thermal zone of `/sys/class/thermal`, in degrees Celsius.
struct ThermalZone {
    let celsius: Double
    private(set) var hot: Double?
    private(set) var critical: Double?

    var limit: Double? { hot ?? critical }

    /// Nil if the zone is switched off or says nonsense.
    init?(folder: String) {
        func number(_ name: String) -> Double? {
            Double(text("\(folder)/\(name)").trimmingCharacters(in: .whitespacesAndNewlines))
        }
        guard let millidegrees = number("temp"), (-50_000...200_000).contains(millidegrees),
            !text("\(folder)/mode").hasPrefix("disabled")
        else { return nil }
        celsius = millidegrees / 1000
        for point in 0..<16 {
            let type = text("\(folder)/trip_point_\(point)_type")
            guard let value = number("trip_point_\(point)_temp"), value > 0 else { continue }
            if type.hasPrefix("hot") { hot = value / 1000 }
            if type.hasPrefix("critical") { critical = value / 1000 }
        }
    }
}

/// Processor time of all cores since the host started, in clock ticks.
struct ProcessorTimes {
    let idle: UInt64
    let total: UInt64
    let cores: Int

    /// Reads `/proc/stat`.
    ///
    /// Its columns: user, nice, system, idle, iowait, irq, softirq, steal, then guest times.
    init?(stat: String) {
        let lines = stat.split(separator: "\n").filter { $0.hasPrefix("cpu") }
        guard let line = lines.first, line.hasPrefix("cpu ") else { return nil }
        // Guest times are contained in user times already.
        let ticks = line.split(separator: " ").dropFirst().prefix(8).compactMap { UInt64($0) }
        guard ticks.count >= 5 else { return nil }
        idle = ticks[3] + ticks[4]
        total = ticks.reduce(0, +)
        cores = lines.count - 1
    }

    func busyFraction(since earlier: ProcessorTimes?) -> Double {
        guard let earlier, total > earlier.total else { return 0 }
        let busy = 1 - Double(idle &- earlier.idle) / Double(total - earlier.total)
        return min(max(busy, 0), 1)
    }
}
