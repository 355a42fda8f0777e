import ArgumentParser
import ServiceStart

/// The command line tool for people.
@main
struct PDServe: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pdserve",
        abstract: "Serves large language models with prefill and decode apart.",
        version: Product.build,
        subcommands: [
            UpCommand.self, ChatCommand.self, StatusCommand.self, WantedCommand.self,
            AssignCommand.self, ScaleCommand.self, UpgradeCommand.self, EventsCommand.self,
            LoadCommand.self, CertificatesCommand.self, ProfileCommand.self, SimulateCommand.self,
            PlanCommand.self, HealthcheckCommand.self, CheckCommand.self, KeyCommand.self,
        ])
}
