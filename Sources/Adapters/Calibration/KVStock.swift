import DeviceProfile
import InferenceEngine

/// KV to fill sequences with, before iterations over them are measured.
///
/// What it holds means nothing. Where the engine can say of a block that it stands at another
/// place, a prompt of a few tokens serves for contexts of any length.
struct KVStock {
    /// By their number of tokens; they begin a prompt.
    private var firsts: [Int: KVBlock] = [:]
    /// Of one prompt, in order, for an engine that can't shift them.
    private var inOrder: [KVBlock] = []
    private var shifts = false

    mutating func add(_ blocks: [KVBlock]) {
        if let first = blocks.first, first.tokenStart == 0 { firsts[first.tokenCount] = first }
        if blocks.tokenCount > inOrder.tokenCount { inOrder = blocks }
    }

    mutating func canShift(by engine: any InferenceEngine) -> Bool {
        guard let block = firsts.values.first else { return false }
        shifts = engine.shifted(block, to: block.tokenCount) != nil
        return shifts
    }

    /// Whether there is KV of as many tokens as a piece asks for.
    func covers(_ piece: CalibrationPlan.Piece) -> Bool {
        shifts || piece.context <= inOrder.tokenCount
    }

    /// Blocks of about so many tokens: whole ones, and one at least.
    func blocks(_ tokens: Int, _ engine: any InferenceEngine) -> [KVBlock] {
        guard tokens > 0 else { return [] }
        guard shifts else {
            let fitting = inOrder.prefix { $0.tokenStart + $0.tokenCount <= tokens }
            return Array(fitting.isEmpty ? inOrder.prefix(1) : fitting)
        }
        var blocks: [KVBlock] = []
        var start = 0
        for size in firsts.keys.sorted(by: >) {
            while start + size <= tokens, let first = firsts[size],
                let block = start == 0 ? first : engine.shifted(first, to: start)
            {
                blocks.append(block)
                start += size
            }
        }
        guard blocks.isEmpty else { return blocks }
        return firsts.min { $0.key < $1.key }.map { [$0.value] } ?? []
    }
}

extension [KVBlock] {
    /// Tokens of all of them.
    var tokenCount: Int { reduce(0) { $0 + $1.tokenCount } }
}
