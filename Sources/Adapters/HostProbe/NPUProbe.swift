import Foundation
package import ServingTypes

/// Ascend NPUs, as `npu-smi info` tells of them.
package final class NPUProbe: DeviceProbe {
    package let name = "npu-smi"
    private let tool: ToolCall

    /// - Parameter path: the tool.
    package init(path: String) { tool = ToolCall(path: path, arguments: ["info"]) }

    /// Where the tool is; nil on a host without it.
    package static func find(
        in path: String = ProcessInfo.processInfo.environment["PATH"] ?? ""
    ) -> String? {
        let folders = path.split(separator: ":").map(String.init) + ["/usr/local/sbin"]
        return folders.map { "\($0)/npu-smi" }.first {
            FileManager.default.isExecutableFile(atPath: $0)
        }
    }

    package func read() throws(ProbeError) -> [DeviceSample] {
        try NPUTable(text: try tool.run()).samples
    }
}

/// The table of `npu-smi info`: two lines a chip, between a double line and the processes.
struct NPUTable {
    private(set) var samples: [DeviceSample] = []

    init(text: String) throws(ProbeError) {
        var upper: [String]?
        var hasHead = false
        for line in text.split(separator: "\n") {
            guard line.hasPrefix("|") else { continue }
            let cells = line.split(separator: "|").map {
                $0.trimmingCharacters(in: .whitespaces)
            }
            if cells.first?.hasPrefix("NPU") == true, cells.count > 1 {
                if cells[1].hasPrefix("Process") { break }
                hasHead = hasHead || cells[1] == "Health"
                continue
            }
            guard hasHead, cells.count == 3, cells[0].first?.isNumber == true else { continue }
            guard let first = upper else {
                upper = cells
                continue
            }
            upper = nil
            guard samples.count < ProbeLimits.devices else { break }
            var sample = try Self.sample(first, cells)
            // Chips of one card may share an address.
            if samples.contains(where: { $0.reading.id == sample.reading.id }) {
                sample.reading.id += "/\(samples.count)"
            }
            samples.append(sample)
        }
        guard hasHead, upper == nil else {
            throw .unreadable(String(text.prefix(200)))
        }
    }

    /// - Parameters:
    ///   - upper: `0     910B3`, health, `power temperature used / all pages`.
    ///   - lower: `chip [device]`, PCI address, `busy used / all [used / all]` in MB.
    private static func sample(
        _ upper: [String], _ lower: [String]
    ) throws(ProbeError) -> DeviceSample {
        let names = upper[0].split(separator: " ")
        let facts = upper[2].split(separator: " ")
        let loads = lower[2].split(whereSeparator: { $0 == " " || $0 == "/" })
        guard names.count >= 2, facts.count >= 2, loads.count >= 3 else {
            throw .unreadable("\(upper) \(lower)")
        }
        // Devices without memory of their own kind show 0 / 0 there.
        var memory: (used: UInt64, all: UInt64) = (0, 0)
        for index in stride(from: 1, to: loads.count - 1, by: 2) {
            if let used = UInt64(loads[index]), let all = UInt64(loads[index + 1]),
                all > memory.all
            {
                memory = (used, all)
            }
        }
        let chip = lower[0].split(separator: " ").first.map(String.init) ?? "0"
        let hasAddress = lower[1].contains(":")
        var reading = DeviceReading(
            id: hasAddress ? lower[1].lowercased() : "npu-\(names[0])-\(chip)",
            name: "Ascend \(names[1])", kind: "NPU", totalMemoryBytes: memory.all << 20,
            freeMemoryBytes: (memory.all - min(memory.used, memory.all)) << 20)
        reading.powerWatts = max(0, Double(facts[0]) ?? 0)
        reading.temperatureCelsius = max(0, Double(facts[1]) ?? 0)
        reading.busyFraction = min(max((Double(loads[0]) ?? 0) / 100, 0), 1)
        var sample = DeviceSample(reading)
        if let alarm = alarm(upper[1]) { sample.alarms = [alarm] }
        return sample
    }

    /// What the driver's word for its health means; nil: it is well.
    private static func alarm(_ health: String) -> DeviceSample.Alarm? {
        let grade: DeviceGrade =
            switch health.lowercased() {
            case "ok": .ok
            case "warning": .degraded
            case "alarm", "critical": .failing
            case "offline", "unknown", "lost": .lost
            default: .degraded
            }
        return grade == .ok ? nil : DeviceSample.Alarm(grade, "its driver says: \(health)")
    }
}

/// A tool that prints something, called with a deadline.
struct ToolCall {
    let path: String
    let arguments: [String]
    var deadline = ProbeLimits.toolDeadline

    /// What it printed; it is killed when its time is over.
    func run() throws(ProbeError) -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        let output = Pipe()
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = output
        do { try process.run() } catch {
            throw .failed("\(path) can't be started: \(error.localizedDescription)")
        }
        let number = process.processIdentifier
        let timer = DispatchSource.makeTimerSource(queue: .global())
        let time = Int(deadline / Duration.milliseconds(1))
        timer.schedule(deadline: .now() + .milliseconds(time))
        timer.setEventHandler { kill(number, SIGKILL) }
        timer.resume()
        let data = (try? output.fileHandleForReading.read(upToCount: ProbeLimits.toolBytes)) ?? nil
        process.waitUntilExit()
        timer.cancel()
        if process.terminationReason == .uncaughtSignal, process.terminationStatus == SIGKILL {
            throw .failed("\(path) did not answer within \(deadline.milliseconds) ms")
        }
        let text = String(decoding: data ?? Data(), as: UTF8.self)
        guard process.terminationStatus == 0 else {
            throw .failed(
                "\(path) ended with \(process.terminationStatus): \(text.prefix(200))")
        }
        return text
    }
}
