import Foundation
import Measurement
import Reports
import Provisioning
import SplitwiseSimulation
import Synchronization

/// Numbers of machines of all designs, searched under one constraint.
struct SplitwiseDesigns: Sendable {
    enum Question: Sendable {
        case mostThroughput(Budget)
        case least(Measure, Double)
        /// The highest rate of the authors' numbers of machines, at equal power.
        case theirs
        /// The same of those for the other workload.
        case theirsForOther

        var words: String {
            switch self {
            case .mostThroughput(let budget):
                String(
                    format: "highest rate with all goals, \(budget.measure.rawValue) up to %.0f",
                    budget.amount)
            case .least(let measure, let rate):
                String(format: "least \(measure.rawValue) with all goals at %.0f requests/s", rate)
            case .theirs: "highest rate with all goals of the authors' clusters"
            case .theirsForOther:
                "highest rate with all goals of the authors' clusters for the other workload"
            }
        }
    }

    typealias Provision = ProvisioningSearch<ServiceFigures>.Provision

    let name: String
    let questions: [Question]
    let evaluators: [SplitwiseEvaluator]
    let limits: ProvisioningLimits
    let published: SplitwisePublished

    func run(into results: SplitwiseResults) async {
        for (number, question) in questions.enumerated() where !Task.isCancelled {
            await run(question, number: number, into: results)
        }
    }

    private func run(_ question: Question, number: Int, into results: SplitwiseResults) async {
        var table = ReportTable(
            "\(name.replacing(", ", with: "_"))_\(number)", "\(name): \(question.words)",
            columns: [
                "design", "machines", "published", "rate_/s", "cost", "power", "rate_ratio",
                "cost_ratio", "power_ratio", "ttft_p90_slowdown", "tbt_p90_slowdown",
                "e2e_p90_slowdown", "runs", "state",
            ])
        table.note =
            "ratios to Baseline-H100; cost and power as SplitwiseSim counts them "
            + "(A100 2.21 and 24.8, H100 4.76 and 44); published: the authors' numbers"
        var found: [SplitwiseDesign: Provision] = [:]
        let order =
            evaluators.filter { $0.design == .baselineH100 }
            + evaluators.filter { $0.design != .baselineH100 }
        for evaluator in order where !Task.isCancelled {
            let answer = await search(evaluator, question)
            found[evaluator.design] = answer.best
            table.add(
                cells(
                    evaluator.design, answer, found[.baselineH100],
                    published.counts(evaluator.design, question)))
            results.show(table)
        }
        for claim in published.claims(question) {
            if let sentence = claim.sentence(found) { results.find("\(name): \(sentence)") }
        }
    }

    private func search(
        _ evaluator: SplitwiseEvaluator, _ question: Question
    ) async -> ProvisioningSearch<ServiceFigures>.Answer {
        let pace = ProgressPace()
        let name = name
        let search = ProvisioningSearch(
            design: evaluator.design.priced, limits: limits,
            progress: { progress in
                guard pace.isDue() else { return }
                let rate = String(format: "%.1f", progress.perSecond)
                showProgress(
                    "\(name): \(progress.design), \(progress.evaluations) runs, "
                        + "now \(progress.counts) at \(rate)/s")
            }, evaluate: { evaluator.evaluate($0, perSecond: $1) })
        return switch question {
        case .mostThroughput(let budget): await search.mostThroughput(within: budget)
        case .least(let measure, let rate): await search.least(measure, perSecond: rate)
        case .theirs, .theirsForOther:
            await search.highestRate(of: published.clusters(evaluator.design, question))
        }
    }

    private func cells(
        _ design: SplitwiseDesign, _ answer: ProvisioningSearch<ServiceFigures>.Answer,
        _ base: Provision?, _ published: String?
    ) -> [ReportTable.Cell] {
        let best = answer.best
        let figures = best?.figures
        return [
            .text(design.rawValue), .text(best?.counts.description ?? "none"),
            .text(published ?? ""), .number(best?.perSecond, 1), .number(best?.cost, 1),
            .number(best?.power, 0), .ratio(best?.perSecond, to: base?.perSecond),
            .ratio(best?.cost, to: base?.cost), .ratio(best?.power, to: base?.power),
            .number(figures?.ttftSlowdown.p90, 2), .number(figures?.tbtSlowdown.p90, 2),
            .number(figures?.e2eSlowdown.p90, 2), .whole(answer.evaluations),
            .text(answer.isComplete ? "" : "interrupted"),
        ]
    }
}

/// At most one line of progress a while.
final class ProgressPace: Sendable {
    private static let interval = Duration.seconds(5)
    private let last = Mutex(ContinuousClock.now)

