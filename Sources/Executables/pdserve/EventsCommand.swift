import ArgumentParser
import Foundation
import ServingTypes

/// Lists what happened in the cluster.
struct EventsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events",
        abstract: "Show what happened: members, roles, upgrades, leaders, and who asked for what.",
        discussion: """
            A scheduler with a store keeps the latest 10000 events, also over its own end; without \
            one they last as long as it does.
            """)

    /// Between two questions whether there is something new.
    private static let interval: Duration = .seconds(1)

    @Option(help: "So many of the latest events.")
    var last = 50

    @Flag(help: "Go on as events happen, until Ctrl-C.")
    var follow = false

    @Flag(help: "One JSON object a line.")
    var json = false

    @OptionGroup var options: SchedulerOptions

    func validate() throws {
        guard (0...10_000).contains(last) else {
            throw ValidationError("--last is a number up to 10000.")
        }
    }

    func run() async throws {
        let query = try options.query()
        let newest = try await ask(query, ("last", "1")).last?.number ?? 0
        // Pages are asked for by number, as one answer may not hold all.
        var seen = newest - min(newest, UInt64(last))
        while true {
            let events: [ClusterEvent]
            do {
                events = try await ask(query, ("after", "\(seen)"))
            } catch  where follow && !(error is CancellationError) {
                // No scheduler leads for a moment.
                FileHandle.standardError.write(Data("no scheduler answers; trying again\n".utf8))
                try await Task.sleep(for: Self.interval)
                continue
            }
            for event in events { show(event) }
            seen = events.last?.number ?? seen
            guard events.isEmpty else { continue }
            guard follow else { return }
            try await Task.sleep(for: Self.interval)
        }
    }

    private func ask(
        _ query: SchedulerQuery, _ argument: (String, String)
    ) async throws -> [ClusterEvent] {
        let reply = try await query.ask(
            AdminRequest(
                command: "events",
                arguments: [AdminRequest.Argument(name: argument.0, value: argument.1)]))
        guard reply.isAccepted else { throw ChatFailure(message: reply.text) }
        return try reply.text.split(separator: "\n").map { line in
            try JSONDecoder().decode(ClusterEvent.self, from: Data(line.utf8))
        }
    }

    private func show(_ event: ClusterEvent) {
        guard !json else {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
            let line = (try? encoder.encode(event)).map { String(decoding: $0, as: UTF8.self) }
            write(line ?? "")
            return
        }
        let time = Date(timeIntervalSince1970: Double(event.unixMilliseconds) / 1000)
            .formatted(
                Date.ISO8601FormatStyle(includingFractionalSeconds: true)
                    .dateTimeSeparator(.space))
        let kind = event.kind.rawValue.padding(toLength: 14, withPad: " ", startingAt: 0)
        write("\(event.number)  \(time)  \(kind)  \(event.subject)  \(event.words)")
    }
}
