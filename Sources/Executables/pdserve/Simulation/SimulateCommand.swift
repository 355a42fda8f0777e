import ArgumentParser
import ClusterRules
import DeviceProfile
import Foundation
import Reports
import RequestTraces
import ServiceRuntime
import ServingSimulation
import ServingTypes
import Synchronization

/// A cluster of any devices under any load, in virtual time.
struct SimulateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Simulate a cluster of other devices under a recorded or random load.",
        discussion: """
            Gateways, prefill- and decode-workers decide with the code that serves; devices and \
            links take the time that their profiles say. For example:

                pdserve simulate --model llama-3.1-8b@q4_0 --prefill GB10=1 \
            --decode "M3 Ultra=1" --rate 0.5 --prompt-tokens 4096 --html report.html

            Machines are DEVICE[:DEVICES PER MACHINE]=MACHINES ('pdserve profile --list' names the \
            devices). Mixed machines compute the prompts of what they decode. Faults are \
            lose:MACHINE@SECONDS[+BACK AFTER], slow:MACHINE@SECONDSxFACTOR+FOR and \
            slow-link:MACHINE@SECONDSxFACTOR+FOR; machines are called prefill-1, decode-1, \
            mixed-1 and so on. Ctrl-C shows what there is until then.
            """)

    @OptionGroup var devices: DeviceOptions
    @Option(help: "Machines that prefill.")
    var prefill: [FleetArgument] = []
    @Option(help: "Machines that decode.")
    var decode: [FleetArgument] = []
    @Option(help: "Machines that do both.")
    var mixed: [FleetArgument] = []
    @OptionGroup var load: LoadOptions
    @OptionGroup var serving: ServingOptions
    @Option(help: "Something that goes wrong; may be given again.")
    var fault: [FaultArgument] = []
    @Option(help: "Seconds at the beginning that are not measured.")
    var warmUp = 0.0
    @Option(help: ArgumentHelp("Also write a page with plots.", valueName: "file"))
    var html: String?
    @Option(help: ArgumentHelp("Also write the report as JSON.", valueName: "file"))
    var json: String?

    func validate() throws {
        guard !(prefill + decode + mixed).isEmpty else {
            throw ValidationError("Give machines: --prefill and --decode, or --mixed.")
        }
        guard !(decode + mixed).isEmpty else {
            throw ValidationError("Somebody has to decode: give --decode or --mixed.")
        }
        guard warmUp >= 0 else { throw ValidationError("--warm-up is not negative.") }
    }

    func run() async throws {
        let known = try devices.devices()
        let (requests, seconds) = try load.load()
        guard warmUp < seconds else {
            throw ValidationError("--warm-up \(warmUp) is as long as the whole run, \(seconds) s.")
        }
        var machines = MachineList(
            devices: known, linkBytesPerSecond: devices.linkBytesPerSecond)
        try machines.add(prefill, .prefill)
        try machines.add(decode, .decode)
        try machines.add(mixed, .mixed)
        var plan = ServingPlan(
            load: requests, machines: machines.plans, scenario: serving.scenario, seconds: seconds)
        try serving.apply(to: &plan)
        plan.warmUpSeconds = warmUp
        plan.faults = fault.map(\.fault)
        for fault in plan.faults where !plan.machines.contains(where: { $0.name == fault.machine })
        {
            throw ValidationError("No machine is called '\(fault.machine)'.")
        }
        plan.timelineStepSeconds = max(0.1, seconds / 300)
        plan.seed = load.seed
        try await run(plan, facts: facts(plan, known.shape))
    }

    private func facts(_ plan: ServingPlan, _ shape: ModelShape) -> [(name: String, value: String)]
    {
        [
            ("model", "\(shape.name), \(shape.weightBytes / 1_000_000) MB of weights"),
            ("load", load.summary),
            ("seconds", String(format: "%g", plan.seconds)),
        ]
    }

    private func run(_ plan: ServingPlan, facts: [(name: String, value: String)]) async throws {
        let results = Mutex<SimulationResults?>(nil)
        let outcome = await withStopSignals {
            let collected = SimulationResults.simulate(plan, showsProgress: true)
            results.withLock { $0 = collected }
        }
        // The run ends soon after a signal; what it has is shown.
        while results.withLock({ $0 == nil }) { try await Task.sleep(for: .milliseconds(20)) }
        guard let found = results.withLock({ $0 }) else { return }
        let report = found.report(facts: facts)
        write(report.text)
        if let json { try report.json.write(to: URL(filePath: json)) }
        if let html {
            let page = HTMLPage(report: report, plots: found.plots)
            try Data(page.html.utf8).write(to: URL(filePath: html))
        }
        if !found.isComplete { throw ExitCode(130) }
        if case .failed(let error) = outcome { throw error }
    }
}
