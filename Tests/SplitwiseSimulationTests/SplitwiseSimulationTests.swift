import RequestTraces
import SplitwiseSimulation
import Testing

@Suite("The simulation's rules")
struct SplitwiseSimulationTests {
    typealias Entry = RequestTrace.Entry

    /// A prefill takes 1 ms a token and 10 ms, a decode step 1 ms a sequence and 20 ms.
    static let curves: PhaseCurves = {
        guard let prefill = PiecewiseLine(points: [(0, 0.01), (1000, 1.01)]),
            let decode = PiecewiseLine(points: [(0, 0.02), (1000, 1.02)])
        else { preconditionFailure("two points each") }
        return PhaseCurves(prefill: prefill, decode: decode)
    }()

    static let policies: [SplitwiseCluster.Policy] = [
        .random(seed: 3), .roundRobin, .shortestQueue, .fewestTokens, .kvRoundRobin,
        .kvShortestQueue, .kvFewestTokens, .mixedPool,
    ]

    static func cluster(
        _ policy: SplitwiseCluster.Policy, machines: Int = 6
    ) -> SplitwiseCluster {
        SplitwiseCluster(
            kinds: [curves],
            machines: (0..<machines).map {
                let tag: SplitwiseCluster.Tag = $0 % 2 == 0 ? .prompt : .token
                return .init(kind: 0, tag: policy.separatesPhases ? tag : .any)
            },
            model: .bloom176B, policy: policy)
    }

    static func burst(_ count: Int, apart seconds: Double, output: Int? = nil) -> RequestTrace {
        RequestTrace(
            entries: (0..<count).map {
                Entry(
                    arrivalSeconds: Double($0) * seconds, promptTokens: 1 + $0 * 37 % 900,
                    outputTokens: output ?? 1 + $0 % 41)
            })
    }

    @Test("every request ends, however machines are chosen", arguments: Self.policies)
    func allEnd(policy: SplitwiseCluster.Policy) {
        for seconds in [0.005, 0.05, 0.5] {
            let trace = Self.burst(300, apart: seconds)
            let run = Run(Self.cluster(policy), trace)
            #expect(run.ending == .finished)
            #expect(run.simulation.requestsInside == 0)
            #expect(Set(run.outcomes.map(\.number)) == Set(0..<300))
            for outcome in run.outcomes {
                let entry = trace.entries[Int(outcome.number)]
                let steps = Double(entry.outputTokens - 1) * 0.021
                #expect(outcome.ttftSeconds > 0.0099 + Double(entry.promptTokens) * 0.001)
                #expect(outcome.e2eSeconds >= outcome.ttftSeconds + steps - 1e-9)
                #expect(outcome.gapSeconds >= 0)
            }
            #expect(run.outcomes == Run(Self.cluster(policy), trace).outcomes)
        }
    }

    @Test("a machine alone takes the times of its curves", arguments: Self.policies)
    func alone(policy: SplitwiseCluster.Policy) throws {
        let trace = RequestTrace(
            entries: [Entry(arrivalSeconds: 2, promptTokens: 1000, outputTokens: 11)])
        let outcome = try #require(Run(Self.cluster(policy), trace).outcomes.first)
        let link = 1000.0 * 4_014_080 / (200 * 1_073_741_824)
        let gap = policy.separatesPhases ? link : 0
        #expect(abs(outcome.ttftSeconds - 1.01) < 1e-9)
        #expect(abs(Double(outcome.gapSeconds) - gap) < 1e-8)
        #expect(abs(outcome.e2eSeconds - 1.01 - gap - 10 * 0.021) < 1e-9)
    }

