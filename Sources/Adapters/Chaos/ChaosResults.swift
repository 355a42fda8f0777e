import Measurement
import Reports
import ServingTypes

/// What happened, and what came of the requests meanwhile.
struct ChaosResults: Sendable {
    private let settings: ChaosSettings
    private let facts: [(name: String, value: String)]
    var isComplete = false
    var rounds = 0
    /// Seconds from the end of a round's last fault until all was well.
    var recovery: [Double] = []
    private var faults: [ChaosFault: Int] = [:]
    private var answered = 0
    private var streamed = 0
    private var refused = 0
    private var failed = 0
    private var lost = 0
    private var altered = 0
    private var askedAgain = 0
    private var problems = 0
    private var calmGaps: [Double] = []
    private var gaps: [Double] = []
    /// The first of each kind.
    private var details: [String: [String]] = [:]

    init(settings: ChaosSettings, facts: [(name: String, value: String)]) {
        self.settings = settings
        self.facts = facts
    }

    var violations: Int { lost + altered + problems }

    mutating func happened(_ fault: ChaosFault) { faults[fault, default: 0] += 1 }

    mutating func calm(gap: Duration?) {
        if let gap { calmGaps.append(gap.seconds) }
    }

    mutating func note(_ problem: String) {
        problems += 1
        detail(problem)
    }

    private mutating func detail(_ words: String, of kind: String = "problem") {
        details[kind, default: []].append("\(kind): \(words)")
        if details[kind, default: []].count > ChaosSettings.keptDetails {
            details[kind]?.removeLast()
        }
    }

    /// Counts what came of a request; true if it need not be asked again.
    mutating func take(
        _ outcome: ChaosOutcome, _ expected: ChaosAnswer, of question: ChaosQuestion,
        gatewayIsGone: Bool
    ) -> Bool {
        switch outcome {
        case .answered(let answer, let gap):
            answered += 1
            if let gap {
                streamed += 1
                gaps.append(gap.seconds)
            }
            if answer != expected {
                altered += 1
                detail(
                    "\(Self.difference(answer, expected)), asked \(question.words)", of: "altered")
            }
            return true
        case .refused:
            refused += 1
            return false
        case .unreached:
            if gatewayIsGone {
                askedAgain += 1
            } else {
                lost += 1
                detail("its gateway was not reached, though nothing befell it", of: "lost")
            }
            return false
        case .failed(let words):
            failed += 1
            detail("\(words), asked \(question.words)", of: "failed")
            return false
        case .brokenOff(let words):
            if gatewayIsGone {
                askedAgain += 1
            } else {
                lost += 1
                detail("\(words), asked \(question.words)", of: "lost")
            }
            return false
        }
    }

    private static func difference(_ answer: ChaosAnswer, _ expected: ChaosAnswer) -> String {
        guard answer.promptTokens == expected.promptTokens,
            answer.completionTokens == expected.completionTokens
        else {
            return "usage \(answer.promptTokens)+\(answer.completionTokens) for "
                + "\(expected.promptTokens)+\(expected.completionTokens)"
        }
        for (index, choice) in expected.choices.sorted(by: { $0.key < $1.key }) {
            let got = answer.choices[index] ?? ChaosAnswer.Choice()
            if got.text != choice.text {
                let same = zip(got.text.utf8, choice.text.utf8).prefix { $0 == $1 }.count
                return "choice \(index) differs from byte \(same) of \(choice.text.utf8.count)"
            }
            if got.finish != choice.finish { return "finish \(got.finish) for \(choice.finish)" }
            if got.logprobTokens != choice.logprobTokens {
                return "log-probabilities of \(got.logprobTokens.count) tokens for "
                    + "\(choice.logprobTokens.count)"
            }
        }
        return "\(answer.choices.count) choices for \(expected.choices.count)"
    }

    // MARK: Report

    var report: Report {
        var report = Report(
            name: "chaos",
            facts: [
                ("processor", ProcessReadings.processorName),
                ("load average", ProcessReadings.loadAverage), ("seed", "\(settings.seed)"),
                ("network", settings.networkName),
                (
                    "cluster",
                    "\(settings.prefillWorkers) prefill- and \(settings.decodeWorkers) "
                        + "decode-workers, \(settings.gateways) gateways, \(settings.users) users"
                ),
            ] + facts)
        report.tables = [faultTable, requestTable, gapTable]
        report.findings =
            details.sorted { $0.key < $1.key }.flatMap(\.value) + [
                violations == 0
                    ? "nothing was lost, nothing altered"
                    : "\(violations) violations; the same seed makes the same faults"
            ]
        report.isComplete = isComplete
        return report
    }

    private var faultTable: ReportTable {
        var table = ReportTable("faults", "Faults", columns: ["fault", "times"])
        for fault in ChaosFault.allCases where settings.plan.canHappen(fault) {
            table.add([.text(fault.name), .whole(faults[fault] ?? 0)])
        }
        return table
    }

    private var requestTable: ReportTable {
        var table = ReportTable(
            "requests", "Requests over \(rounds) rounds",
            columns: [
                "answered", "of_them_streamed", "lost", "altered", "failed", "refused",
                "asked_again",
            ])
        table.note =
            "Lost: ended without a word though its gateway lived. Failed: ended with an error.\n"
            + "Asked again: its gateway was down, or taken away."
        table.add(
            [answered, streamed, lost, altered, failed, refused, askedAgain].map { .whole($0) })
        return table
    }

    private var gapTable: ReportTable {
        var table = ReportTable(
            "gaps", "Longest time between two pieces of a stream, and recovery",
            columns: ["what", "count", "p50_s", "p99_s", "longest_s"])
        for (name, values) in [
            ("streams in calm", calmGaps), ("streams under faults", gaps),
            ("until all was well", recovery),
        ] {
            let samples = Samples(values)
            table.add([
                .text(name), .whole(values.count), .number(samples.median, 3),
                .number(samples.quantile(0.99), 3), .number(values.max(), 3),
            ])
        }
        return table
    }
}

extension ChaosQuestion {
    fileprivate var words: String {
        "\(prompt.utf8.count)+\(newTokens) tokens, seed \(seed), \(choices) choices"
            + (isStreamed ? ", streamed" : "") + (hasLogprobs ? ", log-probabilities" : "")
            + (stop.map { ", stop '\($0)'" } ?? "")
    }
}
