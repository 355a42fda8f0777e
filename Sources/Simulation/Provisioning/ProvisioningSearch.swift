import Synchronization

/// How so many machines fared.
package struct Verdict<Figures: Sendable>: Sendable {
    package var meetsGoals: Bool
    package var figures: Figures

    package init(meetsGoals: Bool, figures: Figures) {
        self.meetsGoals = meetsGoals
        self.figures = figures
    }
}

/// Searches how many machines of each use a design needs.
///
/// What machines can do comes from `evaluate`: a simulation, a formula, a measurement. Equal
/// questions must have equal answers. The search relies on two things and asks far less than all:
/// who keeps the goals at a rate keeps them at a lower one, and a further machine does no harm.
/// Where the second holds only nearly, so does the answer; `everything` compares.
///
/// Evaluations run at once, on as many threads as the limits say, yet the answer is the same for
/// any number. A search whose task is cancelled answers with what it has.
package struct ProvisioningSearch<Figures: Sendable>: Sendable {
    package typealias Evaluate = @Sendable (MachineCounts, _ perSecond: Double) -> Verdict<Figures>

    /// Machines that keep the goals at a rate.
    package struct Provision: Sendable {
        package var counts: MachineCounts
        package var perSecond: Double
        package var figures: Figures
        package var cost: Double
        package var power: Double
    }

    package struct Answer: Sendable {
        /// Nil if none keeps the goals, or none was found yet.
        package var best: Provision?
        /// Others that are as good, without regard to the rest.
        package var equals: [MachineCounts] = []
        package var evaluations = 0
        /// False if the search was cancelled.
        package var isComplete = true
    }

    /// One evaluation that has ended.
    package struct Progress: Sendable {
        package var design: String
        package var counts: MachineCounts
        package var perSecond: Double
        package var meetsGoals: Bool
        package var evaluations: Int
    }

    package var design: ClusterDesign
    package var limits: ProvisioningLimits
    private let evaluate: Evaluate
    private let progress: (@Sendable (Progress) -> Void)?

    package init(
        design: ClusterDesign, limits: ProvisioningLimits = ProvisioningLimits(),
        progress: (@Sendable (Progress) -> Void)? = nil, evaluate: @escaping Evaluate
    ) {
        self.design = design
        self.limits = limits
        self.progress = progress
        self.evaluate = evaluate
    }

    // MARK: Questions

    /// The highest rate at which some machines within a budget keep the goals.
    ///
    /// Of equals, the first by number of prefill machines.
    package func mostThroughput(within budget: Budget) async -> Answer {
        await highestRate(of: design.largest(within: budget, limits: limits))
    }

    /// The highest rate at which some of these numbers of machines keep the goals.
    package func highestRate(of candidates: [MachineCounts]) async -> Answer {
        let state = SearchState<Figures>()
        var left = candidates
        var known = -1
        var unknown = limits.rates
        var found: [(MachineCounts, Verdict<Figures>)] = []
        while unknown - known > 1, !left.isEmpty, !Task.isCancelled {
            let middle = (known + unknown) / 2
            let rate = limits.rate(middle)
            let verdicts = await ask(left.map { ($0, rate) }, state)
            let kept = zip(left, verdicts).compactMap { counts, verdict in
                verdict.flatMap { $0.meetsGoals ? (counts, $0) : nil }
            }
            if kept.isEmpty {
                // Cancelled in between, it isn't known that none does.
                guard verdicts.allSatisfy({ $0 != nil }) else { break }
                unknown = middle
            } else {
                known = middle
                found = kept
                left = kept.map(\.0)
            }
        }
        var answer = state.answer
        guard let first = found.first else { return answer }
        answer.best = provision(first.0, limits.rate(known), first.1)
        answer.equals = found.dropFirst().map(\.0)
        return answer
    }

    /// The machines that take least and keep the goals at a rate.
    ///
    /// For each number of prefill machines it looks for the fewest decode machines, the middle
    /// number first: what that needs bounds what fewer and more need.
    package func least(_ measure: Measure, perSecond rate: Double) async -> Answer {
        let state = SearchState<Figures>()
        let most = limits.machinesPerUse
        guard case .split = design.machines else {
            let found = await fewest(1...most, at: rate, state) { MachineCounts(mixed: $0) }
            return best(of: found.map { [$0] } ?? [], measure, rate, state)
        }
        var found: [(MachineCounts, Verdict<Figures>)] = []
        var open = [(prefill: 1...most, decode: 1...most)]
        while !open.isEmpty, !Task.isCancelled {
            let asked = open
            let results = await inParallel(asked.count) {
                index -> (MachineCounts, Verdict<Figures>)? in
                let (prefill, decode) = asked[index]
                let middle = (prefill.lowerBound + prefill.upperBound) / 2
                return await fewest(decode, at: rate, state) {
                    MachineCounts(prefill: middle, decode: $0)
                }
            }
            open = []
            for ((prefill, decode), result) in zip(asked, results) {
                let middle = (prefill.lowerBound + prefill.upperBound) / 2
                if let result { found.append(result) }
                // What fewer prefill machines need, if enough there are.
                if let result, prefill.lowerBound < middle {
                    open.append(
                        (prefill.lowerBound...(middle - 1), result.0.decode...decode.upperBound))
                }
                if middle < prefill.upperBound {
                    let bound = result?.0.decode ?? decode.upperBound
                    open.append(((middle + 1)...prefill.upperBound, decode.lowerBound...bound))
                }
            }
            open.removeAll { isTooMuch($0.prefill, $0.decode, found.map(\.0), measure) }
        }
        return best(of: found, measure, rate, state)
    }

    /// The same answer by asking about all numbers of machines up to a limit.
    package func everything(
        upTo limit: MachineCounts, _ measure: Measure, perSecond rate: Double
    ) async -> Answer {
        let state = SearchState<Figures>()
        var all: [MachineCounts] = []
        if case .mixed = design.machines {
            all = (1...limit.mixed).map { MachineCounts(mixed: $0) }
        } else {
            for prefill in 1...limit.prefill {
                all += (1...limit.decode).map { MachineCounts(prefill: prefill, decode: $0) }
            }
        }
        let verdicts = await ask(all.map { ($0, rate) }, state)
        let found = zip(all, verdicts).compactMap { counts, verdict in
            verdict.flatMap { $0.meetsGoals ? (counts, $0) : nil }
        }
        return best(of: found, measure, rate, state)
    }

    // MARK: Parts

    /// Whether even the least numbers of two ranges take more than something that is known.
    private func isTooMuch(
        _ prefill: ClosedRange<Int>, _ decode: ClosedRange<Int>, _ known: [MachineCounts],
        _ measure: Measure
    ) -> Bool {
        let least = design.amount(
            measure, of: MachineCounts(prefill: prefill.lowerBound, decode: decode.lowerBound))
        return known.contains { design.amount(measure, of: $0) < least - 1e-9 }
    }

    /// The least number in a range that keeps the goals, given that more do no harm.
    private func fewest(
        _ range: ClosedRange<Int>, at rate: Double, _ state: SearchState<Figures>,
        counts: @Sendable (Int) -> MachineCounts
    ) async -> (MachineCounts, Verdict<Figures>)? {
        var low = range.lowerBound
        var high = range.upperBound + 1
        var found: (MachineCounts, Verdict<Figures>)?
        while low < high {
            let middle = (low + high) / 2
            guard let verdict = ask(counts(middle), rate, state) else { break }
            if verdict.meetsGoals {
                found = (counts(middle), verdict)
                high = middle
            } else {
                low = middle + 1
            }
        }
        return found
    }

    private func best(
        of found: [(MachineCounts, Verdict<Figures>)], _ measure: Measure, _ rate: Double,
        _ state: SearchState<Figures>
    ) -> Answer {
        var answer = state.answer
        let order = found.map { (design.amount(measure, of: $0.0), $0) }
            .sorted { ($0.0, $0.1.0.prefill) < ($1.0, $1.1.0.prefill) }
        guard let (amount, first) = order.first else { return answer }
        answer.best = provision(first.0, rate, first.1)
        answer.equals = order.dropFirst().filter { $0.0 < amount + 1e-9 }.map(\.1.0)
        return answer
    }

    private func provision(
        _ counts: MachineCounts, _ rate: Double, _ verdict: Verdict<Figures>
    ) -> Provision {
        Provision(
            counts: counts, perSecond: rate, figures: verdict.figures,
            cost: design.amount(.cost, of: counts), power: design.amount(.power, of: counts))
    }

    // MARK: Evaluations

    private func ask(
        _ questions: [(MachineCounts, Double)], _ state: SearchState<Figures>
    ) async -> [Verdict<Figures>?] {
        await inParallel(questions.count) { index in
            ask(questions[index].0, questions[index].1, state)
        }
    }

    /// Nil if the search is cancelled.
    private func ask(
        _ counts: MachineCounts, _ rate: Double, _ state: SearchState<Figures>
    ) -> Verdict<Figures>? {
        let question = SearchState<Figures>.Question(counts: counts, rate: rate)
        if let known = state.known(question) { return known }
        guard !Task.isCancelled else {
            state.interrupt()
            return nil
        }
        let verdict = evaluate(counts, rate)
        let evaluations = state.record(question, verdict)
        progress?(
            Progress(
                design: design.name, counts: counts, perSecond: rate,
                meetsGoals: verdict.meetsGoals, evaluations: evaluations))
        return verdict
    }

    /// Results by index, computed by as many tasks as there are threads.
    private func inParallel<Result: Sendable>(
        _ count: Int, _ body: @escaping @Sendable (Int) async -> Result?
    ) async -> [Result?] {
        let numbers = Numbers()
        return await withTaskGroup(of: [(Int, Result?)].self) { group in
            for _ in 0..<min(count, max(1, limits.threads)) {
                group.addTask {
                    var made: [(Int, Result?)] = []
                    while true {
                        let index = numbers.next()
                        guard index < count else { return made }
                        made.append((index, await body(index)))
                    }
                }
            }
            var results: [Result?] = Array(repeating: nil, count: count)
            for await part in group {
                for (index, result) in part { results[index] = result }
            }
            return results
        }
    }
}

/// Counts from 0, for whoever asks.
private final class Numbers: Sendable {
    private let value = Mutex(0)

    func next() -> Int {
        value.withLock { value in
            defer { value += 1 }
            return value
        }
    }
}

/// What a search knows.
private final class SearchState<Figures: Sendable>: Sendable {
    struct Question: Hashable, Sendable {
        var counts: MachineCounts
        var rate: Double
    }

    private struct State {
        var known: [Question: Verdict<Figures>] = [:]
        var isInterrupted = false
    }

    private let state = Mutex(State())

    func known(_ question: Question) -> Verdict<Figures>? {
        state.withLock { $0.known[question] }
    }

    func record(_ question: Question, _ verdict: Verdict<Figures>) -> Int {
        state.withLock {
            $0.known[question] = verdict
            return $0.known.count
        }
    }

    func interrupt() { state.withLock { $0.isInterrupted = true } }

    var answer: ProvisioningSearch<Figures>.Answer {
        state.withLock {
            var answer = ProvisioningSearch<Figures>.Answer()
            answer.evaluations = $0.known.count
            answer.isComplete = !$0.isInterrupted && !Task.isCancelled
            return answer
        }
    }
}
