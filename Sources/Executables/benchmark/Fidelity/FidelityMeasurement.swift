import Calibration
import ClusterRules
import DeviceProfile
import Foundation
import InferenceEngine
import LocalCluster
import Measurement
import Reports
import RequestTraces
import ServingSimulation
import ServingTypes
import Synchronization

/// Runs the same requests through a cluster and through its simulation.
final class FidelityMeasurement: Sendable {
    static let kvTokens = 32_768
    /// Requests wait instead of being refused.
    static let ttftLimit = Duration.seconds(120)
    /// Of the workers' settings: what `prefill-worker --help` calls usual.
    private static let prefillSlots = 4
    private static let decodeSequences = 64
    /// Between requests that are asked one by one.
    private static let longestPause = Duration.milliseconds(500)
    private let command: FidelityCommand
    private let lengths: RequestTrace
    private let cluster: LocalCluster
    private let profiles: URL
    private let modelPath: String
    private let results = Mutex(FidelityResults())

    init(
        command: FidelityCommand, lengths: RequestTrace, cluster: LocalCluster, profiles: URL,
        modelPath: String
    ) {
        self.command = command
        self.lengths = lengths
        self.cluster = cluster
        self.profiles = profiles
        self.modelPath = modelPath
    }

    var report: Report {
        results.withLock {
            $0.report(facts: [
                ("model", modelPath),
                (
                    "load",
                    "\(command.rate) requests/s for \(command.seconds) s, \(command.rounds) times"
                ),
                ("workers", "\(command.prefillWorkers) + \(command.decodeWorkers), 1 thread each"),
            ])
        }
    }

    /// Writes the times of each request so far, as CSV.
    func write(_ file: String) {
        do {
            try Data(results.withLock(\.requests).utf8).write(to: URL(fileURLWithPath: file))
        } catch {
            showProgress("The requests' times can't be written to \(file): \(error)")
        }
    }

    func run() async throws {
        guard let address = cluster.httpAddress else { return }
        let kept = try keptCurves()
        results.withLock { $0.kept = kept }
        var before = try await costs(kept, address)
        for round in 0..<command.rounds {
            showProgress("load \(round + 1) of \(command.rounds)")
            let requests = requests(round)
            let asked = try OpenLoad(modelPath: modelPath, address: address)
            try await asked.send(requests)
            await asked.end()
            // A host's speed drifts: what requests cost is asked before and after each load.
            let after = try await self.costs(kept, address)
            let costs = before.mean(with: after)
            before = after
            let simulated = ServingRun.outcomes(plan(requests, kept, costs))
            results.withLock { $0.add(asked.answered, simulated, costs) }
        }
        results.withLock { $0.isComplete = true }
    }

    private func costs(
        _ kept: ProfileStore.Kept, _ address: NetworkAddress
    ) async throws -> FidelityCosts {
        showProgress("asking one by one")
        // Connections of its own: the gateway closes those that are idle for long.
        let load = try OpenLoad(modelPath: modelPath, address: address)
        let pause = min(Duration.seconds(1 / command.rate), Self.longestPause)
        let costs = try await FidelityProbe(
            load: load, kept: kept, longest: command.longest, pause: pause
        ).measure()
        await load.end()
        return costs
    }

    /// The workers' times; with equal settings, the last one's hold for all.
    private func keptCurves() throws -> ProfileStore.Kept {
        let files = try FileManager.default.contentsOfDirectory(
            at: profiles, includingPropertiesForKeys: nil
        ).filter { $0.pathExtension == "json" }
        guard let file = files.first else {
            throw MeasurementError.unexpectedAnswer(status: 0, body: "no worker kept its times")
        }
        return try JSONDecoder().decode(ProfileStore.Kept.self, from: Data(contentsOf: file))
    }

    /// Random arrivals with scaled lengths.
    private func requests(_ round: Int) -> [OpenLoad.Request] {
        let arrivals = lengths.poisson(
            perSecond: command.rate, seconds: command.seconds,
            seed: command.seed &+ UInt64(round))
        return arrivals.entries.map { entry in
            let output = max(2, Int(Double(entry.outputTokens) * command.outputScale))
            let prompt = max(16, Int(Double(entry.promptTokens) * command.promptScale))
            let answer = min(output, command.longest / 2)
            return OpenLoad.Request(
                seconds: entry.arrivalSeconds,
                promptTokens: min(prompt, command.longest - answer), newTokens: answer)
        }
    }

    // MARK: Simulation

    private func plan(
        _ requests: [OpenLoad.Request], _ kept: ProfileStore.Kept, _ costs: FidelityCosts
    ) -> ServingPlan {
        let model = ScaledModel(base: kept.curves, costs: costs)
        let machines =
            MachinePlan.fleet(
                command.prefillWorkers, .prefill, device: kept.key.device, model: model)
            + MachinePlan.fleet(
                command.decodeWorkers, .decode, device: kept.key.device, model: model)
        var scenario = ScenarioSpec(name: ScenarioSpec.defaultName)
        scenario.deflection = false
        scenario.ttftLimit = Self.ttftLimit
        let trace = RequestTrace(
            entries: requests.map {
                RequestTrace.Entry(
                    arrivalSeconds: $0.seconds, promptTokens: $0.promptTokens,
                    outputTokens: $0.newTokens)
            })
        var plan = ServingPlan(
            load: .open(trace),
            machines: machines.map {
                var machine = $0
                machine.host = "here"
                return machine
            }, scenario: scenario, seconds: command.seconds)
        plan.network = costs.network
        plan.contention = costs.contention
        plan.gateways = 1
        plan.waiting = .slots(Self.prefillSlots)
        plan.decodeSequences = Self.decodeSequences
        plan.kvCapacityTokens = Self.kvTokens
        plan.iterationTokens = kept.key.microBatchTokens
        plan.mixedPromptTokens = kept.key.microBatchTokens
        plan.finalRunTokens = BatchPlanner.Limits.defaultFinalRunTokens
        plan.drainSeconds = 600
        return plan
    }
}
