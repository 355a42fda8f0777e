import CNVML
import Foundation
package import ServingTypes

/// NVIDIA's GPUs, through its management library, which is loaded when it is there.
@safe package final class NVMLProbe: DeviceProbe {
    package static let library = "libnvidia-ml.so.1"

    package let name = "NVML"
    private let path: String
    private var library: OpaquePointer?
    /// Critical errors by the device's address, the latest of each number.
    private var errors: [String: [UInt64: ContinuousClock.Instant]] = [:]

    package init(path: String = NVMLProbe.library) { self.path = path }

    deinit { unsafe cnvml_close(library) }

    /// Whether the library is there at all; drivers install it with themselves.
    package static func isInstalled(path: String = NVMLProbe.library) -> Bool {
        guard let handle = unsafe dlopen(path, RTLD_LAZY | RTLD_LOCAL) else { return false }
        _ = unsafe dlclose(handle)
        return true
    }

    package func read() throws(ProbeError) -> [DeviceSample] {
        let opened = try unsafe open()
        var count: UInt32 = 0
        let code = unsafe cnvml_count(opened, &count)
        guard code == Int32(CNVML_SUCCESS) else {
            let reason = unsafe Self.text(of: code, opened)
            // After a restart of the driver only a new start of the library helps.
            unsafe cnvml_close(opened)
            unsafe library = nil
            throw .failed(reason)
        }
        unsafe takeErrors(opened)
        var samples: [DeviceSample] = []
        for index in 0..<min(count, UInt32(ProbeLimits.devices)) {
            var reading = cnvml_reading()
            let code = unsafe cnvml_read(opened, index, &reading)
            // A device without even a handle is missing in the list: so it counts as lost.
            guard code == Int32(CNVML_SUCCESS) else { continue }
            samples.append(sample(of: reading))
        }
        return samples
    }

    private func open() throws(ProbeError) -> OpaquePointer {
        if let library = unsafe library { return unsafe library }
        var opened: OpaquePointer?
        let code = unsafe cnvml_open(path, &opened)
        guard code == Int32(CNVML_SUCCESS), let new = unsafe opened else {
            throw .failed("\(path) can't be used: NVML's code \(code)")
        }
        unsafe library = new
        return unsafe new
    }

    private static func text(of code: Int32, _ library: OpaquePointer) -> String {
        guard let text = unsafe cnvml_text(library, code) else { return "code \(code)" }
        return unsafe String(cString: text)
    }

    private func takeErrors(_ library: OpaquePointer) {
        let now = ContinuousClock.now
        for _ in 0..<ProbeLimits.devices {
            var number: UInt64 = 0
            var address = [CChar](repeating: 0, count: 32)
            let code = unsafe cnvml_next_error(library, &address, &number)
            guard code == Int32(CNVML_SUCCESS) else { break }
            errors[Self.identifier(address), default: [:]][number] = now
        }
        for id in errors.keys {
            errors[id] = errors[id]?.filter { now - $0.value < ProbeLimits.errorMemory }
        }
    }

    /// `00000000:C1:00.0` is the same as the `0000:c1:00.0` of the system.
    private static func identifier(_ address: [CChar]) -> String {
        let bytes = address.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        let text = String(decoding: bytes, as: UTF8.self).lowercased()
        let parts = text.split(separator: ":", maxSplits: 1)
        guard parts.count == 2, parts[0].count == 8, parts[0].hasPrefix("0000") else {
            return text
        }
        return "\(parts[0].dropFirst(4)):\(parts[1])"
    }

    private func sample(of facts: cnvml_reading) -> DeviceSample {
        let id = Self.identifier(
            unsafe withUnsafeBytes(of: facts.bus_id) { bytes in
                unsafe bytes.map { CChar(bitPattern: $0) }
            })
        let name = unsafe withUnsafeBytes(of: facts.name) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        var reading = DeviceReading(
            id: id, name: name, kind: "GPU", totalMemoryBytes: facts.total_memory_bytes,
            freeMemoryBytes: facts.free_memory_bytes)
        reading.busyFraction = min(max(Double(facts.busy_percent) / 100, 0), 1)
        reading.temperatureCelsius = max(0, Double(facts.temperature_celsius))
        reading.powerWatts = max(0, Double(facts.power_milliwatts) / 1000)
        reading.correctedErrors = facts.corrected_errors
        reading.uncorrectedErrors = facts.uncorrected_errors
        var sample = DeviceSample(reading)
        if facts.slowdown_celsius > 0 { sample.hotCelsius = Double(facts.slowdown_celsius) }
        if facts.shutdown_celsius > 0 { sample.criticalCelsius = Double(facts.shutdown_celsius) }
        sample.throttling = Self.slowdowns.filter {
            facts.slowdown_reasons & UInt64($0.bit) != 0
        }.map(\.text)
        sample.alarms = alarms(of: facts, id)
        return sample
    }

    /// A power cap is the normal state under load: it is no fault.
    private static let slowdowns = [
        (bit: CNVML_SLOWDOWN_HARDWARE, text: "the hardware slows it down"),
        (bit: CNVML_SLOWDOWN_SOFTWARE_THERMAL, text: "the driver slows it down for its heat"),
        (bit: CNVML_SLOWDOWN_HARDWARE_THERMAL, text: "the hardware slows it down for its heat"),
        (bit: CNVML_SLOWDOWN_POWER_BRAKE, text: "the power supply slows it down"),
    ]

    private func alarms(of facts: cnvml_reading, _ id: String) -> [DeviceSample.Alarm] {
        var alarms: [DeviceSample.Alarm] = []
        if facts.state == Int32(CNVML_GPU_IS_LOST) {
            alarms.append(.init(.lost, "its driver has lost it"))
        } else if facts.state == Int32(CNVML_RESET_REQUIRED) {
            alarms.append(.init(.failing, "it needs a reset"))
        }
        if facts.has_remapping_failed {
            alarms.append(.init(.failing, "bad rows of its memory can't be replaced any more"))
        } else if facts.is_remapping_pending {
            alarms.append(.init(.degraded, "bad rows of its memory are replaced by a reset"))
        }
        for number in (errors[id] ?? [:]).keys.sorted() {
            alarms.append(.init(Self.grade(ofError: number), "XID \(number)"))
        }
        return alarms
    }

    /// What NVIDIA's list of XIDs says of those that concern the device, not the program on it.
    private static func grade(ofError number: UInt64) -> DeviceGrade {
        switch number {
        // Fallen off the bus.
        case 79: .lost
        // Double-bit errors, retired pages, remapping, link and memory faults that need a reset.
        case 48, 62, 64, 74, 92, 95, 119, 120, 140, 143, 155: .failing
        // Contained or corrected errors, and faults of whatever ran.
        default: .degraded
        }
    }
}
