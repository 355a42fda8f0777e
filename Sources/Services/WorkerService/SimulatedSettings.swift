import DeviceProfile
package import ServiceRuntime
import SimulatedEngine

/// Settings of the engine that only takes the time it would take.
package struct SimulatedSettings: Sendable {
    package var speed: Double
    /// Nil: the engine's own times.
    package var device: String?
    package var deviceCount: Int
    package var model: String
    package var kvBytes: Int

    package init(_ reader: inout SettingsReader) throws(SettingsError) {
        speed = try reader.number(
            "simulated-speed", default: 1, in: 0...1_000_000,
            "How many times as fast as its device the simulated engine is; 0: takes no time.")
        device = try reader.optionalText(
            "simulated-device",
            "Take the simulated engine's times from this device's data sheet; 'pdserve profile "
                + "--list' names them.")
        deviceCount = try reader.integer(
            "simulated-device-count", default: 1, in: 1...1024,
            "Devices that share the model, with 'simulated-device'.")
        model =
            try reader.optionalText(
                "simulated-model",
                "The model that 'simulated-device' runs: "
                    + ModelShape.known.map(\.name).joined(separator: ", ")
                    + "; default: llama-3.1-8b.") ?? "llama-3.1-8b"
        kvBytes = try reader.integer(
            "simulated-kv-bytes", default: 2048, in: 16...(1 << 20),
            "Bytes of KV per token of the simulated engine; the same on all workers.")
    }

    /// Times from a device's data sheet, if one is named.
    func setTimes(
        of engine: inout SimulatedEngine.Settings, profiles: [DeviceProfile]
    ) throws(SettingsError) {
        guard let name = device else { return }
        guard let profile = profiles.first(where: { $0.isCalled(name) }) else {
            throw .invalid(
                source: "simulated-device", value: name,
                expected: "one of \(profiles.map(\.name).joined(separator: ", "))")
        }
        guard let shape = ModelShape.known(model) else {
            throw .invalid(
                source: "simulated-model", value: model,
                expected: "one of \(ModelShape.known.map(\.name).joined(separator: ", "))")
        }
        let times = Roofline(profile: profile, deviceCount: deviceCount, shape: shape)
        guard times.kvCapacityTokens > 0 else {
            throw .invalid(
                source: "simulated-device-count", value: "\(deviceCount)",
                expected: "so many that \(shape.name) fits into their memory")
        }
        engine.model = times
        engine.device = "simulated \(deviceCount > 1 ? "\(deviceCount) x " : "")\(profile.name)"
    }
}
