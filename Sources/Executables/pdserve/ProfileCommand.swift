import ArgumentParser
import Calibration
import DeviceDiscovery
import DeviceProfile
import DeviceProfileFile
import Foundation
import LlamaEngine
import ServingTypes

/// Tells what the devices of this host can do, from data sheets and by measuring.
struct ProfileCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "profile",
        abstract: "Show this host's devices and how fast they are.",
        discussion: """
            Without a model: the devices and the profile that each of them matches. With --model: \
            how long prefill and decode take on this host, measured now or kept from earlier, how \
            well the fitted curves predict points that they were not fitted to, and what the data \
            sheets alone would say.
            """)

    @Option(help: "A GGUF file: measure with it, or show what is kept.")
    var model: String?

    @Flag(help: "Show all known devices with every figure and its source.")
    var list = false

    @Flag(help: "Write JSON.")
    var json = false

    @Flag(help: "Measure although times are kept.")
    var renew = false

    @Option(help: "YAML file with devices that the catalogue lacks, or whose figures differ.")
    var deviceProfiles: String?

    @Option(help: "Folder of kept times; default: pdserve/profiles in the user's cache.")
    var profileFolder: String?

    @Option(help: "Seconds to spend on measuring, and once more on points to compare with.")
    var seconds = 5

    @Option(help: "Computing threads; default: half of the processors.")
    var threads = max(1, ProcessInfo.processInfo.activeProcessorCount / 2)

    @Option(help: "Tokens of KV for all sequences together.")
    var kvTokens = 16_384

    @Option(help: "Tokens per engine iteration.")
    var microBatch = 256

    @Option(help: "Sequences open at once.")
    var sequences = 64

    func validate() throws {
        guard !list || model == nil else {
            throw ValidationError("--list and --model don't go together.")
        }
        guard (1...300).contains(seconds) else {
            throw ValidationError("--seconds is a number from 1 to 300.")
        }
        guard (1...1024).contains(threads), (64...(1 << 24)).contains(kvTokens),
            (16...8192).contains(microBatch), (2...255).contains(sequences),
            microBatch >= sequences
        else {
            throw ValidationError(
                "--threads is 1 to 1024, --kv-tokens 64 to 16777216, --micro-batch 16 to 8192 and "
                    + "at least --sequences, --sequences 2 to 255.")
        }
    }

    func run() async throws {
        let profiles = try profiles()
        if let model {
            let report = try await ProfileMeasurement(command: self, model: model)
                .report(profiles: profiles)
            return write(json ? try encoded(report) : report.text)
        }
        if list { return write(json ? try encoded(profiles) : Self.sheet(of: profiles)) }
        let found = DeviceDiscovery.devices(profiles: profiles)
        write(json ? try encoded(found.map(DeviceRow.init)) : Self.text(of: found))
    }

    private func profiles() throws -> [DeviceProfile] {
        guard let deviceProfiles else { return DeviceProfile.catalogue }
        do throws(DeviceProfileFile.Failure) {
            return try DeviceProfileFile.read(path: deviceProfiles)
        } catch {
            for problem in error.problems { write("\(deviceProfiles): \(problem)") }
            throw ExitCode(1)
        }
    }

    private static func text(of found: [FoundDevice]) -> String {
        let head = ["DEVICE", "KIND", "BY", "PROFILE", "COMPUTE", "MEMORY", "BANDWIDTH"]
        let rows = found.map { device -> [String] in
            let profile = device.profile
            let compute = profile?.compute(for: .float16).map { short($0.perSecond) + "op/s" }
            let memory = Double(device.reading.totalMemoryBytes)
            return [
                device.reading.name, device.reading.kind, device.source,
                profile.map { device.isDerived ? "(derived)" : $0.name } ?? "none",
                compute ?? "-", memory > 0 ? short(memory) + "B" : "-",
                profile.map { short($0.memoryBytesPerSecond.value) + "B/s" } ?? "-",
            ]
        }
        let hint =
            found.contains { $0.profile == nil || $0.isDerived }
            ? "\nMeasure with --model FILE, or describe the device in a file for "
                + "--device-profiles (Documentation/devices.md)." : ""
        return table([head] + rows) + hint
    }

    private static func sheet(of profiles: [DeviceProfile]) -> String {
        profiles.map { profile in
            let head =
                "\(profile.name): \(profile.kind.rawValue), \(profile.maker)"
                + (profile.aliases.isEmpty
                    ? "" : "; also \(profile.aliases.joined(separator: ", "))")
            let lines = profile.figures.map { name, unit, figure in
                "  \(name): \(short(figure.value))\(unit)"
                    + (figure.isEstimate ? " (estimate)" : "") + "\n      \(figure.source)"
            }
            return ([head] + lines).joined(separator: "\n")
        }.joined(separator: "\n\n")
    }

    private func encoded(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }
}

/// A number with three digits and a prefix of its unit.
func short(_ value: Double) -> String {
    let steps: [(Double, String)] = [
        (1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"), (1, " "),
        (1e-3, " m"), (1e-6, " µ"),
    ]
    guard value != 0, value.isFinite,
        let (unit, prefix) = steps.first(where: { abs(value) >= $0.0 }) ?? steps.last
    else { return "\(value) " }
    let scaled = value / unit
    return String(format: scaled < 10 ? "%.2f" : scaled < 100 ? "%.1f" : "%.0f", scaled) + prefix
}

/// A device of the host, for JSON.
private struct DeviceRow: Encodable {
    var name: String
    var kind: String
    var source: String
    var memoryBytes: UInt64
    var isDerived: Bool
    var profile: DeviceProfile?

    init(_ device: FoundDevice) {
        name = device.reading.name
        kind = device.reading.kind
        source = device.source
        memoryBytes = device.reading.totalMemoryBytes
        isDerived = device.isDerived
        profile = device.profile
    }
}
