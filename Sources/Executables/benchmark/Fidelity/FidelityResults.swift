import Calibration
import DeviceProfile
import Foundation
import Measurement
import Reports
import ServingSimulation

/// Real and simulated times of the same requests.
struct FidelityResults: Sendable {
    var kept: ProfileStore.Kept?
    /// Of the last load.
    private var costs: FidelityCosts?
    var isComplete = false
    private var rounds: [(real: [OpenLoad.Answer], simulated: [RequestOutcome])] = []

    mutating func add(
        _ real: [OpenLoad.Answer], _ simulated: [RequestOutcome], _ costs: FidelityCosts
    ) {
        rounds.append((real, simulated))
        self.costs = costs
    }

    /// One line for each request, real beside simulated, as CSV.
    var requests: String {
        var text = "load,arrival_s,prompt_tokens,output_tokens"
        for name in ["ttft", "tpot", "e2e"] { text += ",real_\(name)_s,simulated_\(name)_s" }
        for (index, round) in rounds.enumerated() {
            let real = round.real.sorted { $0.request.seconds < $1.request.seconds }
            for (answer, outcome) in zip(real, round.simulated) {
                let request = answer.request
                let times: [Double?] = [
                    answer.ttft, outcome.ttft, answer.tpot, outcome.tpot, answer.endToEnd,
                    outcome.endToEnd,
                ]
                let facts =
                    "\(index + 1),\(request.seconds)"
                    + ",\(request.promptTokens),\(request.newTokens)"
                let cells = times.map { $0.map { String(format: "%.6f", $0) } ?? "" }
                text += "\n\(facts),\(cells.joined(separator: ","))"
            }
        }
        return text + "\n"
    }

    func report(facts: [(name: String, value: String)]) -> Report {
        var report = Report(name: "fidelity", facts: facts)
        report.isComplete = isComplete
        if let costs {
            report.facts += [
                ("request besides engine", milliseconds(costs.network.gatewaySeconds)),
                ("hand-over besides copies", milliseconds(costs.network.handOverSeconds)),
                ("prefill, times as measured by the worker", rounded(costs.prefillFactor)),
                ("decode, times as measured by the worker", rounded(costs.decodeFactor)),
                ("prefill beside running answers, times", rounded(costs.contention.prefill)),
                ("decode beside prompts, times", rounded(costs.contention.decode)),
            ]
        }
        if let fit = kept?.curves.fitError {
            report.facts.append(
                ("fit error of the engine's times", "\(rounded(fit.median * 100)) %"))
        }
        report.tables = [times]
        let rows = deviations
        if let worst = rows.max(by: { abs($0) < abs($1) }) {
            let within = rows.count { abs($0) <= 0.1 }
            report.findings.append(
                "\(within) of \(rows.count) percentiles within 10 %; the furthest is off by "
                    + "\((worst * 1000).rounded() / 10) %.")
        }
        return report
    }

    private func milliseconds(_ seconds: Double) -> String { "\(rounded(seconds * 1000)) ms" }

    private func rounded(_ value: Double) -> String { String(format: "%.3g", value) }

    private var series: [(name: String, real: [Double], simulated: [Double])] {
        let real = rounds.flatMap(\.real)
        let simulated = rounds.flatMap(\.simulated)
        return [
            ("TTFT", real.map(\.ttft), simulated.compactMap(\.ttft)),
            ("TPOT", real.compactMap(\.tpot), simulated.compactMap(\.tpot)),
            ("E2E", real.map(\.endToEnd), simulated.compactMap(\.endToEnd)),
        ]
    }

    private var deviations: [Double] {
        series.flatMap { _, real, simulated in
            let (real, simulated) = (
                ServingFigures.Percentiles(real), ServingFigures.Percentiles(simulated)
            )
            return [simulated.p50 / real.p50 - 1, simulated.p90 / real.p90 - 1]
        }.filter(\.isFinite)
    }

    private var times: ReportTable {
        var table = ReportTable(
            "times", "Real and simulated times",
            columns: [
                "time", "requests", "real_p50_ms", "simulated_p50_ms", "off_p50_%", "real_p90_ms",
                "simulated_p90_ms", "off_p90_%", "real_p99_ms", "simulated_p99_ms",
            ])
        for (name, real, simulated) in series {
            let (first, second) = (
                ServingFigures.Percentiles(real), ServingFigures.Percentiles(simulated)
            )
            table.add([
                .text(name), .whole(real.count), .milliseconds(first.p50),
                .milliseconds(second.p50), .number(100 * (second.p50 / first.p50 - 1), 1),
                .milliseconds(first.p90), .milliseconds(second.p90),
                .number(100 * (second.p90 / first.p90 - 1), 1), .milliseconds(first.p99),
                .milliseconds(second.p99),
            ])
        }
        return table
    }
}
