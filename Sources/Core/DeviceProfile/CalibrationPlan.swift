/// Which iterations are measured.
package struct CalibrationPlan: Hashable, Sendable {
    /// One run of a prompt, alone.
    package struct Prompt: Hashable, Sendable {
        /// Tokens before it whose KV is there.
        package var start: Int
        package var count: Int

        package init(start: Int, count: Int) {
            self.start = start
            self.count = count
        }
    }

    /// Some decode steps of equal sequences.
    package struct Batch: Hashable, Sendable {
        package var sequences: Int
        /// Tokens of KV of each of them.
        package var context: Int
        /// Tokens of a prompt that is computed beside them; 0: none.
        package var prompt = 0
    }

    package enum Piece: Hashable, Sendable {
        case prompt(Prompt)
        case batch(Batch)

        package enum Group: Hashable, Sendable { case prompts, batches }

        package var group: Group {
            if case .prompt = self { .prompts } else { .batches }
        }

        /// Tokens of KV that each of its sequences begins with.
        package var context: Int {
            switch self {
            case .prompt(let prompt): prompt.start
            case .batch(let batch): batch.context
            }
        }
    }

    /// What of an engine decides the plan.
    package struct Bounds: Hashable, Sendable {
        package var contextTokens: Int
        package var kvCapacityTokens: Int
        package var kvBytesPerToken: Int
        package var microBatchTokens: Int
        package var maximumSequences: Int

        package init(
            contextTokens: Int, kvCapacityTokens: Int, kvBytesPerToken: Int,
            microBatchTokens: Int, maximumSequences: Int
        ) {
            self.contextTokens = contextTokens
            self.kvCapacityTokens = kvCapacityTokens
            self.kvBytesPerToken = kvBytesPerToken
            self.microBatchTokens = microBatchTokens
            self.maximumSequences = maximumSequences
        }
    }

    /// Bounds of what is measured.
    package enum Limits {
        /// Bytes of KV that one sequence is filled with.
        package static let heldBytes = 256 << 20
        /// Longest context, in micro-batches.
        package static let micros = 8
        package static let sequences = 64
        /// Decode steps of one batch.
        package static let steps = 3
        /// Times each piece is measured, apart from each other; the middle one counts.
        package static let rounds = 5
    }

    /// Longest context; 0 if there is no room for any.
    package var longest: Int
    package var pieces: [Piece]

    /// Points to fit curves to.
    ///
    /// Kernels often take rows in fours, so counts that are no multiples of four are among them.
    /// And those of few tokens attend slowly: behind a context, where engines compute the last
    /// tokens by themselves, it takes more than 64 others to see how fast many tokens attend.
    package init(_ bounds: Bounds) {
        self.init(
            bounds, sizes: [16, 32, 64, 112, 160, 256], deepSizes: [16, 32, 112, 160, 256],
            counts: [1, 2, 3, 4, 6, 8, 12, 16, 32, 64], parts: [16, 4, 1])
    }

    /// Other points of the same engine, to compare a fit with.
    package static func heldOut(_ bounds: Bounds) -> CalibrationPlan {
        CalibrationPlan(
            bounds, sizes: [24, 48, 96, 128, 224], deepSizes: [24, 96, 128, 224],
            counts: [1, 2, 5, 7, 10, 14, 24, 48], parts: [8, 2])
    }

    /// - Parameters:
    ///   - sizes: of prompts, in 256ths of a micro-batch.
    ///   - deepSizes: of those behind a context.
    ///   - counts: of sequences.
    ///   - parts: contexts, as parts of the longest one.
    private init(
        _ bounds: Bounds, sizes: [Int], deepSizes: [Int], counts: [Int], parts: [Int]
    ) {
        let micro = bounds.microBatchTokens
        let room = min(bounds.contextTokens, bounds.kvCapacityTokens / 2)
        let longest = max(
            0,
            min(
                Limits.micros * micro, room - micro - Limits.steps - 1,
                Limits.heldBytes / max(bounds.kvBytesPerToken, 1)))
        self.longest = longest
        let contexts = longest > 0 ? Self.unique(parts.map { max(longest / $0, 1) }) : []
        pieces = ([0] + contexts).flatMap { start in
            Self.unique((start == 0 ? sizes : deepSizes).map { max(1, $0 * micro / 256) })
                .filter { start + $0 <= room }
                .map { .prompt(Prompt(start: start, count: $0)) }
        }
        let most = min(bounds.maximumSequences - 1, Limits.sequences)
        for context in contexts {
            let fitting = min(
                most, (bounds.kvCapacityTokens - micro) / (context + 2 * Limits.steps + 2))
            let alone = counts.filter { $0 <= fitting }
            pieces += alone.map { .batch(Batch(sequences: $0, context: context)) }
            let beside = alone.filter { $0 > 1 && $0 <= 16 && $0 % 2 == 0 }
            pieces += beside.map {
                .batch(Batch(sequences: $0, context: context, prompt: max(1, micro / 2)))
            }
        }
    }

    private static func unique(_ numbers: [Int]) -> [Int] {
        numbers.indices.filter { !numbers[..<$0].contains(numbers[$0]) }.map { numbers[$0] }
    }
}
