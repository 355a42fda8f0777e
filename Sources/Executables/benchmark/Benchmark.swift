import ArgumentParser
import ServiceStart

/// Measures what serving costs on this host.
@main
struct Benchmark: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "benchmark",
        abstract: "Measures what serving costs on this host, with processes of its own.",
        version: Product.build,
        subcommands: [
            ServeCommand.self, GatewayCommand.self, HandOffCommand.self, ShiftCommand.self,
            KVCommand.self, PoliciesCommand.self, SchedulerCommand.self, PlacementCommand.self,
            ChaosCommand.self, SoakCommand.self, FailureCommand.self, OverloadCommand.self,
            KVReceiverCommand.self, StoreCommand.self, SplitwiseCommand.self, FidelityCommand.self,
        ])
}
