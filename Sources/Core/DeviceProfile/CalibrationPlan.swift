/// Which iterations are measured, the cheap ones first.
package struct CalibrationPlan: Hashable, Sendable {
    package struct Prompt: Hashable, Sendable {
        /// Tokens before it whose KV is there.
        package var start: Int
        package var count: Int

        package init(start: Int, count: Int) {
            self.start = start
            self.count = count
        }
    }

    package struct Batch: Hashable, Sendable {
        package var sequences: Int
        /// Tokens of KV of each of them.
        package var context: Int
        /// Tokens of a prompt that is computed beside them; 0: none.
        package var prompt = 0
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
        /// Bytes of KV blocks that are held to fill sequences with.
        package static let heldBytes = 256 << 20
        /// Longest prompt, in micro-batches.
        package static let micros = 8
        package static let sequences = 64
        /// Decode steps of one batch; the fastest counts.
        package static let steps = 6
        /// Times a prompt of one iteration is computed; the fastest counts.
        package static let repeats = 3
    }

    /// The long prompt whose KV fills the sequences; its iterations are measured too.
    package var base: Int
    package var prompts: [Prompt]
    package var batches: [Batch]

    /// Points to fit curves to.
    package init(_ bounds: Bounds) {
        self.init(
            bounds, sizes: [16, 64, 112, 160, 256], counts: [1, 2, 4, 8, 16, 32, 64],
            parts: [8, 2, 1])
    }

    /// Other points of the same engine, to compare a fit with.
    package static func heldOut(_ bounds: Bounds) -> CalibrationPlan {
        CalibrationPlan(
            bounds, sizes: [32, 96, 128, 224], counts: [1, 3, 6, 12, 24, 48], parts: [4, 3])
    }

    /// - Parameters:
    ///   - sizes: of prompts, in 256ths of a micro-batch.
    ///   - counts: of sequences.
    ///   - parts: contexts, as parts of the longest one.
    private init(_ bounds: Bounds, sizes: [Int], counts: [Int], parts: [Int]) {
        let micro = bounds.microBatchTokens
        let room = min(bounds.contextTokens, bounds.kvCapacityTokens / 2)
        let base = min(
            Limits.micros * micro, room - micro - Limits.steps - 1,
            Limits.heldBytes / max(bounds.kvBytesPerToken, 1))
        let long = max(base, 0)
        self.base = long
        let counted = sizes.map { max(1, $0 * micro / 256) }.filter { $0 <= room }
        let starts = [0] + parts.prefix(2).map { long / $0 }
        prompts = starts.flatMap { start in counted.map { Prompt(start: start, count: $0) } }
        let most = min(bounds.maximumSequences - 1, Limits.sequences)
        let free = bounds.kvCapacityTokens - self.base
        batches = []
        for part in parts {
            let context = max(self.base / part, 1)
            let fitting = min(most, free / (context + Limits.steps + 1))
            batches += counts.filter { $0 <= fitting }.map {
                Batch(sequences: $0, context: context)
            }
        }
        // With prompts beside them.
        let fitting = min(most, (free - micro) / (self.base / 2 + 4 * Limits.steps + 1))
        let mixed = counts.filter { $0 > 1 && $0 <= min(fitting, 16) }
        batches += mixed.map {
            Batch(sequences: $0, context: max(self.base / 2, 1), prompt: micro / 2)
        }
        prompts = prompts.filter { $0.start + $0.count <= room && $0.start <= self.base }
        if self.base < 1 { batches = [] }
    }
}
