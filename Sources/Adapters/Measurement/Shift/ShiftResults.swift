import Reports
import ServingTypes
import SimulatedEngine

/// What both runs saw.
struct ShiftResults: Sendable {
    let settings: ShiftSettings
    private(set) var runs: [ShiftRun] = []
    var isComplete = false

    init(settings: ShiftSettings) { self.settings = settings }

    mutating func add(_ run: ShiftRun) {
        var run = run
        run.requests.sort { $0.ended < $1.ended }
        runs.append(run)
    }

    subscript(mode: ShiftMode) -> ShiftRun? { runs.first { $0.mode == mode } }

    func span(_ run: ShiftRun, from: Double, to: Double) -> ShiftSpan {
        ShiftSpan(run, from: from, to: to, settings: settings)
    }

    // MARK: Modelled times

    private var engine: SimulatedEngine.Settings {
        SimulatedEngine.Settings().accelerated(by: settings.speed)
    }

    /// Medians of measured to modelled time of reading prompts, and of a decode step.
    ///
    /// Workers report means over ten busy seconds, the numbers of sequences are of the moment.
    func deviation(of run: ShiftRun) -> (prefill: Double?, decode: Double?) {
        let rates = run.samples.flatMap(\.prefillRates).map { engine.prefillTokensPerSecond / $0 }
        let change = settings.first.duration.seconds
        let context = settings.second.promptTokens + settings.second.newTokens / 2
        // Steps of the second phase, whose numbers of sequences change little.
        let steps = run.samples.filter { $0.time > change + 10 }.flatMap(\.steps).map { step in
            let modelled =
                engine.decodeStep + engine.decodeStepPerSequence * step.sequences
                + engine.decodeStepPerThousandTokens * (Double(step.sequences * context) / 1000)
            return step.milliseconds / (modelled.seconds * 1000)
        }
        return (Samples(rates).median, Samples(steps).median)
    }

    // MARK: Plot

    /// Seconds over which the plot averages.
    private static let smoothing = 5.0

    var plot: String {
        let change = settings.first.duration.seconds
        let end = settings.duration.seconds
        let goodput = runs.map { run in
            LinePlot.Line(
                name: run.mode.rawValue,
                color: run.mode == .automatic ? LinePlot.Palette.blue : LinePlot.Palette.grey,
                isDashed: run.mode == .asStarted,
                points: stride(from: 1, through: end, by: 1).map { second in
                    let from = max(0, second - Self.smoothing)
                    return (second, span(run, from: from, to: second).goodPerSecond)
                })
        }
        let kinds: [(ServingRole, String)] = [
            (.prefill, LinePlot.Palette.vermilion), (.decode, LinePlot.Palette.green),
        ]
        let workers = [ShiftMode.automatic, .asStarted].flatMap { mode in
            kinds.compactMap { role, color -> LinePlot.Line? in
                guard let run = self[mode] else { return nil }
                return LinePlot.Line(
                    name: "\(role.name), \(mode.rawValue)", color: color,
                    isDashed: mode == .asStarted, isStepped: true,
                    points: run.samples.filter { $0.time <= end }.map {
                        ($0.time, Double($0.count(role)))
                    })
            }
        }
        func name(_ phase: ShiftPhase) -> String {
            "prompts of \(phase.promptTokens), answers of \(phase.newTokens) tokens"
        }
        return LinePlot(
            title: "Goodput when traffic changes its kind", axis: "seconds",
            panels: [
                LinePlot.Panel(
                    title: "good requests per second, over \(Int(Self.smoothing)) s", lines: goodput
                ),
                LinePlot.Panel(title: "workers", lines: workers),
            ],
            bands: [
                LinePlot.Band(name: name(settings.first), from: 0, to: change),
                LinePlot.Band(name: name(settings.second), from: change, to: end),
            ], end: end
        ).svg
    }
}
