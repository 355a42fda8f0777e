import ArgumentParser
import DeviceProfile
import Foundation
import Planning
import Reports
import ServiceRuntime
import Synchronization

/// How many machines of which kind for a load.
struct PlanCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Find how many machines of which kind should prefill, decode or do both.",
        discussion: """
            For the machines you have (the most requests per second they serve well):

                pdserve plan --model llama-3.1-8b@q4_0 --machine GB10=1 --machine "M3 Ultra=2" \
            --prompt-tokens 4096 --output-tokens 256

            For a load, at least cost or power:

                pdserve plan --model llama-3.1-70b --machine H100:8 --machine A100-80GB:8 \
            --trace conversation.csv --rate 40 --minimise cost

            With the budget of a fleet that does both, or for what it serves (tables as in \
            Splitwise):

                pdserve plan --model llama-3.1-70b --machine H100:8 --machine A100-80GB:8 \
            --trace conversation.csv --baseline A100-80GB:8=20 --iso power

            Estimates choose what is simulated; simulations of the code that serves decide. Ctrl-C \
            shows what was found until then.
            """)

    enum Iso: String, ExpressibleByArgument, CaseIterable { case cost, power, throughput }

    @OptionGroup var devices: DeviceOptions
    @Option(help: "A kind of machine, DEVICE[:DEVICES]; with =MACHINES, how many there are.")
    var machine: [FleetArgument] = []
    @Option(help: "US dollars per hour of one device: DEVICE=DOLLARS.")
    var price: [DeviceFigure] = []
    @Option(help: "Power limit of one device: DEVICE=WATTS.")
    var power: [DeviceFigure] = []
    @OptionGroup var load: LoadOptions
    @OptionGroup var goals: GoalOptions
    @Option(help: "With --rate or --iso throughput: what is to be least, cost or power.")
    var minimise: PlanObjective = .cost
    @Option(help: "Most US dollars per hour.")
    var dollarsPerHour: Double?
    @Option(help: "Most kilowatts.")
    var kilowatts: Double?
    @Option(help: "Most machines.")
    var machines: Int?
    @Option(help: "Compare with a fleet that does both, of equal cost, power or throughput.")
    var iso: Iso?
    @Option(help: "That fleet: DEVICE[:DEVICES]=MACHINES.")
    var baseline: FleetArgument?
    @Option(help: "Prompts a machine takes at once.")
    var slots = 2
    @Option(help: "Sequences a machine decodes at once.")
    var decodeSequences = 64
    @Option(help: "Least simulated seconds of each trial.")
    var trialSeconds = 60.0
    @Option(help: "Trials at once; default: one per core.")
    var threads: Int?
    @Option(help: ArgumentHelp("Also write the report as JSON.", valueName: "file"))
    var json: String?

    func validate() throws {
        guard !machine.isEmpty, machine.count <= 8 else {
            throw ValidationError("Give one to eight kinds of --machine.")
        }
        guard load.users == nil else { throw ValidationError("A plan takes --rate, not --users.") }
        guard minimise != .throughput else {
            throw ValidationError("--minimise is cost or power.")
        }
        guard (iso == nil) == (baseline == nil) else {
            throw ValidationError("--iso and --baseline belong together.")
        }
        guard iso == nil || load.rate == nil else {
            throw ValidationError("--iso finds the rate; leave --rate out.")
        }
        let isBounded =
            dollarsPerHour != nil || kilowatts != nil || machines != nil
            || machine.allSatisfy { $0.givenCount != nil }
        guard load.rate != nil || iso != nil || isBounded else {
            throw ValidationError(
                "Without --rate the most that can be served is sought: say how many machines "
                    + "there are (H100:8=4), or give --dollars-per-hour, --kilowatts or "
                    + "--machines.")
        }
        for value in [dollarsPerHour, kilowatts] where value ?? 1 <= 0 {
            throw ValidationError("Budgets are above 0.")
        }
        guard (1...100_000).contains(machines ?? 1), (5...3600).contains(trialSeconds),
            (1...256).contains(threads ?? 1), (1...4096).contains(slots),
            (1...65536).contains(decodeSequences)
        else {
            throw ValidationError(
                "--machines is 1…100000, --trial-seconds 5…3600, --threads 1…256, --slots "
                    + "1…4096, --decode-sequences 1…65536.")
        }
    }

    func run() async throws {
        let known = try devices.devices()
        let task = try planningTask(known)
        let results = Mutex(PlanResults(task: task))
        let outcome = await withStopSignals {
            let search = PlanSearch(task: task, threads: threads) { finding in
                results.withLock { $0.findings.append(finding) }
            }
            if let iso, let baseline {
                let fleet = try self.baseline(baseline)
                try await search.compare(iso, with: fleet, results: results)
            } else {
                await search.run()
            }
        }
        var found = results.withLock { $0 }
        if case .interrupted = outcome { found.isComplete = false }
        let report = found.report(facts: facts(known.shape))
        write(report.text)
        if let json { try report.json.write(to: URL(filePath: json)) }
        switch outcome {
        case .finished: if found.best == nil { throw ExitCode(1) }
        case .interrupted: throw ExitCode(130)
        case .failed(let error): throw error
        }
    }

    private func facts(_ shape: ModelShape) -> [(name: String, value: String)] {
        [
            ("model", "\(shape.name), \(shape.weightBytes / 1_000_000) MB of weights"),
            ("load", load.summary), ("goals", goals.summary),
        ]
    }

    private func planningTask(_ known: KnownDevices) throws -> PlanningTask {
        var trace = try load.requests()
        if load.trace != nil, load.lengths == "independent" {
            trace = load.arrivals(of: trace, perSecond: 100, seconds: 100)
        }
        var task = PlanningTask(
            kinds: try machine.map { try kind($0, known) }, trace: trace,
            rate: load.rate, goals: try goals.goals(known),
            objective: load.rate == nil && iso != .throughput ? .throughput : minimise)
        task.budget.dollarsPerHour = dollarsPerHour
        task.budget.watts = kilowatts.map { $0 * 1000 }
        task.budget.machines = machines
        task.linkBytesPerSecond = devices.linkBytesPerSecond
        task.slots = slots
        task.decodeSequences = decodeSequences
        task.trialSeconds = trialSeconds
        task.seed = load.seed
        return task
    }

    private func kind(_ fleet: FleetArgument, _ known: KnownDevices) throws -> MachineKind {
        let profile = try known.profile(fleet.device)
        let count = Double(fleet.devices)
        let dollars =
            price.last { $0.applies(to: fleet, known) }?.value ?? profile?.pricePerHour?.value
        let watts =
            power.last { $0.applies(to: fleet, known) }?.value ?? profile?.powerWatts.value ?? 0
        return MachineKind(
            name: fleet.machineName, model: try known.performance(fleet),
            available: fleet.givenCount, pricePerHour: dollars.map { $0 * count },
            powerWatts: watts * count)
    }

    /// The fleet of a baseline, whose kind has to be among the task's.
    private func baseline(_ fleet: FleetArgument) throws -> Fleet {
        let place = machine.firstIndex {
            $0.device == fleet.device && $0.devices == fleet.devices
        }
        guard let place, fleet.count > 0 else {
            throw ValidationError(
                "--baseline names one of the --machine kinds, and at least one machine.")
        }
        return Fleet(mixed: [place: fleet.count])
    }
}

extension PlanObjective: ExpressibleByArgument {}
