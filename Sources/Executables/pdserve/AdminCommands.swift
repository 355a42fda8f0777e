import ArgumentParser
import ServingTypes

/// Changes what one worker is used for.
struct AssignCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "assign",
        abstract: "Give a worker a role: prefill, decode, mixed, spare; or auto, by the rules.")

    @Argument(help: "Name of the worker, as 'pdserve status' shows it.")
    var worker: String

    @Argument(help: "prefill, decode, mixed, spare or auto.")
    var role: String

    @OptionGroup var options: SchedulerOptions

    func run() async throws {
        try await options.carryOut("assign", [("worker", worker), ("role", role)])
    }
}

/// Changes how many workers a scenario has.
struct ScaleCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scale",
        abstract:
            "Change the numbers of a scenario's workers; a scheduler with a store keeps them.",
        discussion: "Each number may be 'auto': then the cluster file's rules apply again.")

    @Argument(help: "Name of the scenario, as 'pdserve status' shows it.")
    var scenario: String

    @Option(help: "Prefill-workers.")
    var prefill: String?

    @Option(help: "Decode-workers.")
    var decode: String?

    @Option(help: "Workers kept out of use, to take a dead one's place.")
    var spares: String?

    @Option(help: "Groups that the workers are divided into.")
    var groups: String?

    @OptionGroup var options: SchedulerOptions

    func run() async throws {
        try await options.carryOut(
            "scale",
            [
                ("scenario", scenario), ("prefill", prefill), ("decode", decode),
                ("spares", spares), ("groups", groups),
            ])
    }
}

/// Moves a scenario to another model file, or steers such a move.
struct UpgradeCommand: AsyncParsableCommand {
    enum Step: String, EnumerableFlag {
        case pause, resume, abort
    }

    static let configuration = CommandConfiguration(
        commandName: "upgrade",
        abstract: "Move a scenario's workers to another model file, a few at a time.",
        discussion: "'pdserve status' shows how far it is; --abort takes all workers back.")

    @Option(help: "Name of the scenario; needed if there are several.")
    var scenario: String?

    @Option(help: "The new GGUF file, as a path on the workers' hosts.")
    var model: String?

    @Option(help: "Workers of each role that move at a time.")
    var step: Int?

    @Option(help: "Seconds between two steps.")
    var settle: Int?

    @Flag(help: "What to do with the upgrade that is under way.")
    var action: Step?

    @OptionGroup var options: SchedulerOptions

    func validate() throws {
        guard (model != nil) != (action != nil) else {
            throw ValidationError("Give either --model, or one of --pause, --resume and --abort.")
        }
    }

    func run() async throws {
        try await options.carryOut(
            action?.rawValue ?? "upgrade",
            [
                ("scenario", scenario), ("model", model), ("step", step.map { "\($0)" }),
                ("settle", settle.map { "\($0)" }),
            ])
    }
}
