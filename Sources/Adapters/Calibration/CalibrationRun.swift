import DeviceProfile
import InferenceEngine
import ServingTypes

/// One measurement while it goes on.
struct CalibrationRun {
    enum Stop: Error { case lost, timedOut }

    private let engine: any InferenceEngine
    private let tap: CalibrationTap
    private var events: AsyncStream<CalibrationTap.Record>.Iterator
    private let end: ContinuousClock.Instant
    private var random = SeededGenerator(seed: 7)
    private var nextSequence: UInt64 = 1 << 62
    private var tokens: [TokenID] = []
    /// Sequences whose job goes on, and those of which only the KV is left.
    private(set) var open: Set<SequenceID> = []
    private(set) var retained: Set<SequenceID> = []
    /// Tokens of KV of the sequences.
    private var contexts: [SequenceID: Int] = [:]

    /// The iteration that is being put together, and when the one before it ended.
    private var compute: Duration
    private var last: Duration
    private var runs: [SequenceID: Range<Int>] = [:]
    private var sampled: [SequenceID] = []
    private var ended: [SequenceID] = []
    /// Fastest iteration of each kind.
    private var best: [Kind: MeasuredPoints.Point] = [:]
    /// Steps of one batch count as one kind, though the contexts grow by a token each.
    private var phase = 0
    /// By the last iterations; what comes next is not begun if it would take too long.
    private var secondsPerToken = 0.0
    private var secondsPerStep = 0.0
    private var secondsPerSequence = 0.0

    private struct Kind: Hashable {
        var runs: [Range<Int>]
        var sequences: Int
        var phase: Int
    }

    init(
        engine: any InferenceEngine, tap: CalibrationTap,
        events: AsyncStream<CalibrationTap.Record>.Iterator, end: ContinuousClock.Instant,
        compute: Duration
    ) {
        self.engine = engine
        self.tap = tap
        self.events = events
        self.end = end
        self.compute = compute
        last = compute
    }

    var fastest: [MeasuredPoints.Point] {
        best.values.sorted {
            ($0.runs.count, $0.sequences, $0.contextTokens, $0.runs.first?.count ?? 0)
                < ($1.runs.count, $1.sequences, $1.contextTokens, $1.runs.first?.count ?? 0)
        }
    }

    private var remaining: Double { (end - .now).inSeconds }

    mutating func measure(_ plan: CalibrationPlan) async throws(Stop) {
        let vocabulary = UInt64(max(engine.description.vocabularySize, 1))
        let most = engine.description.microBatchTokens
        tokens = (0..<(plan.base + most + 1)).map { _ in
            TokenID(random.next() % vocabulary)
        }
        // The first iteration touches memory and compiles kernels: it doesn't count.
        try await prompt(.init(start: 0, count: min(16, most)), from: nil)
        finishIteration()
        best = [:]
        // Decode needs its part of the time.
        let reserved = remaining * 0.6
        for wanted in plan.prompts where wanted.start == 0 && remaining > reserved {
            try await repeated(wanted, from: nil)
        }
        if best.isEmpty { try await prompt(.init(start: 0, count: min(16, most)), from: nil) }
        guard let base = try await base(of: plan) else { return }
        for batch in Self.spread(plan.batches) { try await decode(batch, base: base) }
        for wanted in Self.spread(plan.prompts.filter { $0.start > 0 }) {
            try await repeated(wanted, from: base)
        }
    }

    /// Ends, then what lies between: a list that a slow engine leaves early.
    private static func spread<Element>(_ list: [Element]) -> [Element] {
        guard list.count > 2 else { return list }
        return [list[0], list[list.count - 1]] + spread(Array(list[1..<(list.count - 1)]))
    }

    /// Closes all sequences and waits until they are gone.
    mutating func close() async throws(Stop) {
        for sequence in open.union(retained) { engine.submit(.cancel(sequence)) }
        while !open.isEmpty || !retained.isEmpty { try await next() }
        finishIteration()
    }

    // MARK: Prompts

    private mutating func repeated(
        _ prompt: CalibrationPlan.Prompt, from base: SequenceID?
    ) async throws(Stop) {
        if let base, prompt.start > contexts[base] ?? 0 { return }
        for _ in 0..<CalibrationPlan.Limits.repeats {
            guard Double(prompt.count) * secondsPerToken < remaining / 4 else { return }
            try await self.prompt(prompt, from: base)
        }
    }

    private mutating func prompt(
        _ prompt: CalibrationPlan.Prompt, from base: SequenceID?
    ) async throws(Stop) {
        let sequence = newSequence()
        if let base { engine.submit(.fork(sequence, from: base, tokens: prompt.start)) }
        run(sequence, start: prompt.start, count: prompt.count)
        while open.contains(sequence) { try await next() }
    }

