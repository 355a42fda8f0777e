import ArgumentParser
import DeviceProfile
import Planning

/// When a planned fleet serves well enough.
struct GoalOptions: ParsableArguments {
    @Option(help: "Longest time to the first token, in seconds.")
    var ttftLimit = 2.0
    @Option(help: "Longest time per further token, in seconds.")
    var tpotLimit = 0.1
    @Option(help: "Part of the requests that has to keep both limits.")
    var attainment = 0.9
    @Flag(help: "Instead: Splitwise's nine goals, against a request alone on --reference.")
    var splitwiseGoals = false
    @Option(help: "Machine that --splitwise-goals compare with: DEVICE[:DEVICES].")
    var reference: FleetArgument?

    func validate() throws {
        guard ttftLimit > 0, tpotLimit > 0, ttftLimit < 1e5, tpotLimit < 1e5 else {
            throw ValidationError("--ttft-limit and --tpot-limit are above 0, in seconds.")
        }
        guard attainment > 0, attainment < 1 else {
            throw ValidationError("--attainment is above 0 and below 1.")
        }
        guard splitwiseGoals == (reference != nil) else {
            throw ValidationError("--splitwise-goals and --reference belong together.")
        }
    }

    func goals(_ devices: KnownDevices) throws -> PlanGoals {
        guard let reference else {
            return .limits(ttft: ttftLimit, tpot: tpotLimit, part: attainment)
        }
        return .slowdowns(reference: try devices.performance(reference))
    }

    var summary: String {
        if let reference { return "Splitwise's nine, against one \(reference.machineName)" }
        return "TTFT ≤ \(ttftLimit) s and TPOT ≤ \(tpotLimit) s of \(attainment * 100) % of "
            + "requests"
    }
}

/// A figure of a device that replaces the catalogue's: `DEVICE=NUMBER`.
struct DeviceFigure: ExpressibleByArgument, Hashable {
    var device: String
    var value: Double

    init?(argument: String) {
        guard let equals = argument.lastIndex(of: "="), equals > argument.startIndex,
            let value = Double(argument[argument.index(after: equals)...]), value >= 0,
            value.isFinite
        else { return nil }
        device = String(argument[..<equals])
        self.value = value
    }

    func applies(to fleet: FleetArgument, _ devices: KnownDevices) -> Bool {
        if fleet.device == device { return true }
        guard let own = try? devices.profile(device) else { return false }
        return (try? devices.profile(fleet.device)) == own
    }
}
