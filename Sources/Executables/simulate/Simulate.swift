import ArgumentParser
import ClusterSimulation

/// Runs simulated clusters, one per seed, and judges what became of every request.
@main
struct Simulate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Run simulated clusters, one per seed, and check every answer.",
        discussion: """
            A seed draws a cluster, its requests and what goes wrong. Whatever does, each request \
            must end once, with the tokens the model gives or with a failure the circumstances \
            allow, and nothing may be left of it. Ends with status 1 if a seed breaks a promise, \
            and says the command that repeats it.
            """)

    @Option(help: "First seed.")
    var from: UInt64 = 1

    @Option(help: "Number of seeds.")
    var seeds: UInt64 = 1000

    @Option(help: "Run this seed alone, and show its plan.")
    var seed: UInt64?

    @Flag(help: "With --seed: show what happens, line by line.")
    var trace = false

    @Option(help: "Only seeds whose plan has this weather: calm, showers, windy or stormy.")
    var weather: Weather?

    @Option(help: "Seeds at once; default: one per core.")
    var threads: Int?

    @Flag(help: "Fail also if the seeds don't reach all that can happen; for 300 and more.")
    var covers = false

    @Flag(help: "Print the result as JSON.")
    var json = false

    func validate() throws {
        guard (1...1_000_000_000).contains(seeds), from <= .max - seeds else {
            throw ValidationError("Seeds are 1…1000000000, up to 18446744073709551615.")
        }
        guard (1...256).contains(threads ?? 1) else {
            throw ValidationError("Threads are 1…256.")
        }
        guard !trace || seed != nil else { throw ValidationError("--trace needs --seed.") }
    }

    func run() async throws {
        if let seed { return try show(seed) }
        let sweep = Sweep(
            seeds: from...(from + seeds - 1), weather: weather?.plan, threads: threads)
        let result = await sweep.run()
        print(json ? try result.json : result.text)
        if !result.failures.isEmpty { throw ExitCode(1) }
        if result.isInterrupted { throw ExitCode(130) }
        guard covers, !result.rarities.isEmpty else { return }
        let words = result.rarities.joined(separator: ", ")
        throw ValidationError("these seeds hardly reach: \(words)")
    }

    /// One seed with its plan.
    private func show(_ seed: UInt64) throws {
        let simulation = ClusterSimulation(plan: ClusterPlan(seed: seed))
        if trace { simulation.trace = { print($0) } }
        simulation.run()
        var result = SweepResult()
        result.add(simulation)
        let text = "\(simulation.plan)\n\(result.text)"
        print(json ? try result.json : text)
        if !result.failures.isEmpty { throw ExitCode(1) }
    }
}

/// A plan's weather as an argument.
enum Weather: String, ExpressibleByArgument, CaseIterable {
    case calm, showers, windy, stormy

    var plan: ClusterPlan.Weather {
        switch self {
        case .calm: .calm
        case .showers: .showers
        case .windy: .windy
        case .stormy: .stormy
        }
    }
}
