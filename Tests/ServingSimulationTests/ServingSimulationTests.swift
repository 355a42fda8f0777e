import ClusterRules
import Foundation
import ServingSimulation
import RequestTraces
import ServingTypes
import Testing

@Suite("Policies on production traces")
struct ServingSimulationTests {
    static let trace: RequestTrace = {
        let file = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "Traces/azure-conversation.csv")
        do {
            let whole = try RequestTrace(text: String(contentsOf: file, encoding: .utf8))
            // Short answers: most of a run's events are tokens.
            return RequestTrace(
                entries: whole.entries.map {
                    var entry = $0
                    entry.outputTokens = min(entry.outputTokens, 64)
                    return entry
                })
        } catch {
            preconditionFailure("\(file.path): \(error)")
        }
    }()

    @Test("requests that wait in the gateway wait less than in local queues")
    func forwarding() {
        var study = PolicyStudies.Forwarding(trace: Self.trace)
        study.prefillMachines = 4
        study.decodeMachines = 16
        study.seconds = 20
        study.warmUpSeconds = 5
        study.unitRate = 33
        let onDemand = study.row(1, onDemand: true).figures
        let queues = study.row(1, onDemand: false).figures
        #expect(onDemand.requests > 300)
        #expect(onDemand.requests == queues.requests, "the load is the same")
        #expect(onDemand.success > 0.9)
        #expect(queues.ttft.p50 > 1.3 * onDemand.ttft.p50)
        #expect(queues.ttft.p90 > onDemand.ttft.p90)
    }

    @Test("eq. (1) names a better ratio than its neighbours far away")
    func ratio() {
        var study = PolicyStudies.Ratio(trace: Self.trace)
        study.machines = 5
        study.users = 100
        study.seconds = 14
        study.warmUpSeconds = 4
        let formula = study.prefillByFormula
        #expect(formula == 3)
        let chosen = study.row(prefill: formula).figures.goodput
        #expect(chosen > 1.5 * study.row(prefill: 1).figures.goodput)
    }

    @Test("equal seeds give equal runs")
    func equalRuns() {
        var study = PolicyStudies.Forwarding(trace: Self.trace)
        study.prefillMachines = 2
        study.decodeMachines = 6
        study.seconds = 8
        study.warmUpSeconds = 2
        study.unitRate = 12
        #expect(study.row(1, onDemand: true) == study.row(1, onDemand: true))
    }

    @Test("a line that is no request is named")
    func badTrace() {
        #expect(throws: RequestTrace.Failure.self) { try RequestTrace(text: "1.0,5,3\n2.0,x,3\n") }
        #expect(throws: RequestTrace.Failure.self) { try RequestTrace(text: "# nothing\n") }
    }

    @Test("device times are those of the points, and lines between")
    func curves() {
        let curves = DeviceCurves.llama70BOnH100
        #expect(abs(curves.prefillSeconds([0..<1024]) - 0.0779) < 1e-9)
        #expect(abs(curves.prefillSeconds([0..<1536]) - 0.10735) < 1e-9)
        #expect(abs(curves.decodeSeconds(sequences: 1, contextTokens: 16_384) - 0.0386) < 1e-9)
        // The second half of a prompt costs what it adds.
        #expect(abs(curves.prefillSeconds([2048..<4096]) - 0.2432) < 1e-9)
    }
}
