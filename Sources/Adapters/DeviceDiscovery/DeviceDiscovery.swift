package import DeviceProfile
import Foundation
import HostProbe
import LlamaEngine
package import ServingTypes

/// A device of this host and what is known of its kind.
package struct FoundDevice: Hashable, Sendable {
    package var reading: DeviceReading
    /// Who named it: ggml, NVML, npu-smi or the kernel.
    package var source: String
    package var profile: DeviceProfile?
    /// From cores, clock and instructions, since no profile fits.
    package var isDerived: Bool
}

/// Which devices this host has, and which profiles they match.
package enum DeviceDiscovery {
    /// - Parameters:
    ///   - profiles: those to choose from; the first of equal fits.
    ///   - procPath: `/proc`, or recorded files in tests.
    package static func devices(
        profiles: [DeviceProfile] = DeviceProfile.catalogue, procPath: String = "/proc"
    ) -> [FoundDevice] {
        var readings = readDevices().map { ($0, "ggml") }
        if NVMLProbe.isInstalled(), let samples = try? NVMLProbe().read() {
            readings += samples.map { ($0.reading, "NVML") }
        }
        let tool = "/usr/local/bin/npu-smi"
        if FileManager.default.isExecutableFile(atPath: tool),
            let samples = try? NPUProbe(path: tool).read()
        {
            readings += samples.map { ($0.reading, "npu-smi") }
        }
        let facts = processors(procPath: procPath)
        if !readings.contains(where: { $0.0.kind == "CPU" }), let facts {
            let reading = DeviceReading(
                id: DeviceReading.processors, name: facts.name, kind: "CPU",
                totalMemoryBytes: UInt64(facts.memoryBytes), freeMemoryBytes: 0)
            readings.append((reading, "the kernel"))
        }
        return unique(readings).map { match($0, source: $1, profiles: profiles, facts: facts) }
    }

    /// A driver and ggml name the same card: one of them stays, ggml's first.
    private static func unique(
        _ readings: [(DeviceReading, String)]
    ) -> [(DeviceReading, String)] {
        var kept: [(DeviceReading, String)] = []
        for (reading, source) in readings {
            let others = kept.filter { $0.1 != source && $0.0.kind == reading.kind }
            let isKnown = others.contains {
                $0.0.name == reading.name || reading.kind == "NPU"
            }
            if !isKnown { kept.append((reading, source)) }
        }
        return kept
    }

    /// Pure: which profile a device's name fits, or one derived from what the host tells.
    package static func match(
        _ reading: DeviceReading, source: String, profiles: [DeviceProfile],
        facts: ProcessorFacts?
    ) -> FoundDevice {
        let kind = DeviceKind(rawValue: reading.kind.lowercased())
        let profile = DeviceProfile.matching(reading.name, kind: kind, in: profiles)
        guard profile == nil, kind == .cpu, let facts else {
            return FoundDevice(
                reading: reading, source: source, profile: profile, isDerived: false)
        }
        return FoundDevice(
            reading: reading, source: source, profile: .derived(from: facts), isDerived: true)
    }

    /// What `/proc/cpuinfo` and `/proc/meminfo` tell; nil without them.
    package static func processors(procPath: String = "/proc") -> ProcessorFacts? {
        let information = try? String(contentsOfFile: "\(procPath)/cpuinfo", encoding: .utf8)
        var host = HostProbe(host: "", procPath: procPath)
        return information.flatMap {
            ProcessorFacts(
                cpuinfo: $0, memoryBytes: Double(host.read().totalMemoryBytes))
        }
    }
}
