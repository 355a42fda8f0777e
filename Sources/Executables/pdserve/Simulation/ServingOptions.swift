import ArgumentParser
import ClusterRules
import DeviceProfile
import ServingSimulation
import ServingTypes

/// How simulated machines serve.
struct ServingOptions: ParsableArguments {
    @Option(help: "Longest good time to the first token, in seconds.")
    var ttftLimit = 2.0
    @Option(help: "Longest good time per further token, in seconds.")
    var tpotLimit = 0.1
    @Option(help: "Prompts a machine takes at once.")
    var slots = 2
    @Option(help: "Sequences a machine decodes at once.")
    var decodeSequences = 64
    @Option(help: "Ended sequences whose KV a machine keeps for prompts that begin alike.")
    var keptSequences = 0
    @Option(help: "Prompt tokens of one iteration.")
    var iterationTokens = 2048
    @Option(help: "Prompt tokens of an iteration in which sequences decode.")
    var mixedPromptTokens = 512
    @Option(help: "Which policy chooses workers: on-demand, shortest-queue, round-robin.")
    var placement = PlacementName.onDemand
    @Flag(help: "Choose the decode-worker after prefill.")
    var late = false
    @Flag(help: "Every prompt goes to a prefill machine.")
    var noDeflection = false
    @Option(help: "Gateways.")
    var gateways = 1

    func validate() throws {
        guard ttftLimit > 0, tpotLimit > 0, ttftLimit < 1e5, tpotLimit < 1e5 else {
            throw ValidationError("--ttft-limit and --tpot-limit are above 0, in seconds.")
        }
        guard (1...4096).contains(slots), (1...65536).contains(decodeSequences),
            (0...65536).contains(keptSequences), (1...1 << 20).contains(iterationTokens),
            (1...1 << 20).contains(mixedPromptTokens), (1...64).contains(gateways)
        else {
            throw ValidationError(
                "--slots is 1…4096, --decode-sequences 1…65536, --kept-sequences 0…65536, "
                    + "--iteration-tokens and --mixed-prompt-tokens 1…1048576, --gateways 1…64.")
        }
    }

    var scenario: ScenarioSpec {
        var scenario = ScenarioSpec(name: ScenarioSpec.defaultName)
        scenario.ttftLimit = .nanoseconds(Int64(ttftLimit * 1e9))
        scenario.tpotLimit = .nanoseconds(Int64(tpotLimit * 1e9))
        scenario.placement = placement
        scenario.decodePlacement = late ? .late : .early
        scenario.deflection = !noDeflection
        return scenario
    }

    func apply(to plan: inout ServingPlan) throws {
        plan.waiting = .slots(slots)
        plan.decodeSequences = decodeSequences
        plan.keptSequences = keptSequences
        plan.iterationTokens = iterationTokens
        plan.mixedPromptTokens = mixedPromptTokens
        plan.gateways = gateways
        plan.kvCapacityTokens = .max
    }
}

extension PlacementName: ExpressibleByArgument {}
extension KVType: ExpressibleByArgument {}

/// The machines of a simulated cluster, named in turn.
struct MachineList {
    let devices: KnownDevices
    let linkBytesPerSecond: Double?
    private(set) var plans: [MachinePlan] = []
    private var counts: [ServingRole: Int] = [:]

    init(devices: KnownDevices, linkBytesPerSecond: Double?) {
        self.devices = devices
        self.linkBytesPerSecond = linkBytesPerSecond
    }

    mutating func add(_ fleets: [FleetArgument], _ role: ServingRole) throws {
        for fleet in fleets {
            let model = try devices.performance(fleet)
            let first = counts[role, default: 0] + 1
            counts[role, default: 0] += fleet.count
            plans += MachinePlan.fleet(
                fleet.count, role, device: fleet.machineName, model: model, first: first
            ).map {
                var machine = $0
                machine.linkBytesPerSecond = linkBytesPerSecond
                return machine
            }
        }
    }
}
