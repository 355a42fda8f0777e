import ArgumentParser
import Foundation
import Measurement
import Reports
import ServingSimulation
import RequestTraces
import ServiceRuntime

/// Policies and ratios in virtual time.
struct PoliciesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policies",
        abstract: "Compare placement policies and ratios on production traces, in simulation.",
        discussion: """
            The gateways' and workers' decisions are those that serve; devices, links and time are \
            simulated: Llama2-70B on machines with 8 H100 each, by the measured times that \
            SplitwiseSim publishes. Requests have the lengths of Azure's traces of 2023 \
            (conversation and coding) and come at random. Use a release build.

            'forwarding' is Fig. 14a of P/D-Serve (arXiv 2408.08147): part of the requests whose \
            first token comes in time, as the load rises from 1 to 5 times; requests wait in the \
            gateway for a prefill-worker that has a slot, or in the workers' own queues where the \
            gateway with the fewest streams has put them. 'ratio' is its Fig. 13a: all numbers of \
            prefill- and decode-workers, and the one that eq. (1) names. 'pools' runs the \
            policies of both papers on both traces.
            """)

    enum Study: String, ExpressibleByArgument, CaseIterable {
        case forwarding, ratio, pools
    }

    @Option(
        help: ArgumentHelp("Folder with azure-conversation.csv and azure-code.csv."))
    var traces = "Tests/ServingSimulationTests/Traces"

    @Option(parsing: .upToNextOption, help: "Which comparisons.")
    var studies = Study.allCases

    @Option(help: "Requests per second of load 1 of 'forwarding'.")
    var unitRate = 27.0

    @OptionGroup var common: CommonOptions

    func run() throws {
        let conversation = try trace("azure-conversation.csv")
        var report = Report(
            name: "policies",
            facts: [("devices", "Llama2-70B on 8 H100 per machine, simulated")])
        for study in studies {
            switch study {
            case .forwarding: forwarding(conversation, into: &report)
            case .ratio: ratio(conversation, into: &report)
            case .pools: pools(conversation, try trace("azure-code.csv"), into: &report)
            }
        }
        try BenchmarkRun.conclude(.finished, report: report, json: common.json)
    }

    private func trace(_ file: String) throws -> RequestTrace {
        try RequestTrace(
            text: String(contentsOfFile: "\(traces)/\(file)", encoding: .utf8))
    }

    // MARK: Studies

    private func forwarding(_ trace: RequestTrace, into report: inout Report) {
        var study = PolicyStudies.Forwarding(trace: trace)
        study.unitRate = unitRate
        var table = Self.table("forwarding", "Success as the load rises")
        table.note =
            "\(study.prefillMachines) prefill-workers, \(study.decodeMachines) "
            + "decode-workers; load 1 is \(study.unitRate) requests/s; the first token is due "
            + "after \(study.ttftLimit)"
        var highest: [Bool: PolicyStudies.Row] = [:]
        for multiple in study.multiples {
            for onDemand in [true, false] {
                showProgress("forwarding: load \(multiple)")
                let row = study.row(multiple, onDemand: onDemand)
                table.add(Self.cells(row))
                highest[onDemand] = row
            }
        }
        report.tables.append(table)
        if let new = highest[true]?.figures, let old = highest[false]?.figures {
            report.findings.append(
                String(
                    format: "At the highest load %.1f %% of the requests succeed on demand, "
                        + "%.1f %% with local queues.", new.success * 100, old.success * 100))
        }
    }

    private func ratio(_ trace: RequestTrace, into report: inout Report) {
        let study = PolicyStudies.Ratio(trace: trace)
        var table = Self.table("ratio", "Throughput of all ratios of \(study.machines) machines")
        table.note = "\(study.users) users, each of whom asks again at once"
        var best: [(prefill: Int, goodput: Double)] = []
        for prefill in 1..<study.machines {
            showProgress("ratio: \(prefill) of \(study.machines)")
            let row = study.row(prefill: prefill)
            table.add(Self.cells(row))
            best.append((prefill, row.figures.goodput))
        }
        report.tables.append(table)
        best.sort { $0.goodput > $1.goodput }
        let formula = study.prefillByFormula
        guard let chosen = best.first(where: { $0.prefill == formula }), let top = best.first
        else { return }
        let others = best.filter { $0.prefill != formula }.map {
            String(format: "%+.0f %% over %d", (chosen.goodput / $0.goodput - 1) * 100, $0.prefill)
        }
        report.findings.append(
            "Eq. (1) names \(formula) prefill-workers, the best is \(top.prefill); its throughput "
                + "is " + others.joined(separator: ", ") + ".")
    }

    private func pools(
        _ conversation: RequestTrace, _ code: RequestTrace, into report: inout Report
    ) {
        for (name, trace) in [("conversation", conversation), ("coding", code)] {
            let study = PolicyStudies.Pools(trace: trace, isCode: name == "coding")
            var table = Self.table("pools_\(name)", "Policies of both papers, \(name)")
            table.note =
                "\(study.prefillMachines) prefill-workers, \(study.decodeMachines) "
                + "decode-workers, requests/s as load"
            for rate in study.rates {
                for system in PolicyStudies.Pools.System.allCases {
                    showProgress("pools: \(name), \(rate)/s, \(system.rawValue)")
                    table.add(Self.cells(study.row(system, rate: rate)))
                }
            }
            report.tables.append(table)
        }
    }

    // MARK: Tables

    private static func table(_ key: String, _ title: String) -> ReportTable {
        ReportTable(
            key, title,
            columns: [
                "system", "load", "requests", "success_%", "goodput_/s", "ttft_p50_ms",
                "ttft_p90_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms", "prefill_busy_%",
                "decode_busy_%",
            ])
    }

    private static func cells(_ row: PolicyStudies.Row) -> [ReportTable.Cell] {
        let figures = row.figures
        return [
            .text(row.system), .number(row.load, 1), .whole(figures.requests),
            .number(figures.success * 100, 2), .number(figures.goodput, 2),
            .milliseconds(figures.ttft.p50, 0), .milliseconds(figures.ttft.p90, 0),
            .milliseconds(figures.ttft.p99, 0), .milliseconds(figures.tpot.p50, 1),
            .milliseconds(figures.tpot.p99, 1), .number(row.prefillUtilisation * 100, 0),
            .number(row.decodeUtilisation * 100, 0),
        ]
    }
}
