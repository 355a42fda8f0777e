import DeviceProfile
import Foundation
import Planning
import Reports
import ServingSimulation

/// What a search for a plan found.
struct PlanResults: Sendable {
    private let task: PlanningTask
    /// Knows the traffic and the estimates.
    private let planner: FleetPlanner
    var findings: [FleetPlanner.Finding] = []
    /// What a comparison compares with.
    var baseline: PlanTrial?
    var isComplete = true

    init(task: PlanningTask) {
        self.task = task
        planner = FleetPlanner(task) { true }
    }

    /// Less is better.
    private func value(_ trial: PlanTrial) -> Double {
        switch task.objective {
        case .throughput: -trial.rate
        case .cost: task.kinds.price(of: trial.fleet) ?? .infinity
        case .power: task.kinds.power(of: trial.fleet)
        }
    }

    private func best(_ isSplit: Bool) -> PlanTrial? {
        findings.compactMap(\.best).filter { $0.fleet.isSplit == isSplit }
            .min { value($0) < value($1) }
    }

    var best: PlanTrial? { findings.compactMap(\.best).min { value($0) < value($1) } }

    func report(facts: [(name: String, value: String)]) -> Report {
        var report = Report(name: "plan", facts: facts)
        report.isComplete = isComplete
        report.tables = [fleets, machines]
        guard let best else {
            report.findings = ["No fleet was found that keeps the goals."]
            return report
        }
        report.findings = [verdict, sums(best)] + links + deployment(best)
        return report
    }

    // MARK: Tables

    private var fleets: ReportTable {
        var table = ReportTable(
            "fleets", "Fleets that keep the goals",
            columns: [
                "fleet", "requests/s", "$/h", "kW", "$_per_million_requests", "ttft_p90_ms",
                "tpot_p90_ms", "prefill_busy_%", "others_busy_%", "to_baseline",
            ])
        let trials =
            [baseline].compactMap { $0 }
            + findings.compactMap(\.best).sorted { value($0) < value($1) }
        for (index, trial) in trials.enumerated() {
            let price = task.kinds.price(of: trial.fleet)
            let name = task.kinds.name(of: trial.fleet)
            table.add([
                .text(baseline != nil && index == 0 ? "baseline, \(name)" : name),
                .number(trial.rate, 2), .number(price, 2),
                .number(task.kinds.power(of: trial.fleet) / 1000, 2),
                .number(price.map { $0 / 3600 / trial.rate * 1e6 }, 2),
                .milliseconds(trial.figures.ttft.p90, 0),
                .milliseconds(trial.figures.tpot.p90, 1),
                .number(trial.prefillBusy * 100, 0), .number(trial.decodeBusy * 100, 0),
                .number(baseline.map { trial.rate / $0.rate }, 2),
            ])
        }
        let without = findings.filter { $0.best == nil }
        table.note = without.map { finding in
            "\(finding.design.map { task.kinds.name(of: $0) } ?? "an assignment"): "
                + finding.reason
        }.joined(separator: "\n")
        return table
    }

    private var machines: ReportTable {
        var table = ReportTable(
            "machines", "One machine, estimated",
            columns: [
                "machine", "prompt_ms", "prompts/s", "batch", "step_ms", "answers/s", "both/s",
                "kv_transfer_ms",
            ])
        for (kind, estimate) in zip(task.kinds, planner.estimates) {
            table.add([
                .text(kind.name), .milliseconds(estimate.promptSeconds, 1),
                .number(estimate.prefill, 3), .whole(estimate.batch),
                .milliseconds(estimate.stepSeconds, 1), .number(estimate.decode, 3),
                .number(estimate.mixed, 3), .milliseconds(estimate.transferSeconds, 1),
            ])
        }
        table.note =
            "prompts, answers and both: requests per second as a prefill machine, as a decode "
            + "machine and doing both, 90 % busy"
        return table
    }

    // MARK: Words

    private var verdict: String {
        guard let split = best(true) else {
            return "Do not split: no fleet with prefill and decode apart keeps the goals, or none "
                + "for less."
        }
        guard let together = best(false) else {
            return "Split: no fleet whose machines do both keeps the goals, or none for less."
        }
        let (first, second) = (describe(split), describe(together))
        return value(split) < value(together)
            ? "Split: \(first), against \(second) if every machine does both."
            : "Do not split: machines that do both reach \(second), apart they reach \(first)."
    }

    private func describe(_ trial: PlanTrial) -> String {
        let price = task.kinds.price(of: trial.fleet).map { String(format: "%.2f $/h", $0) }
        let power = String(format: "%.2f kW", task.kinds.power(of: trial.fleet) / 1000)
        return "\(rounded(trial.rate)) requests/s with \(price ?? "no known price") and \(power)"
    }

    /// What one request takes.
    private func sums(_ best: PlanTrial) -> String {
        let traffic = planner.traffic
        let kind = (best.fleet.prefill.keys.first ?? best.fleet.mixed.keys.first) ?? 0
        let bytes = traffic.meanPrompt * Double(task.kinds[kind].model.kvBytesPerToken)
        return String(
            format: "A mean request has %.0f + %.0f tokens; its prompt's KV is %.1f MB.",
            traffic.meanPrompt, traffic.meanOutput, bytes / 1e6)
    }

    /// Links that carry KV no faster than prompts are computed.
    private var links: [String] {
        zip(task.kinds, planner.estimates).filter { $1.transferSeconds > $1.promptSeconds }.map {
            kind, estimate in
            String(
                format: "The link of \(kind.name) is too slow: a mean prompt's KV takes %.2f s "
                    + "on it and the prompt %.2f s, so that it limits the machine to %.3g "
                    + "prompts/s.", estimate.transferSeconds, estimate.promptSeconds,
                estimate.prefill)
        }
    }

    /// How to start it.
    private func deployment(_ best: PlanTrial) -> [String] {
        let fleet = best.fleet
        guard fleet.isSplit else {
            return [
                "docker compose up --scale prefill-worker=0 "
                    + "--scale decode-worker=\(fleet.machines)",
                "cluster.yaml: scenarios: [{name: default, limits: "
                    + "{ttft: \(milliseconds(planner.goalSeconds.ttft)), "
                    + "tpot: \(milliseconds(planner.goalSeconds.tpot))}, "
                    + "ratio: {prefill: 0, decode: \(fleet.machines)}}]",
            ]
        }
        let decode = fleet.decodeCount + fleet.mixedCount
        return [
            "docker compose up --scale prefill-worker=\(fleet.prefillCount) "
                + "--scale decode-worker=\(decode)",
            "cluster.yaml: scenarios: [{name: default, limits: "
                + "{ttft: \(milliseconds(planner.goalSeconds.ttft)), "
                + "tpot: \(milliseconds(planner.goalSeconds.tpot))}, "
                + "ratio: {prefill: \(fleet.prefillCount), decode: \(decode)}}]",
        ]
    }

    private func milliseconds(_ seconds: Double) -> String {
        "\(max(1, Int((seconds * 1000).rounded())))ms"
    }
}
