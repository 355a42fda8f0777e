import ArgumentParser
import DeviceProfile
import Foundation
import LlamaEngine

/// Machines of one kind on a command line: `DEVICE[:DEVICES PER MACHINE]=MACHINES`.
///
/// For example `H100=4`, or `"A100-80GB:8=10"` for ten machines with eight devices each.
struct FleetArgument: ExpressibleByArgument, Hashable {
    /// Most machines of one kind, and devices of one machine.
    private static let maximumMachines = 100_000
    private static let maximumDevices = 1024

    var device: String
    var devices: Int
    /// Nil if none was given.
    var givenCount: Int?
    var count: Int { givenCount ?? 1 }

    init?(argument: String) {
        let sides = argument.split(separator: "=", omittingEmptySubsequences: false)
        guard (1...2).contains(sides.count) else { return nil }
        let names = sides[0].split(separator: ":", omittingEmptySubsequences: false)
        guard (1...2).contains(names.count), !names[0].isEmpty,
            let devices = names.count == 2 ? Int(names[1]) : 1,
            (1...Self.maximumDevices).contains(devices)
        else { return nil }
        device = String(names[0])
        self.devices = devices
        guard sides.count == 2 else { return }
        guard let count = Int(sides[1]), (0...Self.maximumMachines).contains(count) else {
            return nil
        }
        givenCount = count
    }

    /// How people read it: `8 × H100`.
    var machineName: String { devices == 1 ? device : "\(devices) × \(device)" }
}

/// A model on a command line: `NAME[@TYPE]`, for example `llama-3.1-8b@q4_0`, or a GGUF file.
struct ModelArgument: ExpressibleByArgument, Hashable {
    static let usual = ModelArgument(text: "llama-3.1-8b")

    private var text: String

    private init(text: String) { self.text = text }

    init?(argument: String) {
        guard !argument.isEmpty else { return nil }
        text = argument
    }

    func shape() throws -> ModelShape {
        if FileManager.default.isReadableFile(atPath: text) {
            do {
                return try LlamaEngine.shape(ofModelAt: text)
            } catch {
                throw ValidationError("\(text): \(error)")
            }
        }
        let parts = text.split(separator: "@", omittingEmptySubsequences: false)
        guard let shape = ModelShape.known(String(parts[0])), parts.count <= 2 else {
            let names = ModelShape.known.map(\.name).joined(separator: ", ")
            throw ValidationError(
                "'\(text)' is neither a GGUF file nor a known model. Known: \(names).")
        }
        guard parts.count == 2 else { return shape }
        let type = String(parts[1])
        let stored = WeightType(rawValue: type.lowercased()) ?? WeightType(ggmlName: type)
        guard stored.bytesPerWeight != nil else {
            let types = WeightType.allCases.filter { $0.bytesPerWeight != nil }.map(\.rawValue)
            throw ValidationError(
                "No weights are called '\(type)'. Known: \(types.joined(separator: ", ")).")
        }
        return shape.stored(as: stored)
    }
}
