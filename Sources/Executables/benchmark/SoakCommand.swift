import ArgumentParser
import Chaos
import ServingTypes

/// Whether a cluster needs more and more of anything over a long time.
struct SoakCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "soak",
        abstract: "Load a cluster for long, with light faults; see whether any process grows.",
        discussion: """
            Asks questions whose answers are known, lets a process hang or a link fail now and \
            then, and reads each process's memory, open files, threads and stranded KV. A line is \
            fitted to what follows a quarter of the time. Ends with status 1 if a process grows, \
            or an answer was lost or altered.
            """)

    @Option(help: "Time in minutes.")
    var minutes = 60.0

    @Option(help: "The same seed makes the same faults.")
    var seed: UInt64 = 1

    @Option(help: "Clients, one request at a time each.")
    var users = 8

    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard (0.1...10_080).contains(minutes), (1...500).contains(users) else {
            throw ValidationError("Minutes are 0.1…10080, users 1…500.")
        }
    }

    func run() async throws {
        let duration = Duration.seconds(minutes * 60)
        var settings = ChaosSettings.soak(duration)
        settings.seed = seed
        settings.users = users
        settings.network = .loopback(hasRelays: ChaosSettings.canRelay)
        try await ChaosSession(common: common).run(
            settings, soak: Soak(duration: duration))
    }
}