    @Test("requests wait where memory is short, and for ever where it is too short for them")
    func memory() {
        var cluster = Self.cluster(.mixedPool, machines: 4)
        let request = 2_000 * cluster.model.kvBytesPerToken
        let trace = Self.burst(200, apart: 0.01, output: 600)
        let ample = Run(cluster, trace)
        cluster.memoryBytes = cluster.model.weightBytes + 16 * request
        let scarce = Run(cluster, trace)
        #expect(scarce.ending == .finished && scarce.outcomes.count == 200)
        #expect(scarce.simulation.now > 1.1 * ample.simulation.now)
        cluster.memoryBytes = cluster.model.weightBytes + request / 4
        let small = Run(cluster, Self.burst(200, apart: 0.01, output: 600))
        guard case .stuck(let requests) = small.ending else {
            Issue.record("\(small.ending)")
            return
        }
        #expect(requests + small.outcomes.count == 200)
    }

    @Test("transfers that wait for each other's memory end the run")
    func standstill() {
        var cluster = Self.cluster(.kvShortestQueue, machines: 4)
        cluster.memoryBytes =
            cluster.model.weightBytes + 2_500 * cluster.model.kvBytesPerToken
        let run = Run(cluster, Self.burst(200, apart: 0.01, output: 1500))
        guard case .stuck(let requests) = run.ending else {
            Issue.record("\(run.ending)")
            return
        }
        #expect(requests + run.outcomes.count == 200 && requests == run.simulation.requestsInside)
    }

    @Test("a run can pause, and ends when it has too many requests or nobody asks further")
    func endings() {
        var cluster = Self.cluster(.fewestTokens, machines: 1)
        cluster.limits.liveRequests = 50
        #expect(Run(cluster, Self.burst(300, apart: 0.001)).ending == .overloaded)

        let trace = Self.burst(100, apart: 0.2)
        var simulation = SplitwiseSimulation(Self.cluster(.mixedPool))
        var entries = trace.entries.makeIterator()
        var outcomes: [RequestOutcome] = []
        var pauses = 0
        while simulation.run(
            next: { entries.next() },
            record: {
                outcomes.append($0)
                return true
            }, events: 10) == .paused
        {
            pauses += 1
        }
        #expect(pauses > 20)
        #expect(outcomes == Run(Self.cluster(.mixedPool), trace).outcomes)

        var second = SplitwiseSimulation(Self.cluster(.mixedPool))
        entries = trace.entries.makeIterator()
        var left = 10
        let ending = second.run(next: { entries.next() }) { _ in
            left -= 1
            return left > 0
        }
        #expect(ending == .stopped && left == 0)
    }
}

@Suite("Percentiles and goals")
struct ServiceJudgeTests {
    @Test("percentiles of many values are those of all, to a thousandth")
    func sketch() throws {
        var exact = PercentileRecorder()
        var sketch = PercentileRecorder(exactValues: 100)
        for index in 0..<20_000 {
            let value = Double((index * 7919) % 20_000 + 1) * 0.0037
            exact.record(value)
            sketch.record(value)
        }
        #expect(exact.isExact && !sketch.isExact)
        let shares = [0, 0.1, 0.5, 0.9, 0.99, 1]
        let wanted = try #require(exact.percentiles(shares))
        let given = try #require(sketch.percentiles(shares))
        #expect(abs(wanted[2] - 10_000.5 * 0.0037) < 1e-9)
        for (one, other) in zip(wanted, given) { #expect(abs(one / other - 1) < 0.0011) }
        #expect(PercentileRecorder().percentiles([0.5]) == nil)
    }

    @Test("goals that are lost early are lost at the end, and only those")
    func early() {
        let curves = SplitwiseSimulationTests.curves
        for late in stride(from: 0, through: 120, by: 3) {
            var watched = ServiceJudge(reference: curves, expected: 200)
            var whole = ServiceJudge(reference: curves)
            for index in 0..<200 {
                let factor = index % 200 < late ? 2.5 : 1
                let outcome = RequestOutcome(
                    number: 0, promptTokens: 90, outputTokens: 10, gapSeconds: 0,
                    ttftSeconds: 0.1 * factor, e2eSeconds: 0.1 * factor + 0.5)
                watched.record(outcome)
                whole.record(outcome)
            }
            #expect(watched.isLost != watched.figures.meets(.splitwise))
            #expect(watched.meetsGoals == whole.figures.meets(.splitwise))
        }
    }
}
