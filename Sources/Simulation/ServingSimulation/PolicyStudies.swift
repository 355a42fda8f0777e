import DeviceProfile
import ClusterRules
import Grouping
package import RequestTraces
import ServingTypes

/// The comparisons that both papers make, on the shared traces.
package enum PolicyStudies {
    /// One row of a comparison.
    package struct Row: Sendable, Hashable {
        package var system: String
        /// Load as a multiple of the first row's, or requests per second.
        package var load: Double
        package var figures: ServingFigures
        package var prefillUtilisation: Double
        package var decodeUtilisation: Double
    }

    /// Success as the load rises, waiting in the gateway against waiting in the workers.
    ///
    /// Figure 14a of P/D-Serve.
    package struct Forwarding: Sendable {
        package var trace: RequestTrace
        /// Requests per second of the load that counts as 1.
        package var unitRate = 27.0
        package var multiples = [1.0, 2, 3, 4, 5]
        package var prefillMachines = 16
        package var decodeMachines = 96
        package var slots = 2
        package var ttftLimit: Duration = .milliseconds(800)
        package var seconds = 120.0
        package var warmUpSeconds = 20.0

        package init(trace: RequestTrace) { self.trace = trace }

        /// - Parameter onDemand: false is a gateway that pushes to the fewest of its own streams,
        ///   and workers that queue.
        package func row(_ multiple: Double, onDemand: Bool) -> Row {
            var scenario = ScenarioSpec(name: ScenarioSpec.defaultName)
            scenario.ttftLimit = ttftLimit
            scenario.deflection = false
            scenario.placement = onDemand ? .onDemand : .leastConnections
            var plan = ServingPlan(
                load: .open(
                    trace.poisson(perSecond: unitRate * multiple, seconds: seconds, seed: 3)),
                machines: MachinePlan.fleet(prefillMachines, .prefill, .llama70BOnH100)
                    + MachinePlan.fleet(decodeMachines, .decode, .llama70BOnH100),
                scenario: scenario, seconds: seconds)
            plan.warmUpSeconds = warmUpSeconds
            plan.patienceSeconds = ttftLimit.seconds
            plan.waiting = onDemand ? .slots(slots) : .localQueues
            return PolicyStudies.row(
                plan, onDemand ? "on-demand forwarding" : "local queues, fewest streams",
                load: multiple)
        }
    }

    /// Throughput of all ratios of so many machines: figure 13a of P/D-Serve.
    package struct Ratio: Sendable {
        package var trace: RequestTrace
        package var machines = 12
        package var users = 700
        package var slots = 2
        package var decodeSequences = 64
        package var ttftLimit: Duration = .seconds(60)
        package var seconds = 150.0
        package var warmUpSeconds = 60.0

        package init(trace: RequestTrace) { self.trace = trace }

        package func row(prefill: Int) -> Row {
            var scenario = ScenarioSpec(name: ScenarioSpec.defaultName)
            scenario.ttftLimit = ttftLimit
            scenario.deflection = false
            var plan = ServingPlan(
                load: .users(users, trace),
                machines: MachinePlan.fleet(prefill, .prefill, .llama70BOnH100)
                    + MachinePlan.fleet(machines - prefill, .decode, .llama70BOnH100),
                scenario: scenario, seconds: seconds)
            plan.warmUpSeconds = warmUpSeconds
            plan.patienceSeconds = ttftLimit.seconds
            plan.waiting = .slots(slots)
            plan.decodeSequences = decodeSequences
            return PolicyStudies.row(
                plan, "\(prefill) prefill, \(machines - prefill) decode", load: 1)
        }

        /// Prefill machines by P/D-Serve's formula, from mean lengths and the device's curves.
        ///
        /// T_p is one prompt's share of an iteration, so b_p is 1; b_d is a full batch.
        package var prefillByFormula: Int {
            let count = Double(trace.entries.count)
            let curves = DeviceCurves.llama70BOnH100
            let prefillSeconds =
                trace.entries.reduce(0.0) { $0 + curves.seconds(ofPrompt: $1.promptTokens) } / count
            let prompt = trace.entries.reduce(0.0) { $0 + Double($1.promptTokens) } / count
            let output = trace.entries.reduce(0.0) { $0 + Double($1.outputTokens) } / count
            let context = (prompt + output / 2) * Double(decodeSequences)
            let decodeSeconds =
                output
                * curves.decodeSeconds(
                    sequences: decodeSequences, contextTokens: Int(context))
            let times = PhaseTimes(
                prefillSeconds: prefillSeconds, decodeSeconds: decodeSeconds, prefillBatch: 1,
                decodeBatch: Double(decodeSequences))
            func throughput(_ prefill: Int) -> Double {
                times.requestsPerSecond(prefill: prefill, decode: machines - prefill)
            }
            return (1..<machines).max { throughput($0) < throughput($1) } ?? 1
        }
    }

    /// Splitwise's question: pools apart or together, on the trace of coding and of conversation.
    package struct Pools: Sendable {
        package enum System: String, Sendable, CaseIterable {
            /// P/D-Serve: requests wait in the gateway.
            case onDemand = "on-demand"
            /// The same, and decode-workers compute prompts too where that is sooner.
            case deflecting = "on-demand, deflecting"
            /// Splitwise: the shortest queue of both pools is joined on arrival.
            case shortestQueue = "shortest queues"
            /// No pools: every machine computes the prompts of what it decodes.
            case together = "all together"
        }

        package var trace: RequestTrace
        package var prefillMachines: Int
        package var decodeMachines: Int
        package var rates: [Double]
        package var slots = 2
        package var ttftLimit: Duration = .seconds(1)
        package var tpotLimit: Duration = .milliseconds(100)
        package var seconds = 90.0
        package var warmUpSeconds = 20.0

        /// - Parameter isCode: long prompts and short answers.
        package init(trace: RequestTrace, isCode: Bool) {
            self.trace = trace
            prefillMachines = isCode ? 9 : 4
            decodeMachines = isCode ? 3 : 8
            rates = isCode ? [20, 40, 60] : [10, 20, 30]
        }

        package func row(_ system: System, rate: Double) -> Row {
            var scenario = ScenarioSpec(name: ScenarioSpec.defaultName)
            scenario.ttftLimit = ttftLimit
            scenario.tpotLimit = tpotLimit
            scenario.deflection = system == .deflecting
            if system == .shortestQueue { scenario.placement = .shortestQueue }
            let isTogether = system == .together
            var plan = ServingPlan(
                load: .open(trace.poisson(perSecond: rate, seconds: seconds, seed: 5)),
                machines: MachinePlan.fleet(
                    isTogether ? 0 : prefillMachines, .prefill, .llama70BOnH100)
                    + MachinePlan.fleet(
                        isTogether ? prefillMachines + decodeMachines : decodeMachines, .decode,
                        .llama70BOnH100),
                scenario: scenario, seconds: seconds)
            plan.warmUpSeconds = warmUpSeconds
            plan.patienceSeconds = ttftLimit.seconds
            plan.waiting = system == .shortestQueue ? .localQueues : .slots(slots)
            return PolicyStudies.row(plan, system.rawValue, load: rate)
        }
    }

    static func row(_ plan: ServingPlan, _ system: String, load: Double) -> Row {
        var outcomes: [RequestOutcome] = []
        let run = ServingRun(plan) { outcomes.append($0) }
        run.run()
        return Row(
            system: system, load: load,
            figures: ServingFigures(
                outcomes, seconds: plan.seconds - plan.warmUpSeconds,
                ttftLimit: plan.scenario.ttftLimit.seconds,
                tpotLimit: plan.scenario.tpotLimit.seconds),
            prefillUtilisation: run.utilisation(.prefillWorker),
            decodeUtilisation: run.utilisation(.decodeWorker))
    }
}