    func isDue() -> Bool {
        last.withLock { last in
            guard ContinuousClock.now - last > Self.interval else { return false }
            last = .now
            return true
        }
    }
}

/// What Splitwise's authors have published about designs.
struct SplitwisePublished: Sendable {
    struct Claim: Sendable {
        enum Quantity: String, Sendable {
            case throughput, cost, power
        }

        var design: SplitwiseDesign
        var base: SplitwiseDesign
        var quantity: Quantity
        var ratio: Double

        func sentence(_ found: [SplitwiseDesign: SplitwiseDesigns.Provision]) -> String? {
            guard let one = found[design], let other = found[base] else { return nil }
            let measured =
                switch quantity {
                case .throughput: one.perSecond / other.perSecond
                case .cost: one.cost / other.cost
                case .power: one.power / other.power
                }
            return String(
                format: "%@ has %.2f times the %@ of %@; published: %.2f (%+.1f %%).",
                design.rawValue, measured, quantity.rawValue, base.rawValue, ratio,
                (measured / ratio - 1) * 100)
        }
    }

    private let study: SplitwiseCommand.Study
    private let workload: SplitwiseCommand.Workload
    /// Whether constraint and model are those of the authors' numbers.
    private let isUsual: Bool

    init(
        _ study: SplitwiseCommand.Study, _ workload: SplitwiseCommand.Workload, isUsual: Bool
    ) {
        self.study = study
        self.workload = workload
        self.isUsual = isUsual
    }

    /// Machines for prompts and decode, or for both.
    func counts(_ design: SplitwiseDesign, _ question: SplitwiseDesigns.Question) -> String? {
        guard isUsual else { return nil }
        let rows: [String]
        switch (study, workload, question) {
        case (.otherWorkload, _, _): return nil
        case (.isoPower, .conversation, _): rows = ["70", "40", "45+25", "25+15", "25+26", "25+21"]
        case (.isoPower, .code, _): rows = ["70", "40", "55+15", "35+5", "35+8", "35+7"]
        case (.isoCost, .conversation, _): rows = ["86", "40", "51+35", "25+15", "30+21", "30+10"]
        case (.isoCost, .code, _): rows = ["86", "40", "66+20", "35+5", "35+10", "35+7"]
        case (_, .conversation, .least(.power, _)):
            rows = ["88", "24", "25+16", "5+17", "21+1", "8+16"]
        case (_, .conversation, .least(.cost, _)):
            rows = ["88", "24", "25+16", "5+17", "11+19", "19+3"]
        case (_, .code, .least(.cost, _)): return design == .hh ? "27+3" : nil
        default: return nil
        }
        let order: [SplitwiseDesign] = [
            .baselineA100, .baselineH100, .aa, .hh, .ha, .hhCapped,
        ]
        return order.firstIndex(of: design).map { rows[$0] }
    }

    /// The authors' machines with the power of 40 H100 machines.
    func clusters(
        _ design: SplitwiseDesign, _ question: SplitwiseDesigns.Question
    ) -> [MachineCounts] {
        var isCode = workload == .code
        if case .theirsForOther = question { isCode.toggle() }
        return switch design {
        case .baselineA100: [MachineCounts(mixed: 70)]
        case .baselineH100: [MachineCounts(mixed: 40)]
        case .aa: [MachineCounts(prefill: isCode ? 55 : 45, decode: isCode ? 15 : 25)]
        case .hh: [MachineCounts(prefill: isCode ? 35 : 25, decode: isCode ? 5 : 15)]
        case .ha: [MachineCounts(prefill: isCode ? 35 : 25, decode: isCode ? 8 : 26)]
        case .hhCapped: [MachineCounts(prefill: isCode ? 35 : 25, decode: isCode ? 7 : 21)]
        }
    }

    func claims(_ question: SplitwiseDesigns.Question) -> [Claim] {
        guard workload == .conversation else { return [] }
        switch (study, question) {
        case (.isoPower, _):
            return [
                Claim(design: .aa, base: .baselineA100, quantity: .throughput, ratio: 2.15),
                Claim(design: .ha, base: .baselineH100, quantity: .throughput, ratio: 1.18),
                Claim(design: .ha, base: .baselineH100, quantity: .cost, ratio: 0.9),
            ]
        case (.isoCost, _):
            return [
                Claim(design: .aa, base: .baselineH100, quantity: .throughput, ratio: 1.4),
                Claim(design: .aa, base: .baselineH100, quantity: .power, ratio: 1.25),
            ]
        case (_, .least(.power, _)):
            return [
                Claim(design: .hhCapped, base: .baselineH100, quantity: .power, ratio: 0.75)
            ]
        case (_, .least(.cost, _)):
            return [Claim(design: .aa, base: .baselineH100, quantity: .cost, ratio: 0.75)]
        default: return []
        }
    }
}
