import ArgumentParser
import ServingTypes

/// Asks a gateway without a break and checks every answer; for trials, upgrades and alarms.
struct LoadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract: "Ask a gateway without a break and check every answer; exit 1 if one is missing.",
        discussion: """
            Each question is asked again and again, without chance. Its answers are the same where \
            nothing else is computed beside them and no KV is kept; otherwise sums are rounded in \
            other ways, and tokens that are nearly equally likely change places. Run it while \
            something is changed, to see what clients notice.
            """)

    @Option(help: "Address of the gateway, or of what is before it.")
    var gateway = "127.0.0.1:8080"

    @Option(help: "Clients that ask at the same time.")
    var clients = 4

    @Option(help: "Seconds after which no further question is asked.")
    var seconds = 30

    @Option(help: "Most tokens in one answer.")
    var maxTokens = 64

    @Option(help: "Seconds that one answer may take.")
    var deadline = 120

    @Flag(help: "Answers 429 and 503 are no failure: they are asked again after a second.")
    var allowRefusals = false

    @Flag(help: "An answer that differs from an earlier one to the same question is a failure.")
    var same = false

    @Option(name: .customLong("key"), help: "API key, if the cluster wants one.")
    var apiKey: String?

    func validate() throws {
        for (name, value, range) in [
            ("--clients", clients, 1...1000), ("--seconds", seconds, 1...604_800),
            ("--max-tokens", maxTokens, 1...100_000), ("--deadline", deadline, 1...86_400),
        ] where !range.contains(value) {
            throw ValidationError(
                "\(name) is a number from \(range.lowerBound) to \(range.upperBound).")
        }
    }

    func run() async throws {
        let target = try HTTPTarget(gateway, defaultPath: LoadQuestion.path)
        let start = ContinuousClock.now
        let run = LoadRun(
            address: target.address, maxTokens: maxTokens, deadline: .seconds(deadline),
            apiKey: apiKey, end: start + .seconds(seconds))
        let report = await withTaskGroup(of: LoadReport.self) { group in
            for number in 0..<clients { group.addTask { await run.ask(as: number) } }
            return await group.reduce(into: LoadReport()) { $0.add($1) }
        }
        write(report.text(after: ContinuousClock.now - start))
        let isGood =
            report.answers > 0 && report.failures == 0 && (allowRefusals || report.refusals == 0)
            && (!same || report.differing == 0)
        if !isGood { throw ExitCode.failure }
    }
}
