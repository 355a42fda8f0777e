import Foundation
import HTTPClient
package import LocalCluster
import Measurement
import NIOCore
import NIOPosix
package import Reports
import ServingTypes
import Synchronization

/// Serves questions whose answers are known while things go wrong, and compares every answer.
package final class ChaosRun: Sendable {
    private let settings: ChaosSettings
    private let processes: ChaosProcesses
    private let results: Mutex<ChaosResults>
    private let progress: @Sendable (String) -> Void

    package init(
        settings: ChaosSettings, cluster: LocalCluster, network: NamespaceNetwork? = nil,
        facts: [(name: String, value: String)] = [],
        progress: @escaping @Sendable (String) -> Void
    ) {
        self.settings = settings
        self.progress = progress
        processes = ChaosProcesses(settings: settings, cluster: cluster, network: network)
        results = Mutex(ChaosResults(settings: settings, facts: facts))
    }

    package var report: Report { results.withLock { $0.report } }

    /// Answers that were lost or altered, and processes that did not end or come back.
    package var violations: Int { results.withLock { $0.violations } }

    /// All rounds, on a cluster that is started for them; the caller stops it.
    ///
    /// - Parameter beside: runs as long as the rounds, once the cluster serves.
    package func run(
        beside: @escaping @Sendable ([ManagedProcess]) async throws -> Void = { _ in }
    ) async throws {
        let questions = ChaosQuestion.some(settings.questions, seed: settings.seed)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.processes.runRelays() }
            try await processes.start()
            let expected = try await answers(to: questions)
            progress("\(expected.count) answers are known; \(settings.rounds) rounds begin")
            let users = Task { try await self.ask(questions, expected) }
            defer { users.cancel() }
            let end = settings.duration.map { ContinuousClock.now + $0 }
            group.addTask { try await beside(self.processes.cluster.all) }
            for round in 0..<settings.rounds {
                if let end, ContinuousClock.now >= end { break }
                try await self.round(round)
            }
            users.cancel()
            _ = await users.result
            try await waitUntilQuiet()
            group.cancelAll()
            while let _ = await group.nextResult() {}
        }
        results.withLock { $0.isComplete = true }
    }

    /// Nobody asks any more: workers must let go of all they had, also those that were cut off.
    private func waitUntilQuiet() async throws {
        let end = ContinuousClock.now + ChaosSettings.quietDeadline
        var held: [String] = []
        repeat {
            try await Task.sleep(for: .seconds(1))
            held = await processes.heldByWorkers()
        } while !held.isEmpty && ContinuousClock.now < end
        for words in held { results.withLock { $0.note("in the end \(words)") } }
    }

    /// Asks each question once while all is well.
    private func answers(to questions: [ChaosQuestion]) async throws -> [ChaosAnswer] {
        var answers: [ChaosAnswer] = []
        for question in questions {
            let gateway = processes.gateway(answers.count)
            guard
                case .answered(let answer, let gap) = try await question.ask(
                    gateway.address, within: settings.requestDeadline)
            else {
                throw MeasurementError.unexpectedAnswer(
                    status: 0, body: "no answer while nothing was wrong")
            }
            results.withLock { $0.calm(gap: gap) }
            answers.append(answer)
        }
        return answers
    }

    // MARK: Faults

    private func round(_ round: Int) async throws {
        let start = ContinuousClock.now
        let events = settings.plan.events(ofRound: round)
        let words = events.map(\.words)
        progress("round \(round + 1): " + words.joined(separator: ", "))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for event in events {
                group.addTask {
                    try await Task.sleep(until: start + event.at, clock: .continuous)
                    self.results.withLock { $0.happened(event.fault) }
                    if let problem = try await self.processes.suffer(event) {
                        self.results.withLock { $0.note("round \(round + 1): \(problem)") }
                    }
                }
            }
            try await group.waitForAll()
        }
        let healed = ContinuousClock.now
        let isWhole = try await processes.waitUntilWhole()
        results.withLock { results in
            results.rounds += 1
            results.recovery.append((ContinuousClock.now - healed).seconds)
            if !isWhole { results.note("round \(round + 1): the cluster was not whole in time") }
        }
    }

    // MARK: Clients

    private func ask(_ questions: [ChaosQuestion], _ expected: [ChaosAnswer]) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for user in 0..<settings.users {
                group.addTask {
                    var numbers = SeededGenerator(seed: self.settings.seed &+ UInt64(user) << 40)
                    while true {
                        let index = Int.random(in: 0..<questions.count, using: &numbers)
                        try await self.ask(questions[index], expected[index], as: user)
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    /// Asks until there is an answer, as a client does that knows several gateways.
    private func ask(
        _ question: ChaosQuestion, _ expected: ChaosAnswer, as user: Int
    ) async throws {
        for attempt in 0... {
            let gateway = processes.gateway(user + attempt)
            let outcome = try await question.ask(
                gateway.address, within: settings.requestDeadline)
            let isGone = processes.hasSuffered(gateway)
            let isDone = results.withLock {
                $0.take(outcome, expected, of: question, gatewayIsGone: isGone)
            }
            if isDone { return }
            try await Task.sleep(for: ChaosSettings.pause)
        }
    }
}
