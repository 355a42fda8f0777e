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
    /// Sequences whose job goes on.
    private(set) var open: Set<SequenceID> = []
    /// Tokens of KV of the sequences.
    private var contexts: [SequenceID: Int] = [:]
    private var stock = KVStock()
    private var costs = PieceCosts(longest: 0)

    /// The iteration that is being put together, and when the one before it ended.
    private var compute: Duration
    private var last: Duration
    private var runs: [SequenceID: Range<Int>] = [:]
    private var sampled: [SequenceID] = []
    private var ended: [SequenceID] = []
    /// The piece that is being measured.
    private var current: (index: Int, piece: CalibrationPlan.Piece)?
    private var samples: [Kind: [MeasuredPoints.Point]] = [:]

    /// Steps of one batch are of one kind, though the contexts grow by a token each.
    private struct Kind: Hashable {
        var piece: Int
        var runs: [Range<Int>]
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

    /// The middle one of the iterations of each kind: what a request may expect.
    var usual: [MeasuredPoints.Point] {
        samples.sorted { ($0.key.piece, $0.key.runs.count) < ($1.key.piece, $1.key.runs.count) }
            .map { _, points in
                points.sorted { $0.seconds < $1.seconds }[(points.count - 1) / 2]
            }
    }

    private var remaining: Double { (end - .now).inSeconds }

    /// Each piece once, the cheapest first, as far as time goes; then all of these again.
    ///
    /// The rounds lie apart, so that a slow while of the host doesn't decide what a piece takes.
    mutating func measure(_ plan: CalibrationPlan) async throws(Stop) {
        let vocabulary = UInt64(max(engine.description.vocabularySize, 1))
        let most = engine.description.microBatchTokens
        tokens = (0..<(plan.longest + most + 1)).map { _ in
            TokenID(random.next() % vocabulary)
        }
        // The first iteration touches memory and compiles kernels: it doesn't count.
        try await prompt(.init(start: 0, count: min(Self.firstTokens, most)))
        finishIteration()
        costs = PieceCosts(longest: plan.longest)
        if !stock.canShift(by: engine) { try await computeBlocks(of: plan.longest) }

        var left = plan.pieces.enumerated().filter { stock.covers($0.element) }
        var measured: [(index: Int, piece: CalibrationPlan.Piece, seconds: Double)] = []
        var spent: [CalibrationPlan.Piece.Group: Double] = [:]
        while let place = left.indices.min(by: {
            costs.order(left[$0].element, spent) < costs.order(left[$1].element, spent)
        }) {
            let (index, piece) = left.remove(at: place)
            // A prompt and a step are measured in any case.
            guard
                spent[piece.group] == nil || costs.expected(piece) * Self.caution < remaining
            else { continue }
            let seconds = try await seconds(index, piece)
            spent[piece.group, default: 0] += seconds
            measured.append((index, piece, seconds))
        }
        for _ in 1..<CalibrationPlan.Limits.rounds {
            for (index, piece, seconds) in measured where seconds < remaining {
                _ = try await self.seconds(index, piece)
            }
        }
    }

    private static let firstTokens = 16
    /// Times as long as expected that a piece must have.
    private static let caution = 1.5

    private mutating func seconds(
        _ index: Int, _ piece: CalibrationPlan.Piece
    ) async throws(Stop) -> Double {
        current = (index, piece)
        let start = ContinuousClock.now
        switch piece {
        case .prompt(let wanted): try await prompt(wanted)
        case .batch(let wanted): try await decode(wanted)
        }
        finishIteration()
        current = nil
        let seconds = (.now - start).inSeconds
        costs.learn(piece, seconds: seconds)
        return seconds
    }

    /// Closes all sequences and waits until they are gone.
    mutating func close() async throws(Stop) {
        for sequence in open { engine.submit(.cancel(sequence)) }
        while !open.isEmpty { try await next() }
        finishIteration()
    }

    // MARK: Prompts

    private mutating func prompt(_ prompt: CalibrationPlan.Prompt) async throws(Stop) {
        let sequence = newSequence()
        let blocks = stock.blocks(prompt.start, engine)
        for block in blocks { engine.submit(.importKV(sequence, block)) }
        if prompt.start == 0 { tap.keepBlocks(of: sequence) }
        run(sequence, start: blocks.tokenCount, count: prompt.count)
        while open.contains(sequence) { try await next() }
        if prompt.start == 0 { stock.add(tap.blocks) }
    }

    /// KV of a long prompt, for an engine that doesn't shift blocks.
    private mutating func computeBlocks(of longest: Int) async throws(Stop) {
        var count = longest
        _ = try await seconds(-1, .prompt(.init(start: 0, count: Self.firstTokens)))
        // Attention makes later tokens slower: half as much again. A short one is made in any case.
        while count > Self.leastBlocks,
            costs.expected(.prompt(.init(start: 0, count: count))) * Self.caution > remaining / 3
        {
            count /= 2
        }
        guard count > 0 else { return }
        try await prompt(.init(start: 0, count: count))
        finishIteration()
    }

    private static let leastBlocks = 32

    private func run(_ sequence: SequenceID, start: Int, count: Int) {
        engine.submit(
            .run(
                SequenceJob(
                    sequence: sequence, tokens: Array(tokens[0..<(start + count)]),
                    importedTokens: start, sampling: Self.sampling, maximumNewTokens: 1,
                    exportsKV: true, exportedFrom: start)))
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

    private mutating func decode(_ batch: CalibrationPlan.Batch) async throws(Stop) {
        let blocks = stock.blocks(batch.context, engine)
        let context = blocks.tokenCount
        guard context > 0 else { return }
        let sequences = (0..<batch.sequences).map { _ in newSequence() }
        for sequence in sequences {
            contexts[sequence] = context
            for block in blocks { engine.submit(.importKV(sequence, block)) }
        }
        for sequence in sequences {
            engine.submit(
                .run(
                    SequenceJob(
                        sequence: sequence, tokens: Array(tokens[0...context]),
                        importedTokens: context, sampling: Self.sampling,
                        maximumNewTokens: CalibrationPlan.Limits.steps)))
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
        case .closed(let sequence): open.remove(sequence)
        case .run(let sequence, let range):
            advance(to: record.compute)
            runs[sequence] = range
        case .token(let sequence, let isLast):
            advance(to: record.compute)
            sampled.append(sequence)
            if isLast {
                ended.append(sequence)
                open.remove(sequence)
            }
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
        guard seconds > 0, let current, !ranges.isEmpty || !decoding.isEmpty else { return }
        // While the sequences of a batch begin, some steps have fewer of them.
        if case .batch(let batch) = current.piece, decoding.count != batch.sequences { return }
        let point = MeasuredPoints.Point(
            runs: ranges, sequences: decoding.count, contextTokens: context, seconds: seconds)
        samples[Kind(piece: current.index, runs: ranges), default: []].append(point)
    }
}