    /// The long prompt, whose KV stays; nil if it can't be computed.
    private mutating func base(of plan: CalibrationPlan) async throws(Stop) -> SequenceID? {
        var count = plan.base
        // Attention makes later tokens slower: half as much again. A short one is made in any case.
        while count > Self.leastBase, Double(count) * secondsPerToken * 1.5 > remaining / 3 {
            count /= 2
        }
        guard count > 0 else { return nil }
        let sequence = newSequence()
        retained.insert(sequence)
        tap.keepBlocks(of: sequence)
        run(sequence, start: 0, count: count, retains: true)
        while open.contains(sequence) { try await next() }
        finishIteration()
        guard retained.contains(sequence) else { return nil }
        contexts[sequence] = count
        return sequence
    }

    private static let leastBase = 32

    private func run(
        _ sequence: SequenceID, start: Int, count: Int, retains: Bool = false
    ) {
        engine.submit(
            .run(
                SequenceJob(
                    sequence: sequence, tokens: Array(tokens[0..<(start + count)]),
                    importedTokens: start, sampling: Self.sampling, maximumNewTokens: 1,
                    exportsKV: true, exportedFrom: start, retainsKV: retains)))
    }

    private static let sampling: SamplingParameters = {
        var sampling = SamplingParameters()
        sampling.ignoresEndOfGeneration = true
        return sampling
    }()

    private mutating func newSequence() -> SequenceID {
        nextSequence += 1
        open.insert(SequenceID(nextSequence))
        return SequenceID(nextSequence)
    }

    // MARK: Decode

    private mutating func decode(
        _ batch: CalibrationPlan.Batch, base: SequenceID
    ) async throws(Stop) {
        let steps = CalibrationPlan.Limits.steps * (batch.prompt > 0 ? 2 : 1)
        let step = max(secondsPerStep, secondsPerSequence * Double(batch.sequences))
        let expected = Double(steps) * step + Double(batch.prompt) * secondsPerToken
        // The first one is done in any case.
        guard expected < remaining / 3 || secondsPerStep == 0 else { return }
        let blocks = tap.blocks.prefix { $0.tokenStart + $0.tokenCount <= batch.context }
        let filled = blocks.last.map { $0.tokenStart + $0.tokenCount } ?? 0
        // Less than a block is shared with the long prompt instead of being a copy.
        let context = filled > 0 ? filled : min(batch.context, contexts[base] ?? 0)
        guard context > 0 else { return }
        phase += 1
        let sequences = (0..<batch.sequences).map { _ in newSequence() }
        for sequence in sequences {
            contexts[sequence] = context
            if filled > 0 {
                for block in blocks { engine.submit(.importKV(sequence, block)) }
            } else {
                engine.submit(.fork(sequence, from: base, tokens: context))
            }
        }
        for sequence in sequences {
            engine.submit(
                .run(
                    SequenceJob(
                        sequence: sequence, tokens: Array(tokens[0...context]),
                        importedTokens: context, sampling: Self.sampling,
                        maximumNewTokens: steps)))
        }
        if batch.prompt > 0 { run(newSequence(), start: 0, count: batch.prompt) }
        while !open.isEmpty { try await next() }
    }

    // MARK: Events

    private mutating func next() async throws(Stop) {
        guard let record = await events.next(isolation: nil) else { throw .timedOut }
        switch record.event {
        case .lost: throw .lost
        case .timedOut: throw .timedOut
        case .imported: break
        case .closed(let sequence):
            open.remove(sequence)
            retained.remove(sequence)
        case .run(let sequence, let range):
            advance(to: record.compute)
            runs[sequence] = range
        case .token(let sequence, let isLast):
            advance(to: record.compute)
            sampled.append(sequence)
            if isLast { open.remove(sequence) }
            if isLast, !retained.contains(sequence) { ended.append(sequence) }
        }
    }

    /// Another iteration begins when the engine's computing time has grown.
    private mutating func advance(to time: Duration) {
        guard time != compute else { return }
        finishIteration()
        compute = time
    }

    private mutating func finishIteration() {
        let seconds = (compute - last).inSeconds
        last = compute
        let decoding = sampled.filter { runs[$0] == nil }
        let context = decoding.reduce(0) { $0 + (contexts[$1] ?? 0) }
        let ranges = runs.values.sorted { $0.lowerBound < $1.lowerBound }
        for sequence in decoding { contexts[sequence, default: 0] += 1 }
        for sequence in ended { contexts[sequence] = nil }
        (runs, sampled, ended) = ([:], [], [])
        guard seconds > 0, !ranges.isEmpty || !decoding.isEmpty else { return }
        let kind = Kind(
            runs: ranges, sequences: decoding.count, phase: decoding.isEmpty ? 0 : phase)
        let point = MeasuredPoints.Point(
            runs: ranges, sequences: decoding.count, contextTokens: context, seconds: seconds)
        if seconds < best[kind]?.seconds ?? .infinity { best[kind] = point }
        if decoding.isEmpty {
            secondsPerToken = seconds / Double(ranges.reduce(0) { $0 + $1.count })
        } else if ranges.isEmpty {
            secondsPerStep = seconds
            secondsPerSequence = seconds / Double(decoding.count)
        }
    }
}
