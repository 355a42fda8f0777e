import ArgumentParser
import Calibration
import DeviceProfile
import DeviceProfileFile
import Foundation

/// What simulated machines compute on.
struct DeviceOptions: ParsableArguments {
    @Option(help: "Model: a GGUF file, or NAME[@TYPE] such as llama-3.1-8b@q4_0.")
    var model = ModelArgument.usual
    @Option(help: "YAML file with devices that the catalogue lacks, or whose figures differ.")
    var deviceProfiles: String?
    @Option(
        help: ArgumentHelp(
            "A machine whose workers have measured the model: its kept times, for example from "
                + "~/.cache/pdserve/profiles there.", valueName: "name=file"))
    var measured: [MeasuredArgument] = []
    @Option(help: "How KV is stored: float16, q8_0, …")
    var kvType = KVType.float16
    @Option(help: "Gigabits per second between machines; default: what their profiles say.")
    var linkGigabits: Double?

    /// Most bytes of a file of kept times.
    private static let maximumBytes = 16 << 20

    func validate() throws {
        guard (linkGigabits ?? 1) > 0 else { throw ValidationError("--link-gigabits is above 0.") }
    }

    var linkBytesPerSecond: Double? { linkGigabits.map { $0 * 1e9 / 8 } }

    func devices() throws -> KnownDevices {
        var profiles = DeviceProfile.catalogue
        if let deviceProfiles {
            do {
                profiles = try DeviceProfileFile.read(path: deviceProfiles)
            } catch {
                throw ValidationError(
                    "\(deviceProfiles): \(error.problems.joined(separator: "; "))")
            }
        }
        var curves: [String: MeasuredCurves] = [:]
        for argument in measured {
            let url = URL(filePath: argument.path)
            guard let data = try? Data(contentsOf: url), data.count <= Self.maximumBytes,
                let kept = try? JSONDecoder().decode(ProfileStore.Kept.self, from: data)
            else {
                throw ValidationError(
                    "\(argument.path) holds no times that a worker kept; 'pdserve profile --model' "
                        + "makes some.")
            }
            curves[argument.name] = kept.curves
        }
        return KnownDevices(
            shape: try model.shape(), kvType: kvType, profiles: profiles, curves: curves)
    }
}

/// A machine with measured times on a command line: `NAME=FILE`.
struct MeasuredArgument: ExpressibleByArgument, Hashable {
    var name: String
    var path: String

    init?(argument: String) {
        guard let equals = argument.firstIndex(of: "="), equals > argument.startIndex else {
            return nil
        }
        name = String(argument[..<equals])
        path = String(argument[argument.index(after: equals)...])
        guard !path.isEmpty else { return nil }
    }
}

/// The devices that a command may name, for one model.
struct KnownDevices {
    let shape: ModelShape
    let kvType: KVType
    let profiles: [DeviceProfile]
    let curves: [String: MeasuredCurves]

    /// The profile of a device; nil for machines that were measured.
    func profile(_ name: String) throws -> DeviceProfile? {
        guard curves[name] == nil else { return nil }
        let wanted = name.lowercased()
        let exact = profiles.first { profile in
            ([profile.name] + profile.aliases).contains { $0.lowercased() == wanted }
        }
        if let profile = exact ?? DeviceProfile.matching(name, in: profiles) { return profile }
        let names = (curves.keys.sorted() + profiles.map(\.name)).joined(separator: ", ")
        throw ValidationError("No device is called '\(name)'. Known: \(names).")
    }

    /// How fast a machine is with the model; refuses one that the model does not fit into.
    func performance(_ fleet: FleetArgument) throws -> any PerformanceModel {
        guard let profile = try profile(fleet.device) else {
            guard fleet.devices == 1, let curves = curves[fleet.device] else {
                throw ValidationError(
                    "\(fleet.device) was measured as it is: leave ':\(fleet.devices)' out.")
            }
            return curves
        }
        let model = Roofline(
            profile: profile, deviceCount: fleet.devices, shape: shape, kvType: kvType)
        guard model.kvCapacityTokens > 0 else {
            throw ValidationError(
                "\(shape.name) has \(shape.weightBytes / 1_000_000) MB of weights, which don't "
                    + "fit into \(fleet.machineName). Give more devices per machine "
                    + "(\(fleet.device):8) or smaller weights (\(shape.name)@q4_0).")
        }
        return model
    }
}
